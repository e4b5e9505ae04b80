//! The kernels of the process: chosen by what the processor has, and corrected where that is clearly slow.

use std::sync::OnceLock;

use crate::limits::{self, Effort};
use crate::{Bf16Products, Isa, KernelChoice, KernelError, Kernels, Threads};

/// The choice of this process, once it is made.
static CURRENT: OnceLock<KernelChoice> = OnceLock::new();

/// A default is left only for what is faster by this factor, so that a choice near a tie is the same in every run.
const CLEAR_FACTOR: f64 = 1.3;

impl KernelChoice {
    /// The choice of this process: [pinned](KernelChoice::pin), or else measured once, which takes a few milliseconds.
    ///
    /// The default is the first available instruction set of [`Isa::ALL`] with [`Bf16Products::Native`]. It is left for
    /// an alternative that is faster by a clear factor: VNNI instead of AMX, AVX2 instead of AVX-512, f32 instead of
    /// bf16.
    pub fn current() -> Self {
        *CURRENT.get_or_init(Self::measured)
    }

    /// Makes this the choice of the process, so that a run can be repeated to the bit. It comes before the first use.
    ///
    /// # Errors
    /// When the processor does not have the instruction set, or another choice is in use already.
    pub fn pin(self) -> Result<(), KernelError> {
        Kernels::pinned(self, Threads::One)?;
        match *CURRENT.get_or_init(|| self) {
            current if current == self => Ok(()),
            current => Err(KernelError::Pinned { current: current.to_string(), found: self.to_string() }),
        }
    }

    fn measured() -> Self {
        let available = Isa::available();
        let mut isa = available[0];
        if cfg!(miri) {
            // An interpreter's times say nothing.
            return Self::of(isa);
        }
        let kernels = |isa| Kernels::new(isa, Threads::One);
        if isa == Isa::Amx {
            isa = clearly_faster(isa, &available, |isa| {
                kernels(isa).map_or(0.0, |kernels| limits::int8_ops_with(kernels, Effort::Brief))
            });
        }
        if matches!(isa, Isa::Avx512Bf16 | Isa::Avx512) {
            let narrow: Vec<Isa> = [isa].into_iter().chain(available.into_iter().filter(|isa| isa.is_avx2())).collect();
            isa = clearly_faster(isa, &narrow, |isa| {
                kernels(isa).map_or(0.0, |kernels| limits::float_ops_with(kernels, Effort::Brief))
            });
        }
        let bf16 = kernels(isa).map_or(Bf16Products::Native, |kernels| {
            let float = limits::float_ops_with(kernels, Effort::Brief);
            Bf16Products::faster(limits::bf16_ops_with(kernels, Effort::Brief), float)
        });
        Self { isa, bf16 }
    }
}

impl Kernels {
    /// The kernels of this process, [`KernelChoice::current`], on the current rayon pool.
    pub fn detect() -> Self {
        Self::unchecked(KernelChoice::current(), Threads::Rayon)
    }
}

impl Bf16Products {
    /// The choice between rates of bf16 and of f32 products, both in operations per second.
    fn faster(native: f64, as_f32: f64) -> Self {
        if as_f32 >= CLEAR_FACTOR * native { Self::AsF32 } else { Self::Native }
    }
}

/// `default`, unless the one after it in `candidates` is faster by a clear factor.
fn clearly_faster(default: Isa, candidates: &[Isa], rate: impl Fn(Isa) -> f64) -> Isa {
    match candidates.iter().find(|&&isa| isa != default) {
        Some(&next) if rate(next) >= CLEAR_FACTOR * rate(default) => next,
        _ => default,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_default_is_left_for_a_clear_factor_only() {
        // Rates of bf16 and f32: much faster as everywhere but here, equal, within noise, and as on a Xeon of model
        // 207.
        let cases = [(2.0, 1.0, false), (1.0, 1.0, false), (1.0, 1.29, false), (109.0, 230.0, true)];
        for (native, as_f32, leaves) in cases {
            assert_eq!(Bf16Products::faster(native, as_f32) == Bf16Products::AsF32, leaves, "{native} and {as_f32}");
        }
        let candidates = [Isa::Amx, Isa::Avx512Bf16, Isa::Portable];
        for (second, expected) in [(1.29, Isa::Amx), (1.31, Isa::Avx512Bf16)] {
            let rate = |isa| if isa == Isa::Amx { 1.0 } else { second };
            assert_eq!(clearly_faster(Isa::Amx, &candidates, rate), expected);
        }
        assert_eq!(clearly_faster(Isa::Portable, &[Isa::Portable], |_| 1.0), Isa::Portable);
    }

    #[test]
    fn the_choice_of_a_process_stays() {
        let current = KernelChoice::current();
        assert_eq!(KernelChoice::current(), current);
        current.pin().expect("it is in use");
        let other = KernelChoice { bf16: Bf16Products::Native, isa: Isa::Portable };
        if other != current {
            assert!(other.pin().expect_err("another one is in use").to_string().contains(&current.to_string()));
        }
        assert_eq!(Kernels::detect().choice(), current);
    }
}
