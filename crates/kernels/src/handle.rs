//! The handle that every operation takes.

use crate::isa::names;
use crate::{Bf16Products, Isa, KernelChoice, KernelError, Threads};

/// The handle that every operation takes: kernels that this processor is known to have, and a threading policy. Make it
/// once at load and copy it around.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kernels {
    choice: KernelChoice,
    threads: Threads,
}

impl Kernels {
    /// Kernels of an instruction set with its defaults.
    ///
    /// # Errors
    /// When this processor does not have it.
    pub fn new(isa: Isa, threads: Threads) -> Result<Self, KernelError> {
        Self::pinned(KernelChoice::of(isa), threads)
    }

    /// Kernels of a chosen kind.
    ///
    /// # Errors
    /// When this processor does not have the instruction set.
    pub fn pinned(choice: KernelChoice, threads: Threads) -> Result<Self, KernelError> {
        if choice.isa.is_available() {
            Ok(Self { choice, threads })
        } else {
            Err(KernelError::Isa { isa: choice.isa.to_string(), available: names(&Isa::available()) })
        }
    }

    /// Kernels of a choice that is known to be available.
    pub(crate) fn unchecked(choice: KernelChoice, threads: Threads) -> Self {
        Self { choice, threads }
    }

    /// The same kernels with another threading policy.
    pub fn with_threads(self, threads: Threads) -> Self {
        Self { threads, ..self }
    }

    /// The choice in use.
    pub fn choice(self) -> KernelChoice {
        self.choice
    }

    /// The instruction set in use.
    pub fn isa(self) -> Isa {
        self.choice.isa
    }

    /// How products of several rows in bf16 are computed.
    pub fn bf16(self) -> Bf16Products {
        self.choice.bf16
    }

    /// The threading policy in use.
    pub fn threads(self) -> Threads {
        self.threads
    }
}
