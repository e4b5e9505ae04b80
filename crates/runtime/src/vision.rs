//! The vision encoder: a pre-norm ViT over the patches of one image.
//!
//! Dosovitskiy et al., arXiv 2010.11929; the variants of CLIP, SigLIP and DINOv2 are listed at
//! [`robomamba_model::VisionKind`]. Upstream: `last_hidden_state` of `transformers.ViTModel`,
//! `CLIPVisionModel`, `SiglipVisionModel` and `Dinov2Model`. DINOv2's layer scales are multiplied into the
//! projections before them, which is the same function with one pass less.

use std::mem;
use std::ops::Range;

use robomamba_kernels::activation::Activation;
use robomamba_kernels::matmul::{Format, PackedMatrix};
use robomamba_model::{Tensors, VisionConfig, VisionKind};

use crate::RuntimeError;
use crate::blocks::{Linear, Mlp, SelfAttention, add, add_and_normalise, normalise};
use crate::error::check_len;
use crate::params::{Bias, NormParams, Params};
use crate::workspace::{BLOCK_ROWS_MIN, Cut, Workspace, for_each_block, room};

/// A packed vision transformer.
#[derive(Clone, Debug)]
pub struct VisionEncoder {
    /// `[hidden_size, 3 * patch_size^2]`.
    patch_projection: PackedMatrix,
    /// `[n_token, hidden_size]`, the class token already added to the first row.
    positions: Vec<f32>,
    pre_norm: Option<NormParams>,
    blocks: Vec<VisionBlock>,
    final_norm: Option<NormParams>,
    config: VisionConfig,
}

#[derive(Clone, Debug)]
struct VisionBlock {
    norm_before: NormParams,
    attention: SelfAttention,
    norm_after: NormParams,
    mlp: Mlp,
}

impl VisionEncoder {
    /// Packs the parameters below `prefix` (`vision` in a RoboMamba checkpoint).
    ///
    /// # Errors
    /// When a parameter is missing or has another shape than `config` says.
    pub fn new(
        format: Format,
        config: &VisionConfig,
        weights: &dyn Tensors,
        prefix: &str,
    ) -> Result<Self, RuntimeError> {
        let params = Params::new(format, weights, prefix);
        let (d, eps, kind) = (config.hidden_size, config.layer_norm_eps, config.kind);
        let blocks = (0..config.num_hidden_layers)
            .map(|i| VisionBlock::new(config, &params.under(format!("encoder.layer.{i}"))))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            patch_projection: patch_projection(config, &params.fine().under("embeddings.patch_embeddings.projection"))?,
            positions: positions(config, &params.under("embeddings"))?,
            pre_norm: kind.has_pre_norm().then(|| params.layer_norm("pre_layernorm", d, eps)).transpose()?,
            blocks,
            final_norm: kind.has_final_norm().then(|| params.layer_norm("layernorm", d, eps)).transpose()?,
            config: config.clone(),
        })
    }

    /// Sizes of the encoder.
    pub fn config(&self) -> &VisionConfig {
        &self.config
    }

    /// Turns the normalised patches `[n_patch, 3 * patch_size^2]` of one image, each in the order channel, row,
    /// column, into `tokens` `[n_token, hidden_size]`, the class token first where the kind has one.
    ///
    /// # Errors
    /// When an argument has another length.
    pub fn forward(&self, patches: &[f32], tokens: &mut [f32], workspace: &mut Workspace) -> Result<(), RuntimeError> {
        let (rows, d) = (self.config.n_token(), self.config.hidden_size);
        check_len("patches", patches.len(), self.config.n_patch() * self.config.patch_dim())?;
        check_len("tokens", tokens.len(), rows * d)?;
        let Workspace { kernels, projected, mixed, blocks: row_blocks, .. } = workspace;
        let (mut qkv, mut next_qkv) = (room(projected, rows * 3 * d), room(mixed, rows * 3 * d));
        // Rows meet in attention only, so a block of them goes from one attention to the projections for the next by
        // itself.
        for i in 0..=self.blocks.len() {
            let next = self.blocks.get(i);
            let out = if next.is_some() { &mut *next_qkv } else { &mut *tokens };
            for_each_block(*kernels, row_blocks, Cut { rows, least: BLOCK_ROWS_MIN }, out, |rows, workspace, out| {
                let norm = next.map(|next| &next.norm_before).or(self.final_norm.as_ref());
                match i.checked_sub(1) {
                    None => self.embed(rows.clone(), norm, patches, workspace)?,
                    Some(i) => self.blocks[i].forward(rows.clone(), qkv, norm, workspace)?,
                }
                match next {
                    Some(next) => next.attention.project(rows.len(), out, workspace),
                    None => {
                        let result = if norm.is_some() { &workspace.normed } else { &workspace.residual };
                        out.copy_from_slice(&result[..out.len()]);
                        Ok(())
                    }
                }
            })?;
            mem::swap(&mut qkv, &mut next_qkv);
        }
        Ok(())
    }

    /// The patch tokens `[n_patch, hidden_size]` of what [`VisionEncoder::forward`] wrote, without the class token.
    pub fn patch_tokens<'a>(&self, tokens: &'a [f32]) -> &'a [f32] {
        &tokens[(self.config.n_token() - self.config.n_patch()) * self.config.hidden_size..]
    }

    /// Starts the residual stream of the rows `rows` with the embedded patches, and norms it if so wanted.
    fn embed(
        &self,
        rows: Range<usize>,
        norm: Option<&NormParams>,
        patches: &[f32],
        workspace: &mut Workspace,
    ) -> Result<(), RuntimeError> {
        let (d, patch_dim) = (self.config.hidden_size, self.config.patch_dim());
        let n_class = self.config.n_token() - self.config.n_patch();
        let seen = rows.start.max(n_class)..rows.end.max(n_class);
        let patches = &patches[(seen.start - n_class) * patch_dim..(seen.end - n_class) * patch_dim];
        let residual = room(&mut workspace.residual, rows.len() * d);
        let (class, embedded) = residual.split_at_mut((rows.len() - seen.len()) * d);
        class.fill(0.0);
        Linear { kernels: workspace.kernels, converted: &mut workspace.converted }.apply(
            &self.patch_projection,
            patches,
            embedded,
        )?;
        add(residual, &self.positions[rows.start * d..rows.end * d]);
        if let Some(norm) = &self.pre_norm {
            normalise(norm, rows.len(), workspace)?;
            workspace.residual[..rows.len() * d].copy_from_slice(&workspace.normed[..rows.len() * d]);
        }
        norm.map_or(Ok(()), |norm| normalise(norm, rows.len(), workspace))
    }
}

