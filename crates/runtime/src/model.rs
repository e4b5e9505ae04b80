//! A checkpoint, packed for this processor.

use std::path::Path;
use std::sync::Arc;

use robomamba_kernels::matmul::Format;
use robomamba_model::{Checkpoint, ModelConfig, StoredCheckpoint, Tensors, TextTokenizer, param_specs};
use robomamba_policy::{FeatureSpec, NormStats};

use crate::RuntimeError;
use crate::backbone::Backbone;
use crate::connector::Connector;
use crate::error::check_len;
use crate::heads::Heads;
use crate::state::State;
use crate::text::TextEncoder;
use crate::vision::VisionEncoder;
use crate::workspace::Workspace;

/// How a checkpoint folder is loaded; by default in f32 and all of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LoadOptions {
    /// How matrices are stored and products computed.
    pub format: Format,
    /// Where the text encoder is.
    pub text: TextWeights,
}

/// Where the parameters of the text encoder, which runs once per instruction, are between instructions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TextWeights {
    /// Packed in memory.
    #[default]
    Resident,
    /// In the checkpoint, which must stay as it is. Memory holds a layer at a time, and a new instruction takes longer,
    /// because it reads them.
    Stored,
}

/// All that does not change: packed weights, statistics and tokenizer. Share it between sessions in an `Arc`.
#[derive(Clone, Debug)]
pub struct Model {
    pub(crate) config: ModelConfig,
    pub(crate) stats: NormStats,
    pub(crate) tokenizer: TextTokenizer,
    pub(crate) vision: VisionEncoder,
    pub(crate) text: TextEncoder,
    pub(crate) connector: Connector,
    pub(crate) backbone: Backbone,
    pub(crate) heads: Heads,
}

/// Output of a model for a whole sequence of tokens.
#[derive(Clone, Debug, PartialEq)]
pub struct Trajectory {
    /// Output of the backbone, `[seq_len, d_model]`.
    pub hidden: Vec<f32>,
    /// Chunks of actions in robot units, `[seq_len, chunk_size, action_dim]`.
    pub actions: Vec<f32>,
    /// Estimated probability that the episode succeeds, `[seq_len]`.
    pub success_probability: Vec<f32>,
}

/// What is there before the weights are packed.
struct Parts<'a> {
    config: &'a ModelConfig,
    stats: &'a NormStats,
    tokenizer: &'a TextTokenizer,
    text: TextEncoder,
}

impl Parts<'_> {
    fn pack(self, format: Format, weights: &dyn Tensors) -> Result<Model, RuntimeError> {
        let Self { config, stats, tokenizer, text } = self;
        Ok(Model {
            vision: VisionEncoder::new(format, &config.vision, weights, "vision")?,
            text,
            backbone: Backbone::new(format, &config.backbone, weights, "backbone")?,
            heads: Heads::new(format, config, weights, "head")?,
            // Last, because its many small matrices would keep the memory before them from being given back.
            connector: Connector::new(format, config, weights, "connector")?,
            config: config.clone(),
            stats: stats.clone(),
            tokenizer: tokenizer.clone(),
        })
    }
}

impl Model {
    /// Reads the checkpoint folder `dir`, to run in f32.
    ///
    /// # Errors
    /// When the folder is incomplete, damaged or does not fit its configuration.
    pub fn load(dir: impl AsRef<Path>) -> Result<Self, RuntimeError> {
        Self::load_with(dir, &LoadOptions::default())
    }

    /// Reads the checkpoint folder `dir` as `options` say. Tensors are read and packed one by one, so that memory holds
    /// little more than the packed model at any time.
    ///
    /// # Errors
    /// When the folder is incomplete, damaged or does not fit its configuration.
    pub fn load_with(dir: impl AsRef<Path>, options: &LoadOptions) -> Result<Self, RuntimeError> {
        let LoadOptions { format, text } = *options;
        let stored = Arc::new(StoredCheckpoint::open(dir.as_ref())?);
        let text = match text {
            TextWeights::Resident => TextEncoder::new(format, &stored.config.text, &*stored, "text")?,
            TextWeights::Stored => TextEncoder::stored(format, &stored.config.text, Arc::clone(&stored), "text"),
        };
        let parts = Parts { config: &stored.config, stats: &stored.stats, tokenizer: &stored.tokenizer, text };
        parts.pack(format, &*stored)
    }

    /// Packs the weights of `checkpoint`, the linear layers in `format`. Norms, the convolution, the scan and the
    /// state are f32 whatever the format is.
    ///
    /// # Errors
    /// When a tensor is missing, left over, not finite or of another shape than the configuration says.
    pub fn from_checkpoint(format: Format, checkpoint: &Checkpoint) -> Result<Self, RuntimeError> {
        let Checkpoint { config, weights, stats, tokenizer, .. } = checkpoint;
        config.check()?;
        weights.check(&param_specs(config))?;
        let text = TextEncoder::new(format, &config.text, weights, "text")?;
        Parts { config, stats, tokenizer, text }.pack(format, weights)
    }

    /// The configuration.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Cameras, state and action of the robot.
    pub fn features(&self) -> &FeatureSpec {
        &self.config.features
    }

    /// How state and action are normalised.
    pub fn stats(&self) -> &NormStats {
        &self.stats
    }

    /// Turns instructions into token ids.
    pub fn tokenizer(&self) -> &TextTokenizer {
        &self.tokenizer
    }

    /// The vision encoder.
    pub fn vision(&self) -> &VisionEncoder {
        &self.vision
    }

    /// The text encoder.
    pub fn text(&self) -> &TextEncoder {
        &self.text
    }

    /// The connector.
    pub fn connector(&self) -> &Connector {
        &self.connector
    }

    /// The backbone.
    pub fn backbone(&self) -> &Backbone {
        &self.backbone
    }

    /// The action and confidence heads.
    pub fn heads(&self) -> &Heads {
        &self.heads
    }

    /// Runs a whole sequence of control-step tokens `[seq_len, d_model]` from `state` on, in parallel over
    /// its steps; what [`Session::act`](crate::Session) does step by step, to rounding.
    ///
    /// # Errors
    /// When `tokens` holds no whole number of tokens or the state belongs to another backbone.
    pub fn forward_tokens(
        &self,
        tokens: &[f32],
        state: &mut State,
        workspace: &mut Workspace,
    ) -> Result<Trajectory, RuntimeError> {
        let seq_len = tokens.len() / self.backbone.d_model();
        check_len("tokens", tokens.len(), seq_len * self.backbone.d_model())?;
        let mut trajectory = Trajectory {
            hidden: vec![0.0; tokens.len()],
            actions: vec![0.0; seq_len * self.heads.chunk_len()],
            success_probability: vec![0.0; seq_len],
        };
        let Trajectory { hidden, actions, success_probability } = &mut trajectory;
        self.backbone.forward(tokens, state, hidden, workspace)?;
        self.heads.forward(hidden, actions, success_probability, workspace)?;
        self.stats.action.unnormalise(actions);
        Ok(trajectory)
    }
}
