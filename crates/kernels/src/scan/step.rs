//! One step of the recurrence for one sequence, vectorised over the states of a channel, so that the
//! public layout of the state is also the one that is computed in.

use std::f32::consts::LOG2_E;
use std::ops::Range;

use super::{ScanParams, ScanShape};
use crate::error::check_len;
use crate::parallel::{SharedRows, for_each_range};
use crate::simd::{MAX_LANES, Op, Simd, math};
use crate::{KernelError, Kernels, Threads};

/// Channels that are worked on at a time.
const TILE: usize = 64;
/// States of a channel of the usual scan.
const D_STATE: usize = 16;
/// Registers that hold them, at most: those of the portable version have four lanes.
const REGISTERS: usize = D_STATE / 4;
/// Fewer states than these are not worth a second thread.
const PARALLEL_MIN: usize = 1 << 13;

/// The parameters of a scan, prepared for single steps: decay rates are computed once, at load.
#[derive(Clone, Debug)]
pub struct StepWeights {
    /// `A log2 e`, `[d_inner, d_state]`.
    rates: Vec<f32>,
    /// `[d_inner]`.
    d: Vec<f32>,
    /// `[d_inner]`.
    dt_bias: Vec<f32>,
    d_state: usize,
}

impl StepWeights {
    /// Prepares `params` of `[d_inner, d_state]`.
    ///
    /// # Errors
    /// When `d_state` is 0 or a length does not fit.
    pub fn new((d_inner, d_state): (usize, usize), params: &ScanParams) -> Result<Self, KernelError> {
        ScanShape { batch: 1, seq_len: 1, d_inner, d_state }.check()?;
        check_len("A_log", params.a_log.len(), d_inner * d_state)?;
        check_len("D", params.d.len(), d_inner)?;
        check_len("dt_bias", params.dt_bias.len(), d_inner)?;
        let rates = params.a_log.iter().map(|a_log| -a_log.exp() * LOG2_E).collect();
        Ok(Self { rates, d: params.d.to_vec(), dt_bias: params.dt_bias.to_vec(), d_state })
    }

    /// Channels.
    pub fn d_inner(&self) -> usize {
        self.d.len()
    }

    /// States per channel.
    pub fn d_state(&self) -> usize {
        self.d_state
    }
}

/// What one step reads beside the state.
#[derive(Clone, Copy, Debug)]
pub struct StepInput<'a> {
    /// `[d_inner]`.
    pub u: &'a [f32],
    /// `[d_inner]`, raw.
    pub delta: &'a [f32],
    /// `[d_state]`.
    pub b: &'a [f32],
    /// `[d_state]`.
    pub c: &'a [f32],
    /// `[d_inner]`; without it the output is not gated.
    pub z: Option<&'a [f32]>,
}

/// Advances `state` `[d_inner, d_state]` by one step and writes `y` `[d_inner]`; upstream
/// `selective_state_update`. Allocates nothing with one thread.
///
/// # Errors
/// When an argument does not fit `weights`; nothing is written then.
pub fn step(
    kernels: Kernels,
    weights: &StepWeights,
    input: &StepInput,
    state: &mut [f32],
    y: &mut [f32],
) -> Result<(), KernelError> {
    let (d_inner, d_state) = (weights.d_inner(), weights.d_state);
    check_len("u", input.u.len(), d_inner)?;
    check_len("delta", input.delta.len(), d_inner)?;
    check_len("B", input.b.len(), d_state)?;
    check_len("C", input.c.len(), d_state)?;
    input.z.map_or(Ok(()), |z| check_len("z", z.len(), d_inner))?;
    check_len("state", state.len(), d_inner * d_state)?;
    check_len("y", y.len(), d_inner)?;
    let threads = if state.len() < PARALLEL_MIN { Threads::One } else { kernels.threads() };
    let (state, y) = (SharedRows::flat(state), SharedRows::flat(y));
    for_each_range(threads, d_inner, TILE, |channels| {
        // Safety: every range has channels of its own.
        let state = unsafe { state.part(0, channels.start * d_state..channels.end * d_state) };
        // Safety: as above.
        let y = unsafe { y.part(0, channels.clone()) };
        kernels.run(StepOp { weights, input, channels, state, y });
    });
    Ok(())
}

/// A step of the channels `channels`.
struct StepOp<'a> {
    weights: &'a StepWeights,
    input: &'a StepInput<'a>,
    channels: Range<usize>,
    /// Of these channels.
    state: &'a mut [f32],
    /// Of these channels.
    y: &'a mut [f32],
}

impl Op for StepOp<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let StepOp { weights, input, channels, state, y } = self;
        let d_state = weights.d_state;
        let (mut delta, mut delta_u) = ([0.0; TILE], [0.0; TILE]);
        let tiles = y.chunks_mut(TILE).zip(state.chunks_mut(TILE * d_state));
        for (first, (y, state)) in channels.step_by(TILE).zip(tiles) {
            prepare(s, (weights, input, first), &mut delta[..y.len()], &mut delta_u[..y.len()]);
            let rates = &weights.rates[first * d_state..][..state.len()];
            if d_state == D_STATE {
                advance_all::<S, D_STATE>(s, (&delta, &delta_u), (rates, input.b, input.c), state, y);
            } else {
                let channels = state.chunks_exact_mut(d_state).zip(rates.chunks_exact(d_state));
                for (i, (y, (h, rates))) in y.iter_mut().zip(channels).enumerate() {
                    *y = advance(s, (delta[i], delta_u[i]), (rates, input.b, input.c), h);
                }
            }
            finish(s, (weights, input, first), y);
        }
    }
}

