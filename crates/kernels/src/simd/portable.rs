//! Four lanes in plain Rust, which compilers map to SSE2 or NEON.

use super::{ROUND, Simd};

/// Needs nothing of the processor.
#[derive(Clone, Copy)]
pub(super) struct Portable;

const LANES: usize = 4;

#[inline(always)]
fn map2(a: [f32; LANES], b: [f32; LANES], f: impl Fn(f32, f32) -> f32) -> [f32; LANES] {
    [f(a[0], b[0]), f(a[1], b[1]), f(a[2], b[2]), f(a[3], b[3])]
}

/// `a * b + c`, in one rounding where that is one instruction.
#[inline(always)]
fn mul_add(a: f32, b: f32, c: f32) -> f32 {
    if cfg!(any(target_arch = "aarch64", target_feature = "fma")) { a.mul_add(b, c) } else { a * b + c }
}

/// `floor` for magnitudes below 2^22, which need no call into the C library.
#[inline(always)]
fn floor(x: f32) -> f32 {
    let nearest = (x + ROUND) - ROUND;
    if nearest > x { nearest - 1.0 } else { nearest }
}

/// The bits of the nearest bf16 in the upper half, zeros in the lower.
#[inline(always)]
fn rounded(x: f32) -> u32 {
    let bits = x.to_bits();
    let up = bits.wrapping_add(0x7fff + ((bits >> 16) & 1));
    // What is no number must not be rounded to infinity.
    (if x.is_nan() { bits | 0x40_0000 } else { up }) & 0xffff_0000
}

impl Simd for Portable {
    type V = [f32; LANES];
    type I = [i32; LANES];
    type W = [i32; LANES];
    const LANES: usize = LANES;
    const STATES: usize = 4;
    const TILE_ROWS: usize = 4;
    const TILE_ROWS_DOT: usize = 4;

    #[inline(always)]
    fn splat(self, x: f32) -> Self::V {
        [x; LANES]
    }

    #[inline(always)]
    fn load(self, src: &[f32]) -> Self::V {
        [src[0], src[1], src[2], src[3]]
    }

    #[inline(always)]
    fn store(self, x: Self::V, dst: &mut [f32]) {
        dst[..LANES].copy_from_slice(&x);
    }

    #[inline(always)]
    fn add(self, a: Self::V, b: Self::V) -> Self::V {
        map2(a, b, |a, b| a + b)
    }

    #[inline(always)]
    fn sub(self, a: Self::V, b: Self::V) -> Self::V {
        map2(a, b, |a, b| a - b)
    }

    #[inline(always)]
    fn mul(self, a: Self::V, b: Self::V) -> Self::V {
        map2(a, b, |a, b| a * b)
    }

    #[inline(always)]
    fn div(self, a: Self::V, b: Self::V) -> Self::V {
        map2(a, b, |a, b| a / b)
    }

    #[inline(always)]
    fn min(self, a: Self::V, b: Self::V) -> Self::V {
        map2(a, b, |a, b| if a < b { a } else { b })
    }

    #[inline(always)]
    fn max(self, a: Self::V, b: Self::V) -> Self::V {
        map2(a, b, |a, b| if a > b { a } else { b })
    }

    #[inline(always)]
    fn fma(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        std::array::from_fn(|i| mul_add(a[i], b[i], c[i]))
    }

    #[inline(always)]
    fn fnma(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        std::array::from_fn(|i| mul_add(-a[i], b[i], c[i]))
    }

    #[inline(always)]
    fn floor(self, x: Self::V) -> Self::V {
        x.map(floor)
    }

    #[inline(always)]
    fn fraction(self, x: Self::V) -> Self::V {
        x.map(|x| x - floor(x))
    }

    #[inline(always)]
    fn scale_floor(self, p: Self::V, x: Self::V) -> Self::V {
        // Adding to the exponent must stay within its 8 bits.
        let x = self.min(self.splat(128.0), self.max(self.splat(-126.0), x));
        map2(p, x, |p, x| f32::from_bits(p.to_bits().wrapping_add((floor(x) + ROUND).to_bits() << 23)))
    }

    #[inline(always)]
    fn select_lt(self, a: Self::V, b: Self::V, x: Self::V, y: Self::V) -> Self::V {
        std::array::from_fn(|i| if a[i] < b[i] { x[i] } else { y[i] })
    }

    #[inline(always)]
    fn abs(self, x: Self::V) -> Self::V {
        x.map(f32::abs)
    }

    #[inline(always)]
    fn store_bf16(self, x: Self::V, dst: &mut [i32]) {
        let bits = x.map(rounded);
        dst[..LANES / 2].copy_from_slice(&[bits[0] >> 16 | bits[1], bits[2] >> 16 | bits[3]].map(u32::cast_signed));
    }

    #[inline(always)]
    fn zip_bf16(self, low: Self::V, high: Self::V) -> Self::I {
        std::array::from_fn(|i| (rounded(low[i]) >> 16 | rounded(high[i])).cast_signed())
    }

    #[inline(always)]
    fn dot2(self, acc: Self::V, a: Self::I, b: Self::I) -> Self::V {
        let low = |x: i32| f32::from_bits(x.cast_unsigned() << 16);
        let high = |x: i32| f32::from_bits(x.cast_unsigned() & 0xffff_0000);
        std::array::from_fn(|i| mul_add(high(a[i]), high(b[i]), mul_add(low(a[i]), low(b[i]), acc[i])))
    }

    #[inline(always)]
    fn store_bytes(self, x: Self::V, dst: &mut [u8]) {
        // The sum's low mantissa bits are the integer.
        dst[..LANES].copy_from_slice(&x.map(|x| (x + ROUND).to_bits() as u8));
    }

    #[inline(always)]
    fn splat_i32(self, x: i32) -> Self::I {
        [x; LANES]
    }

    #[inline(always)]
    fn load_bytes(self, src: &[i8]) -> Self::I {
        let src = &src[..4 * LANES];
        std::array::from_fn(|i| i32::from_le_bytes(std::array::from_fn(|j| src[4 * i + j] as u8)))
    }

    #[inline(always)]
    fn load_i32(self, src: &[i32]) -> Self::I {
        [src[0], src[1], src[2], src[3]]
    }

    #[inline(always)]
    fn store_i32(self, x: Self::I, dst: &mut [i32]) {
        dst[..LANES].copy_from_slice(&x);
    }

    #[inline(always)]
    fn dot4(self, acc: Self::I, x: Self::I, w: Self::I) -> Self::I {
        std::array::from_fn(|i| {
            let (x, w) = (x[i].to_le_bytes(), w[i].to_le_bytes());
            (0..4).fold(acc[i], |sum, j| sum + i32::from(x[j] as i8) * i32::from(w[j] as i8))
        })
    }

    #[inline(always)]
    fn unbiased(self, acc: Self::I, _: Self::I) -> Self::V {
        acc.map(|acc| acc as f32)
    }

    #[inline(always)]
    fn reduce_sum(self, x: Self::V) -> f32 {
        (x[0] + x[2]) + (x[1] + x[3])
    }

    #[inline(always)]
    fn reduce_max(self, x: Self::V) -> f32 {
        x[0].max(x[1]).max(x[2].max(x[3]))
    }
}
