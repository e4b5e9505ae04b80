//! The Mamba trunk: `x + mixer(RMSNorm(x))` per block, names of state-spaces/mamba.

use std::sync::Arc;

use burn::tensor::Tensor;
use robomamba_model::MambaConfig;

use super::{linear_unbiased, rms_norm};
use crate::ops::mixer::{BlockState, MixerShape, mixer};
use crate::ops::{self};
use crate::parameters::Scope;

/// The state of one sequence: one entry per block.
pub(crate) type SequenceState = Vec<BlockState>;

/// Runs `x` `[rows, d_model]`, sequences of `lengths` one after the other, through the trunk. `initial` holds
/// the state of each sequence before its first step, zeros where it is absent; returned are those after the
/// last.
pub(crate) fn forward(
    config: &MambaConfig,
    scope: &Scope,
    lengths: &Arc<[usize]>,
    mut x: Tensor<2>,
    initial: &[Option<SequenceState>],
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
        let (y, after) = mixer(scope.precision(), shape.clone(), before, ops::input(&xz), parameters);
        x = x + linear_unbiased(&block, "out_proj", &y);
        last.iter_mut().zip(after).for_each(|(state, block)| state.push(block));
    }
    (rms_norm(scope, "norm_f", &x, config.rms_norm_eps), last)
}
