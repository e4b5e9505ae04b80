//! What goes into the model, and what comes out.

use std::sync::Arc;

use burn::tensor::Tensor;
use robomamba_kernels::attention::AttentionShape;

use crate::ops::mixer::BlockState;

/// The recurrent state of one sequence: one entry per block.
pub(crate) type SequenceState = Vec<BlockState>;

/// The distinct frames of a batch. A frame that repeats, as while waiting, is encoded once.
#[derive(Clone, Debug)]
pub(crate) enum Frames {
    /// Images to be encoded.
    Pictures(Pictures),
    /// The token of every step `[rows, d_model]`, which frozen encoders made before.
    Tokens(Vec<f32>),
}

/// Frames to be encoded, with their instructions.
#[derive(Clone, Debug)]
pub(crate) struct Pictures {
    /// `[n_frame * n_camera * n_patch, patch_dim]`, the cameras of a frame side by side.
    pub patches: Vec<f32>,
    /// Instruction of each frame, an index into `texts`.
    pub instruction: Arc<[usize]>,
    /// Distinct instructions.
    pub texts: Texts,
}

/// The distinct instructions of a batch.
#[derive(Clone, Debug)]
pub(crate) struct Texts {
    /// Token ids, `[n_instruction * n_word]`, padded with any token.
    pub ids: Arc<[usize]>,
    /// Words of each instruction, at least 1.
    pub lengths: Arc<[usize]>,
    /// Words of the longest instruction.
    pub n_word: usize,
}

/// Steps of several episodes or segments, one after the other without padding: a row is a step.
#[derive(Clone, Debug)]
pub(crate) struct Episodes {
    /// Steps of each episode, at least one.
    pub lengths: Arc<[usize]>,
    /// Frame of each step, `[rows]`; unused with [`Frames::Tokens`].
    pub frame: Arc<[usize]>,
    /// Normalised `observation.state`, `[rows, state_dim]`; unused with [`Frames::Tokens`].
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

/// What the model predicts at each step, one row per step.
pub(crate) struct Outputs {
    /// Normalised action chunks, `[rows, n_mode * chunk_size * action_dim]`.
    pub chunks: Tensor<2>,
    /// Logits of the modes, `[rows, n_mode]`, if there are several.
    pub modes: Option<Tensor<2>>,
    /// Features that auxiliary objectives attach to.
    pub taps: Taps,
    /// State after the last step of each episode; empty for the Transformer.
    pub last: Vec<SequenceState>,
}

/// Features of the model that auxiliary objectives attach to.
pub(crate) struct Taps {
    /// Features of the distinct frames; `None` with [`Frames::Tokens`].
    pub frames: Option<FrameTaps>,
    /// The backbone's output, `[rows, d_model]`.
    pub hidden: Tensor<2>,
    /// Logits of success, `[rows, 1]`.
    pub confidence: Tensor<2>,
}

/// Features of the distinct frames.
pub(crate) struct FrameTaps {
    /// Patch tokens, `[n_frame * n_camera * n_patch, vision.hidden_size]`.
    pub patches: Tensor<2>,
    /// Attention of the connector's last layer.
    pub attention: ConnectorAttention,
    /// The token of each frame before the state is added, `[n_frame, d_model]`.
    pub tokens: Tensor<2>,
}

/// Inputs of an attention of the connector.
#[derive(Clone, Debug)]
pub(crate) struct ConnectorAttention {
    /// Its sizes; the batch is that of the frames.
    pub shape: AttentionShape,
    /// Keys that each frame attends to, `[n_frame]`; the rest is padding.
    pub n_visible: Arc<[usize]>,
    /// `[n_frame * n_query, width]`.
    pub queries: Tensor<2>,
    /// `[n_frame * n_key, width]`: the patches of all cameras, then the words.
    pub keys: Tensor<2>,
}
