//! The configuration of a RoboMamba model.
//!
//! Together with the weights it determines the function that the model computes. Field names follow the Hugging Face
//! configurations of the same parts.

use robomamba_policy::FeatureSpec;
use serde::{Deserialize, Serialize};

/// The whole model, from pixels and words to actions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelConfig {
    /// Cameras, state and action of the robot.
    pub features: FeatureSpec,
    /// The vision encoder, shared by all cameras.
    pub vision: VisionConfig,
    /// The text encoder.
    pub text: TextConfig,
    /// Pools patches, words and state into one token per control step.
    pub connector: ConnectorConfig,
    /// The recurrent backbone.
    pub backbone: BackboneConfig,
    /// Turns the backbone's output into actions.
    pub action_head: ActionHeadConfig,
    /// Turns the backbone's output into the probability that the episode succeeds.
    pub confidence_head: ConfidenceHeadConfig,
}

/// Which published vision transformer a [`VisionConfig`] describes. All are pre-norm ViTs
/// (Dosovitskiy et al. 2021, arXiv 2010.11929); the kinds differ in the details listed at the methods.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VisionKind {
    /// `transformers.ViTModel`.
    Vit,
    /// `transformers.CLIPVisionModel` (Radford et al. 2021).
    Clip,
    /// `transformers.SiglipVisionModel` (Zhai et al. 2023).
    Siglip,
    /// `transformers.Dinov2Model` (Oquab et al. 2023).
    Dinov2,
}

impl VisionKind {
    /// Whether a class token stands before the patch tokens (all but SigLIP).
    pub fn has_class_token(self) -> bool {
        self != Self::Siglip
    }

    /// Whether the patch projection has a bias (all but CLIP).
    pub fn has_patch_bias(self) -> bool {
        self != Self::Clip
    }

    /// Whether a LayerNorm follows the embeddings (CLIP, `pre_layrnorm`).
    pub fn has_pre_norm(self) -> bool {
        self == Self::Clip
    }

    /// Whether the tokens pass a final LayerNorm (all but CLIP, which normalises only its pooled token).
    pub fn has_final_norm(self) -> bool {
        self != Self::Clip
    }

    /// Whether each residual branch is scaled by a learned vector (DINOv2).
    pub fn has_layer_scale(self) -> bool {
        self == Self::Dinov2
    }

    /// The activation of the MLPs.
    pub fn activation(self) -> Activation {
        match self {
            Self::Vit | Self::Dinov2 => Activation::Gelu,
            Self::Clip => Activation::QuickGelu,
            Self::Siglip => Activation::GeluTanh,
        }
    }
}

/// Activation functions by their Hugging Face names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// Exact GELU, `x * Phi(x)`.
    Gelu,
    /// `gelu_pytorch_tanh`, the tanh approximation.
    GeluTanh,
    /// `x * sigmoid(1.702 x)`.
    QuickGelu,
}

/// A vision transformer over square images.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VisionConfig {
    /// Which architecture.
    pub kind: VisionKind,
    /// Side of the square input in pixels; cameras of other sizes are resized to it.
    pub image_size: usize,
    /// Side of a patch in pixels.
    pub patch_size: usize,
    /// Width of a token.
    pub hidden_size: usize,
    /// Number of blocks.
    pub num_hidden_layers: usize,
    /// Attention heads per block.
    pub num_attention_heads: usize,
    /// Width of the MLP's hidden layer.
    pub intermediate_size: usize,
    /// Epsilon of every LayerNorm.
    pub layer_norm_eps: f32,
    /// Mean of each RGB channel, of values in [0, 1], that is subtracted.
    pub image_mean: [f32; 3],
    /// Standard deviation of each RGB channel that is divided by.
    pub image_std: [f32; 3],
}

impl VisionConfig {
    /// Patches per side of an image.
    pub fn grid(&self) -> usize {
        self.image_size / self.patch_size
    }

    /// Patch tokens per image.
    pub fn n_patch(&self) -> usize {
        self.grid().pow(2)
    }

    /// Tokens per image, the class token included.
    pub fn n_token(&self) -> usize {
        self.n_patch() + usize::from(self.kind.has_class_token())
    }

    /// Values in one patch: `3 * patch_size^2`.
    pub fn patch_dim(&self) -> usize {
        3 * self.patch_size * self.patch_size
    }

    /// Width of one attention head.
    pub fn head_dim(&self) -> usize {
        self.hidden_size / self.num_attention_heads
    }
}

/// A BERT encoder (Devlin et al. 2019, `transformers.BertModel` without the pooler).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TextConfig {
    /// Entries of the vocabulary.
    pub vocab_size: usize,
    /// Width of a token.
    pub hidden_size: usize,
    /// Number of blocks.
    pub num_hidden_layers: usize,
    /// Attention heads per block.
    pub num_attention_heads: usize,
    /// Width of the MLP's hidden layer.
    pub intermediate_size: usize,
    /// Longest input in tokens, `[CLS]` and `[SEP]` included.
    pub max_position_embeddings: usize,
    /// Entries of the segment embedding; only the first is used.
    pub type_vocab_size: usize,
    /// Epsilon of every LayerNorm.
    pub layer_norm_eps: f32,
}

/// The connector, which turns patches, words and state into one token per control step.
///
/// `n_query` queries, conditioned on the instruction, attend over the patches of all cameras and the words. The token
/// is the projection of their concatenation plus the encoded state.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConnectorConfig {
    /// Width inside the connector.
    pub hidden_size: usize,
    /// Number of queries.
    pub n_query: usize,
    /// Blocks of cross-attention and MLP.
    pub num_hidden_layers: usize,
    /// Attention heads.
    pub num_attention_heads: usize,
    /// Width of the MLP's hidden layer, and of the state encoder's.
    pub intermediate_size: usize,
    /// Epsilon of every LayerNorm.
    pub layer_norm_eps: f32,
}

