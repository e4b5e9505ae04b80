//! The Mamba backbone.
//!
//! Gu and Dao, arXiv 2312.00752. Upstream: `MixerModel` and `Mamba` of state-spaces/mamba,
//! `transformers.MambaModel`. One block is `x += mixer(rms_norm(x))`, and the mixer is
//!
//! ```text
//! x, z        = in_proj(x)                              [d_inner] each
//! u           = silu(conv1d(x))                         causal, per channel
//! delta, B, C = x_proj(u)                               [dt_rank], [d_state], [d_state]
//! y           = selective_scan(u, dt_proj(delta), B, C, z)
//! out         = out_proj(y)
//! ```
//!
//! [`Mamba::forward`] runs whole sequences, [`Mamba::step`] one element; both carry a [`MambaState`] and
//! agree to rounding.

use robomamba_kernels::conv1d::{self, ConvInput, ConvOutput, ConvShape};
use robomamba_kernels::matmul::{Format, PackedMatrix};
use robomamba_kernels::scan::{self, ScanInput, ScanOutput, ScanParams, ScanShape};
use robomamba_kernels::{Rows, RowsMut};
use robomamba_model::{MambaConfig, Tensors};

use crate::RuntimeError;
use crate::blocks::{Linear, add_and_normalise, normalise};
use crate::error::check_len;
use crate::params::{Bias, NormParams, Params};
use crate::state::{MambaState, StateLayout};
use crate::workspace::{Workspace, room};

/// Steps of a sequence that go through all layers at a time.
const PIECE: usize = 512;

/// A packed Mamba backbone.
#[derive(Clone, Debug)]
pub struct Mamba {
    layers: Vec<MambaLayer>,
    norm_f: NormParams,
    config: MambaConfig,
}

#[derive(Clone, Debug)]
struct MambaLayer {
    norm: NormParams,
    in_proj: PackedMatrix,
    /// `[d_inner, d_conv]`.
    conv_weight: Vec<f32>,
    /// `[d_inner]`.
    conv_bias: Vec<f32>,
    x_proj: PackedMatrix,
    /// Without its bias, which the scan adds.
    dt_proj: PackedMatrix,
    /// `[d_inner]`.
    dt_bias: Vec<f32>,
    /// `[d_inner, d_state]`.
    a_log: Vec<f32>,
    /// `[d_inner]`.
    d: Vec<f32>,
    out_proj: PackedMatrix,
    /// The same parameters as the convolution's and the scan's, prepared for single steps.
    conv_step: conv1d::StepWeights,
    scan_step: scan::StepWeights,
}

impl Mamba {
    /// Packs the parameters below `prefix` (`backbone` in a RoboMamba checkpoint).
    ///
    /// # Errors
    /// When a parameter is missing or has another shape than `config` says.
    pub fn new(
        format: Format,
        config: &MambaConfig,
        weights: &dyn Tensors,
        prefix: &str,
    ) -> Result<Self, RuntimeError> {
        let params = Params::new(format, weights, prefix);
        let layers = (0..config.n_layer)
            .map(|i| MambaLayer::new(config, &params.under(format!("layers.{i}"))))
            .collect::<Result<_, _>>()?;
        let norm_f = params.rms_norm("norm_f", config.d_model, config.rms_norm_eps)?;
        Ok(Self { layers, norm_f, config: config.clone() })
    }

    /// Bytes of its packed matrices, all of which a step reads.
    pub fn matrix_bytes(&self) -> usize {
        let matrices =
            self.layers.iter().flat_map(|layer| [&layer.in_proj, &layer.x_proj, &layer.dt_proj, &layer.out_proj]);
        matrices.map(PackedMatrix::bytes).sum()
    }

    /// Sizes of the backbone.
    pub fn config(&self) -> &MambaConfig {
        &self.config
    }