/// Step sizes of the channels from `first` on.
#[inline(always)]
fn prepare<S: Simd>(
    s: S,
    (weights, input, first): (&StepWeights, &StepInput, usize),
    delta: &mut [f32],
    delta_u: &mut [f32],
) {
    for i in (0..delta.len()).step_by(S::LANES) {
        let columns = first + i..(first + i + S::LANES).min(first + delta.len());
        let raw =
            s.add(s.load_partial(&input.delta[columns.clone()]), s.load_partial(&weights.dt_bias[columns.clone()]));
        let value = math::softplus(s, raw);
        s.store_partial(value, &mut delta[i..][..columns.len()]);
        s.store_partial(s.mul(value, s.load_partial(&input.u[columns.clone()])), &mut delta_u[i..][..columns.len()]);
    }
}

/// Advances the states of one channel and returns `sum_n C h`.
#[inline(always)]
fn advance<S: Simd>(s: S, (delta, delta_u): (f32, f32), (rates, b, c): (&[f32], &[f32], &[f32]), h: &mut [f32]) -> f32 {
    let (delta, delta_u) = (s.splat(delta), s.splat(delta_u));
    let mut sum = s.zero();
    let (mut rates, mut b, mut c, mut h) = (
        rates.chunks_exact(S::LANES),
        b.chunks_exact(S::LANES),
        c.chunks_exact(S::LANES),
        h.chunks_exact_mut(S::LANES),
    );
    for (((rates, b), c), h) in (&mut rates).zip(&mut b).zip(&mut c).zip(&mut h) {
        let new = next_state(s, (delta, delta_u), s.load(rates), s.load(b), s.load(h));
        sum = s.fma(new, s.load(c), sum);
        s.store(new, h);
    }
    let h = h.into_remainder();
    if !h.is_empty() {
        let [rates, b, c] = [rates.remainder(), b.remainder(), c.remainder()];
        let old = s.load_partial(h);
        let new = next_state(s, (delta, delta_u), s.load_partial(rates), s.load_partial(b), old);
        sum = s.fma(new, s.load_partial(c), sum);
        s.store_partial(new, h);
    }
    s.reduce_sum(sum)
}

/// [`advance`] for some channels, where a constant number of states lets the compiler keep `b` and `c` in registers and
/// count no rounds.
#[inline(always)]
fn advance_all<S: Simd, const N: usize>(
    s: S,
    (delta, delta_u): (&[f32], &[f32]),
    (rates, b, c): (&[f32], &[f32], &[f32]),
    state: &mut [f32],
    y: &mut [f32],
) {
    let (mut b_registers, mut c_registers) = ([s.zero(); REGISTERS], [s.zero(); REGISTERS]);
    for r in 0..N / S::LANES {
        b_registers[r] = s.load(&b[r * S::LANES..]);
        c_registers[r] = s.load(&c[r * S::LANES..]);
    }
    let channels = state.as_chunks_mut::<N>().0.iter_mut().zip(rates.as_chunks::<N>().0);
    for (((y, (h, rates)), delta), delta_u) in y.iter_mut().zip(channels).zip(delta).zip(delta_u) {
        let (delta, delta_u) = (s.splat(*delta), s.splat(*delta_u));
        let mut sum = s.zero();
        for r in 0..N / S::LANES {
            let h = &mut h[r * S::LANES..];
            let new = next_state(s, (delta, delta_u), s.load(&rates[r * S::LANES..]), b_registers[r], s.load(h));
            sum = s.fma(new, c_registers[r], sum);
            s.store(new, h);
        }
        *y = s.reduce_sum(sum);
    }
}

/// `exp(delta A) h + delta u B`.
#[inline(always)]
fn next_state<S: Simd>(s: S, (delta, delta_u): (S::V, S::V), rates: S::V, b: S::V, h: S::V) -> S::V {
    s.fma(math::exp2(s, s.mul(delta, rates)), h, s.mul(delta_u, b))
}

/// Skip connection and gate of the channels from `first` on.
#[inline(always)]
fn finish<S: Simd>(s: S, (weights, input, first): (&StepWeights, &StepInput, usize), y: &mut [f32]) {
    for i in (0..y.len()).step_by(S::LANES) {
        let columns = first + i..(first + i + S::LANES).min(first + y.len());
        let y = &mut y[i..][..columns.len()];
        let u = s.load_partial(&input.u[columns.clone()]);
        let mut sum = s.fma(s.load_partial(&weights.d[columns.clone()]), u, s.load_partial(y));
        if let Some(z) = input.z {
            sum = s.mul(sum, math::silu(s, s.load_partial(&z[columns])));
        }
        s.store_partial(sum, y);
    }
}

const _: () = assert!(TILE.is_multiple_of(MAX_LANES));
