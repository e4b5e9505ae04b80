//! The whole vision transformer as one operation.
//!
//! Vision is nine tenths of the arithmetic of training. Running it group of frames by group of frames, one
//! group per core at a time, keeps the activations of a layer in that core's cache, and keeping the
//! buffers from step to step avoids faulting in a gigabyte of fresh pages at every step. The backward pass is the
//! chain rule written out:
//!
//! ```text
//! x1 = x  + s1 * (attention(norm1(x)) Wo^T + bo)        s1, s2: DINOv2's layer scale, else absent
//! x2 = x1 + s2 * (f(norm2(x1) W1^T + b1) W2^T + b2)
//! ```

use std::ops::Range;
use std::sync::{Arc, Mutex};

use burn::tensor::Tensor;
use robomamba_kernels::activation::{self, Activation};
use robomamba_kernels::attention::{self, AttentionGrads, AttentionInput, AttentionScratch, AttentionShape, Mask};
use robomamba_kernels::norm::{self, Norm, NormGrads, NormKind};
use robomamba_kernels::{Kernels, Rows, RowsMut, Threads};
use robomamba_model::{ParamSpec, VisionConfig};

use super::{Compute, Forward, FusedOp, Input, apply, kernels};
use crate::gemm::{self, Precision, Write, add};
use crate::lanes::Lanes;

/// Rows (tokens) of a group, about: few enough that a layer's activations fit the second-level cache.
const GROUP_ROWS: usize = 520;

/// A vision transformer that encodes frames on several lanes. Parameters come as one flat vector, in the
/// order of [`VisionEncoder::parameter_names`].
#[derive(Clone, Debug)]
pub(crate) struct VisionEncoder {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    config: VisionConfig,
    precision: Precision,
    layout: Layout,
    lanes: Lanes,
    /// Buffers of earlier calls, for reuse.
    spare: Mutex<Vec<Group>>,
}

