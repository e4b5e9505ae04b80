//! The whole vision transformer as one operation.
//!
//! Vision is nine tenths of the arithmetic of training. Each core runs one group of frames at a time, so a layer's
//! activations stay in its cache. Buffers are kept from step to step, because fresh pages of a gigabyte are costly.
//! The backward pass is the chain rule written out:
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
use crate::gemm::{self, Layer as LinearLayer, Mode, Precision, Write, add};
use crate::lanes::Lanes;

/// Approximate number of rows (tokens) of a group: a layer's activations fit the second-level cache.
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
                network.backward(GroupPass { patches, group, grad }, &mut grads, &mut scratch);
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

/// Inputs of the backward pass of a group.
struct GroupPass<'a> {
    patches: &'a [f32],
    group: &'a Group,
    /// Gradient of the group's patch tokens.
    grad: &'a [f32],
}

/// Inputs of the backward pass of a linear layer or a norm.
struct LayerPass<'a> {
    range: &'a LinearRange,
    /// Input of the forward pass.
    x: &'a [f32],
    /// Gradient of the output.
    dy: &'a [f32],
}

/// Output of a branch before its layer scale, if it has one.
struct Scaled<'a> {
    range: &'a Option<Range<usize>>,
    branch: &'a [f32],
}

/// A residual branch: its last linear layer and its layer scale.
struct Branch<'a> {
    projection: &'a LinearRange,
    scale: &'a Option<Range<usize>>,
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
        self.linear(Write::Set, &self.layout.projection, patches, &mut projected);
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
            self.linear(Write::Set, projection, &a.normed1, out);
        }
        attention::forward(self.kernels, &self.attention_input(&a.qkv), RowsMut::new(&mut a.attended, d), scratch)
            .expect("the buffers were sized for the shape");
        a.x1.copy_from_slice(&a.x);
        let branch = Branch { projection: &layer.out, scale: &layer.scale1 };
        self.branch_forward(branch, &a.attended, &mut a.branch1, &mut a.x1);
        self.norm_forward(&layer.norm2, &a.x1, &mut a.normed2);
        self.linear(Write::Set, &layer.fc1, &a.normed2, &mut a.hidden);
        a.activated.resize(a.hidden.len(), 0.0);
        activation::forward(self.kernels, self.activation(), &a.hidden, &mut a.activated).expect("equal lengths");
        x2.copy_from_slice(&a.x1);
        let branch = Branch { projection: &layer.fc2, scale: &layer.scale2 };
        self.branch_forward(branch, &a.activated, &mut a.branch2, x2);
    }

    /// `sum += scale * (x W^T + b)`; `output` gets the product if there is a scale.
    fn branch_forward(&self, branch: Branch, x: &[f32], output: &mut Vec<f32>, sum: &mut Vec<f32>) {
        let Some(scale) = branch.scale else {
            return self.linear(Write::Add, branch.projection, x, sum);
        };
        self.linear(Write::Set, branch.projection, x, output);
        let scale = &self.parameters[scale.clone()];
        for (sum, branch) in sum.chunks_exact_mut(scale.len()).zip(output.chunks_exact(scale.len())) {
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
    fn backward(&self, pass: GroupPass, grads: &mut [f32], scratch: &mut Scratch) {
        let GroupPass { patches, group, grad } = pass;
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
                Some(range) => {
                    let pass = LayerPass { range, x: &tokens[skip..], dy: grad };
                    self.norm_backward(pass, patches, grads, &mut scratch.d_norm);
                }
                None => patches.copy_from_slice(grad),
            }
        }
        scratch.dx = dx;
    }

    /// Turns `dx` from the gradient of `x2` into that of `x1`.
    fn mlp_backward(&self, layer: &Layer, a: &LayerActivations, grads: &mut [f32], s: &mut Scratch) {
        let scaled = Scaled { range: &layer.scale2, branch: &a.branch2 };
        let dy = self.scale_backward(scaled, &s.dx, grads, &mut s.d_branch);
        let pass = LayerPass { range: &layer.fc2, x: &a.activated, dy };
        self.linear_backward(pass, Write::Set, grads, &mut s.d_activated);
        s.d_hidden.resize(a.hidden.len(), 0.0);
        activation::backward(self.kernels, self.activation(), (&a.hidden, &s.d_activated), &mut s.d_hidden)
            .expect("equal lengths");
        let pass = LayerPass { range: &layer.fc1, x: &a.normed2, dy: &s.d_hidden };
        self.linear_backward(pass, Write::Set, grads, &mut s.d_normed);
        s.d_attended.resize(s.dx.len(), 0.0);
        let pass = LayerPass { range: &layer.norm2, x: &a.x1, dy: &s.d_normed };
        self.norm_backward(pass, &mut s.d_attended, grads, &mut s.d_norm);
        add(&mut s.dx, &s.d_attended);
    }

    /// Turns `dx` from the gradient of `x1` into that of `x`.
    fn attention_backward(&self, layer: &Layer, a: &LayerActivations, grads: &mut [f32], s: &mut Scratch) {
        let d = self.config.hidden_size;
        let scaled = Scaled { range: &layer.scale1, branch: &a.branch1 };
        let dy = self.scale_backward(scaled, &s.dx, grads, &mut s.d_branch);
        let pass = LayerPass { range: &layer.out, x: &a.attended, dy };
        self.linear_backward(pass, Write::Set, grads, &mut s.d_attended);
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
        for (i, (range, dy)) in layer.qkv.iter().zip(&s.d_qkv).enumerate() {
            let write = if i == 0 { Write::Set } else { Write::Add };
            self.linear_backward(LayerPass { range, x: &a.normed1, dy }, write, grads, &mut s.d_normed);
        }
        let pass = LayerPass { range: &layer.norm1, x: &a.x, dy: &s.d_normed };
        self.norm_backward(pass, &mut s.d_attended, grads, &mut s.d_norm);
        add(&mut s.dx, &s.d_attended);
    }

    fn embed_backward(&self, patches: &[f32], group: &Group, grads: &mut [f32], s: &mut Scratch) {
        let (n_token, n_patch, d) = (self.config.n_token(), self.config.n_patch(), self.config.hidden_size);
        let mut dx = std::mem::take(&mut s.dx);
        if let Some(range) = &self.layout.pre_norm {
            s.d_attended.resize(dx.len(), 0.0);
            let pass = LayerPass { range, x: &group.embedded, dy: &dx };
            self.norm_backward(pass, &mut s.d_attended, grads, &mut s.d_norm);
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
        self.parameters_backward(&LayerPass { range: projection, x: patches, dy: &s.d_normed }, grads);
        s.dx = dx;
    }

    /// The gradient of a branch before its layer scale; `dx` itself without one.
    fn scale_backward<'b>(
        &self,
        scaled: Scaled,
        dx: &'b [f32],
        grads: &mut [f32],
        d_branch: &'b mut Vec<f32>,
    ) -> &'b [f32] {
        let Scaled { range: Some(range), branch } = scaled else { return dx };
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

    fn mode(&self, write: Write) -> Mode {
        Mode { precision: self.precision, write }
    }

    fn linear(&self, write: Write, range: &LinearRange, x: &[f32], y: &mut Vec<f32>) {
        let layer = range.layer(self.parameters);
        y.resize(x.len() / layer.n_in * layer.n_out(), 0.0);
        gemm::forward(self.mode(write), layer, x, y);
    }

    /// Adds the gradients of weight and bias to `grads`; `write` says what becomes of the values in `dx`.
    fn linear_backward(&self, pass: LayerPass, write: Write, grads: &mut [f32], dx: &mut Vec<f32>) {
        self.parameters_backward(&pass, grads);
        dx.resize(pass.x.len(), 0.0);
        gemm::backward_input(self.mode(write), pass.range.layer(self.parameters), pass.dy, dx);
    }

    /// Adds the gradients of weight and bias of a linear layer to `grads`.
    fn parameters_backward(&self, &LayerPass { range, x, dy }: &LayerPass, grads: &mut [f32]) {
        gemm::backward_weight(self.mode(Write::Add), range.n_in, [dy, x], &mut grads[range.weight.clone()]);
        if let Some(bias) = &range.bias {
            gemm::backward_bias(Write::Add, dy, &mut grads[bias.clone()]);
        }
    }

    fn norm_forward(&self, range: &LinearRange, x: &[f32], y: &mut [f32]) {
        let norm = self.norm(range);
        let (width, rows) = (norm.width(), x.len() / norm.width());
        norm::forward(self.kernels, &norm, rows, Rows::new(x, width), RowsMut::new(y, width)).expect("whole rows");
    }

    /// Overwrites `dx` and adds the gradients of weight and bias; `d_norm` is scratch for the two.
    fn norm_backward(&self, pass: LayerPass, dx: &mut [f32], grads: &mut [f32], d_norm: &mut Vec<f32>) {
        let LayerPass { range, x, dy } = pass;
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
        let LinearLayer { weight, bias, .. } = range.layer(self.parameters);
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
        match self.config.kind.activation() {
            robomamba_model::Activation::Gelu => Activation::Gelu,
            robomamba_model::Activation::GeluTanh => Activation::GeluTanh,
            robomamba_model::Activation::QuickGelu => Activation::GeluQuick,
        }
    }
}

/// Where a matrix or a norm lies in the flat parameters.
#[derive(Clone, Debug)]
struct LinearRange {
    weight: Range<usize>,
    bias: Option<Range<usize>>,
    /// Width of a matrix's input; 1 for a norm.
    n_in: usize,
}

impl LinearRange {
    fn layer<'a>(&self, parameters: &'a [f32]) -> LinearLayer<'a> {
        let bias = self.bias.clone().map(|bias| &parameters[bias]);
        LinearLayer { weight: &parameters[self.weight.clone()], bias, n_in: self.n_in }
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
            let spec = specs.iter().find(|spec| spec.name.strip_suffix(".weight") == Some(name))?;
            let n_in = spec.shape[1..].iter().product();
            Some(LinearRange { weight: find(&spec.name)?, bias: find(&format!("{name}.bias")), n_in })
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
