//! AVX-512 with VNNI, and with BF16 where the processor has it: 16 lanes, 32 registers.

use std::arch::x86_64::*;

use super::{Op, Simd, lanewise};

/// Proof that the processor has AVX-512 F, VL, DQ, BW and VNNI, AVX2 and FMA, and with `BF16` that as well.
#[derive(Clone, Copy)]
pub(super) struct Avx512<const BF16: bool>(());

/// Runs `op` compiled for AVX-512.
#[target_feature(enable = "avx512f,avx512vl,avx512dq,avx512bw,avx512vnni,avx2,fma")]
pub(super) fn run<O: Op>(op: O) -> O::Output {
    op.run(Avx512::<false>(()))
}

/// Runs `op` compiled for AVX-512 with BF16.
#[target_feature(enable = "avx512f,avx512vl,avx512dq,avx512bw,avx512vnni,avx512bf16,avx2,fma")]
pub(super) fn run_bf16<O: Op>(op: O) -> O::Output {
    op.run(Avx512::<true>(()))
}

/// Immediate of `vreduceps`: keep no fraction bits, round down, raise nothing.
const FLOOR: i32 = 0x09;

/// Where the halves of the words of [`Simd::zip_bf16`] come from: each lower one from the first 16, each upper one from
/// the last 16.
const ZIP: [i16; 32] = [
    0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15,
    31,
];

impl<const BF16: bool> Avx512<BF16> {
    /// The nearest bf16 in the upper half of every word, for processors that have no instruction for it.
    #[inline(always)]
    fn rounded(self, x: __m512) -> __m512i {
        // Safety: the token exists only where the processor has the instructions.
        unsafe {
            let bits = _mm512_castps_si512(x);
            let odd = _mm512_and_si512(_mm512_srli_epi32::<16>(bits), _mm512_set1_epi32(1));
            let up = _mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff)), odd);
            // What is no number must not be rounded to infinity.
            let quiet = _mm512_or_si512(bits, _mm512_set1_epi32(0x40_0000));
            _mm512_mask_blend_epi32(_mm512_cmp_ps_mask::<_CMP_UNORD_Q>(x, x), up, quiet)
        }
    }

    /// The lower and the upper bf16 of every word.
    #[inline(always)]
    fn halves(self, x: __m512i) -> [__m512; 2] {
        // Safety: the token exists only where the processor has the instructions.
        unsafe {
            let upper = _mm512_and_si512(x, _mm512_set1_epi32(0xffff_0000_u32.cast_signed()));
            [_mm512_castsi512_ps(_mm512_slli_epi32::<16>(x)), _mm512_castsi512_ps(upper)]
        }
    }
}

impl<const BF16: bool> Simd for Avx512<BF16> {
    type V = __m512;
    type I = __m512i;
    type W = __m512i;
    const LANES: usize = 16;
    const STATES: usize = 8;
    const TILE_ROWS: usize = 12;
    const TILE_ROWS_DOT: usize = 12;

    lanewise! {
        add(a, b) = _mm512_add_ps;
        sub(a, b) = _mm512_sub_ps;
        mul(a, b) = _mm512_mul_ps;
        div(a, b) = _mm512_div_ps;
        min(a, b) = _mm512_min_ps;
        max(a, b) = _mm512_max_ps;
        fma(a, b, c) = _mm512_fmadd_ps;
        fnma(a, b, c) = _mm512_fnmadd_ps;
        floor(x) = _mm512_roundscale_ps::<FLOOR>;
        fraction(x) = _mm512_reduce_ps::<FLOOR>;
        scale_floor(p, x) = _mm512_scalef_ps;
        abs(x) = _mm512_abs_ps;
    }

    #[inline(always)]
    fn div_fast(self, a: __m512, b: __m512) -> __m512 {
        // Safety: the token exists only where the processor has the instructions.
        let r = unsafe { _mm512_rcp14_ps(b) };
        // The first quotient is good to 14 bits, and one correction doubles them.
        let q = self.mul(a, r);
        self.fma(self.fnma(b, q, a), r, q)
    }

    #[inline(always)]
    fn splat(self, x: f32) -> __m512 {
        // Safety: the token exists only where the processor has the instructions.
        unsafe { _mm512_set1_ps(x) }
    }

