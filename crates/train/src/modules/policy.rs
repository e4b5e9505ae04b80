//! The whole model over a batch of episodes.

use std::sync::Arc;

use burn::tensor::Tensor;
use robomamba_model::{BackboneConfig, ModelConfig};
use robomamba_policy::VectorSpec;

use super::batch::{Batch, Episodes, FrameTaps, Frames, Outputs, Pictures, SequenceState, Taps};
use super::{connector, heads, mamba, text, transformer, vision};
use crate::gemm::Precision;
use crate::ops::encoder::VisionEncoder;
use crate::ops::rows::gather;
use crate::ops::{self, Compute};
use crate::parameters::Leaves;

/// The differentiable model; its parameters come with every call.
#[derive(Debug)]
pub(crate) struct PolicyModel {
    config: ModelConfig,
    vision: VisionEncoder,
    precision: Precision,
}

impl PolicyModel {
    /// The model of `config`.
    pub(crate) fn new(config: &ModelConfig, compute: Compute) -> Self {
        Self { config: config.clone(), vision: vision::encoder(config, compute), precision: compute.precision }
    }

    /// Number format of the products of its linear layers.
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
        let (tokens, frames) = match frames {
            Frames::Pictures(pictures) => {
                let taps = self.encode(leaves, pictures);
                (self.of_steps(leaves, &taps.tokens, episodes), Some(taps))
            }
            Frames::Tokens(tokens) => {
                let d_model = config.backbone.d_model();
                let n_step = tokens.len() / d_model;
                (ops::constant(tokens, [n_step, d_model]), None)
            }
        };
        let backbone = leaves.under("backbone");
        let (hidden, last) = match &config.backbone {
            BackboneConfig::Mamba(mamba) => {
                mamba::forward(mamba, &backbone, tokens, mamba::Sequences { lengths: &lengths, initial })
            }
            BackboneConfig::Transformer(transformer) => {
                (transformer::forward(transformer, &backbone, &lengths, tokens), Vec::new())
            }
        };
        let (chunks, modes) = heads::action(&leaves.under("head.action"), config.action_head.n_mode, &hidden);
        let confidence = heads::confidence(&leaves.under("head.confidence"), &hidden);
        Outputs { chunks, modes, taps: Taps { frames, hidden, confidence }, last }
    }

    /// The tokens of steps as numbers, `[rows, d_model]`, for [`Frames::Tokens`].
    #[cfg(test)]
    pub(crate) fn tokens(&self, leaves: &Leaves, pictures: Pictures, episodes: Episodes) -> Vec<f32> {
        let tokens = self.encode(leaves, pictures).tokens;
        ops::values(self.of_steps(leaves, &tokens, episodes))
    }

    /// Encoders and connector.
    fn encode(&self, leaves: &Leaves, mut pictures: Pictures) -> FrameTaps {
        let config = &self.config;
        let patch_dim = config.vision.patch_dim();
        let patches = std::mem::take(&mut pictures.patches);
        let n_patch = patches.len() / patch_dim;
        let patches = ops::constant(patches, [n_patch, patch_dim]);
        let patches = vision::forward(&self.vision, &leaves.under("vision"), ops::input(&patches));
        let words = text::forward(&config.text, &leaves.under("text"), &pictures.texts);
        let inputs = connector::Inputs { pictures: &pictures, patches: &patches, words: &words };
        let (tokens, attention) = connector::forward(config, &leaves.under("connector"), inputs);
        FrameTaps { patches, attention, tokens }
    }

    /// The token of every step, `[rows, d_model]`: that of its frame plus the encoded state.
    fn of_steps(&self, leaves: &Leaves, tokens: &Tensor<2>, episodes: Episodes) -> Tensor<2> {
        let steps = gather(ops::input(tokens), episodes.frame, self.config.backbone.d_model());
        let state_dim = self.config.features.state.dim();
        let n_step = episodes.state.len() / state_dim;
        let state = ops::constant(episodes.state, [n_step, state_dim]);
        steps + connector::state(&leaves.under("connector"), &state)
    }
}
