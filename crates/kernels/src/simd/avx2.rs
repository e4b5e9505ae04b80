//! AVX2 with FMA, and with VNNI where the processor has it: 8 lanes, 16 registers.

use std::arch::x86_64::*;

use super::{Op, Simd, lanewise};

/// Proof that the processor has AVX2 and FMA, and with `VNNI` AVX-VNNI as well.
#[derive(Clone, Copy)]
pub(super) struct Avx2<const VNNI: bool>(());

/// Signed bytes and, for processors without VNNI, their magnitudes: unsigned bytes are multiplied by signed ones, so
/// one factor gives its signs to the other. With VNNI the unsigned ones are 128 more.
#[derive(Clone, Copy)]
pub(super) struct Weights {
    signed: __m256i,
    magnitudes: __m256i,
}

/// Runs `op` compiled for AVX2.
#[target_feature(enable = "avx2,fma")]
pub(super) fn run<O: Op>(op: O) -> O::Output {
    op.run(Avx2::<false>(()))
}

/// Runs `op` compiled for AVX2 with VNNI.
#[target_feature(enable = "avx2,fma,avxvnni")]
pub(super) fn run_vnni<O: Op>(op: O) -> O::Output {
    op.run(Avx2::<true>(()))
}

impl<const VNNI: bool> Avx2<VNNI> {
    /// The nearest bf16 in the upper half of every word, with anything in the lower.
    #[inline(always)]
    fn rounded(self, x: __m256) -> __m256i {
        // Safety: the token exists only where the processor has the instructions.
        unsafe {
            let bits = _mm256_castps_si256(x);
            let odd = _mm256_and_si256(_mm256_srli_epi32::<16>(bits), _mm256_set1_epi32(1));
            let up = _mm256_add_epi32(_mm256_add_epi32(bits, _mm256_set1_epi32(0x7fff)), odd);
            // What is no number must not be rounded to infinity.
            let quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x40_0000));
            let unordered = _mm256_castps_si256(_mm256_cmp_ps::<_CMP_UNORD_Q>(x, x));
            _mm256_blendv_epi8(up, quiet, unordered)
        }
    }

    /// The lower and the upper bf16 of every word.
    #[inline(always)]
    fn halves(self, x: __m256i) -> [__m256; 2] {
        // Safety: the token exists only where the processor has the instructions.
        unsafe {
            let upper = _mm256_and_si256(x, _mm256_set1_epi32(0xffff_0000_u32.cast_signed()));
            [_mm256_castsi256_ps(_mm256_slli_epi32::<16>(x)), _mm256_castsi256_ps(upper)]
        }
    }
}

impl<const VNNI: bool> Simd for Avx2<VNNI> {
    type V = __m256;
    type I = __m256i;
    type W = Weights;
    const LANES: usize = 8;
    const STATES: usize = 4;
    const TILE_ROWS: usize = 6;
    // The dot product without VNNI needs registers of its own.
    const TILE_ROWS_DOT: usize = if VNNI { 6 } else { 4 };
    // Words have room for 15 bits, where bytes are multiplied twice. With VNNI that is less work than to make words of
    // weights.
    const WORDS: bool = !VNNI;

    lanewise! {
        add(a, b) = _mm256_add_ps;
        sub(a, b) = _mm256_sub_ps;
        mul(a, b) = _mm256_mul_ps;
        div(a, b) = _mm256_div_ps;
        min(a, b) = _mm256_min_ps;
        max(a, b) = _mm256_max_ps;
        fma(a, b, c) = _mm256_fmadd_ps;
        fnma(a, b, c) = _mm256_fnmadd_ps;
        floor(x) = _mm256_floor_ps;
    }

    #[inline(always)]
    fn fraction(self, x: __m256) -> __m256 {
        self.sub(x, self.floor(x))
    }

