//! The connector: everything that a robot sees, reads and feels becomes one token per control step.
//!
//! A few queries, conditioned on the instruction, attend over the patches of all cameras and the words
//! (the resampler of Flamingo, Alayrac et al., arXiv 2204.14198, with the text in the query as well):
//!
//! ```text
//! kv_i  = norm_kv(vision_proj(patch_i) + camera_embedding), norm_kv(text_proj(word_i))   [hidden_size]
//! x     = query + reshape(query_text(mean_i word_i))                                [n_query, d]
//! layer:  x += out_proj(MHA(q_proj(norm_q(x)), k_proj(kv), v_proj(kv)))
//!         x += fc2(gelu(fc1(norm_mlp(x))))
//! token = out_proj(flatten(norm_out(x))) + state_proj.fc2(gelu(state_proj.fc1(state)))   [d_model]
//! ```
//!
//! What the queries attend to does not depend on them, so [`ConnectorContext`] keeps it: the words
//! until the instruction changes, the patches of a camera until its image changes.
//!
//! There are few queries and many patches, so keys and values are never computed. With `K` and `V` the rows of `k_proj`
//! and `v_proj` that belong to a head,
//!
//! ```text
//! q . (K kv_i + bias)      = (K^T q) . kv_i + q . bias
//! sum_i p_i (V kv_i + bias) = V (sum_i p_i kv_i) + bias          as sum_i p_i = 1
//! ```
//!
//! and `q . bias`, the same for every key, has no effect on the softmax (the absorbed projections of DeepSeek-V2, arXiv
//! 2405.04434, section 2.1.2). For the 8 queries of `base` on 196 patches that is a sixth of the multiplications.

use std::ops::Range;

use robomamba_kernels::attention::{self, AttentionInput, AttentionShape, Mask};
use robomamba_kernels::matmul::{Format, PackedMatrix};
use robomamba_kernels::{Rows, RowsMut};
use robomamba_model::{ConnectorConfig, ModelConfig, Tensors};

use crate::RuntimeError;
use crate::blocks::{Linear, Mlp, add, add_and_normalise, gelu_mlp, normalise};
use crate::error::check_len;
use crate::params::{Bias, NormParams, Params};
use crate::workspace::{BLOCK_ROWS_MIN, Cut, Workspace, for_each_block, room};

/// A packed connector.
#[derive(Clone, Debug)]
pub struct Connector {
    vision_proj: PackedMatrix,
    /// `[n_camera, hidden_size]`.
    camera_embedding: Vec<f32>,
    text_proj: PackedMatrix,
    /// `[n_query, hidden_size]`.
    query: Vec<f32>,
    query_text: PackedMatrix,
    norm_kv: NormParams,
    layers: Vec<ConnectorLayer>,
    norm_out: NormParams,
    out_proj: PackedMatrix,
    state_proj: Mlp,
    config: ConnectorConfig,
    n_camera: usize,
    n_patch: usize,
}

#[derive(Clone, Debug)]
struct ConnectorLayer {
    norm_q: NormParams,
    q_proj: PackedMatrix,
    /// Of each head, transposed: `[hidden_size, head_dim]`.
    k_proj: Vec<PackedMatrix>,
    /// Of each head, `[head_dim, hidden_size]`.
    v_proj: Vec<PackedMatrix>,
    out_proj: PackedMatrix,
    norm_mlp: NormParams,
    mlp: Mlp,
}

/// What the queries attend to, and the queries as the instruction conditions them.
#[derive(Clone, Debug)]
pub struct ConnectorContext {
    /// `[n_key, hidden_size]`: patches camera by camera, then words.
    kv: Vec<f32>,
    /// `[n_query, hidden_size]`.
    query: Vec<f32>,
    n_text: usize,
}

/// Attention of some heads of a layer.
struct Attend<'a> {
    heads: Range<usize>,
    layer: &'a ConnectorLayer,
    /// Queries, `[n_query, hidden_size]`.
    q: &'a [f32],
    /// Keys and values in one, `[n_patch, hidden_size]`.
    kv: &'a [f32],
}