    /// Runs the sequence `x` `[seq_len, d_model]` from `state` on, in parallel over its steps, and writes
    /// `hidden` `[seq_len, d_model]`.
    ///
    /// # Errors
    /// When an argument has another length or the state belongs to another backbone.
    pub fn forward(
        &self,
        x: &[f32],
        state: &mut MambaState,
        hidden: &mut [f32],
        workspace: &mut Workspace,
    ) -> Result<(), RuntimeError> {
        let d_model = self.config.d_model;
        check_len("x", x.len(), x.len() / d_model * d_model)?;
        check_len("hidden", hidden.len(), x.len())?;
        self.check_state(state)?;
        // Piece by piece, so that what lies between the layers stays in cache however long the sequence is.
        for (x, hidden) in x.chunks(PIECE * d_model).zip(hidden.chunks_mut(PIECE * d_model)) {
            self.forward_batch(x, &mut [state], hidden, workspace)?;
        }
        Ok(())
    }

    /// Like [`Mamba::forward`] for several sequences of one length: `x` and `hidden` are
    /// `[batch, seq_len, d_model]`, and there is one state per sequence.
    ///
    /// # Errors
    /// When an argument has another length or a state belongs to another backbone.
    pub fn forward_batch(
        &self,
        x: &[f32],
        states: &mut [&mut MambaState],
        hidden: &mut [f32],
        workspace: &mut Workspace,
    ) -> Result<(), RuntimeError> {
        let (d_model, batch) = (self.config.d_model, states.len());
        let seq_len = x.len() / (batch * d_model).max(1);
        let rows = batch * seq_len;
        check_len("x", x.len(), rows * d_model)?;
        check_len("hidden", hidden.len(), x.len())?;
        states.iter().try_for_each(|state| self.check_state(state))?;
        self.begin(x, workspace)?;
        for (i, layer) in self.layers.iter().enumerate() {
            layer.project_in(rows, workspace)?;
            self.convolve(i, rows, states, workspace)?;
            layer.project_delta(rows, workspace)?;
            self.scan(i, rows, states, workspace)?;
            layer.project_out(rows, workspace)?;
            add_and_normalise(self.norm_before(i + 1), rows, workspace)?;
        }
        hidden.copy_from_slice(&workspace.normed[..x.len()]);
        Ok(())
    }

    /// Takes one element `x` `[d_model]`, advances `state` and writes `hidden` `[d_model]`. Allocates nothing.
    ///
    /// # Errors
    /// When an argument has another length or the state belongs to another backbone.
    pub fn step(
        &self,
        x: &[f32],
        state: &mut MambaState,
        hidden: &mut [f32],
        workspace: &mut Workspace,
    ) -> Result<(), RuntimeError> {
        check_len("x", x.len(), self.config.d_model)?;
        check_len("hidden", hidden.len(), x.len())?;
        self.check_state(state)?;
        self.begin(x, workspace)?;
        for (i, layer) in self.layers.iter().enumerate() {
            let (conv, ssm) = state.layer_mut(i);
            layer.project_in(1, workspace)?;
            layer.convolve_step(conv, workspace)?;
            layer.project_delta(1, workspace)?;
            layer.scan_step(ssm, workspace)?;
            layer.project_out(1, workspace)?;
            add_and_normalise(self.norm_before(i + 1), 1, workspace)?;
        }
        hidden.copy_from_slice(&workspace.normed[..x.len()]);
        Ok(())
    }

    /// Starts the residual stream with `x` and norms it for the first layer.
    fn begin(&self, x: &[f32], workspace: &mut Workspace) -> Result<(), RuntimeError> {
        room(&mut workspace.residual, x.len()).copy_from_slice(x);
        normalise(self.norm_before(0), x.len() / self.config.d_model, workspace)
    }

