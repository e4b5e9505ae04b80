//! Peak rates of this machine: the lower bound of every measured time.

use std::hint::{black_box, spin_loop};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::simd::{MAX_LANES, Op, Simd};
#[cfg(target_arch = "x86_64")]
use crate::{Isa, matmul};
use crate::{Kernels, Threads};

/// Independent chains of operations, enough to hide the latency of one.
const CHAINS: usize = 12;
/// Streams that a thread reads at once; a single one does not fill the processor's queue of loads.
const STREAMS: usize = 4;
/// Chains of additions of each.
const APART: usize = 2;
/// Rows of an 8-bit tile that share a weight register.
const ROWS: usize = 4;
/// Operations of a chain per timing, long enough for Linux to place each thread on a core of its own.
const LINKS: usize = 1 << 18;
/// Operations of a chain per timing for a choice between kernels, about 20 microseconds.
const LINKS_BRIEF: usize = 1 << 12;
/// Repetitions; the fastest one is reported.
const REPEATS: usize = 25;

/// How long a rate is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effort {
    /// A tenth of a second, for a limit to be quoted.
    Full,
    /// Less than a millisecond, for a choice between kernels.
    Brief,
}

impl Effort {
    fn links(self) -> usize {
        match self {
            Self::Full => LINKS,
            Self::Brief => LINKS_BRIEF,
        }
    }
}

/// Highest rate of f32 multiplications and additions, both counted, per second, from registers.
pub fn float_ops(kernels: Kernels) -> f64 {
    float_ops_with(kernels, Effort::Full)
}

pub(crate) fn float_ops_with(kernels: Kernels, effort: Effort) -> f64 {
    rate(kernels, |kernels| kernels.run(FloatChains { links: effort.links() })) * 2.0
}

/// The same of bf16, summed in f32.
pub fn bf16_ops(kernels: Kernels) -> f64 {
    bf16_ops_with(kernels, Effort::Full)
}

pub(crate) fn bf16_ops_with(kernels: Kernels, effort: Effort) -> f64 {
    rate(kernels, |kernels| kernels.run_bf16(Bf16Chains { links: effort.links() })) * 4.0
}

/// Highest rate of 8-bit multiplications and additions, both counted, per second, from registers.
pub fn int8_ops(kernels: Kernels) -> f64 {
    int8_ops_with(kernels, Effort::Full)
}

pub(crate) fn int8_ops_with(kernels: Kernels, effort: Effort) -> f64 {
    let links = effort.links();
    #[cfg(target_arch = "x86_64")]
    if kernels.isa() == Isa::Amx {
        // Safety: kernels of this instruction set exist only where there are tiles.
        return rate(kernels, |_| unsafe { matmul::multiply_tiles(links) }) * 2.0;
    }
    rate(kernels, |kernels| kernels.run_int8(Int8Chains { links })) * 8.0
}

/// Highest rate at which `data`, 4 bytes a value, is read, in bytes per second. With several threads each reads a part.
pub fn read_bytes(kernels: Kernels, data: &[f32]) -> f64 {
    size_of_val(data) as f64 / fastest(|| read(kernels, data))
}

/// Reads `data` once; with several threads each reads a part.
pub fn read(kernels: Kernels, data: &[f32]) {
    let part = data.len().div_ceil(threads(kernels)).max(1);
    on_every_thread(kernels, |i| {
        let part = &data[(i * part).min(data.len())..((i + 1) * part).min(data.len())];
        black_box(kernels.run(Sum { values: part }));
    });
}

/// Cache-line round trip between two threads in seconds, the median of several runs; `None` on a single thread.
///
/// It shows whether two cores share a cache. Under a hypervisor that may change within seconds.
pub fn round_trip(kernels: Kernels) -> Option<f64> {
    if threads(kernels) < 2 {
        return None;
    }
    let mut spells: Vec<_> = (0..REPEATS).map(|_| round_trip_once()).collect();
    spells.sort_by(f64::total_cmp);
    Some(spells[REPEATS / 2])
}

/// The mean of one spell.
fn round_trip_once() -> f64 {
    const SPELL: Duration = Duration::from_millis(2);
    const END: u64 = u64::MAX;
    /// Spins before a thread yields, in case both threads share a core.
    const PATIENCE: usize = 10_000;
    /// Padding to two cache lines, against false sharing.
    #[repr(align(128))]
    struct Line(AtomicU64);

    let line = Line(AtomicU64::new(0));
    let wait_for = |is_there: &dyn Fn(u64) -> bool| {
        for turn in 1.. {
            let value = line.0.load(Ordering::Acquire);
            if is_there(value) {
                return value;
            }
            if turn % PATIENCE == 0 { thread::yield_now() } else { spin_loop() }
        }
        END
    };
    let means = rayon::broadcast(|context| match context.index() {
        0 => {
            let (start, mut trips) = (Instant::now(), 0);
            while start.elapsed() < SPELL {
                // So many that the clock does not count.
                for _ in 0..64 {
                    line.0.store(2 * trips + 1, Ordering::Release);
                    wait_for(&|value| value == 2 * trips + 2);
                    trips += 1;
                }
            }
            let seconds = start.elapsed().as_secs_f64();
            line.0.store(END, Ordering::Release);
            seconds / trips as f64
        }
        1 => {
            let mut asked = 1;
            while wait_for(&|value| value == asked || value == END) != END {
                line.0.store(asked + 1, Ordering::Release);
                asked += 2;
            }
            0.0
        }
        _ => 0.0,
    });
    means[0]
}