impl VisionEncoder {
    /// An encoder of this configuration; `specs` are its parameters, named below `vision.`.
    pub(crate) fn new(config: &VisionConfig, specs: &[ParamSpec], compute: Compute) -> Self {
        let shared = Shared {
            config: config.clone(),
            layout: Layout::new(config, specs),
            precision: compute.precision,
            lanes: Lanes::new(compute.lanes),
            spare: Mutex::default(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Names of the parameters below `vision.`, in the order of the flat vector.
    pub(crate) fn parameter_names(&self) -> &[String] {
        &self.shared.layout.names
    }

    /// Encodes `patches` `[n_frame * n_patch, patch_dim]` to patch tokens `[n_frame * n_patch, hidden_size]`;
    /// the class token takes part in attention and is then left out.
    pub(crate) fn forward(&self, patches: Input, parameters: Input) -> Tensor<2> {
        apply(self.clone(), [patches, parameters])
    }

    fn encode(&self, patches: &[f32], parameters: &[f32]) -> (Vec<f32>, Vec<Group>) {
        let shared = &self.shared;
        let config = &shared.config;
        let (frame_in, frame_out) = (config.n_patch() * config.patch_dim(), config.n_patch() * config.hidden_size);
        let n_frame = patches.len() / frame_in;
        let frames = frames_per_group(config);
        let mut output = vec![0.0; n_frame * frame_out];
        let mut groups = shared.borrow_groups(n_frame.div_ceil(frames));
        let chunks = patches.chunks(frames * frame_in).zip(output.chunks_mut(frames * frame_out));
        let work: Vec<_> = chunks.zip(&mut groups).collect();
        shared.lanes.run(work, |items| {
            let network = Network::new(shared, parameters);
            let mut scratch = AttentionScratch::default();
            for ((patches, output), group) in items {
                network.forward(patches, group, output, &mut scratch);
            }
        });
        (output, groups)
    }

    /// Gradient with respect to the flat parameters.
    fn differentiate(&self, patches: &[f32], parameters: &[f32], groups: &[Group], grad: &[f32]) -> Vec<f32> {
        let shared = &self.shared;
        let config = &shared.config;
        let (frame_in, frame_out) = (config.n_patch() * config.patch_dim(), config.n_patch() * config.hidden_size);
        let frames = frames_per_group(config);
        let chunks = patches.chunks(frames * frame_in).zip(grad.chunks(frames * frame_out));
        let work: Vec<_> = chunks.zip(groups).collect();
        let per_share = shared.lanes.run(work, |items| {
            let network = Network::new(shared, parameters);
            let (mut grads, mut scratch) = (vec![0.0; parameters.len()], Scratch::default());
            for ((patches, grad), group) in items {
                network.backward(patches, group, grad, &mut grads, &mut scratch);
            }
            grads
        });
        let sum = per_share.into_iter().reduce(|mut sum, grads| {
            add(&mut sum, &grads);
            sum
        });
        sum.expect("there is at least one lane")
    }
}

impl FusedOp<2, 2> for VisionEncoder {
    type Saved = Arc<Saved>;

    fn forward(&self, [patches, parameters]: [&[f32]; 2]) -> Forward<2, Arc<Saved>> {
        let (output, groups) = self.encode(patches, parameters);
        let width = self.shared.config.hidden_size;
        let saved = Saved { groups, shared: Arc::clone(&self.shared) };
        Forward { shape: [output.len() / width, width], output, saved: Arc::new(saved) }
    }

    fn backward(
        &self,
        [patches, parameters]: [&[f32]; 2],
        saved: &Arc<Saved>,
        grad: &[f32],
        _: [bool; 2],
    ) -> [Option<Vec<f32>>; 2] {
        [None, Some(self.differentiate(patches, parameters, &saved.groups, grad))]
    }
}

fn frames_per_group(config: &VisionConfig) -> usize {
    (GROUP_ROWS / config.n_token()).max(1)
}

impl Shared {
    fn borrow_groups(&self, count: usize) -> Vec<Group> {
        let mut spare = self.spare.lock().expect("no lane panics while it holds the lock");
        let kept = spare.len().saturating_sub(count);
        let mut groups = spare.split_off(kept);
        groups.resize_with(count, Group::default);
        groups
    }
}

/// The activations that the backward pass needs; they return to the spare ones when dropped.
#[derive(Debug)]
pub(crate) struct Saved {
    groups: Vec<Group>,
    shared: Arc<Shared>,
}

impl Drop for Saved {
    fn drop(&mut self) {
        if let Ok(mut spare) = self.shared.spare.lock() {
            spare.append(&mut self.groups);
        }
    }
}

/// Activations of a group of frames, all `[rows, ..]`.
#[derive(Debug, Default)]
struct Group {
    /// Patch and position embeddings, before CLIP's norm; empty for the others.
    embedded: Vec<f32>,
    layers: Vec<LayerActivations>,
    /// Output of the last layer, before the final norm.
    last: Vec<f32>,
}

#[derive(Debug, Default)]
struct LayerActivations {
    x: Vec<f32>,
    normed1: Vec<f32>,
    qkv: [Vec<f32>; 3],
    attended: Vec<f32>,
    /// Output of the attention branch before layer scale; empty without one.
    branch1: Vec<f32>,
    x1: Vec<f32>,
    normed2: Vec<f32>,
    hidden: Vec<f32>,
    activated: Vec<f32>,
    /// Output of the MLP branch before layer scale; empty without one.
    branch2: Vec<f32>,
}

/// Working memory of the backward pass of one lane.
#[derive(Debug, Default)]
struct Scratch {
    dx: Vec<f32>,
    d_branch: Vec<f32>,
    d_normed: Vec<f32>,
    d_attended: Vec<f32>,
    d_qkv: [Vec<f32>; 3],
    d_activated: Vec<f32>,
    d_hidden: Vec<f32>,
    d_norm: Vec<f32>,
    attention: AttentionScratch,
}

/// The network with its parameters, as one lane sees it.
struct Network<'a> {
    config: &'a VisionConfig,
    precision: Precision,
    layout: &'a Layout,
    parameters: &'a [f32],
    kernels: Kernels,
}

impl<'a> Network<'a> {
    fn new(shared: &'a Shared, parameters: &'a [f32]) -> Self {
        let kernels = kernels().with_threads(Threads::One);
        Self { config: &shared.config, precision: shared.precision, layout: &shared.layout, parameters, kernels }
    }

    fn forward(&self, patches: &[f32], group: &mut Group, output: &mut [f32], scratch: &mut AttentionScratch) {
        let n_layer = self.layout.layers.len();
        group.layers.resize_with(n_layer, LayerActivations::default);
        self.embed(patches, group);
        for i in 0..n_layer {
            let (before, after) = group.layers.split_at_mut(i + 1);
            let next = after.first_mut().map_or(&mut group.last, |next| &mut next.x);
            self.layer_forward(&self.layout.layers[i], &mut before[i], next, scratch);
        }
        self.finish(&group.last, output);
    }

    /// Writes the input of the first layer.
    fn embed(&self, patches: &[f32], group: &mut Group) {
        let (n_token, d) = (self.config.n_token(), self.config.hidden_size);
        let rows = patches.len() / self.config.patch_dim() / self.config.n_patch() * n_token;
        let mut projected = Vec::new();
        let projection = self.layout.projection.view(self.parameters);
        self.linear(Write::Set, patches, projection, self.config.patch_dim(), &mut projected);
        let first = group.layers.first_mut().map_or(&mut group.last, |first| &mut first.x);
        let embedded = if self.layout.pre_norm.is_some() { &mut group.embedded } else { &mut *first };
        embedded.resize(rows * d, 0.0);
        let frames = embedded.chunks_exact_mut(n_token * d).zip(projected.chunks_exact(self.config.n_patch() * d));
        for (tokens, projected) in frames {
            tokens.copy_from_slice(&self.parameters[self.layout.positions.clone()]);
            let (class, patches) = tokens.split_at_mut((n_token - self.config.n_patch()) * d);
            add(patches, projected);
            if let Some(token) = &self.layout.class_token {
                add(class, &self.parameters[token.clone()]);
            }
        }
        if let Some(pre_norm) = &self.layout.pre_norm {
            first.resize(rows * d, 0.0);
            self.norm_forward(pre_norm, &group.embedded, first);
        }
    }

    fn layer_forward(
        &self,
        layer: &Layer,
        a: &mut LayerActivations,
        x2: &mut Vec<f32>,
        scratch: &mut AttentionScratch,
    ) {
        let d = self.config.hidden_size;
        let size = a.x.len();
        for buffer in [&mut a.normed1, &mut a.attended, &mut a.normed2, &mut a.x1, x2] {
            buffer.resize(size, 0.0);
        }
        self.norm_forward(&layer.norm1, &a.x, &mut a.normed1);
        for (projection, out) in layer.qkv.iter().zip(&mut a.qkv) {
            self.linear(Write::Set, &a.normed1, projection.view(self.parameters), d, out);
        }
        attention::forward(self.kernels, &self.attention_input(&a.qkv), RowsMut::new(&mut a.attended, d), scratch)
            .expect("the buffers were sized for the shape");
        a.x1.copy_from_slice(&a.x);
        self.branch_forward(&a.attended, &layer.out, &layer.scale1, &mut a.branch1, &mut a.x1);
        self.norm_forward(&layer.norm2, &a.x1, &mut a.normed2);
        self.linear(Write::Set, &a.normed2, layer.fc1.view(self.parameters), d, &mut a.hidden);
        a.activated.resize(a.hidden.len(), 0.0);
        activation::forward(self.kernels, self.activation(), &a.hidden, &mut a.activated).expect("equal lengths");
        x2.copy_from_slice(&a.x1);
        self.branch_forward(&a.activated, &layer.fc2, &layer.scale2, &mut a.branch2, x2);
    }

    /// `sum += scale * (x W^T + b)`.
    fn branch_forward(
        &self,
        x: &[f32],
        projection: &LinearRange,
        scale: &Option<Range<usize>>,
        branch: &mut Vec<f32>,
        sum: &mut Vec<f32>,
    ) {
        let n_in = x.len() / (sum.len() / self.config.hidden_size);
        let Some(scale) = scale else {
            return self.linear(Write::Add, x, projection.view(self.parameters), n_in, sum);
        };
        self.linear(Write::Set, x, projection.view(self.parameters), n_in, branch);
        let scale = &self.parameters[scale.clone()];
        for (sum, branch) in sum.chunks_exact_mut(scale.len()).zip(branch.chunks_exact(scale.len())) {
            sum.iter_mut().zip(branch).zip(scale).for_each(|((sum, x), scale)| *sum += x * scale);
        }
    }

    /// Final norm, class token left out.
    fn finish(&self, last: &[f32], output: &mut [f32]) {
        let (n_token, n_patch, d) = (self.config.n_token(), self.config.n_patch(), self.config.hidden_size);
        let frames = last.chunks_exact(n_token * d).zip(output.chunks_exact_mut(n_patch * d));
        for (tokens, output) in frames {
            let patches = &tokens[(n_token - n_patch) * d..];
            match &self.layout.final_norm {
                Some(norm) => self.norm_forward(norm, patches, output),
                None => output.copy_from_slice(patches),
            }
        }
    }

    /// Adds the gradient of this group to `grads`, laid out like the parameters.
    fn backward(&self, patches: &[f32], group: &Group, grad: &[f32], grads: &mut [f32], scratch: &mut Scratch) {
        self.finish_backward(&group.last, grad, grads, scratch);
        for (layer, activations) in self.layout.layers.iter().zip(&group.layers).rev() {
            self.mlp_backward(layer, activations, grads, scratch);
            self.attention_backward(layer, activations, grads, scratch);
        }
        self.embed_backward(patches, group, grads, scratch);
    }

    /// `dx` of the last layer's output.
    fn finish_backward(&self, last: &[f32], grad: &[f32], grads: &mut [f32], scratch: &mut Scratch) {
        let (n_token, n_patch, d) = (self.config.n_token(), self.config.n_patch(), self.config.hidden_size);
        scratch.dx.resize(last.len(), 0.0);
        let mut dx = std::mem::take(&mut scratch.dx);
        let frames = last.chunks_exact(n_token * d).zip(grad.chunks_exact(n_patch * d));
        for ((tokens, grad), dx) in frames.zip(dx.chunks_exact_mut(n_token * d)) {
            let skip = (n_token - n_patch) * d;
            let (class, patches) = dx.split_at_mut(skip);
            class.fill(0.0);
            match &self.layout.final_norm {
                Some(norm) => self.norm_backward(norm, &tokens[skip..], grad, patches, grads, &mut scratch.d_norm),
                None => patches.copy_from_slice(grad),
            }
        }
        scratch.dx = dx;
    }

    /// Turns `dx` from the gradient of `x2` into that of `x1`.
    fn mlp_backward(&self, layer: &Layer, a: &LayerActivations, grads: &mut [f32], s: &mut Scratch) {
        let d = self.config.hidden_size;
        let d_branch = self.scale_backward(&layer.scale2, &a.branch2, &s.dx, grads, &mut s.d_branch);
        let f = self.config.intermediate_size;
        self.linear_backward(&layer.fc2, &a.activated, d_branch, f, Write::Set, grads, &mut s.d_activated);
        s.d_hidden.resize(a.hidden.len(), 0.0);
        activation::backward(self.kernels, self.activation(), (&a.hidden, &s.d_activated), &mut s.d_hidden)
            .expect("equal lengths");
        self.linear_backward(&layer.fc1, &a.normed2, &s.d_hidden, d, Write::Set, grads, &mut s.d_normed);
        s.d_attended.resize(s.dx.len(), 0.0);
        self.norm_backward(&layer.norm2, &a.x1, &s.d_normed, &mut s.d_attended, grads, &mut s.d_norm);
        add(&mut s.dx, &s.d_attended);
    }

    /// Turns `dx` from the gradient of `x1` into that of `x`.
    fn attention_backward(&self, layer: &Layer, a: &LayerActivations, grads: &mut [f32], s: &mut Scratch) {
        let d = self.config.hidden_size;
        let d_branch = self.scale_backward(&layer.scale1, &a.branch1, &s.dx, grads, &mut s.d_branch);
        self.linear_backward(&layer.out, &a.attended, d_branch, d, Write::Set, grads, &mut s.d_attended);
        for buffer in &mut s.d_qkv {
            buffer.resize(a.x.len(), 0.0);
        }
        let [q, k, v] = s.d_qkv.each_mut().map(|buffer| RowsMut::new(buffer, d));
        attention::backward(
            self.kernels,
            &self.attention_input(&a.qkv),
            Rows::new(&s.d_attended, d),
            AttentionGrads { q, k, v },
            &mut s.attention,
        )
        .expect("the buffers were sized for the shape");
        for (i, (projection, d_out)) in layer.qkv.iter().zip(&s.d_qkv).enumerate() {
            let write = if i == 0 { Write::Set } else { Write::Add };
            self.linear_backward(projection, &a.normed1, d_out, d, write, grads, &mut s.d_normed);
        }
        self.norm_backward(&layer.norm1, &a.x, &s.d_normed, &mut s.d_attended, grads, &mut s.d_norm);
        add(&mut s.dx, &s.d_attended);
    }

    fn embed_backward(&self, patches: &[f32], group: &Group, grads: &mut [f32], s: &mut Scratch) {
        let (n_token, n_patch, d) = (self.config.n_token(), self.config.n_patch(), self.config.hidden_size);
        let mut dx = std::mem::take(&mut s.dx);
        if let Some(pre_norm) = &self.layout.pre_norm {
            s.d_attended.resize(dx.len(), 0.0);
            self.norm_backward(pre_norm, &group.embedded, &dx, &mut s.d_attended, grads, &mut s.d_norm);
            std::mem::swap(&mut dx, &mut s.d_attended);
        }
        s.d_normed.clear();
        for tokens in dx.chunks_exact(n_token * d) {
            let (class, patches) = tokens.split_at((n_token - n_patch) * d);
            add(&mut grads[self.layout.positions.clone()], tokens);
            if let Some(token) = &self.layout.class_token {
                add(&mut grads[token.clone()], class);
            }
            s.d_normed.extend_from_slice(patches);
        }
        let projection = &self.layout.projection;
        gemm::backward_weight(
            self.precision,
            Write::Add,
            &s.d_normed,
            patches,
            self.config.patch_dim(),
            &mut grads[projection.weight.clone()],
        );
        if let Some(bias) = &projection.bias {
            gemm::backward_bias(Write::Add, &s.d_normed, &mut grads[bias.clone()]);
        }
        s.dx = dx;
    }

    /// The gradient of a branch before its layer scale; `dx` itself without one.
    fn scale_backward<'b>(
        &self,
        scale: &Option<Range<usize>>,
        branch: &[f32],
        dx: &'b [f32],
        grads: &mut [f32],
        d_branch: &'b mut Vec<f32>,
    ) -> &'b [f32] {
        let Some(range) = scale else { return dx };
        let (scale, d_scale) = (&self.parameters[range.clone()], &mut grads[range.clone()]);
        d_branch.resize(dx.len(), 0.0);
        let rows = dx.chunks_exact(scale.len()).zip(branch.chunks_exact(scale.len()));
        for ((dx, branch), out) in rows.zip(d_branch.chunks_exact_mut(scale.len())) {
            for i in 0..scale.len() {
                d_scale[i] += dx[i] * branch[i];
                out[i] = dx[i] * scale[i];
            }
        }
        d_branch
    }