    /// Convolution of layer `i`: the left half of `workspace.projected` to `workspace.mixed` `[rows, d_inner]`.
    fn convolve(
        &self,
        i: usize,
        rows: usize,
        states: &mut [&mut MambaState],
        workspace: &mut Workspace,
    ) -> Result<(), RuntimeError> {
        let (layer, d_inner, seq_len) = (&self.layers[i], self.config.d_inner(), rows / states.len());
        let Workspace { kernels, projected, mixed, start, .. } = workspace;
        let mixed = room(mixed, rows * d_inner);
        for (b, state) in states.iter_mut().enumerate() {
            let (conv, _) = state.layer_mut(i);
            let start = room(start, conv.len());
            start.copy_from_slice(conv);
            let input = ConvInput {
                shape: ConvShape { batch: 1, seq_len, d_inner, d_conv: self.config.d_conv },
                x: Rows::strided(&projected[b * seq_len * 2 * d_inner..], 2 * d_inner),
                weight: &layer.conv_weight,
                bias: &layer.conv_bias,
                state: Some(start),
            };
            let y = RowsMut::new(&mut mixed[b * seq_len * d_inner..], d_inner);
            conv1d::forward(*kernels, &input, ConvOutput { y, state_last: conv })?;
        }
        Ok(())
    }

    /// Gated scan of layer `i`: `workspace.mixed` to `workspace.hidden` `[rows, d_inner]`.
    fn scan(
        &self,
        i: usize,
        rows: usize,
        states: &mut [&mut MambaState],
        workspace: &mut Workspace,
    ) -> Result<(), RuntimeError> {
        let (layer, d_inner, seq_len) = (&self.layers[i], self.config.d_inner(), rows / states.len());
        let (dt_rank, d_state, width) = (self.config.dt_rank, self.config.d_state, layer.x_proj.n_out());
        let Workspace { kernels, projected, mixed, hidden, narrow, delta, start, .. } = workspace;
        let hidden = room(hidden, rows * d_inner);
        for (b, state) in states.iter_mut().enumerate() {
            let (_, ssm) = state.layer_mut(i);
            let (start, first) = (room(start, ssm.len()), b * seq_len);
            start.copy_from_slice(ssm);
            let input = ScanInput {
                shape: ScanShape { batch: 1, seq_len, d_inner, d_state },
                params: ScanParams { a_log: &layer.a_log, d: &layer.d, dt_bias: &layer.dt_bias },
                u: Rows::new(&mixed[first * d_inner..], d_inner),
                delta: Rows::new(&delta[first * d_inner..], d_inner),
                b: Rows::strided(&narrow[first * width + dt_rank..], width),
                c: Rows::strided(&narrow[first * width + dt_rank + d_state..], width),
                z: Some(Rows::strided(&projected[first * 2 * d_inner + d_inner..], 2 * d_inner)),
                h0: Some(start),
            };
            let y = RowsMut::new(&mut hidden[first * d_inner..], d_inner);
            scan::forward(*kernels, &input, ScanOutput { y, h_last: ssm }, None)?;
        }
        Ok(())
    }

    /// The norm in front of layer `i`, or the final one behind the last layer.
    fn norm_before(&self, i: usize) -> &NormParams {
        self.layers.get(i).map_or(&self.norm_f, |layer| &layer.norm)
    }

    fn check_state(&self, state: &MambaState) -> Result<(), RuntimeError> {
        let MambaConfig { n_layer, d_conv, d_state, .. } = self.config;
        let expected = StateLayout::Mamba { n_layer, d_inner: self.config.d_inner(), d_conv, d_state };
        let found = state.layout();
        if found == expected { Ok(()) } else { Err(expected.mismatch(&found)) }
    }
}

impl MambaLayer {
    fn new(config: &MambaConfig, params: &Params) -> Result<Self, RuntimeError> {
        let MambaConfig { d_model, d_state, d_conv, dt_rank, rms_norm_eps, .. } = *config;
        let (d_inner, mixer) = (config.d_inner(), params.under("mixer"));
        let conv_weight = mixer.vec("conv1d.weight", &[d_inner, 1, d_conv])?;
        let conv_bias = mixer.vec("conv1d.bias", &[d_inner])?;
        let dt_bias = mixer.vec("dt_proj.bias", &[d_inner])?;
        let a_log = mixer.vec("A_log", &[d_inner, d_state])?;
        let d = mixer.vec("D", &[d_inner])?;
        let scan_params = ScanParams { a_log: &a_log, d: &d, dt_bias: &dt_bias };
        Ok(Self {
            norm: params.rms_norm("norm", d_model, rms_norm_eps)?,
            in_proj: mixer.linear("in_proj", (2 * d_inner, d_model), Bias::Without)?,
            x_proj: mixer.fine().linear("x_proj", (dt_rank + 2 * d_state, d_inner), Bias::Without)?,
            dt_proj: mixer.fine().linear("dt_proj", (d_inner, dt_rank), Bias::Without)?,
            out_proj: mixer.linear("out_proj", (d_model, d_inner), Bias::Without)?,
            conv_step: conv1d::StepWeights::new((d_inner, d_conv), &conv_weight, &conv_bias)?,
            scan_step: scan::StepWeights::new((d_inner, d_state), &scan_params)?,
            conv_weight,
            conv_bias,
            dt_bias,
            a_log,
            d,
        })
    }

