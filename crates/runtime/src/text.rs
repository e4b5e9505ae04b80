//! The text encoder: BERT, a post-norm Transformer over the words of the instruction.
//!
//! Devlin et al., arXiv 1810.04805. Upstream: `last_hidden_state` of `transformers.BertModel`. It runs once
//! per instruction, not once per control step.

use std::sync::Arc;

use robomamba_kernels::activation::Activation;
use robomamba_kernels::matmul::Format;
use robomamba_model::{StoredCheckpoint, Tensors, TextConfig};

use crate::RuntimeError;
use crate::blocks::{Mlp, SelfAttention, add, add_and_normalise, normalise};
use crate::params::{Bias, NormParams, Params};
use crate::workspace::{Workspace, room};

/// A BERT encoder, packed for the kernels or still in its checkpoint.
#[derive(Clone, Debug)]
pub struct TextEncoder {
    layers: Layers,
    config: TextConfig,
}

#[derive(Clone, Debug)]
enum Layers {
    Packed { embeddings: Embeddings, blocks: Vec<TextBlock> },
    Stored { format: Format, checkpoint: Arc<StoredCheckpoint>, prefix: String },
}

#[derive(Clone, Debug)]
struct Embeddings {
    /// `[vocab_size, hidden_size]`.
    words: Vec<f32>,
    /// `[max_position_embeddings, hidden_size]`, the embedding of the first segment already added.
    positions: Vec<f32>,
    norm: NormParams,
}

#[derive(Clone, Debug)]
struct TextBlock {
    attention: SelfAttention,
    attention_norm: NormParams,
    mlp: Mlp,
    mlp_norm: NormParams,
}

impl TextEncoder {
    /// Packs the parameters below `prefix` (`text` in a RoboMamba checkpoint).
    ///
    /// # Errors
    /// When a parameter is missing or has another shape than `config` says.
    pub fn new(format: Format, config: &TextConfig, weights: &dyn Tensors, prefix: &str) -> Result<Self, RuntimeError> {
        let params = Params::new(format, weights, prefix);
        let embeddings = Embeddings::new(config, &params)?;
        let blocks =
            (0..config.num_hidden_layers).map(|i| TextBlock::new(config, &params, i)).collect::<Result<_, _>>()?;
        Ok(Self { layers: Layers::Packed { embeddings, blocks }, config: config.clone() })
    }

    /// Leaves the parameters below `prefix` where they are; every [`TextEncoder::forward`] reads, packs and drops them
    /// layer by layer.
    pub fn stored(format: Format, config: &TextConfig, checkpoint: Arc<StoredCheckpoint>, prefix: &str) -> Self {
        Self { layers: Layers::Stored { format, checkpoint, prefix: prefix.into() }, config: config.clone() }
    }

    /// Sizes of the encoder.
    pub fn config(&self) -> &TextConfig {
        &self.config
    }

    /// Turns the token `ids`, `[CLS]` first and `[SEP]` last, into `tokens` `[ids.len(), hidden_size]`, whose buffer is
    /// reused.
    ///
    /// # Errors
    /// When there is no id, there are more ids than positions, an id is not in the vocabulary, or a stored parameter
    /// cannot be read.
    pub fn forward(&self, ids: &[u32], tokens: &mut Vec<f32>, workspace: &mut Workspace) -> Result<(), RuntimeError> {
        let (rows, d) = (ids.len(), self.config.hidden_size);
        self.check(ids)?;
        match &self.layers {
            Layers::Packed { embeddings, blocks } => {
                embeddings.forward(ids, workspace)?;
                blocks.iter().try_for_each(|block| block.forward(rows, workspace))?;
            }
            Layers::Stored { format, checkpoint, prefix } => {
                let params = Params::new(*format, &**checkpoint, prefix);
                Embeddings::new(&self.config, &params)?.forward(ids, workspace)?;
                for i in 0..self.config.num_hidden_layers {
                    TextBlock::new(&self.config, &params, i)?.forward(rows, workspace)?;
                }
            }
        }
        tokens.clear();
        tokens.extend_from_slice(&workspace.normed[..rows * d]);
        Ok(())
    }