impl Connector {
    /// Packs the parameters below `prefix` (`connector` in a RoboMamba checkpoint).
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
        let ConnectorConfig { hidden_size: d, n_query, num_hidden_layers: n_layer, layer_norm_eps: eps, .. } =
            config.connector;
        let (d_vision, d_text, d_model) =
            (config.vision.hidden_size, config.text.hidden_size, config.backbone.d_model());
        let n_camera = config.features.cameras.len();
        let layers = (0..n_layer)
            .map(|i| ConnectorLayer::new(&config.connector, &params.under(format!("layers.{i}"))))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            vision_proj: params.linear("vision_proj", (d, d_vision), Bias::With)?,
            camera_embedding: params.vec("camera_embedding", &[n_camera, d])?,
            text_proj: params.linear("text_proj", (d, d_text), Bias::With)?,
            query: params.vec("query", &[n_query, d])?,
            query_text: params.linear("query_text", (n_query * d, d_text), Bias::With)?,
            norm_kv: params.layer_norm("norm_kv", d, eps)?,
            layers,
            norm_out: params.layer_norm("norm_out", d, eps)?,
            out_proj: params.linear("out_proj", (d_model, n_query * d), Bias::With)?,
            state_proj: state_proj(config, &params.under("state_proj"))?,
            config: config.connector.clone(),
            n_camera,
            n_patch: config.vision.n_patch(),
        })
    }

    /// A context in which nothing has been seen or read yet.
    pub fn context(&self) -> ConnectorContext {
        let kv = vec![0.0; self.n_vision() * self.config.hidden_size];
        ConnectorContext { kv, query: self.query.clone(), n_text: 0 }
    }

    /// Takes in the instruction: `text_tokens` `[n_text, d_text]`, `[CLS]` first.
    ///
    /// # Errors
    /// When `text_tokens` holds no whole number of tokens, or none.
    pub fn read(
        &self,
        text_tokens: &[f32],
        context: &mut ConnectorContext,
        workspace: &mut Workspace,
    ) -> Result<(), RuntimeError> {
        let d_text = self.text_proj.n_in();
        let n_text = text_tokens.len() / d_text;
        check_len("text tokens", text_tokens.len(), n_text.max(1) * d_text)?;
        context.kv.resize((self.n_vision() + n_text) * self.config.hidden_size, 0.0);
        context.n_text = n_text;
        let mean = room(&mut workspace.normed, d_text);
        mean.fill(0.0);
        text_tokens.chunks_exact(d_text).for_each(|word| add(mean, word));
        mean.iter_mut().for_each(|value| *value /= n_text as f32);
        Linear { kernels: workspace.kernels, converted: &mut workspace.converted }.apply(
            &self.query_text,
            mean,
            &mut context.query,
        )?;
        add(&mut context.query, &self.query);
        let len = n_text * self.config.hidden_size;
        let linear = Linear { kernels: workspace.kernels, converted: &mut workspace.converted };
        linear.apply(&self.text_proj, text_tokens, room(&mut workspace.residual, len))?;
        self.write_kv(&mut context.kv[self.n_vision() * self.config.hidden_size..], workspace)
    }

    /// Takes in the image of camera number `camera`: `patch_tokens` `[n_patch, d_vision]`.
    ///
    /// # Errors
    /// When there is no such camera or `patch_tokens` has another length.
    pub fn see(
        &self,
        camera: usize,
        patch_tokens: &[f32],
        context: &mut ConnectorContext,
        workspace: &mut Workspace,
    ) -> Result<(), RuntimeError> {
        let d = self.config.hidden_size;
        check_len("patch tokens", patch_tokens.len(), self.n_patch * self.vision_proj.n_in())?;
        let Some(embedding) = self.camera_embedding.chunks_exact(d).nth(camera) else {
            return Err(RuntimeError::Length { name: "cameras", expected: self.n_camera, found: camera + 1 });
        };
        let d_vision = self.vision_proj.n_in();
        let kv = &mut context.kv[camera * self.n_patch * d..][..self.n_patch * d];
        let Workspace { kernels, blocks, .. } = workspace;
        for_each_block(
            *kernels,
            blocks,
            Cut { rows: self.n_patch, least: BLOCK_ROWS_MIN },
            kv,
            |rows, workspace, kv| {
                let residual = room(&mut workspace.residual, rows.len() * d);
                let patch_tokens = &patch_tokens[rows.start * d_vision..rows.end * d_vision];
                Linear { kernels: workspace.kernels, converted: &mut workspace.converted }.apply(
                    &self.vision_proj,
                    patch_tokens,
                    residual,
                )?;
                residual.chunks_exact_mut(d).for_each(|row| add(row, embedding));
                self.write_kv(kv, workspace)
            },
        )
    }

    /// Fuses what the context holds and the normalised `state` `[state_dim]` into `token` `[d_model]`.
    ///
    /// # Errors
    /// When an argument has another length.
    pub fn fuse(
        &self,
        state: &[f32],
        context: &ConnectorContext,
        token: &mut [f32],
        workspace: &mut Workspace,
    ) -> Result<(), RuntimeError> {
        check_len("state", state.len(), self.state_proj.fc1.n_in())?;
        check_len("token", token.len(), self.out_proj.n_out())?;
        let n_query = self.config.n_query;
        room(&mut workspace.residual, context.query.len()).copy_from_slice(&context.query);
        normalise(self.norm_before(0), n_query, workspace)?;
        for (i, layer) in self.layers.iter().enumerate() {
            self.attend(i, context, workspace)?;
            add_and_normalise(&layer.norm_mlp, n_query, workspace)?;
            layer.mlp.forward(n_query, workspace)?;
            add_and_normalise(self.norm_before(i + 1), n_query, workspace)?;
        }
        let linear = Linear { kernels: workspace.kernels, converted: &mut workspace.converted };
        linear.apply(&self.out_proj, &workspace.normed[..self.out_proj.n_in()], token)?;
        room(&mut workspace.normed, state.len()).copy_from_slice(state);
        self.state_proj.forward(1, workspace)?;
        add(token, &workspace.branch);
        Ok(())
    }

    /// Cross-attention of layer `i`: reads `workspace.normed` and writes `workspace.branch`, `[n_query, hidden_size]`.
    fn attend(&self, i: usize, context: &ConnectorContext, workspace: &mut Workspace) -> Result<(), RuntimeError> {
        let ConnectorConfig { hidden_size: d, n_query, num_attention_heads: n_head, .. } = self.config;
        let (layer, head_dim) = (&self.layers[i], d / n_head);
        let Workspace { kernels, converted, normed, projected, mixed, hidden, branch, blocks, .. } = workspace;
        let (q, mixed) = (room(projected, n_query * d), room(mixed, n_query * d));
        Linear { kernels: *kernels, converted }.apply(&layer.q_proj, &normed[..n_query * d], q)?;
        let seen = room(hidden, n_query * d);
        let least = BLOCK_ROWS_MIN.div_ceil(n_query);
        for_each_block(*kernels, blocks, Cut { rows: n_head, least }, seen, |heads, workspace, seen| {
            self.attend_by(&Attend { heads, layer, q, kv: &context.kv }, seen, workspace)
        })?;
        for (head, seen) in seen.chunks_exact(n_query * head_dim).enumerate() {
            for (mixed, seen) in mixed.chunks_exact_mut(d).zip(seen.chunks_exact(head_dim)) {
                mixed[head * head_dim..][..head_dim].copy_from_slice(seen);
            }
        }
        Linear { kernels: *kernels, converted }.apply(&layer.out_proj, mixed, room(branch, n_query * d))
    }

    /// Attention of some heads: `seen` `[heads, n_query, head_dim]`.
    fn attend_by(&self, attend: &Attend, seen: &mut [f32], workspace: &mut Workspace) -> Result<(), RuntimeError> {
        let Attend { heads, layer, q, kv } = attend;
        let ConnectorConfig { hidden_size: d, n_query, num_attention_heads: n_head, .. } = self.config;
        let (head_dim, rows) = (d / n_head, heads.len() * n_query);
        let Workspace { kernels, converted, projected, mixed, attention, .. } = workspace;
        let (absorbed, mixed) = (room(projected, rows * d), room(mixed, rows * d));
        for (head, absorbed) in heads.clone().zip(absorbed.chunks_exact_mut(n_query * d)) {
            let q = Rows::strided(&q[head * head_dim..], d);
            layer.k_proj[head].apply(*kernels, n_query, q, RowsMut::new(absorbed, d), converted)?;
        }
        let input = AttentionInput {
            shape: AttentionShape { batch: 1, n_query: rows, n_key: kv.len() / d, n_head: 1, head_dim: d },
            q: Rows::new(absorbed, d),
            k: Rows::new(kv, d),
            v: Rows::new(kv, d),
            scale: (head_dim as f32).sqrt().recip(),
            mask: Mask::Full,
            format: layer.q_proj.format(),
        };
        attention::forward(*kernels, &input, RowsMut::new(mixed, d), attention)?;
        let inputs = mixed.chunks_exact(n_query * d).zip(seen.chunks_exact_mut(n_query * head_dim));
        for (v_proj, (mixed, seen)) in layer.v_proj[heads.clone()].iter().zip(inputs) {
            v_proj.apply(*kernels, n_query, Rows::new(mixed, d), RowsMut::new(seen, head_dim), converted)?;
        }
        Ok(())
    }

    /// Norms the tokens in `workspace.residual` to `kv`, both `[rows, hidden_size]`.
    fn write_kv(&self, kv: &mut [f32], workspace: &mut Workspace) -> Result<(), RuntimeError> {
        normalise(&self.norm_kv, kv.len() / self.config.hidden_size, workspace)?;
        kv.copy_from_slice(&workspace.normed[..kv.len()]);
        Ok(())
    }

    /// The norm in front of layer `i`, or the final one behind the last layer.
    fn norm_before(&self, i: usize) -> &NormParams {
        self.layers.get(i).map_or(&self.norm_out, |layer| &layer.norm_q)
    }

    /// Patch tokens of all cameras.
    fn n_vision(&self) -> usize {
        self.n_camera * self.n_patch
    }
}