    /// `workspace.normed` `[rows, d_model]` to `workspace.projected` `[rows, 2 * d_inner]`, input and gate.
    fn project_in(&self, rows: usize, workspace: &mut Workspace) -> Result<(), RuntimeError> {
        let Workspace { kernels, converted, normed, projected, .. } = workspace;
        let projected = room(projected, rows * self.in_proj.n_out());
        Linear { kernels: *kernels, converted }.apply(&self.in_proj, &normed[..rows * self.in_proj.n_in()], projected)
    }

    /// `workspace.mixed` `[rows, d_inner]` to the low-rank step size with `B` and `C` in `workspace.narrow`,
    /// and that step size to its full rank in `workspace.delta` `[rows, d_inner]`.
    fn project_delta(&self, rows: usize, workspace: &mut Workspace) -> Result<(), RuntimeError> {
        let Workspace { kernels, converted, mixed, narrow, delta, .. } = workspace;
        let width = self.x_proj.n_out();
        let narrow = room(narrow, rows * width);
        Linear { kernels: *kernels, converted }.apply(&self.x_proj, &mixed[..rows * self.x_proj.n_in()], narrow)?;
        let d_inner = self.dt_proj.n_out();
        let delta = RowsMut::new(room(delta, rows * d_inner), d_inner);
        Ok(self.dt_proj.apply(*kernels, rows, Rows::strided(narrow, width), delta, converted)?)
    }

    /// `workspace.hidden` `[rows, d_inner]` to `workspace.branch` `[rows, d_model]`.
    fn project_out(&self, rows: usize, workspace: &mut Workspace) -> Result<(), RuntimeError> {
        let Workspace { kernels, converted, hidden, branch, .. } = workspace;
        let branch = room(branch, rows * self.out_proj.n_out());
        Linear { kernels: *kernels, converted }.apply(&self.out_proj, &hidden[..rows * self.out_proj.n_in()], branch)
    }

    /// The convolution for one step; like [`Mamba::convolve`], with `state` `[d_inner, d_conv - 1]` in place.
    fn convolve_step(&self, state: &mut [f32], workspace: &mut Workspace) -> Result<(), RuntimeError> {
        let Workspace { kernels, projected, mixed, .. } = workspace;
        let d_inner = self.d.len();
        Ok(conv1d::step(*kernels, &self.conv_step, &projected[..d_inner], state, room(mixed, d_inner))?)
    }

    /// The scan for one step; like [`Mamba::scan`], with `state` `[d_inner, d_state]` in place.
    fn scan_step(&self, state: &mut [f32], workspace: &mut Workspace) -> Result<(), RuntimeError> {
        let Workspace { kernels, projected, mixed, hidden, narrow, delta, .. } = workspace;
        let (d_inner, d_state) = (self.d.len(), self.scan_step.d_state());
        let (b, c) = narrow[self.dt_proj.n_in()..][..2 * d_state].split_at(d_state);
        let input = scan::StepInput {
            u: &mixed[..d_inner],
            delta: &delta[..d_inner],
            b,
            c,
            z: Some(&projected[d_inner..2 * d_inner]),
        };
        Ok(scan::step(*kernels, &self.scan_step, &input, state, room(hidden, d_inner))?)
    }
}
