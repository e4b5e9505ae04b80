//! The backbone of the configured kind, Mamba or Transformer.

use robomamba_kernels::matmul::Format;
use robomamba_model::{BackboneConfig, Tensors};

use crate::RuntimeError;
use crate::error::check_len;
use crate::mamba::Mamba;
use crate::state::{MambaState, State, StateLayout};
use crate::transformer::Transformer;
use crate::workspace::Workspace;

/// A packed backbone.
#[derive(Clone, Debug)]
pub enum Backbone {
    /// The default.
    Mamba(Mamba),
    /// The baseline.
    Transformer(Transformer),
}

impl Backbone {
    /// Packs the parameters below `prefix` (`backbone` in a RoboMamba checkpoint).
    ///
    /// # Errors
    /// When a parameter is missing or has another shape than `config` says.
    pub fn new(
        format: Format,
        config: &BackboneConfig,
        weights: &dyn Tensors,
        prefix: &str,
    ) -> Result<Self, RuntimeError> {
        Ok(match config {
            BackboneConfig::Mamba(mamba) => Self::Mamba(Mamba::new(format, mamba, weights, prefix)?),
            BackboneConfig::Transformer(transformer) => {
                Self::Transformer(Transformer::new(format, transformer, weights, prefix)?)
            }
        })
    }

    /// Width of the tokens that go in and the hidden states that come out.
    pub fn d_model(&self) -> usize {
        match self {
            Self::Mamba(mamba) => mamba.config().d_model,
            Self::Transformer(transformer) => transformer.config().d_model,
        }
    }

    /// Bytes of its packed matrices, all of which a step reads.
    pub fn matrix_bytes(&self) -> usize {
        match self {
            Self::Mamba(mamba) => mamba.matrix_bytes(),
            Self::Transformer(transformer) => transformer.matrix_bytes(),
        }
    }

    /// The state at the start of an episode.
    pub fn zeros(&self) -> State {
        State::zeros(&self.config())
    }

    /// Runs the sequence `x` `[seq_len, d_model]` from `state` on, in parallel over its steps, and writes
    /// `hidden` `[seq_len, d_model]`.
    ///
    /// # Errors
    /// When an argument has another length or the state belongs to another backbone.
    pub fn forward(
        &self,
        x: &[f32],
        state: &mut State,
        hidden: &mut [f32],
        workspace: &mut Workspace,
    ) -> Result<(), RuntimeError> {
        match (self, state) {
            (Self::Mamba(mamba), State::Mamba(state)) => mamba.forward(x, state, hidden, workspace),
            (Self::Transformer(transformer), State::Transformer(cache)) => {
                transformer.forward(x, cache, hidden, workspace)
            }
            (_, state) => Err(self.mismatch(state)),
        }
    }

    /// Like [`Backbone::forward`] for several sequences of one length: `x` and `hidden` are
    /// `[batch, seq_len, d_model]`, and there is one state per sequence.
    ///
    /// # Errors
    /// When an argument has another length or a state belongs to another backbone.
    pub fn forward_batch(
        &self,
        x: &[f32],
        states: &mut [State],
        hidden: &mut [f32],
        workspace: &mut Workspace,
    ) -> Result<(), RuntimeError> {
        let len = x.len().checked_div(states.len()).unwrap_or(0);
        check_len("x", x.len(), len * states.len())?;
        check_len("hidden", hidden.len(), x.len())?;
        if let Self::Mamba(mamba) = self {
            let mut states = states.iter_mut().map(|state| self.mamba_state(state)).collect::<Result<Vec<_>, _>>()?;
            return mamba.forward_batch(x, &mut states, hidden, workspace);
        }
        let sequences = x.chunks_exact(len.max(1)).zip(hidden.chunks_exact_mut(len.max(1)));
        for ((x, hidden), state) in sequences.zip(states) {
            self.forward(x, state, hidden, workspace)?;
        }
        Ok(())
    }

    /// Takes one token `x` `[d_model]`, advances `state` and writes `hidden` `[d_model]`.
    ///
    /// # Errors
    /// When an argument has another length or the state belongs to another backbone.
    pub fn step(
        &self,
        x: &[f32],
        state: &mut State,
        hidden: &mut [f32],
        workspace: &mut Workspace,
    ) -> Result<(), RuntimeError> {
        match (self, state) {
            (Self::Mamba(mamba), State::Mamba(state)) => mamba.step(x, state, hidden, workspace),
            (Self::Transformer(transformer), State::Transformer(cache)) => {
                transformer.step(x, cache, hidden, workspace)
            }
            (_, state) => Err(self.mismatch(state)),
        }
    }

    fn config(&self) -> BackboneConfig {
        match self {
            Self::Mamba(mamba) => BackboneConfig::Mamba(mamba.config().clone()),
            Self::Transformer(transformer) => BackboneConfig::Transformer(transformer.config().clone()),
        }
    }

    fn mamba_state<'a>(&self, state: &'a mut State) -> Result<&'a mut MambaState, RuntimeError> {
        match state {
            State::Mamba(state) => Ok(state),
            State::Transformer(_) => Err(self.mismatch(state)),
        }
    }

    fn mismatch(&self, state: &State) -> RuntimeError {
        StateLayout::of(&self.config()).mismatch(&state.layout())
    }
}