    fn linear(&self, write: Write, x: &[f32], weights: (&[f32], Option<&[f32]>), n_in: usize, y: &mut Vec<f32>) {
        let n_out = weights.0.len() / n_in;
        y.resize(x.len() / n_in * n_out, 0.0);
        gemm::forward(self.precision, write, x, weights, n_in, y);
    }

    #[expect(clippy::too_many_arguments, reason = "the operands of one product and where its three results go")]
    fn linear_backward(
        &self,
        range: &LinearRange,
        x: &[f32],
        dy: &[f32],
        n_in: usize,
        write: Write,
        grads: &mut [f32],
        dx: &mut Vec<f32>,
    ) {
        gemm::backward_weight(self.precision, Write::Add, dy, x, n_in, &mut grads[range.weight.clone()]);
        if let Some(bias) = &range.bias {
            gemm::backward_bias(Write::Add, dy, &mut grads[bias.clone()]);
        }
        dx.resize(x.len(), 0.0);
        gemm::backward_input(self.precision, write, dy, &self.parameters[range.weight.clone()], n_in, dx);
    }

    fn norm_forward(&self, range: &LinearRange, x: &[f32], y: &mut [f32]) {
        let norm = self.norm(range);
        let (width, rows) = (norm.width(), x.len() / norm.width());
        norm::forward(self.kernels, &norm, rows, Rows::new(x, width), RowsMut::new(y, width)).expect("whole rows");
    }

