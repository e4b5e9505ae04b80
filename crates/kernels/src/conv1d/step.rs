//! One step of the convolution for one sequence.

use std::ops::Range;

use super::ConvShape;
use crate::error::check_len;
use crate::parallel::{SharedRows, for_each_range};
use crate::simd::{MAX_LANES, Op, Simd, math};
use crate::{KernelError, Kernels, Threads};

/// Channels that are worked on at a time.
const TILE: usize = 64;
/// Values of a channel's window that are.
const WINDOW: usize = 4;
/// Values that a channel of the usual convolution, of four taps, remembers.
const MEMORY: usize = 3;
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
        // The oldest values of the channels of a tile side by side, then the next, to be read as registers when they
        // have long been written.
        let mut window = [[0.0; TILE]; WINDOW];
        for first in (0..x.len()).step_by(TILE) {
            let tile = first..(first + TILE).min(x.len());
            let (x, y, len) = (&x[tile.clone()], &mut y[tile.clone()], tile.len());
            let state = &mut state[tile.start * memory..tile.end * memory];
            let all = channels.start + first;
            let tap = |k: usize, i: usize, width: usize| &weights.taps[k * d_inner + all + i..][..width];
            for i in (0..len).step_by(S::LANES) {
                let width = S::LANES.min(len - i);
                let bias = s.load_partial(&weights.bias[all + i..][..width]);
                let sum = s.fma(s.load_partial(tap(memory, i, width)), s.load_partial(&x[i..][..width]), bias);
                s.store_partial(sum, &mut y[i..][..width]);
            }
            for k in (0..memory).step_by(WINDOW) {
                let taps = k..memory.min(k + WINDOW);
                if memory == MEMORY {
                    take::<MEMORY>(state, x, &mut window);
                } else {
                    gather(state, memory, taps.clone(), &mut window);
                    if taps.end == memory {
                        shift(state, memory, x);
                    }
                }
                for i in (0..len).step_by(S::LANES) {
                    let width = S::LANES.min(len - i);
                    let mut sum = s.load_partial(&y[i..][..width]);
                    for (k, row) in taps.clone().zip(&window) {
                        sum = s.fma(s.load_partial(tap(k, i, width)), s.load(&row[i..]), sum);
                    }
                    s.store_partial(sum, &mut y[i..][..width]);
                }
            }
            for y in y.chunks_mut(S::LANES) {
                s.store_partial(math::silu(s, s.load_partial(y)), y);
            }
        }
    }
}

/// The values `taps` of the window of every channel, side by side.
#[inline(always)]
fn gather(state: &[f32], memory: usize, taps: Range<usize>, window: &mut [[f32; TILE]; WINDOW]) {
    for (i, channel) in state.chunks_exact(memory).enumerate() {
        for (value, row) in channel[taps.clone()].iter().zip(&mut *window) {
            row[i] = *value;
        }
    }
}

/// Forgets the oldest value of every channel and appends the newest.
#[inline(always)]
fn shift(state: &mut [f32], memory: usize, newest: &[f32]) {
    for (channel, &x) in state.chunks_exact_mut(memory).zip(newest) {
        for k in 1..memory {
            channel[k - 1] = channel[k];
        }
        channel[memory - 1] = x;
    }
}

/// [`gather`] of all taps and [`shift`] at once, where a constant number of values lets the compiler move registers of
/// them.
#[inline(always)]
fn take<const N: usize>(state: &mut [f32], newest: &[f32], window: &mut [[f32; TILE]; WINDOW]) {
    let newest = &newest[..newest.len().min(TILE)];
    for (i, (channel, &x)) in state.as_chunks_mut::<N>().0.iter_mut().zip(newest).enumerate() {
        for k in 0..N {
            window[k][i] = channel[k];
        }
        for k in 1..N {
            channel[k - 1] = channel[k];
        }
        channel[N - 1] = x;
    }
}

const _: () = assert!(TILE.is_multiple_of(MAX_LANES));
const _: () = assert!(0 < MEMORY && MEMORY <= WINDOW);