    #[inline(always)]
    fn load(self, src: &[f32]) -> __m512 {
        let src = &src[..Self::LANES];
        // Safety: as above, and the slice holds 16 values.
        unsafe { _mm512_loadu_ps(src.as_ptr()) }
    }

    #[inline(always)]
    fn store(self, x: __m512, dst: &mut [f32]) {
        let dst = &mut dst[..Self::LANES];
        // Safety: as above, and the slice holds 16 values.
        unsafe { _mm512_storeu_ps(dst.as_mut_ptr(), x) }
    }

    #[inline(always)]
    fn select_lt(self, a: __m512, b: __m512, x: __m512, y: __m512) -> __m512 {
        // Safety: the token exists only where the processor has the instructions.
        unsafe { _mm512_mask_blend_ps(_mm512_cmp_ps_mask::<_CMP_LT_OQ>(a, b), y, x) }
    }

    #[inline(always)]
    fn store_bf16(self, x: __m512, dst: &mut [i32]) {
        let dst = &mut dst[..Self::LANES / 2];
        // Safety: the token exists only where the processor has the instructions, and the slice holds 32 bytes.
        unsafe {
            let halves: __m256i = if BF16 {
                std::mem::transmute::<__m256bh, __m256i>(_mm512_cvtneps_pbh(x))
            } else {
                _mm512_cvtepi32_epi16(_mm512_srli_epi32::<16>(self.rounded(x)))
            };
            _mm256_storeu_si256(dst.as_mut_ptr().cast(), halves);
        }
    }