fn threads(kernels: Kernels) -> usize {
    match kernels.threads() {
        Threads::One => 1,
        Threads::Rayon => rayon::current_num_threads(),
    }
}

/// Operations of `work` per second over all threads; `work` returns the number of operations it did.
fn rate(kernels: Kernels, work: impl Fn(Kernels) -> usize + Send + Sync) -> f64 {
    let threads = threads(kernels);
    let operations = work(kernels);
    let seconds = fastest(|| {
        on_every_thread(kernels, |_| {
            black_box(work(kernels));
        });
    });
    (operations * threads) as f64 / seconds
}

/// Calls `work` once on each thread, with its number, however soon the first is done.
fn on_every_thread(kernels: Kernels, work: impl Fn(usize) + Send + Sync) {
    match kernels.threads() {
        Threads::One => work(0),
        Threads::Rayon => {
            rayon::broadcast(|context| work(context.index()));
        }
    }
}

fn fastest(mut work: impl FnMut()) -> f64 {
    let mut least = f64::INFINITY;
    for _ in 0..REPEATS {
        let start = Instant::now();
        work();
        least = least.min(start.elapsed().as_secs_f64());
    }
    least
}

struct FloatChains {
    links: usize,
}

impl Op for FloatChains {
    type Output = usize;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> usize {
        let (a, b) = (s.splat(black_box(0.999)), s.splat(black_box(0.001)));
        let mut sums = [s.splat(black_box(1.0)); CHAINS];
        for _ in 0..self.links {
            for sum in &mut sums {
                *sum = s.fma(*sum, a, b);
            }
        }
        black_box(sums.into_iter().fold(0.0, |total, sum| total + s.reduce_sum(sum)));
        CHAINS * self.links * S::LANES
    }
}

struct Bf16Chains {
    links: usize,
}

impl Op for Bf16Chains {
    type Output = usize;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> usize {
        let (a, b) = (s.splat(black_box(0.999)), s.splat(black_box(0.001)));
        let (a, b) = (s.zip_bf16(a, b), s.zip_bf16(b, a));
        let mut sums = [s.splat(black_box(1.0)); CHAINS];
        for _ in 0..self.links {
            for sum in &mut sums {
                *sum = s.dot2(*sum, a, b);
            }
        }
        black_box(sums.into_iter().fold(0.0, |total, sum| total + s.reduce_sum(sum)));
        CHAINS * self.links * S::LANES
    }
}

struct Int8Chains {
    links: usize,
}

impl Op for Int8Chains {
    type Output = usize;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> usize {
        // Read anew for every link: where a dot product is several instructions, only its addition would stay in the
        // loop otherwise.
        let (mut x, mut w) = ([1; ROWS], [[1; 4 * MAX_LANES]; CHAINS / ROWS]);
        let mut sums = [s.splat_i32(0); CHAINS];
        for _ in 0..self.links {
            let (x, w) = (black_box(&mut x), black_box(&mut w));
            for (sums, w) in sums.chunks_exact_mut(ROWS).zip(w) {
                let w = s.load_bytes(w);
                for (sum, x) in sums.iter_mut().zip(&*x) {
                    *sum = s.dot4(*sum, s.splat_i32(*x), w);
                }
            }
        }
        let no_bias = s.splat_i32(0);
        black_box(sums.into_iter().fold(0.0, |all, sum| all + s.reduce_sum(s.unbiased(sum, no_bias))));
        CHAINS * self.links * S::LANES
    }
}

struct Sum<'a> {
    values: &'a [f32],
}

impl Op for Sum<'_> {
    type Output = f32;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> f32 {
        let block = APART * S::LANES;
        let part = self.values.len() / (STREAMS * block) * block;
        let mut sums = [[s.zero(); APART]; STREAMS];
        for first in (0..part).step_by(block) {
            for (stream, sums) in sums.iter_mut().enumerate() {
                let values = &self.values[stream * part + first..][..block];
                for (i, sum) in sums.iter_mut().enumerate() {
                    *sum = s.add(*sum, s.load(&values[i * S::LANES..]));
                }
            }
        }
        sums.into_iter().flatten().fold(0.0, |total, sum| total + s.reduce_sum(sum))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Isa;

    #[test]
    fn a_round_trip_takes_two_threads() {
        let kernels = Kernels::detect();
        let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().expect("threads start");
        let seconds = pool.install(|| round_trip(kernels.with_threads(Threads::Rayon))).expect("there are two threads");
        // Faster than light crosses a chip, or slower than a network: something else was measured.
        assert!((1e-9..1e-1).contains(&seconds), "{seconds:e}");
        assert_eq!(round_trip(kernels.with_threads(Threads::One)), None);
    }

    #[test]
    fn limits_are_ordered_as_machines_are() {
        let data = vec![1.0; 1 << 16];
        for isa in Isa::available() {
            let kernels = Kernels::new(isa, Threads::One).expect("it is available");
            let (float, int8, bytes) = (float_ops(kernels), int8_ops(kernels), read_bytes(kernels, &data));
            let bf16 = bf16_ops(kernels);
            assert!(
                float > 1e8 && bf16 > 1e7 && int8 > 1e7 && bytes > 1e7,
                "{isa:?}: {float:e} {bf16:e} {int8:e} {bytes:e}"
            );
            assert!([float, bf16, int8, bytes].iter().all(|rate| *rate < 1e15), "{isa:?}: nothing was computed");
        }
    }
}