impl VisionBlock {
    fn new(config: &VisionConfig, params: &Params) -> Result<Self, RuntimeError> {
        let (d, f, eps) = (config.hidden_size, config.intermediate_size, config.layer_norm_eps);
        let scale = |name: &str| match config.kind.has_layer_scale() {
            true => params.vec(name, &[d]),
            false => Ok(vec![1.0; d]),
        };
        let qkv = ["query", "key", "value"].map(|name| format!("attention.attention.{name}"));
        Ok(Self {
            norm_before: params.layer_norm("layernorm_before", d, eps)?,
            attention: SelfAttention {
                qkv: params.stacked(&qkv.each_ref().map(String::as_str), (d, d), Bias::With)?,
                out: params.scaled("attention.output.dense", (d, d), &scale("layer_scale1.lambda1")?)?,
                n_head: config.num_attention_heads,
            },
            norm_after: params.layer_norm("layernorm_after", d, eps)?,
            mlp: Mlp {
                fc1: params.linear("intermediate.dense", (f, d), Bias::With)?.activated(activation(config.kind)),
                fc2: params.scaled("output.dense", (d, f), &scale("layer_scale2.lambda1")?)?,
            },
        })
    }

    /// `x += attention(norm_before(x)); x += mlp(norm_after(x))` for the rows `rows` of the sequence whose queries,
    /// keys and values are `qkv`, then the norm of what comes `next`, if any.
    fn forward(
        &self,
        rows: Range<usize>,
        qkv: &[f32],
        next: Option<&NormParams>,
        workspace: &mut Workspace,
    ) -> Result<(), RuntimeError> {
        let count = rows.len();
        self.attention.attend(rows, qkv, workspace)?;
        add_and_normalise(&self.norm_after, count, workspace)?;
        self.mlp.forward(count, workspace)?;
        match next {
            Some(norm) => add_and_normalise(norm, count, workspace)?,
            None => {
                let len = count * self.mlp.fc2.n_out();
                add(&mut workspace.residual[..len], &workspace.branch[..len]);
            }
        }
        Ok(())
    }
}

/// The convolution over patches is one matrix product, because patches do not overlap.
fn patch_projection(config: &VisionConfig, params: &Params) -> Result<PackedMatrix, RuntimeError> {
    let (d, p) = (config.hidden_size, config.patch_size);
    let weight = params.get("weight", &[d, 3, p, p])?;
    let bias = config.kind.has_patch_bias().then(|| params.get("bias", &[d])).transpose()?;
    Ok(PackedMatrix::new(params.format(), (d, config.patch_dim()), &weight, bias.as_deref())?)
}

/// Position embeddings `[n_token, hidden_size]` with the class token added to the first.
fn positions(config: &VisionConfig, params: &Params) -> Result<Vec<f32>, RuntimeError> {
    let d = config.hidden_size;
    let mut positions = params.vec("position_embeddings", &[1, config.n_token(), d])?;
    if config.kind.has_class_token() {
        add(&mut positions[..d], &params.get("cls_token", &[1, 1, d])?);
    }
    Ok(positions)
}

fn activation(kind: VisionKind) -> Activation {
    match kind.activation() {
        robomamba_model::Activation::Gelu => Activation::Gelu,
        robomamba_model::Activation::GeluTanh => Activation::GeluTanh,
        robomamba_model::Activation::QuickGelu => Activation::GeluQuick,
    }
}
