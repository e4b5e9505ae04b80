//! Instruction sets and threads.

use std::fmt;

/// An instruction set that the kernels are compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Isa {
    /// [`Isa::Avx512Bf16`], and AMX for products of several rows in 8-bit integers (Xeons from Sapphire Rapids on, with
    /// Linux).
    Amx,
    /// [`Isa::Avx512`], and BF16 for products in that format (Cooper Lake, Sapphire Rapids, Zen 4 and later).
    Avx512Bf16,
    /// AVX-512 on x86-64: F, VL, DQ, BW and VNNI (Cascade Lake, Ice Lake, Zen 4 and later): 16 lanes of f32.
    Avx512,
    /// [`Isa::Avx2`], and AVX-VNNI for products in 8-bit integers (Alder Lake, Meteor Lake and other processors without
    /// AVX-512).
    AvxVnni,
    /// AVX2 and FMA on x86-64: 8 lanes of f32.
    Avx2,
    /// Whatever the compiler makes of 4 lanes for the build's target: SSE2 on x86-64, NEON on AArch64.
    Portable,
}

impl Isa {
    /// All instruction sets, each before those that it extends.
    pub const ALL: [Isa; 6] = [Isa::Amx, Isa::Avx512Bf16, Isa::Avx512, Isa::AvxVnni, Isa::Avx2, Isa::Portable];

    /// The instruction sets of this processor in the order of [`Isa::ALL`]; the last one is [`Isa::Portable`].
    pub fn available() -> Vec<Self> {
        Self::ALL.into_iter().filter(|isa| isa.is_available()).collect()
    }

    /// Whether it has dot products of bf16; without them bf16 is widened to f32 first.
    pub fn multiplies_bf16(self) -> bool {
        matches!(self, Isa::Amx | Isa::Avx512Bf16)
    }

    /// Whether its registers have 8 lanes.
    pub(crate) fn is_avx2(self) -> bool {
        matches!(self, Isa::AvxVnni | Isa::Avx2)
    }

    /// Whether this processor has the instruction set.
    pub fn is_available(self) -> bool {
        match self {
            #[cfg(target_arch = "x86_64")]
            Isa::Amx => Isa::Avx512Bf16.is_available() && crate::amx::is_available(),
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

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Isa::Amx => "amx",
            Isa::Avx512Bf16 => "avx512-bf16",
            Isa::Avx512 => "avx512",
            Isa::AvxVnni => "avx-vnni",
            Isa::Avx2 => "avx2",
            Isa::Portable => "portable",
        })
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

/// The names of instruction sets, for messages.
pub(crate) fn names(isas: &[Isa]) -> String {
    isas.iter().map(Isa::to_string).collect::<Vec<_>>().join(", ")
}
