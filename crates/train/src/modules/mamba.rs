//! The Mamba backbone: `x + mixer(RMSNorm(x))` per block, names of state-spaces/mamba.

use std::sync::Arc;

use burn::tensor::Tensor;
use robomamba_model::MambaConfig;

use super::batch::SequenceState;
use super::layers::{linear_unbiased, rms_norm};
use crate::ops::mixer::{MixerShape, MixerStart, mixer};
use crate::ops::{self};
use crate::parameters::Scope;

/// Steps of each sequence, and the state of each before its first step (zeros where absent).
pub(crate) struct Sequences<'a> {
    /// Steps of each sequence.
    pub lengths: &'a Arc<[usize]>,
    /// State of each sequence; may be shorter than `lengths`.
    pub initial: &'a [Option<SequenceState>],
}

/// Runs `x` `[rows, d_model]`, the sequences one after the other, through the backbone. Also returns the state of each
/// sequence after its last step.
pub(crate) fn forward(
    config: &MambaConfig,
    scope: &Scope,
    mut x: Tensor<2>,
    Sequences { lengths, initial }: Sequences,
) -> (Tensor<2>, Vec<SequenceState>) {
    let shape = MixerShape {
        lengths: Arc::clone(lengths),
        d_inner: config.d_inner(),
        d_state: config.d_state,
        d_conv: config.d_conv,
        dt_rank: config.dt_rank,
    };
    let names = ["conv1d.weight", "conv1d.bias", "x_proj.weight", "dt_proj.weight", "dt_proj.bias", "A_log", "D"];
    let mut last: Vec<SequenceState> = vec![Vec::with_capacity(config.n_layer); lengths.len()];
    for i in 0..config.n_layer {
        let layer = scope.under(&format!("layers.{i}"));
        let block = layer.under("mixer");
        let xz = linear_unbiased(&block, "in_proj", &rms_norm(&layer, "norm", &x, config.rms_norm_eps));
        let before = |j: usize| Some(initial.get(j)?.as_ref()?[i].clone());
        let before = (0..lengths.len()).map(before).collect();
        let parameters = names.map(|name| block.input(name));
        let start = MixerStart { shape: shape.clone(), initial: before, precision: scope.precision() };
        let (y, after) = mixer(start, ops::input(&xz), parameters);
        x = x + linear_unbiased(&block, "out_proj", &y);
        last.iter_mut().zip(after).for_each(|(state, block)| state.push(block));
    }
    (rms_norm(scope, "norm_f", &x, config.rms_norm_eps), last)
}