    /// Overwrites `dx` and adds the gradients of weight and bias; `d_norm` is scratch for the two.
    fn norm_backward(
        &self,
        range: &LinearRange,
        x: &[f32],
        dy: &[f32],
        dx: &mut [f32],
        grads: &mut [f32],
        d_norm: &mut Vec<f32>,
    ) {
        let norm = self.norm(range);
        let (width, rows) = (norm.width(), x.len() / norm.width());
        d_norm.resize(2 * width, 0.0);
        let (weight, bias) = d_norm.split_at_mut(width);
        let out = NormGrads { x: RowsMut::new(dx, width), weight, bias: Some(bias) };
        norm::backward(self.kernels, &norm, rows, (Rows::new(x, width), Rows::new(dy, width)), out)
            .expect("whole rows");
        add(&mut grads[range.weight.clone()], &d_norm[..width]);
        add(&mut grads[range.bias.clone().expect("every norm here has a bias")], &d_norm[width..]);
    }

    fn norm(&self, range: &LinearRange) -> Norm<'_> {
        let (weight, bias) = range.view(self.parameters);
        Norm { kind: NormKind::Layer, weight, bias, eps: self.config.layer_norm_eps }
    }

    fn attention_input<'b>(&self, [q, k, v]: &'b [Vec<f32>; 3]) -> AttentionInput<'b> {
        let (n_token, width) = (self.config.n_token(), self.config.hidden_size);
        let (n_head, head_dim) = (self.config.num_attention_heads, self.config.head_dim());
        AttentionInput {
            shape: AttentionShape {
                batch: q.len() / width / n_token,
                n_query: n_token,
                n_key: n_token,
                n_head,
                head_dim,
            },
            q: Rows::new(q, width),
            k: Rows::new(k, width),
            v: Rows::new(v, width),
            scale: (head_dim as f32).sqrt().recip(),
            mask: Mask::Full,
            format: self.precision.format(),
        }
    }

    fn activation(&self) -> Activation {
        crate::modules::activation(self.config.kind.activation())
    }
}