    #[inline(always)]
    fn scale_floor(self, p: __m256, x: __m256) -> __m256 {
        // Adding to the exponent must stay within its 8 bits.
        let x = self.min(self.splat(128.0), self.max(self.splat(-126.0), self.floor(x)));
        // Safety: the token exists only where the processor has the instructions.
        unsafe {
            let exponent = _mm256_slli_epi32::<23>(_mm256_cvtps_epi32(x));
            _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(p), exponent))
        }
    }

    #[inline(always)]
    fn abs(self, x: __m256) -> __m256 {
        // Safety: the token exists only where the processor has the instructions.
        unsafe { _mm256_andnot_ps(_mm256_set1_ps(-0.0), x) }
    }

    #[inline(always)]
    fn splat(self, x: f32) -> __m256 {
        // Safety: the token exists only where the processor has the instructions.
        unsafe { _mm256_set1_ps(x) }
    }

    #[inline(always)]
    fn load(self, src: &[f32]) -> __m256 {
        let src = &src[..Self::LANES];
        // Safety: as above, and the slice holds 8 values.
        unsafe { _mm256_loadu_ps(src.as_ptr()) }
    }

    #[inline(always)]
    fn store(self, x: __m256, dst: &mut [f32]) {
        let dst = &mut dst[..Self::LANES];
        // Safety: as above, and the slice holds 8 values.
        unsafe { _mm256_storeu_ps(dst.as_mut_ptr(), x) }
    }

    #[inline(always)]
    fn select_lt(self, a: __m256, b: __m256, x: __m256, y: __m256) -> __m256 {
        // Safety: the token exists only where the processor has the instructions.
        unsafe { _mm256_blendv_ps(y, x, _mm256_cmp_ps::<_CMP_LT_OQ>(a, b)) }
    }

    #[inline(always)]
    fn store_bf16(self, x: __m256, dst: &mut [i32]) {
        let dst = &mut dst[..Self::LANES / 2];
        // Safety: the token exists only where the processor has the instructions, and the slice holds 16 bytes.
        unsafe {
            let words = _mm256_srli_epi32::<16>(self.rounded(x));
            let (low, high) = (_mm256_castsi256_si128(words), _mm256_extracti128_si256::<1>(words));
            _mm_storeu_si128(dst.as_mut_ptr().cast(), _mm_packus_epi32(low, high));
        }
    }

    #[inline(always)]
    fn zip_bf16(self, low: __m256, high: __m256) -> __m256i {
        // Safety: the token exists only where the processor has the instructions.
        unsafe { _mm256_blend_epi16::<0xaa>(_mm256_srli_epi32::<16>(self.rounded(low)), self.rounded(high)) }
    }

    #[inline(always)]
    fn dot2(self, acc: __m256, a: __m256i, b: __m256i) -> __m256 {
        // Safety: the token exists only where the processor has the instructions.
        unsafe {
            let ([a_low, a_high], [b_low, b_high]) = (self.halves(a), self.halves(b));
            _mm256_fmadd_ps(a_high, b_high, _mm256_fmadd_ps(a_low, b_low, acc))
        }
    }

    #[inline(always)]
    fn store_bytes(self, x: __m256, dst: &mut [u8]) {
        let dst = &mut dst[..Self::LANES];
        // Safety: as above, and the slice holds 8 bytes.
        unsafe {
            let values = _mm256_cvtps_epi32(x);
            let (low, high) = (_mm256_castsi256_si128(values), _mm256_extracti128_si256::<1>(values));
            let words = _mm_packs_epi32(low, high);
            let bytes = if VNNI {
                let unsigned = _mm_add_epi16(words, _mm_set1_epi16(128));
                _mm_packus_epi16(unsigned, unsigned)
            } else {
                _mm_packs_epi16(words, words)
            };
            _mm_storel_epi64(dst.as_mut_ptr().cast(), bytes);
        }
    }

    #[inline(always)]
    fn splat_i32(self, x: i32) -> __m256i {
        // Safety: the token exists only where the processor has the instructions.
        unsafe { _mm256_set1_epi32(x) }
    }

    #[inline(always)]
    fn store_words(self, x: __m256, dst: &mut [u8]) {
        let dst = &mut dst[..2 * Self::LANES];
        // Safety: the token exists only where the processor has the instructions, and the slice holds 16 bytes.
        unsafe {
            let values = _mm256_cvtps_epi32(x);
            let (low, high) = (_mm256_castsi256_si128(values), _mm256_extracti128_si256::<1>(values));
            let words = _mm_packs_epi32(low, high);
            // In each half 0, 2, 1, 3.
            let words = _mm_shufflehi_epi16::<0b11_01_10_00>(_mm_shufflelo_epi16::<0b11_01_10_00>(words));
            _mm_storeu_si128(dst.as_mut_ptr().cast(), words);
        }
    }

    #[inline(always)]
    fn dot4_words(self, acc: __m256i, x: &[u8], w: &[i8]) -> __m256i {
        let (x, w) = (&x[..8], &w[..4 * Self::LANES]);
        // Safety: the token exists only where the processor has the instructions; the slices hold 8 and 32 bytes.
        unsafe {
            let x = x.as_ptr().cast::<i32>();
            let (x_even, x_odd) = (_mm256_set1_epi32(x.read_unaligned()), _mm256_set1_epi32(x.add(1).read_unaligned()));
            let w = _mm256_loadu_si256(w.as_ptr().cast());
            // Weights 0 and 2 of a lane are the lower bytes of its words, 1 and 3 the upper ones.
            let (w_even, w_odd) = (_mm256_srai_epi16::<8>(_mm256_slli_epi16::<8>(w)), _mm256_srai_epi16::<8>(w));
            let products = _mm256_add_epi32(_mm256_madd_epi16(x_even, w_even), _mm256_madd_epi16(x_odd, w_odd));
            _mm256_add_epi32(acc, products)
        }
    }

    #[inline(always)]
    fn load_bytes(self, src: &[i8]) -> Weights {
        let src = &src[..4 * Self::LANES];
        // Safety: as above, and the slice holds 32 bytes.
        unsafe {
            let signed = _mm256_loadu_si256(src.as_ptr().cast());
            Weights { signed, magnitudes: _mm256_abs_epi8(signed) }
        }
    }

    #[inline(always)]
    fn load_i32(self, src: &[i32]) -> __m256i {
        let src = &src[..Self::LANES];
        // Safety: as above, and the slice holds 8 values.
        unsafe { _mm256_loadu_si256(src.as_ptr().cast()) }
    }

    #[inline(always)]
    fn store_i32(self, x: __m256i, dst: &mut [i32]) {
        let dst = &mut dst[..Self::LANES];
        // Safety: as above, and the slice holds 8 values.
        unsafe { _mm256_storeu_si256(dst.as_mut_ptr().cast(), x) }
    }

    #[inline(always)]
    fn dot4(self, acc: __m256i, x: __m256i, w: Weights) -> __m256i {
        // Safety: as above. Magnitudes are at most 127, so a pair of products fits 16 bits.
        unsafe {
            if VNNI {
                return _mm256_dpbusd_avx_epi32(acc, x, w.signed);
            }
            let pairs = _mm256_maddubs_epi16(w.magnitudes, _mm256_sign_epi8(x, w.signed));
            _mm256_add_epi32(acc, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
        }
    }

    #[inline(always)]
    fn unbiased(self, acc: __m256i, sums: __m256i) -> __m256 {
        // Safety: the token exists only where the processor has the instructions.
        unsafe {
            let bias = if VNNI { _mm256_slli_epi32::<7>(sums) } else { _mm256_setzero_si256() };
            _mm256_cvtepi32_ps(_mm256_sub_epi32(acc, bias))
        }
    }

    #[inline(always)]
    fn reduce_sum(self, x: __m256) -> f32 {
        // Safety: the token exists only where the processor has the instructions.
        unsafe {
            let x = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps::<1>(x));
            let x = _mm_add_ps(x, _mm_movehl_ps(x, x));
            _mm_cvtss_f32(_mm_add_ss(x, _mm_movehdup_ps(x)))
        }
    }

    #[inline(always)]
    fn reduce_max(self, x: __m256) -> f32 {
        // Safety: the token exists only where the processor has the instructions.
        unsafe {
            let x = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps::<1>(x));
            let x = _mm_max_ps(x, _mm_movehl_ps(x, x));
            _mm_cvtss_f32(_mm_max_ss(x, _mm_movehdup_ps(x)))
        }
    }
}
