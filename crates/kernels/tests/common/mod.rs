//! What the tests share: every instruction set, random numbers that never change, and comparisons that
//! say where they failed.
#![allow(dead_code)] // Every test file uses a part.

use robomamba_kernels::{Isa, Kernels, Threads};

/// One handle per instruction set of this processor, each on one thread and on the pool.
pub fn all_kernels() -> Vec<Kernels> {
    let handles = |isa| [Threads::One, Threads::Rayon].map(|threads| Kernels::new(isa, threads).unwrap());
    Isa::available().into_iter().flat_map(handles).collect()
}

/// SplitMix64 (Steele et al. 2014): reproducible numbers without a dependency.
pub struct Random(pub u64);

impl Random {
    /// Uniform in `[low, high)`.
    pub fn uniform(&mut self, low: f32, high: f32) -> f32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        low + (high - low) * ((bits ^ (bits >> 31)) >> 40) as f32 / (1 << 24) as f32
    }

    /// `len` uniform values.
    pub fn vec(&mut self, len: usize, low: f32, high: f32) -> Vec<f32> {
        (0..len).map(|_| self.uniform(low, high)).collect()
    }
}

/// The same values in f64.
pub fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&value| value.into()).collect()
}

/// Fails unless every value is within `tolerance` of what is expected, relative to the larger of 1 and
/// the expected value's magnitude.
pub fn assert_close(what: &str, found: &[f32], expected: &[f64], tolerance: f64) {
    assert_eq!(found.len(), expected.len(), "{what}: length");
    for (i, (&found, &expected)) in found.iter().zip(expected).enumerate() {
        let error = (f64::from(found) - expected).abs() / expected.abs().max(1.0);
        assert!(error <= tolerance, "{what}[{i}]: found {found}, expected {expected}, error {error:e} > {tolerance:e}");
    }
}

/// Largest error over all values, relative to the larger of 1 and the expected value's magnitude.
pub fn worst(found: &[f32], expected: &[f64]) -> f64 {
    let error = |(&found, &expected): (&f32, &f64)| (f64::from(found) - expected).abs() / expected.abs().max(1.0);
    found.iter().zip(expected).map(error).fold(0.0, f64::max)
}

/// Checks an analytic gradient against central differences of `loss`, both in f64.
///
/// `loss` sees `values` with one of them moved.
pub fn assert_gradient(what: &str, values: &[f64], gradient: &[f64], mut loss: impl FnMut(&[f64]) -> f64) {
    assert_eq!(values.len(), gradient.len(), "{what}: length");
    const STEP: f64 = 1e-5;
    let mut moved = values.to_vec();
    for i in 0..values.len() {
        moved[i] = values[i] + STEP;
        let up = loss(&moved);
        moved[i] = values[i] - STEP;
        let down = loss(&moved);
        moved[i] = values[i];
        let expected = (up - down) / (2.0 * STEP);
        let error = (gradient[i] - expected).abs() / expected.abs().max(1.0);
        assert!(error < 1e-6, "{what}[{i}]: analytic {}, differences {expected}", gradient[i]);
    }
}
