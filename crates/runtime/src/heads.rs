//! Heads on the backbone's output: the next actions, and the probability that the episode succeeds.
//!
//! ```text
//! x       = gelu(fc2(gelu(fc1(hidden))))
//! action  = fc3(x)[argmax(mode(x))]                [chunk_size, action_dim], normalised
//! success = sigmoid(fc2(gelu(fc1(hidden))))        of a head of its own
//! ```

use robomamba_kernels::activation::{self, Activation};
use robomamba_kernels::matmul::{Format, PackedMatrix};
use robomamba_model::{ModelConfig, Tensors};

use crate::RuntimeError;
use crate::blocks::{Linear, Mlp, gelu_mlp};
use crate::error::check_len;
use crate::params::{Bias, Params};
use crate::workspace::{Workspace, room};

/// The packed action and confidence heads.
#[derive(Clone, Debug)]
pub struct Heads {
    fc1: PackedMatrix,
    fc2: PackedMatrix,
    fc3: PackedMatrix,
    /// Logits of the modes, where there are several.
    mode: Option<PackedMatrix>,
    confidence: Mlp,
}

impl Heads {
    /// Packs the parameters below `prefix` (`head` in a RoboMamba checkpoint).
    ///
    /// # Errors
    /// When a parameter is missing or has another shape than `config` says.
    pub fn new(
        format: Format,
        config: &ModelConfig,
        weights: &dyn Tensors,
        prefix: &str,
    ) -> Result<Self, RuntimeError> {
        let params = Params::new(format, weights, prefix);
        let (d_model, width, n_mode) =
            (config.backbone.d_model(), config.action_head.hidden_size, config.action_head.n_mode);
        let n_action = n_mode * config.action_head.chunk_size * config.features.action.dim();
        let action = params.under("action");
        let mode = (n_mode > 1).then(|| action.linear("mode", (n_mode, width), Bias::With)).transpose()?;
        Ok(Self {
            fc1: action.linear("fc1", (width, d_model), Bias::With)?.activated(Activation::Gelu),
            fc2: action.linear("fc2", (width, width), Bias::With)?.activated(Activation::Gelu),
            fc3: action.linear("fc3", (n_action, width), Bias::With)?,
            mode,
            confidence: gelu_mlp(&params.under("confidence"), (d_model, config.confidence_head.hidden_size, 1))?,
        })
    }

    /// Values of one chunk, `chunk_size * action_dim`.
    pub fn chunk_len(&self) -> usize {
        self.fc3.n_out() / self.n_mode()
    }

    /// Plans among which the head chooses.
    fn n_mode(&self) -> usize {
        self.mode.as_ref().map_or(1, PackedMatrix::n_out)
    }

    /// Reads `hidden` `[rows, d_model]` and writes normalised `actions` `[rows, chunk_size, action_dim]` and the
    /// probability of `success` `[rows]`.
    ///
    /// # Errors
    /// When an argument has another length.
    pub fn forward(
        &self,
        hidden: &[f32],
        actions: &mut [f32],
        success: &mut [f32],
        workspace: &mut Workspace,
    ) -> Result<(), RuntimeError> {
        let rows = success.len();
        check_len("hidden", hidden.len(), rows * self.fc1.n_in())?;
        check_len("actions", actions.len(), rows * self.chunk_len())?;
        self.plan(hidden, actions, workspace)?;
        room(&mut workspace.normed, hidden.len()).copy_from_slice(hidden);
        self.confidence.forward(rows, workspace)?;
        success.copy_from_slice(&workspace.branch[..rows]);
        activation::apply(workspace.kernels, Activation::Sigmoid, success);
        Ok(())
    }

    /// The action head.
    fn plan(&self, hidden: &[f32], actions: &mut [f32], workspace: &mut Workspace) -> Result<(), RuntimeError> {
        let Workspace { kernels, converted, hidden: first, narrow: second, projected, mixed, .. } = workspace;
        let rows = hidden.len() / self.fc1.n_in();
        let len = rows * self.fc1.n_out();
        let (first, second) = (room(first, len), room(second, len));
        Linear { kernels: *kernels, converted }.apply(&self.fc1, hidden, first)?;
        Linear { kernels: *kernels, converted }.apply(&self.fc2, first, second)?;
        let Some(mode) = &self.mode else {
            return Linear { kernels: *kernels, converted }.apply(&self.fc3, second, actions);
        };
        let (plans, logits) = (room(projected, rows * self.fc3.n_out()), room(mixed, rows * mode.n_out()));
        Linear { kernels: *kernels, converted }.apply(&self.fc3, second, plans)?;
        Linear { kernels: *kernels, converted }.apply(mode, second, logits)?;
        let plans = plans.chunks_exact(self.fc3.n_out()).zip(logits.chunks_exact(mode.n_out()));
        for (chosen, (plans, logits)) in actions.chunks_exact_mut(self.chunk_len()).zip(plans) {
            chosen.copy_from_slice(&plans[likeliest(logits) * chosen.len()..][..chosen.len()]);
        }
        Ok(())
    }
}

/// Index of the largest logit, the first of equal ones.
fn likeliest(logits: &[f32]) -> usize {
    (1..logits.len()).fold(0, |best, i| if logits[i] > logits[best] { i } else { best })
}