impl ConnectorLayer {
    fn new(config: &ConnectorConfig, params: &Params) -> Result<Self, RuntimeError> {
        let ConnectorConfig { hidden_size: d, intermediate_size: f, layer_norm_eps: eps, .. } = *config;
        let (n_head, head_dim, format) = (config.num_attention_heads, d / config.num_attention_heads, params.format());
        let (keys, values) = (params.get("attn.k_proj.weight", &[d, d])?, params.get("attn.v_proj.weight", &[d, d])?);
        let value_bias = params.get("attn.v_proj.bias", &[d])?;
        let by_head = |head: usize| head * head_dim * d..(head + 1) * head_dim * d;
        let k_proj = |head: usize| {
            let weight = transposed(&keys[by_head(head)], (head_dim, d));
            Ok(PackedMatrix::new(format, (d, head_dim), &weight, None)?)
        };
        let v_proj = |head: usize| {
            let bias = &value_bias[head * head_dim..][..head_dim];
            Ok(PackedMatrix::new(format, (head_dim, d), &values[by_head(head)], Some(bias))?)
        };
        Ok(Self {
            norm_q: params.layer_norm("norm_q", d, eps)?,
            q_proj: params.linear("attn.q_proj", (d, d), Bias::With)?,
            k_proj: (0..n_head).map(k_proj).collect::<Result<_, RuntimeError>>()?,
            v_proj: (0..n_head).map(v_proj).collect::<Result<_, RuntimeError>>()?,
            out_proj: params.linear("attn.out_proj", (d, d), Bias::With)?,
            norm_mlp: params.layer_norm("norm_mlp", d, eps)?,
            mlp: gelu_mlp(&params.under("mlp"), (d, f, d))?,
        })
    }
}

fn state_proj(config: &ModelConfig, params: &Params) -> Result<Mlp, RuntimeError> {
    gelu_mlp(params, (config.features.state.dim(), config.connector.intermediate_size, config.backbone.d_model()))
}

/// The transpose of `matrix` `[rows, columns]`.
fn transposed(matrix: &[f32], (rows, columns): (usize, usize)) -> Vec<f32> {
    (0..columns).flat_map(|column| (0..rows).map(move |row| matrix[row * columns + column])).collect()
}
