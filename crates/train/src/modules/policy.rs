//! The whole model over a batch of episodes.

use std::sync::Arc;

use burn::tensor::Tensor;
use robomamba_model::{BackboneConfig, ModelConfig};
use robomamba_policy::VectorSpec;

use super::{SequenceState, connector, heads, linear, mamba, text, transformer, vision};
use crate::gemm::Precision;
use crate::ops::encoder::VisionEncoder;
use crate::ops::grounding::Pointer;
use crate::ops::recognition::{Thing, recognition};
use crate::ops::rows::gather;
use crate::ops::{self, Compute};
use crate::parameters::{Leaves, TrainingHeads};

/// The distinct frames of a batch; a frame that repeats, as while waiting, is encoded once.
#[derive(Clone, Debug)]
pub(crate) enum Frames {
    /// To be encoded.
    Pictures(Pictures),
    /// The token of every step instead, which encoders and connector that do not learn made before: `[rows, d_model]`.
    Tokens(Vec<f32>),
}

/// Frames that are to be encoded, with what is said about them.
#[derive(Clone, Debug)]
pub(crate) struct Pictures {
    /// `[n_frame * n_camera * n_patch, patch_dim]`, the cameras of a frame side by side.
    pub patches: Vec<f32>,
    /// Instruction of each frame, an index into `texts`.
    pub instruction: Arc<[usize]>,
    /// Distinct instructions.
    pub texts: Texts,
    /// Where the connector's queries are to look; none without a grounding loss.
    pub pointers: Arc<[Pointer]>,
    /// What the patch tokens are to tell; none without a recognition loss.
    pub things: Arc<[Thing]>,
}

/// The distinct instructions of a batch.
#[derive(Clone, Debug)]
pub(crate) struct Texts {
    /// Token ids, `[n_instruction * n_word]`, padded with any token.
    pub ids: Arc<[usize]>,
    /// Words of each instruction, at least 1.
    pub lengths: Arc<[usize]>,
    /// Words of the longest.
    pub n_word: usize,
}

/// Steps of several episodes (or segments of them), one after the other without padding: a row is a step.
#[derive(Clone, Debug)]
pub(crate) struct Episodes {
    /// Steps of each episode, at least one.
    pub lengths: Arc<[usize]>,
    /// Frame of each step, `[rows]`; of no meaning with [`Frames::Tokens`].
    pub frame: Arc<[usize]>,
    /// Normalised `observation.state`, `[rows, state_dim]`; likewise.
    pub state: Vec<f32>,
}

/// All inputs of a forward pass.
#[derive(Clone, Debug)]
pub(crate) struct Batch {
    /// Distinct frames.
    pub frames: Frames,
    /// Steps.
    pub episodes: Episodes,
}

/// What the model says at each step, a row each.
pub(crate) struct Outputs {
    /// Normalised action chunks, `[rows, n_mode * chunk_size * action_dim]`.
    pub actions: Tensor<2>,
    /// Logits of the modes, `[rows, n_mode]`, where there are several.
    pub modes: Option<Tensor<2>>,
    /// Logits of success, `[rows, 1]`.
    pub confidence: Tensor<2>,
    /// Normalised `observation.environment_state`, if the model has an auxiliary head.
    pub auxiliary: Option<Tensor<2>>,
    /// Cross-entropy of the connector's attention `[1]`, if the batch says where to look.
    pub grounding: Option<Tensor<1>>,
    /// What the patch tokens tell wrong `[1]`, if the batch says what there is to see.
    pub recognition: Option<Tensor<1>>,
    /// The named places as the token of each frame tells them, `[n_frame, n_pointing]`, if there is such a head.
    pub pointing: Option<Tensor<2>>,
    /// Logits of the named things' colours as the token of each frame tells them, `[n_frame, n_naming]`, if there is such a head.
    pub naming: Option<Tensor<2>>,
    /// State after the last step of each episode; empty for the Transformer.
    pub last: Vec<SequenceState>,
}

/// What encoders and connector make of frames, and the losses on the way.
struct Fused {
    /// The token of every step, `[rows, d_model]`.
    tokens: Tensor<2>,
    grounding: Option<Tensor<1>>,
    recognition: Option<Tensor<1>>,
    pointing: Option<Tensor<2>>,
    naming: Option<Tensor<2>>,
}

/// The differentiable model; its parameters come with every call.
#[derive(Debug)]
pub(crate) struct PolicyModel {
    config: ModelConfig,
    vision: VisionEncoder,
    heads: TrainingHeads,
    precision: Precision,
}

