//! A thin layer over vector registers, so that every kernel is written once.
//!
//! A kernel is an [`Op`]: arguments in a struct, and a body generic over [`Simd`]. [`Kernels::run`] calls
//! the body inside a function compiled for the chosen instruction set. Everything on the way must be
//! `#[inline(always)]`, or it would be compiled for the build's baseline instead.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
pub(crate) mod layout;
pub(crate) mod math;
mod portable;

use crate::{Isa, Kernels};

/// A vector register of f32 lanes and what it can do. Values of the implementing types prove that the
/// processor has the instructions.
pub(crate) trait Simd: Copy + Send + Sync + 'static {
    /// One register.
    type V: Copy + Send + Sync;
    /// One register of as many i32, or of four times as many bytes.
    type I: Copy + Send + Sync;
    /// A register of signed bytes as [`Simd::dot4`] takes them.
    type W: Copy + Send + Sync;
    /// Lanes of a register, a power of two.
    const LANES: usize;
    /// Recurrences of the scan that are kept in registers at once.
    const STATES: usize;
    /// Rows of a tile of the matrix product.
    const TILE_ROWS: usize;
    /// The same of those with several values in a lane, whose dot products may need registers of their own.
    const TILE_ROWS_DOT: usize;
    /// Whether single rows are multiplied as words of 16 bits, by [`Simd::store_words`] and [`Simd::dot4_words`], and
    /// not as bytes.
    const WORDS: bool = false;

    fn splat(self, x: f32) -> Self::V;
    /// The first lanes of `src`, which must be long enough.
    fn load(self, src: &[f32]) -> Self::V;
    /// Fills the first lanes of `dst`, which must be long enough.
    fn store(self, x: Self::V, dst: &mut [f32]);
    fn add(self, a: Self::V, b: Self::V) -> Self::V;
    fn sub(self, a: Self::V, b: Self::V) -> Self::V;
    fn mul(self, a: Self::V, b: Self::V) -> Self::V;
    fn div(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a / b` to within 2 units in the last place, where `b` is neither 0 nor infinite.
    #[inline(always)]
    fn div_fast(self, a: Self::V, b: Self::V) -> Self::V {
        self.div(a, b)
    }
    /// `b` where a lane of either is NaN.
    fn min(self, a: Self::V, b: Self::V) -> Self::V;
    /// `b` where a lane of either is NaN.
    fn max(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a * b + c`.
    fn fma(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// `c - a * b`.
    fn fnma(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    fn floor(self, x: Self::V) -> Self::V;
    /// `x - floor(x)`.
    fn fraction(self, x: Self::V) -> Self::V;
    /// `p * 2^floor(x)` for `p` in `[0.5, 2]`; saturates instead of overflowing.
    fn scale_floor(self, p: Self::V, x: Self::V) -> Self::V;
    /// `x` where `a < b`, else `y`.
    fn select_lt(self, a: Self::V, b: Self::V, x: Self::V, y: Self::V) -> Self::V;
    fn abs(self, x: Self::V) -> Self::V;
    /// The nearest bf16 (ties to even) of every lane, two in order to a word, into the first `LANES / 2` words of
    /// `dst`, which must be long enough.
    fn store_bf16(self, x: Self::V, dst: &mut [i32]);
    /// The nearest bf16 of every lane: those of `low` in the lower halves of words, those of `high` in the upper.
    fn zip_bf16(self, low: Self::V, high: Self::V) -> Self::I;
    /// `acc + a_low b_low + a_high b_high` over the two bf16 in each lane.
    fn dot2(self, acc: Self::V, a: Self::I, b: Self::I) -> Self::V;
    /// Rounds lanes in `[-127, 127]` to integers (ties to even) and stores them as [`Simd::dot4`] takes them: signed
    /// bytes, or bytes that are 128 more.
    fn store_bytes(self, x: Self::V, dst: &mut [u8]);
    /// The first `4 * LANES` bytes of `src`, which must be long enough, signed from -127.
    fn load_bytes(self, src: &[i8]) -> Self::W;
    /// Rounds lanes in `[-2^15, 2^15)` to integers (ties to even) and stores them in the first `2 * LANES` bytes of
    /// `dst`, which must be long enough: of every four the first and third, then the second and fourth.
    #[inline(always)]
    fn store_words(self, _x: Self::V, _dst: &mut [u8]) {
        unreachable!("a processor whose single rows are bytes")
    }
    /// `acc + sum_i x_i w_i` over four words of `x`, the first 8 bytes as [`Simd::store_words`] leaves them, and the
    /// four weights of each lane, the first `4 * LANES` bytes of `w`.
    #[inline(always)]
    fn dot4_words(self, _acc: Self::I, _x: &[u8], _w: &[i8]) -> Self::I {
        unreachable!("a processor whose single rows are bytes")
    }
    /// The same word in every lane.
    fn splat_i32(self, x: i32) -> Self::I;
    /// The first lanes of `src`, which must be long enough.
    fn load_i32(self, src: &[i32]) -> Self::I;
    /// Fills the first lanes of `dst`, which must be long enough.
    fn store_i32(self, x: Self::I, dst: &mut [i32]);
    /// Transposes `block` `[LANES, LANES]` in place.
    #[inline(always)]
    fn transpose(self, block: &mut [i32]) {
        for row in 1..Self::LANES {
            for column in 0..row {
                block.swap(row * Self::LANES + column, column * Self::LANES + row);
            }
        }
    }
    /// `acc + sum_i x_i w_i` over the four bytes of each lane, `x` from [`Simd::store_bytes`]; where those are 128
    /// more, the sum is that of the bytes as they are, and [`Simd::unbiased`] makes it right.
    fn dot4(self, acc: Self::I, x: Self::I, w: Self::W) -> Self::I;
    /// `sum_i x_i w_i` as f32 from what [`Simd::dot4`] made of all terms and from the sums of all `w_i`.
    fn unbiased(self, acc: Self::I, sums: Self::I) -> Self::V;
    fn reduce_sum(self, x: Self::V) -> f32;
    fn reduce_max(self, x: Self::V) -> f32;

    #[inline(always)]
    fn zero(self) -> Self::V {
        self.splat(0.0)
    }

    /// All of `src`, at most one register, with zeros behind it.
    #[inline(always)]
    fn load_partial(self, src: &[f32]) -> Self::V {
        if src.len() >= Self::LANES {
            return self.load(src);
        }
        let mut lanes = [0.0; MAX_LANES];
        lanes[..src.len()].copy_from_slice(src);
        self.load(&lanes)
    }

    /// As many lanes as `dst` takes, at most one register.
    #[inline(always)]
    fn store_partial(self, x: Self::V, dst: &mut [f32]) {
        if dst.len() >= Self::LANES {
            return self.store(x, dst);
        }
        let mut lanes = [0.0; MAX_LANES];
        self.store(x, &mut lanes);
        dst.copy_from_slice(&lanes[..dst.len()]);
    }
}

/// Prefetches the cache line at `data[index]`, if there is such a value.
#[inline(always)]
pub(crate) fn prefetch<T>(data: &[T], index: usize) {
    #[cfg(target_arch = "x86_64")]
    if let Some(value) = data.get(index) {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        // Safety: SSE is part of x86-64, and a prefetch has no effect but on speed.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(std::ptr::from_ref(value).cast()) }
    }
}

/// Adding and subtracting 1.5 * 2^23 rounds to the nearest integer (ties to even), which between the two sits in the
/// low mantissa bits.
pub(crate) const ROUND: f32 = 12_582_912.0;

/// Lanes of the widest register.
pub(crate) const MAX_LANES: usize = 16;

/// A kernel with its arguments.
pub(crate) trait Op {
    /// What it returns.
    type Output;
    /// The body; implementations must be `#[inline(always)]`.
    fn run<S: Simd>(self, simd: S) -> Self::Output;
}

impl Kernels {
    /// Runs `op` with the chosen instruction set.
    #[inline]
    pub(crate) fn run<O: Op>(self, op: O) -> O::Output {
        match self.isa() {
            // Safety: `Kernels` exists for available instruction sets only.
            #[cfg(target_arch = "x86_64")]
            Isa::Amx | Isa::Avx512Bf16 | Isa::Avx512 => unsafe { avx512::run(op) },
            // Safety: as above.
            #[cfg(target_arch = "x86_64")]
            Isa::AvxVnni | Isa::Avx2 => unsafe { avx2::run(op) },
            _ => op.run(portable::Portable),
        }
    }

    /// The same for an `op` on bf16, for which some processors have instructions.
    #[inline]
    pub(crate) fn run_bf16<O: Op>(self, op: O) -> O::Output {
        match self.isa() {
            // Safety: `Kernels` exists for available instruction sets only.
            #[cfg(target_arch = "x86_64")]
            Isa::Amx | Isa::Avx512Bf16 => unsafe { avx512::run_bf16(op) },
            _ => self.run(op),
        }
    }

    /// The same for an `op` on 8-bit integers.
    #[inline]
    pub(crate) fn run_int8<O: Op>(self, op: O) -> O::Output {
        match self.isa() {
            // Safety: `Kernels` exists for available instruction sets only.
            #[cfg(target_arch = "x86_64")]
            Isa::AvxVnni => unsafe { avx2::run_vnni(op) },
            _ => self.run(op),
        }
    }
}

/// Defines the lane-wise operations of one instruction set by its intrinsics.
#[cfg(target_arch = "x86_64")]
macro_rules! lanewise {
    ($($name:ident($($arg:ident),+) = $intrinsic:expr;)+) => {
        $(
            #[inline(always)]
            fn $name(self, $($arg: Self::V),+) -> Self::V {
                // Safety: the token exists only where the processor has the instructions.
                unsafe { $intrinsic($($arg),+) }
            }
        )+
    };
}
#[cfg(target_arch = "x86_64")]
use lanewise;