/// Where a matrix or a norm lies in the flat parameters.
#[derive(Clone, Debug)]
struct LinearRange {
    weight: Range<usize>,
    bias: Option<Range<usize>>,
}

impl LinearRange {
    fn view<'a>(&self, parameters: &'a [f32]) -> (&'a [f32], Option<&'a [f32]>) {
        (&parameters[self.weight.clone()], self.bias.clone().map(|bias| &parameters[bias]))
    }
}

#[derive(Clone, Debug)]
struct Layer {
    norm1: LinearRange,
    qkv: [LinearRange; 3],
    out: LinearRange,
    scale1: Option<Range<usize>>,
    norm2: LinearRange,
    fc1: LinearRange,
    fc2: LinearRange,
    scale2: Option<Range<usize>>,
}

/// Where every parameter lies in the flat vector.
#[derive(Clone, Debug)]
struct Layout {
    names: Vec<String>,
    class_token: Option<Range<usize>>,
    projection: LinearRange,
    positions: Range<usize>,
    pre_norm: Option<LinearRange>,
    layers: Vec<Layer>,
    final_norm: Option<LinearRange>,
}

impl Layout {
    /// `specs` are the encoder's parameters with their names below `vision.`.
    fn new(config: &VisionConfig, specs: &[ParamSpec]) -> Self {
        let mut at = 0;
        let ranges: Vec<(String, Range<usize>)> = specs
            .iter()
            .map(|spec| {
                at += spec.numel();
                (spec.name.clone(), at - spec.numel()..at)
            })
            .collect();
        let find = |name: &str| ranges.iter().find(|(other, _)| other == name).map(|(_, range)| range.clone());
        let linear = |name: &str| {
            let weight = find(&format!("{name}.weight"))?;
            Some(LinearRange { weight, bias: find(&format!("{name}.bias")) })
        };
        let known =
            |range: Option<LinearRange>| range.expect("the model crate lists every parameter of its configuration");
        let layer = |i: usize| {
            let name = |part: &str| format!("encoder.layer.{i}.{part}");
            Layer {
                norm1: known(linear(&name("layernorm_before"))),
                qkv: ["query", "key", "value"].map(|p| known(linear(&name(&format!("attention.attention.{p}"))))),
                out: known(linear(&name("attention.output.dense"))),
                scale1: find(&name("layer_scale1.lambda1")),
                norm2: known(linear(&name("layernorm_after"))),
                fc1: known(linear(&name("intermediate.dense"))),
                fc2: known(linear(&name("output.dense"))),
                scale2: find(&name("layer_scale2.lambda1")),
            }
        };
        Self {
            class_token: find("embeddings.cls_token"),
            projection: known(linear("embeddings.patch_embeddings.projection")),
            positions: find("embeddings.position_embeddings").expect("every encoder has positions"),
            pre_norm: linear("pre_layernorm"),
            layers: (0..config.num_hidden_layers).map(layer).collect(),
            final_norm: linear("layernorm"),
            names: ranges.iter().map(|(name, _)| name.clone()).collect(),
        }
    }
}