    #[inline(always)]
    fn zip_bf16(self, low: __m512, high: __m512) -> __m512i {
        // Safety: the token exists only where the processor has the instructions.
        unsafe {
            if BF16 {
                let halves = std::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(high, low));
                return _mm512_permutexvar_epi16(_mm512_loadu_si512(ZIP.as_ptr().cast()), halves);
            }
            let low = _mm512_srli_epi32::<16>(self.rounded(low));
            _mm512_mask_blend_epi16(0xaaaa_aaaa, low, self.rounded(high))
        }
    }

    #[inline(always)]
    fn dot2(self, acc: __m512, a: __m512i, b: __m512i) -> __m512 {
        // Safety: the token exists only where the processor has the instructions.
        unsafe {
            if BF16 {
                let a = std::mem::transmute::<__m512i, __m512bh>(a);
                return _mm512_dpbf16_ps(acc, a, std::mem::transmute::<__m512i, __m512bh>(b));
            }
            let ([a_low, a_high], [b_low, b_high]) = (self.halves(a), self.halves(b));
            _mm512_fmadd_ps(a_high, b_high, _mm512_fmadd_ps(a_low, b_low, acc))
        }
    }

    #[inline(always)]
    fn store_bytes(self, x: __m512, dst: &mut [u8]) {
        let dst = &mut dst[..Self::LANES];
        // Safety: as above, and the slice holds 16 bytes.
        unsafe {
            let bytes = _mm512_add_epi32(_mm512_cvtps_epi32(x), _mm512_set1_epi32(128));
            _mm_storeu_si128(dst.as_mut_ptr().cast(), _mm512_cvtepi32_epi8(bytes));
        }
    }

    #[inline(always)]
    fn splat_i32(self, x: i32) -> __m512i {
        // Safety: the token exists only where the processor has the instructions.
        unsafe { _mm512_set1_epi32(x) }
    }

    #[inline(always)]
    fn load_bytes(self, src: &[i8]) -> __m512i {
        let src = &src[..4 * Self::LANES];
        // Safety: as above, and the slice holds 64 bytes.
        unsafe { _mm512_loadu_si512(src.as_ptr().cast()) }
    }

    #[inline(always)]
    fn load_i32(self, src: &[i32]) -> __m512i {
        let src = &src[..Self::LANES];
        // Safety: as above, and the slice holds 16 values.
        unsafe { _mm512_loadu_si512(src.as_ptr().cast()) }
    }

    #[inline(always)]
    fn store_i32(self, x: __m512i, dst: &mut [i32]) {
        let dst = &mut dst[..Self::LANES];
        // Safety: as above, and the slice holds 16 values.
        unsafe { _mm512_storeu_si512(dst.as_mut_ptr().cast(), x) }
    }

    #[inline(always)]
    fn transpose(self, block: &mut [i32]) {
        let block = &mut block.as_chunks_mut::<16>().0.as_chunks_mut::<16>().0[0];
        // Safety: the token exists only where the processor has the instructions, and every row holds 16 values.
        unsafe {
            // No closure here: it would not be compiled for these instructions.
            let mut rows = [_mm512_setzero_si512(); 16];
            for (values, row) in rows.iter_mut().zip(&*block) {
                *values = _mm512_loadu_si512(row.as_ptr().cast());
            }
            // Words of rows that lie 1, 2, 4 and 8 apart change places.
            for i in (0..16).step_by(2) {
                let (a, b) = (rows[i], rows[i + 1]);
                (rows[i], rows[i + 1]) = (_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
            }
            for i in (0..16).step_by(4) {
                let [a, b, c, d] = [rows[i], rows[i + 1], rows[i + 2], rows[i + 3]];
                (rows[i], rows[i + 1]) = (_mm512_unpacklo_epi64(a, c), _mm512_unpackhi_epi64(a, c));
                (rows[i + 2], rows[i + 3]) = (_mm512_unpacklo_epi64(b, d), _mm512_unpackhi_epi64(b, d));
            }
            for i in 0..4 {
                let [a, b, c, d] = [rows[i], rows[i + 4], rows[i + 8], rows[i + 12]];
                let (low, high) = (_mm512_shuffle_i32x4::<0x88>(a, b), _mm512_shuffle_i32x4::<0x88>(c, d));
                let (low_odd, high_odd) = (_mm512_shuffle_i32x4::<0xdd>(a, b), _mm512_shuffle_i32x4::<0xdd>(c, d));
                rows[i] = _mm512_shuffle_i32x4::<0x88>(low, high);
                rows[i + 4] = _mm512_shuffle_i32x4::<0x88>(low_odd, high_odd);
                rows[i + 8] = _mm512_shuffle_i32x4::<0xdd>(low, high);
                rows[i + 12] = _mm512_shuffle_i32x4::<0xdd>(low_odd, high_odd);
            }
            for (row, values) in block.iter_mut().zip(rows) {
                _mm512_storeu_si512(row.as_mut_ptr().cast(), values);
            }
        }
    }

    #[inline(always)]
    fn dot4(self, acc: __m512i, x: __m512i, w: __m512i) -> __m512i {
        // Safety: as above.
        unsafe { _mm512_dpbusd_epi32(acc, x, w) }
    }

    #[inline(always)]
    fn unbiased(self, acc: __m512i, sums: __m512i) -> __m512 {
        // Safety: as above.
        unsafe { _mm512_cvtepi32_ps(_mm512_sub_epi32(acc, _mm512_slli_epi32::<7>(sums))) }
    }

    #[inline(always)]
    fn reduce_sum(self, x: __m512) -> f32 {
        // Safety: the token exists only where the processor has the instructions.
        unsafe { _mm512_reduce_add_ps(x) }
    }

    #[inline(always)]
    fn reduce_max(self, x: __m512) -> f32 {
        // Safety: the token exists only where the processor has the instructions.
        unsafe { _mm512_reduce_max_ps(x) }
    }

    #[inline(always)]
    fn load_partial(self, src: &[f32]) -> __m512 {
        if src.len() >= Self::LANES {
            return self.load(src);
        }
        let mask = mask(src.len());
        // Safety: as above; lanes outside the mask are not read.
        unsafe { _mm512_maskz_loadu_ps(mask, src.as_ptr()) }
    }

    #[inline(always)]
    fn store_partial(self, x: __m512, dst: &mut [f32]) {
        if dst.len() >= Self::LANES {
            return self.store(x, dst);
        }
        let mask = mask(dst.len());
        // Safety: as above; lanes outside the mask are not written.
        unsafe { _mm512_mask_storeu_ps(dst.as_mut_ptr(), mask, x) }
    }
}

/// The first `len` lanes, at most all.
#[inline(always)]
fn mask(len: usize) -> __mmask16 {
    if len >= 16 { u16::MAX } else { (1 << len) - 1 }
}
