//! The Mamba trunk: `x + mixer(RMSNorm(x))` per block, names of state-spaces/mamba.

use burn::tensor::Tensor;
use robomamba_model::MambaConfig;

use super::{linear_unbiased, rms_norm};
use crate::ops::mixer::{BlockState, MixerShape, mixer};
use crate::ops::{self};
use crate::parameters::Scope;

/// The state of every block, carried from one segment of an episode to the next.
pub(crate) type Carried = Vec<BlockState>;

/// Runs `x` `[batch * seq_len, d_model]` through the trunk from `initial` (zeros when absent).
pub(crate) fn forward(
    config: &MambaConfig,
    scope: &Scope,
    batch: usize,
    mut x: Tensor<2>,
    initial: Option<Carried>,
) -> (Tensor<2>, Carried) {
    let shape = MixerShape {
        batch,
        seq_len: x.dims()[0] / batch,
        d_inner: config.d_inner(),
        d_state: config.d_state,
        d_conv: config.d_conv,
        dt_rank: config.dt_rank,
    };
    let mut last = Vec::with_capacity(config.n_layer);
    let mut initial = initial.map(Vec::into_iter);
    for i in 0..config.n_layer {
        let layer = scope.under(&format!("layers.{i}"));
        let names =
            ["conv1d.weight", "conv1d.bias", "x_proj.weight", "dt_proj.weight", "dt_proj.bias", "A_log", "D"];
        let block = layer.under("mixer");
        let xz = linear_unbiased(&block, "in_proj", &rms_norm(&layer, "norm", &x, config.rms_norm_eps));
        let before = initial.as_mut().and_then(Iterator::next);
        let (y, after) = mixer(shape, before, ops::input(&xz), names.map(|name| block.input(name)));
        x = x + linear_unbiased(&block, "out_proj", &y);
        last.push(after);
    }
    (rms_norm(scope, "norm_f", &x, config.rms_norm_eps), last)
}