/// The backbone, which carries its state from control step to control step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum BackboneConfig {
    /// Mamba-1 (Gu & Dao 2023, arXiv 2312.00752).
    Mamba(MambaConfig),
    /// A Llama-type Transformer with a KV cache, the baseline.
    Transformer(TransformerConfig),
}

impl BackboneConfig {
    /// Width of the residual stream.
    pub fn d_model(&self) -> usize {
        match self {
            Self::Mamba(mamba) => mamba.d_model,
            Self::Transformer(transformer) => transformer.d_model,
        }
    }

    /// Number of blocks.
    pub fn n_layer(&self) -> usize {
        match self {
            Self::Mamba(mamba) => mamba.n_layer,
            Self::Transformer(transformer) => transformer.n_layer,
        }
    }

    /// The baseline of the same width and depth.
    ///
    /// Its parameter count is the same, apart from rounding the MLP's width to a multiple of 8.
    pub fn to_transformer(&self, context_len: usize) -> TransformerConfig {
        match self {
            Self::Transformer(transformer) => transformer.clone(),
            Self::Mamba(mamba) => mamba.equal_transformer(context_len),
        }
    }
}

/// Mamba-1 blocks with the names of state-spaces/mamba.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MambaConfig {
    /// Width of the residual stream.
    pub d_model: usize,
    /// Number of blocks.
    pub n_layer: usize,
    /// Size of the state of one channel.
    pub d_state: usize,
    /// Taps of the causal convolution.
    pub d_conv: usize,
    /// `d_inner = expand * d_model`.
    pub expand: usize,
    /// Rank of the projection to the step size; upstream's default is `ceil(d_model / 16)`.
    pub dt_rank: usize,
    /// Epsilon of every RMSNorm.
    pub rms_norm_eps: f32,
}

impl MambaConfig {
    /// A backbone with upstream's defaults: d_state 16, d_conv 4, expand 2, dt_rank `ceil(d_model / 16)`.
    pub fn new(d_model: usize, n_layer: usize) -> Self {
        Self { d_model, n_layer, d_state: 16, d_conv: 4, expand: 2, dt_rank: d_model.div_ceil(16), rms_norm_eps: 1e-5 }
    }

    /// Channels of the state-space model.
    pub fn d_inner(&self) -> usize {
        self.expand * self.d_model
    }

    /// Parameters of one block.
    fn block_params(&self) -> usize {
        let (d_inner, d_model) = (self.d_inner(), self.d_model);
        let projections = 3 * d_inner * d_model + d_inner * (self.dt_rank + 2 * self.d_state) + self.dt_rank * d_inner;
        projections + d_inner * (self.d_conv + self.d_state + 3) + d_model
    }

    fn equal_transformer(&self, context_len: usize) -> TransformerConfig {
        let d_model = self.d_model;
        let mlp_params = self.block_params().saturating_sub(4 * d_model * d_model + 2 * d_model);
        let n_head = if d_model.is_multiple_of(64) { d_model / 64 } else { d_model.div_ceil(64).max(1) };
        TransformerConfig {
            d_model,
            n_layer: self.n_layer,
            num_attention_heads: (1..=n_head)
                .rev()
                .find(|&n| (d_model / n).is_multiple_of(2) && d_model.is_multiple_of(n))
                .unwrap_or(1),
            intermediate_size: ((mlp_params as f64 / (3 * d_model) as f64 / 8.0).round() as usize * 8).max(8),
            context_len,
            rope_theta: 10_000.0,
            rms_norm_eps: self.rms_norm_eps,
        }
    }
}

/// A Llama-type Transformer (`transformers.LlamaModel`: RMSNorm, rotary positions, SwiGLU, no biases).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TransformerConfig {
    /// Width of the residual stream.
    pub d_model: usize,
    /// Number of blocks.
    pub n_layer: usize,
    /// Attention heads per block.
    pub num_attention_heads: usize,
    /// Width of the SwiGLU's hidden layer.
    pub intermediate_size: usize,
    /// Control steps that the KV cache holds; older ones are dropped (sliding window).
    pub context_len: usize,
    /// Base of the rotary position embedding.
    pub rope_theta: f32,
    /// Epsilon of every RMSNorm.
    pub rms_norm_eps: f32,
}

/// The action head: `fc1 -> GELU -> fc2 -> GELU -> fc3` to normalised actions, `[n_mode, chunk_size, action_dim]`.
///
/// With more than one mode it is a mixture density network (Bishop 1994), as in robomimic's BC-GMM (Mandlekar et al.
/// 2021): `mode` gives the logits of the modes, and the chunk of the likeliest mode is the output. One mode alone would
/// average two good answers into a bad one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ActionHeadConfig {
    /// Width of the hidden layers.
    pub hidden_size: usize,
    /// Control steps in a chunk.
    pub chunk_size: usize,
    /// Number of chunks among which the head chooses.
    #[serde(default = "one")]
    pub n_mode: usize,
}

impl ActionHeadConfig {
    /// A head with one mode.
    pub fn new(hidden_size: usize, chunk_size: usize) -> Self {
        Self { hidden_size, chunk_size, n_mode: 1 }
    }

    /// Size and number of its chunks, in words.
    pub fn summary(&self) -> String {
        match self.n_mode {
            1 => format!("{} control steps ahead", self.chunk_size),
            n_mode => format!("{} control steps ahead, the likeliest of {n_mode} plans", self.chunk_size),
        }
    }
}

fn one() -> usize {
    1
}

/// The confidence head: `fc1 -> GELU -> fc2` to one logit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConfidenceHeadConfig {
    /// Width of the hidden layer.
    pub hidden_size: usize,
}