    fn check(&self, ids: &[u32]) -> Result<(), RuntimeError> {
        let (vocab_size, max_len) = (self.config.vocab_size, self.config.max_position_embeddings);
        if ids.is_empty() || ids.len() > max_len {
            let reason = format!("the instruction must have 1 to {max_len} tokens, found {}", ids.len());
            return Err(RuntimeError::Tokens { reason });
        }
        match ids.iter().find(|&&id| id as usize >= vocab_size) {
            Some(id) => {
                let reason = format!("token ids must be below {vocab_size}, the size of the vocabulary, found {id}");
                Err(RuntimeError::Tokens { reason })
            }
            None => Ok(()),
        }
    }
}

impl Embeddings {
    fn new(config: &TextConfig, params: &Params) -> Result<Self, RuntimeError> {
        let (params, d) = (params.under("embeddings"), config.hidden_size);
        Ok(Self {
            words: params.vec("word_embeddings.weight", &[config.vocab_size, d])?,
            positions: positions(config, &params)?,
            norm: params.layer_norm("LayerNorm", d, config.layer_norm_eps)?,
        })
    }

    /// Writes the normalised sums of word, position and segment embeddings to `workspace.normed` `[ids.len(),
    /// hidden_size]`.
    fn forward(&self, ids: &[u32], workspace: &mut Workspace) -> Result<(), RuntimeError> {
        let d = self.norm.width();
        let residual = room(&mut workspace.residual, ids.len() * d);
        for ((row, &id), position) in residual.chunks_exact_mut(d).zip(ids).zip(self.positions.chunks_exact(d)) {
            row.copy_from_slice(&self.words[id as usize * d..][..d]);
            add(row, position);
        }
        normalise(&self.norm, ids.len(), workspace)
    }
}

impl TextBlock {
    fn new(config: &TextConfig, params: &Params, layer: usize) -> Result<Self, RuntimeError> {
        let params = params.under(format!("encoder.layer.{layer}"));
        let (d, f, eps) = (config.hidden_size, config.intermediate_size, config.layer_norm_eps);
        let qkv = ["attention.self.query", "attention.self.key", "attention.self.value"];
        Ok(Self {
            attention: SelfAttention {
                qkv: params.stacked(&qkv, (d, d), Bias::With)?,
                out: params.linear("attention.output.dense", (d, d), Bias::With)?,
                n_head: config.num_attention_heads,
            },
            attention_norm: params.layer_norm("attention.output.LayerNorm", d, eps)?,
            mlp: Mlp {
                fc1: params.linear("intermediate.dense", (f, d), Bias::With)?.activated(Activation::Gelu),
                fc2: params.linear("output.dense", (d, f), Bias::With)?,
            },
            mlp_norm: params.layer_norm("output.LayerNorm", d, eps)?,
        })
    }

    /// `x = norm(x + attention(x)); x = norm(x + mlp(x))`, where `x` is `workspace.normed` `[rows, hidden_size]`.
    fn forward(&self, rows: usize, workspace: &mut Workspace) -> Result<(), RuntimeError> {
        let len = rows * self.mlp.fc1.n_in();
        workspace.residual[..len].copy_from_slice(&workspace.normed[..len]);
        self.attention.forward(rows, workspace)?;
        add_and_normalise(&self.attention_norm, rows, workspace)?;
        workspace.residual[..len].copy_from_slice(&workspace.normed[..len]);
        self.mlp.forward(rows, workspace)?;
        add_and_normalise(&self.mlp_norm, rows, workspace)
    }
}

/// Position embeddings `[max_position_embeddings, hidden_size]` plus the embedding of the first segment.
fn positions(config: &TextConfig, params: &Params) -> Result<Vec<f32>, RuntimeError> {
    let d = config.hidden_size;
    let mut positions = params.vec("position_embeddings.weight", &[config.max_position_embeddings, d])?;
    let segments = params.get("token_type_embeddings.weight", &[config.type_vocab_size, d])?;
    positions.chunks_exact_mut(d).for_each(|row| add(row, &segments[..d]));
    Ok(positions)
}