impl PolicyModel {
    /// The model of `config` with the `heads` of training.
    pub(crate) fn new(config: &ModelConfig, heads: TrainingHeads, compute: Compute) -> Self {
        let vision = vision::encoder(config, compute);
        Self { config: config.clone(), vision, heads, precision: compute.precision }
    }

    /// Numbers in which its linear layers are computed.
    pub(crate) fn precision(&self) -> Precision {
        self.precision
    }

    /// The dimensions of the action.
    pub(crate) fn action(&self) -> &VectorSpec {
        &self.config.features.action
    }

    /// Runs a batch, each episode from its state in `initial` (zeros where absent).
    pub(crate) fn forward(&self, leaves: &Leaves, batch: Batch, initial: &[Option<SequenceState>]) -> Outputs {
        let config = &self.config;
        let Batch { frames, episodes } = batch;
        let lengths = Arc::clone(&episodes.lengths);
        let trunk = leaves.under("backbone");
        let Fused { tokens, grounding, recognition, pointing, naming } = match frames {
            Frames::Pictures(pictures) => self.fuse(leaves, pictures, episodes),
            Frames::Tokens(values) => self.known(values),
        };
        let (hidden, last) = match &config.backbone {
            BackboneConfig::Mamba(mamba) => mamba::forward(mamba, &trunk, &lengths, tokens, initial),
            BackboneConfig::Transformer(transformer) => {
                (transformer::forward(transformer, &trunk, &lengths, tokens), Vec::new())
            }
        };
        let (actions, modes) = heads::action(&leaves.under("head.action"), config.action_head.n_mode, &hidden);
        Outputs {
            actions,
            modes,
            confidence: heads::confidence(&leaves.under("head.confidence"), &hidden),
            auxiliary: (self.heads.n_auxiliary > 0).then(|| linear(&leaves.root(), "auxiliary", &hidden)),
            grounding,
            recognition,
            pointing,
            naming,
            last,
        }
    }

    /// The tokens of steps as numbers, `[rows, d_model]`, for [`Frames::Tokens`].
    #[cfg(test)]
    pub(crate) fn tokens(&self, leaves: &Leaves, pictures: Pictures, episodes: Episodes) -> Vec<f32> {
        ops::values(self.fuse(leaves, pictures, episodes).tokens)
    }

    fn known(&self, tokens: Vec<f32>) -> Fused {
        let d_model = self.config.backbone.d_model();
        let n_step = tokens.len() / d_model;
        let tokens = ops::constant(tokens, [n_step, d_model]);
        Fused { tokens, grounding: None, recognition: None, pointing: None, naming: None }
    }

    fn fuse(&self, leaves: &Leaves, mut pictures: Pictures, episodes: Episodes) -> Fused {
        let config = &self.config;
        let patch_dim = config.vision.patch_dim();
        let patches = std::mem::take(&mut pictures.patches);
        let n_patch = patches.len() / patch_dim;
        let patches = ops::constant(patches, [n_patch, patch_dim]);
        let seen = vision::forward(&self.vision, &leaves.under("vision"), ops::input(&patches));
        let recognition = (!pictures.things.is_empty()).then(|| {
            let head = leaves.under("recognition");
            let inputs = [ops::input(&seen), head.input("weight"), head.input("bias")];
            recognition(Arc::clone(&pictures.things), inputs)
        });
        let words = text::forward(&config.text, &leaves.under("text"), &pictures.texts);
        let scope = leaves.under("connector");
        let (tokens, grounding) = connector::forward(config, &scope, &pictures, (&seen, &words));
        let pointing = (self.heads.n_pointing > 0).then(|| linear(&leaves.root(), "pointing", &tokens));
        let naming = (self.heads.n_naming > 0).then(|| linear(&leaves.root(), "naming", &tokens));
        Fused { tokens: self.of_steps(leaves, &tokens, episodes), grounding, recognition, pointing, naming }
    }

    /// The token of every step, `[rows, d_model]`: that of its frame and what the state adds.
    fn of_steps(&self, leaves: &Leaves, tokens: &Tensor<2>, episodes: Episodes) -> Tensor<2> {
        let steps = gather(ops::input(tokens), episodes.frame, self.config.backbone.d_model());
        let state_dim = self.config.features.state.dim();
        let n_step = episodes.state.len() / state_dim;
        let state = ops::constant(episodes.state, [n_step, state_dim]);
        steps + connector::state(&leaves.under("connector"), &state)
    }
}
