//! One step of the convolution for one sequence.

use std::ops::Range;

use super::ConvShape;
use crate::error::check_len;
use crate::parallel::{SharedRows, for_each_range};
use crate::simd::{MAX_LANES, Op, Simd, math};
use crate::{KernelError, Kernels, Threads};

/// Fewer channels than these are not worth a second thread.
const PARALLEL_MIN: usize = 1024;

/// The parameters of a convolution, prepared for single steps.
#[derive(Clone, Debug)]
pub struct StepWeights {
    /// `[d_conv, d_inner]`.
    taps: Vec<f32>,
    /// `[d_inner]`.
    bias: Vec<f32>,
    d_conv: usize,
}

impl StepWeights {
    /// Prepares `weight` `[d_inner, d_conv]` and `bias` `[d_inner]`.
    ///
    /// # Errors
    /// When `d_conv` is 0 or a length does not fit.
    pub fn new((d_inner, d_conv): (usize, usize), weight: &[f32], bias: &[f32]) -> Result<Self, KernelError> {
        ConvShape { batch: 1, seq_len: 1, d_inner, d_conv }.check()?;
        check_len("weight", weight.len(), d_inner * d_conv)?;
        check_len("bias", bias.len(), d_inner)?;
        let taps = (0..d_conv).flat_map(|k| weight.iter().skip(k).step_by(d_conv).copied()).collect();
        Ok(Self { taps, bias: bias.to_vec(), d_conv })
    }

    /// Channels.
    pub fn d_inner(&self) -> usize {
        self.bias.len()
    }

    /// Taps per channel.
    pub fn d_conv(&self) -> usize {
        self.d_conv
    }
}

/// Takes `x` `[d_inner]` into `state` `[d_inner, d_conv - 1]`, oldest first, and writes `y` `[d_inner]`;
/// upstream `causal_conv1d_update`. Allocates nothing with one thread.
///
/// # Errors
/// When an argument does not fit `weights`; nothing is written then.
pub fn step(
    kernels: Kernels,
    weights: &StepWeights,
    x: &[f32],
    state: &mut [f32],
    y: &mut [f32],
) -> Result<(), KernelError> {
    check_len("x", x.len(), weights.d_inner())?;
    check_len("state", state.len(), weights.d_inner() * (weights.d_conv - 1))?;
    check_len("y", y.len(), weights.d_inner())?;
    let (d_inner, memory) = (weights.d_inner(), weights.d_conv - 1);
    let threads = if d_inner < PARALLEL_MIN { Threads::One } else { kernels.threads() };
    let (state, y) = (SharedRows::flat(state), SharedRows::flat(y));
    for_each_range(threads, d_inner, MAX_LANES, |channels| {
        // Safety: every range has channels of its own.
        let state = unsafe { state.part(0, channels.start * memory..channels.end * memory) };
        // Safety: as above.
        let y = unsafe { y.part(0, channels.clone()) };
        kernels.run(StepOp { weights, x: &x[channels.clone()], channels, state, y });
    });
    Ok(())
}

/// A step of the channels `channels`, which all slices are of.
struct StepOp<'a> {
    weights: &'a StepWeights,
    channels: Range<usize>,
    x: &'a [f32],
    state: &'a mut [f32],
    y: &'a mut [f32],
}

impl Op for StepOp<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let StepOp { weights, channels, x, state, y } = self;
        let (d_inner, memory) = (weights.d_inner(), weights.d_conv - 1);
        for first in (0..x.len()).step_by(S::LANES) {
            // Among those of this step, and among all.
            let own = first..(first + S::LANES).min(x.len());
            let all = channels.start + own.start..channels.start + own.end;
            let tap = |k: usize| &weights.taps[k * d_inner..][all.clone()];
            let newest = s.load_partial(&x[own.clone()]);
            let mut sum = s.fma(s.load_partial(tap(memory)), newest, s.load_partial(&weights.bias[all.clone()]));
            let state = &mut state[own.start * memory..own.end * memory];
            for k in 0..memory {
                let mut lanes = [0.0; MAX_LANES];
                for (lane, channel) in lanes.iter_mut().zip(state.chunks_exact(memory)) {
                    *lane = channel[k];
                }
                sum = s.fma(s.load_partial(tap(k)), s.load(&lanes), sum);
            }
            s.store_partial(math::silu(s, sum), &mut y[own.clone()]);
            shift(state, memory, &x[own]);
        }
    }
}

/// Forgets the oldest value of every channel and appends the newest.
#[inline(always)]
fn shift(state: &mut [f32], memory: usize, newest: &[f32]) {
    if memory == 0 {
        return;
    }
    for (channel, &x) in state.chunks_exact_mut(memory).zip(newest) {
        for k in 1..memory {
            channel[k - 1] = channel[k];
        }
        channel[memory - 1] = x;
    }
}
