//! Why a checkpoint cannot run, or a saved state cannot be restored.

use robomamba_kernels::KernelError;
use robomamba_model::ModelError;
use robomamba_policy::PolicyError;
use thiserror::Error;

/// Each variant is one cause; its message says what was expected, what was found and what to do.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RuntimeError {
    /// The checkpoint folder or one of its tensors is unusable.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// A kernel refused its arguments.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// An argument does not have the length that the model needs.
    #[error("`{name}` must hold {expected} values, found {found}")]
    Length {
        /// Name of the argument.
        name: &'static str,
        /// Length that the configuration asks for.
        expected: usize,
        /// Length that was given.
        found: usize,
    },
    /// A token id is outside the vocabulary, or there are more of them than the encoder has positions.
    #[error("{reason}; the instruction was tokenised for another text encoder")]
    Tokens {
        /// What is wrong with the ids.
        reason: String,
    },
    /// A state meets a model that it was not made for.
    #[error("the state was made for {found}, this model has {expected}; start from State::zeros of this model")]
    StateShape {
        /// Kind and sizes of the model's backbone.
        expected: String,
        /// Kind and sizes that the state has.
        found: String,
    },
    /// A saved state is cut short, altered, or no saved state at all.
    #[error("the saved state is damaged: {reason}; save it again, or start from State::zeros")]
    StateDamaged {
        /// What is wrong with the bytes.
        reason: String,
    },
    /// A thread pool could not be started.
    #[error("cannot start {threads} threads: {source}; ask for fewer in RuntimeOptions::threads")]
    Threads {
        /// Number of threads that were asked for.
        threads: usize,
        /// Why the system refused.
        source: rayon::ThreadPoolBuildError,
    },
}

impl From<RuntimeError> for PolicyError {
    fn from(error: RuntimeError) -> Self {
        match error {
            RuntimeError::Model(error) => error.into(),
            other => PolicyError::Other(Box::new(other)),
        }
    }
}

/// Checks the length of an argument.
pub(crate) fn check_len(name: &'static str, found: usize, expected: usize) -> Result<(), RuntimeError> {
    if found == expected { Ok(()) } else { Err(RuntimeError::Length { name, expected, found }) }
}
