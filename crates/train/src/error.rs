//! Errors of training.

use std::path::PathBuf;

use robomamba_data::DataError;
use robomamba_model::ModelError;
use robomamba_policy::PolicyError;
use robomamba_runtime::RuntimeError;
use thiserror::Error;

/// Errors of training. Each variant is one cause; its message has what was expected, what was found and what to do.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TrainError {
    /// The configuration file cannot be understood.
    #[error("configuration {path}: {reason}")]
    ConfigFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A setting has an impossible value.
    #[error("setting `{field}` must be {expected}, found {found}")]
    Setting {
        /// The setting, as in the file.
        field: String,
        /// What it must be.
        expected: String,
        /// What it is.
        found: String,
    },
    /// A data set does not fit the other data sets or the model.
    #[error("data set {path}: {reason}")]
    Data {
        /// Folder of the data set.
        path: PathBuf,
        /// What does not fit and what to do.
        reason: String,
    },
    /// A data set cannot be read.
    #[error("data set {path}: {source}")]
    Dataset {
        /// Folder of the data set.
        path: PathBuf,
        /// Why.
        source: DataError,
    },
    /// A checkpoint, configuration or instruction does not fit the model.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// Statistics cannot be used.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// Frozen encoders cannot run.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    /// The run was asked to stop before its first step.
    #[error("stopped while {path} was being encoded; the same command begins with it again")]
    Stopped {
        /// Folder of the data set.
        path: PathBuf,
    },
    /// A file that the configuration names, or the configuration itself, cannot be read.
    #[error("cannot read {path}: {source}; check the path and its permissions")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file of the run cannot be read or written.
    #[error("{path}: {source}; check that the disk has room and the folder can be written")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The state of an interrupted run does not fit this run.
    #[error("training state {path}: {reason}")]
    State {
        /// The file.
        path: PathBuf,
        /// What does not fit and what to do.
        reason: String,
    },
    /// The loss became NaN or infinite.
    #[error(
        "the loss is {loss} at step {step}; lower `optimiser.learning_rate`, which is {learning_rate}, \
         and start again from the last checkpoint"
    )]
    Diverged {
        /// Optimiser step.
        step: u64,
        /// The loss.
        loss: f32,
        /// Peak learning rate.
        learning_rate: f64,
    },
}

/// Result of this crate's functions.
pub type Result<T, E = TrainError> = std::result::Result<T, E>;
