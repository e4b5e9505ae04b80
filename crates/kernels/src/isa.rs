//! Which instruction set the kernels use, chosen once at load.

use crate::KernelError;

/// An instruction set that the kernels are compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Isa {
    /// [`Isa::Avx512Bf16`], and AMX for products of several rows in 8-bit integers (Xeons from Sapphire Rapids on, with Linux).
    Amx,
    /// [`Isa::Avx512`], and BF16 for products in that format (Cooper Lake, Sapphire Rapids, Zen 4 and later).
    Avx512Bf16,
    /// x86-64 with AVX-512 F, VL, DQ, BW and VNNI (Cascade Lake, Ice Lake, Zen 4 and later): 16 lanes of f32.
    Avx512,
    /// [`Isa::Avx2`], and AVX-VNNI for products in 8-bit integers (Alder Lake, Meteor Lake and other processors without AVX-512).
    AvxVnni,
    /// x86-64 with AVX2 and FMA: 8 lanes of f32.
    Avx2,
    /// Whatever the compiler makes of 4 lanes for the build's target: SSE2 on x86-64, NEON on AArch64.
    Portable,
}

impl Isa {
    /// All instruction sets, fastest first.
    pub const ALL: [Isa; 6] = [Isa::Amx, Isa::Avx512Bf16, Isa::Avx512, Isa::AvxVnni, Isa::Avx2, Isa::Portable];

    /// The fastest instruction set of this processor.
    pub fn detect() -> Self {
        Self::ALL.into_iter().find(|isa| isa.is_available()).unwrap_or(Isa::Portable)
    }

    /// The instruction sets of this processor, fastest first.
    pub fn available() -> Vec<Self> {
        Self::ALL.into_iter().filter(|isa| isa.is_available()).collect()
    }

    /// Whether it has dot products of bf16; without them bf16 is turned into f32 first.
    pub fn multiplies_bf16(self) -> bool {
        matches!(self, Isa::Amx | Isa::Avx512Bf16)
    }

    /// Whether this processor has the instruction set.
    pub fn is_available(self) -> bool {
        match self {
            #[cfg(target_arch = "x86_64")]
            Isa::Amx => Isa::Avx512Bf16.is_available() && crate::matmul::tiles_are_available(),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Bf16 => is_x86_feature_detected!("avx512bf16") && Isa::Avx512.is_available(),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => {
                is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512vl")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512vnni")
                    && Isa::Avx2.is_available()
            }
            #[cfg(target_arch = "x86_64")]
            Isa::AvxVnni => is_x86_feature_detected!("avxvnni") && Isa::Avx2.is_available(),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma"),
            #[cfg(not(target_arch = "x86_64"))]
            Isa::Amx | Isa::Avx512Bf16 | Isa::Avx512 | Isa::AvxVnni | Isa::Avx2 => false,
            Isa::Portable => true,
        }
    }
}

/// How many threads an operation may use. Results do not depend on it, bit for bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Threads {
    /// The calling thread only; nothing is allocated behind the caller's back.
    One,
    /// The current rayon pool.
    Rayon,
}

/// The handle that every operation takes: an instruction set that this processor is known to have, and a
/// threading policy. Make it once at load and copy it around.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kernels {
    isa: Isa,
    threads: Threads,
}

impl Kernels {
    /// The fastest kernels of this processor, on the current rayon pool.
    pub fn detect() -> Self {
        Self { isa: Isa::detect(), threads: Threads::Rayon }
    }

    /// Kernels of a chosen instruction set.
    ///
    /// # Errors
    /// When this processor does not have it.
    pub fn new(isa: Isa, threads: Threads) -> Result<Self, KernelError> {
        if isa.is_available() {
            Ok(Self { isa, threads })
        } else {
            Err(KernelError::Isa { isa, available: Isa::available() })
        }
    }

    /// The same instruction set with another threading policy.
    pub fn with_threads(self, threads: Threads) -> Self {
        Self { threads, ..self }
    }

    /// The instruction set in use.
    pub fn isa(self) -> Isa {
        self.isa
    }

    /// The threading policy in use.
    pub fn threads(self) -> Threads {
        self.threads
    }
}
