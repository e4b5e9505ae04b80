//! The baseline backbone: a Llama-type Transformer with a KV cache.
//!
//! Touvron et al., arXiv 2302.13971; rotary positions by Su et al., arXiv 2104.09864. Upstream:
//! `transformers.LlamaModel`. One block is
//!
//! ```text
//! x += o_proj(attention(rope(q_proj(n)), rope(k_proj(n)), v_proj(n))),  n = rms_norm(x)
//! x += down_proj(silu(gate_proj(n)) * up_proj(n)),                      n = rms_norm(x)
//! ```
//!
//! A step attends to itself and the last `context_len - 1` steps before it, as training has it.

use robomamba_kernels::activation::{self, Activation};
use robomamba_kernels::attention::{self, AttentionInput, AttentionShape, Mask};
use robomamba_kernels::matmul::{Format, PackedMatrix};
use robomamba_kernels::{Kernels, Rows, RowsMut};
use robomamba_model::{Tensors, TransformerConfig};

use crate::RuntimeError;
use crate::blocks::{Linear, add_and_normalise, normalise};
use crate::error::check_len;
use crate::params::{Bias, NormParams, Params};
use crate::state::{KvCache, StateLayout};
use crate::workspace::{Workspace, room};

/// A packed Transformer backbone.
#[derive(Clone, Debug)]
pub struct Transformer {
    layers: Vec<TransformerLayer>,
    norm_f: NormParams,
    /// Angle per step of each pair of a head's values, `[head_dim / 2]`; f64 because positions grow without end.
    frequencies: Vec<f64>,
    config: TransformerConfig,
}

#[derive(Clone, Debug)]
struct TransformerLayer {
    input_norm: NormParams,
    /// `[3 * d_model, d_model]`: queries, keys, values.
    qkv: PackedMatrix,
    o_proj: PackedMatrix,
    mlp_norm: NormParams,
    /// `[2 * intermediate_size, d_model]`: gate, up.
    gate_up: PackedMatrix,
    down_proj: PackedMatrix,
}

impl Transformer {
    /// Packs the parameters below `prefix` (`backbone` in a RoboMamba checkpoint).
    ///
    /// # Errors
    /// When a parameter is missing or has another shape than `config` says.
    pub fn new(
        format: Format,
        config: &TransformerConfig,
        weights: &dyn Tensors,
        prefix: &str,
    ) -> Result<Self, RuntimeError> {
        let params = Params::new(format, weights, prefix);
        let layers = (0..config.n_layer)
            .map(|i| TransformerLayer::new(config, &params.under(format!("layers.{i}"))))
            .collect::<Result<_, _>>()?;
        let head_dim = config.d_model / config.num_attention_heads;
        let frequency = |i: usize| f64::from(config.rope_theta).powf(-2.0 * i as f64 / head_dim as f64);
        Ok(Self {
            layers,
            norm_f: params.rms_norm("norm_f", config.d_model, config.rms_norm_eps)?,
            frequencies: (0..head_dim / 2).map(frequency).collect(),
            config: config.clone(),
        })
    }

    /// Bytes of its packed matrices, all of which a step reads.
    pub fn matrix_bytes(&self) -> usize {
        let matrices =
            self.layers.iter().flat_map(|layer| [&layer.qkv, &layer.o_proj, &layer.gate_up, &layer.down_proj]);
        matrices.map(PackedMatrix::bytes).sum()
    }

    /// Sizes of the backbone.
    pub fn config(&self) -> &TransformerConfig {
        &self.config
    }

    /// Runs the sequence `x` `[seq_len, d_model]` from `cache` on, in parallel over its steps, and writes
    /// `hidden` `[seq_len, d_model]`.
    ///
    /// # Errors
    /// When an argument has another length or the cache belongs to another backbone.
    pub fn forward(
        &self,
        x: &[f32],
        cache: &mut KvCache,
        hidden: &mut [f32],
        workspace: &mut Workspace,
    ) -> Result<(), RuntimeError> {
        let d = self.config.d_model;
        check_len("x", x.len(), x.len() / d * d)?;
        check_len("hidden", hidden.len(), x.len())?;
        self.check_cache(cache)?;
        let rows = x.len() / d;
        self.write_rotation(cache.n_step, rows, workspace);
        room(&mut workspace.residual, x.len()).copy_from_slice(x);
        normalise(self.norm_before(0), rows, workspace)?;
        for (i, layer) in self.layers.iter().enumerate() {
            self.attend(i, rows, cache, workspace)?;
            add_and_normalise(&layer.mlp_norm, rows, workspace)?;
            layer.mlp(rows, workspace)?;
            add_and_normalise(self.norm_before(i + 1), rows, workspace)?;
        }
        cache.n_step += rows;
        hidden.copy_from_slice(&workspace.normed[..x.len()]);
        Ok(())
    }

    /// Takes one element `x` `[d_model]`, advances `cache` and writes `hidden` `[d_model]`. Allocates nothing
    /// once the context is full.
    ///
    /// # Errors
    /// When an argument has another length or the cache belongs to another backbone.
    pub fn step(
        &self,
        x: &[f32],
        cache: &mut KvCache,
        hidden: &mut [f32],
        workspace: &mut Workspace,
    ) -> Result<(), RuntimeError> {
        check_len("x", x.len(), self.config.d_model)?;
        self.forward(x, cache, hidden, workspace)
    }

    /// Attention of layer `i`: reads `workspace.normed` and writes `workspace.branch`, `[rows, d_model]`.
    fn attend(
        &self,
        i: usize,
        rows: usize,
        cache: &mut KvCache,
        workspace: &mut Workspace,
    ) -> Result<(), RuntimeError> {
        let (layer, d) = (&self.layers[i], self.config.d_model);
        let Workspace { kernels, converted, normed, projected, mixed, rotation, branch, attention, .. } = workspace;
        let (qkv, mixed) = (room(projected, rows * 3 * d), room(mixed, rows * d));
        Linear { kernels: *kernels, converted }.apply(&layer.qkv, &normed[..rows * d], qkv)?;
        for (row, rotation) in qkv.chunks_exact_mut(3 * d).zip(rotation.chunks_exact(2 * self.frequencies.len().max(1)))
        {
            rotate(&mut row[..2 * d], rotation);
        }
        let mut window = Window { kernels: *kernels, cache, layer: i, n_head: self.config.num_attention_heads };
        if window.cache.n_step + rows <= self.config.context_len {
            window.append(0, qkv);
            window.attend(rows, qkv, mixed, attention)?;
        } else {
            // The window slides within the sequence, so that each step has keys of its own.
            for (step, (qkv, mixed)) in qkv.chunks_exact(3 * d).zip(mixed.chunks_exact_mut(d)).enumerate() {
                window.append(step, qkv);
                window.attend_last(step, qkv, mixed, attention)?;
            }
        }
        Linear { kernels: *kernels, converted }.apply(&layer.o_proj, mixed, room(branch, rows * d))
    }

    /// Cosines and sines of the positions from `first` on, to `workspace.rotation` `[rows, 2, head_dim / 2]`.
    fn write_rotation(&self, first: usize, rows: usize, workspace: &mut Workspace) {
        let half = self.frequencies.len();
        let rotation = room(&mut workspace.rotation, rows * 2 * half);
        for (row, values) in rotation.chunks_exact_mut(2 * half.max(1)).enumerate() {
            let (cos, sin) = values.split_at_mut(half);
            for ((cos, sin), frequency) in cos.iter_mut().zip(sin).zip(&self.frequencies) {
                let angle = (first + row) as f64 * frequency;
                (*cos, *sin) = (angle.cos() as f32, angle.sin() as f32);
            }
        }
    }

    /// The norm in front of layer `i`, or the final one behind the last layer.
    fn norm_before(&self, i: usize) -> &NormParams {
        self.layers.get(i).map_or(&self.norm_f, |layer| &layer.input_norm)
    }

    fn check_cache(&self, cache: &KvCache) -> Result<(), RuntimeError> {
        let TransformerConfig { n_layer, context_len, d_model, .. } = self.config;
        let (expected, found) = (StateLayout::Transformer { n_layer, context_len, d_model }, cache.layout());
        if found == expected { Ok(()) } else { Err(expected.mismatch(&found)) }
    }
}

impl TransformerLayer {
    fn new(config: &TransformerConfig, params: &Params) -> Result<Self, RuntimeError> {
        let (d, f, eps) = (config.d_model, config.intermediate_size, config.rms_norm_eps);
        let qkv = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"];
        Ok(Self {
            input_norm: params.rms_norm("input_layernorm", d, eps)?,
            qkv: params.stacked(&qkv, (d, d), Bias::Without)?,
            o_proj: params.linear("self_attn.o_proj", (d, d), Bias::Without)?,
            mlp_norm: params.rms_norm("post_attention_layernorm", d, eps)?,
            gate_up: params.stacked(&["mlp.gate_proj", "mlp.up_proj"], (f, d), Bias::Without)?,
            down_proj: params.linear("mlp.down_proj", (d, f), Bias::Without)?,
        })
    }

    /// SwiGLU: reads `workspace.normed` and writes `workspace.branch`, `[rows, d_model]`.
    fn mlp(&self, rows: usize, workspace: &mut Workspace) -> Result<(), RuntimeError> {
        let (d, f) = (self.gate_up.n_in(), self.down_proj.n_in());
        let Workspace { kernels, converted, normed, projected, hidden, branch, .. } = workspace;
        let (gate_up, hidden) = (room(projected, rows * 2 * f), room(hidden, rows * f));
        Linear { kernels: *kernels, converted }.apply(&self.gate_up, &normed[..rows * d], gate_up)?;
        for (hidden, row) in hidden.chunks_exact_mut(f).zip(gate_up.chunks_exact(2 * f)) {
            activation::forward(*kernels, Activation::Silu, &row[..f], hidden)?;
            hidden.iter_mut().zip(&row[f..]).for_each(|(hidden, up)| *hidden *= up);
        }
        Linear { kernels: *kernels, converted }.apply(&self.down_proj, hidden, room(branch, rows * d))
    }
}

/// One layer's part of the cache, and how queries attend to it.
struct Window<'a> {
    kernels: Kernels,
    cache: &'a mut KvCache,
    layer: usize,
    n_head: usize,
}

impl Window<'_> {
    /// Stores keys and values of `qkv` `[rows, 3 * d_model]`, `ahead` steps after the cache's own step.
    fn append(&mut self, ahead: usize, qkv: &[f32]) {
        let (d, context_len) = (self.cache.d_model, self.cache.context_len);
        for (i, row) in qkv.chunks_exact(3 * d).enumerate() {
            let slot = (self.layer * context_len + (self.cache.n_step + ahead + i) % context_len) * d;
            self.cache.keys[slot..][..d].copy_from_slice(&row[d..2 * d]);
            self.cache.values[slot..][..d].copy_from_slice(&row[2 * d..]);
        }
    }

    /// Causal attention of the `rows` newest steps, all of which and all before are in the cache.
    fn attend(
        &self,
        rows: usize,
        qkv: &[f32],
        out: &mut [f32],
        scratch: &mut attention::AttentionScratch,
    ) -> Result<(), RuntimeError> {
        let input = self.input((rows, self.cache.n_step + rows), Mask::Causal, qkv);
        Ok(attention::forward(self.kernels, &input, RowsMut::new(out, self.cache.d_model), scratch)?)
    }

    /// Attention of one step, `ahead` steps after the cache's own, over everything in the window.
    fn attend_last(
        &self,
        ahead: usize,
        qkv: &[f32],
        out: &mut [f32],
        scratch: &mut attention::AttentionScratch,
    ) -> Result<(), RuntimeError> {
        let n_key = (self.cache.n_step + ahead + 1).min(self.cache.context_len);
        let input = self.input((1, n_key), Mask::Full, qkv);
        Ok(attention::forward(self.kernels, &input, RowsMut::new(out, self.cache.d_model), scratch)?)
    }

    fn input<'a>(&'a self, (n_query, n_key): (usize, usize), mask: Mask<'a>, qkv: &'a [f32]) -> AttentionInput<'a> {
        let (d, head_dim) = (self.cache.d_model, self.cache.d_model / self.n_head);
        let first = self.layer * self.cache.context_len * d;
        AttentionInput {
            shape: AttentionShape { batch: 1, n_query, n_key, n_head: self.n_head, head_dim },
            q: Rows::strided(qkv, 3 * d),
            k: Rows::new(&self.cache.keys[first..], d),
            v: Rows::new(&self.cache.values[first..], d),
            scale: (head_dim as f32).sqrt().recip(),
            mask,
            // As a single step computes it, so that a sequence gives the same.
            format: Format::F32,
        }
    }
}

/// Rotates every head in `heads` by `rotation` `[2, head_dim / 2]`, cosines and sines; value `i` is paired with
/// value `i + head_dim / 2`, as `rotate_half` of `transformers` has it.
fn rotate(heads: &mut [f32], rotation: &[f32]) {
    let (cos, sin) = rotation.split_at(rotation.len() / 2);
    for head in heads.chunks_exact_mut(rotation.len()) {
        let (left, right) = head.split_at_mut(cos.len());
        for (((left, right), cos), sin) in left.iter_mut().zip(right).zip(cos).zip(sin) {
            (*left, *right) = (*left * cos - *right * sin, *right * cos + *left * sin);
        }
    }
}
