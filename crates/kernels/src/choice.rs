//! What there is to choose about kernels.

use std::fmt;
use std::str::FromStr;

use crate::isa::names;
use crate::{Isa, KernelError};

/// How products of several rows with weights or factors in bf16 are computed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Bf16Products {
    /// Both factors are rounded to bf16 and multiplied by dot products, an instruction where the processor has it.
    #[default]
    Native,
    /// Stored weights are widened to f32, nothing else is rounded, and f32 is multiplied. So is attention, and
    /// training.
    AsF32,
}

/// An instruction set, and how the operations are computed that it has more than one way for.
///
/// Equal choices give equal results, bit for bit, on any processor that has the instruction set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct KernelChoice {
    /// Instruction set.
    pub isa: Isa,
    /// Products in bf16.
    pub bf16: Bf16Products,
}

impl KernelChoice {
    /// The defaults of an instruction set.
    pub fn of(isa: Isa) -> Self {
        Self { isa, bf16: Bf16Products::Native }
    }
}

impl fmt::Display for KernelChoice {
    /// The spelling that [`FromStr`] reads, for example `avx512-bf16/bf16=f32`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bf16 = match self.bf16 {
            Bf16Products::Native => "native",
            Bf16Products::AsF32 => "f32",
        };
        f.pad(&format!("{}/bf16={bf16}", self.isa))
    }
}

impl FromStr for KernelChoice {
    type Err = KernelError;

    /// Reads `ISA`, `ISA/bf16=native` or `ISA/bf16=f32`.
    fn from_str(text: &str) -> Result<Self, KernelError> {
        let (isa, bf16) = match text.split_once('/') {
            None => (text, Bf16Products::Native),
            Some((isa, "bf16=native")) => (isa, Bf16Products::Native),
            Some((isa, "bf16=f32")) => (isa, Bf16Products::AsF32),
            Some(_) => return Err(unknown(text)),
        };
        let isa = Isa::ALL.into_iter().find(|candidate| candidate.to_string() == isa);
        isa.map(|isa| Self { isa, bf16 }).ok_or_else(|| unknown(text))
    }
}

fn unknown(text: &str) -> KernelError {
    KernelError::Choice { isas: names(&Isa::ALL), found: text.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn choices_are_written_as_they_are_read() {
        for isa in Isa::ALL {
            for bf16 in [Bf16Products::Native, Bf16Products::AsF32] {
                let choice = KernelChoice { isa, bf16 };
                assert_eq!(choice.to_string().parse::<KernelChoice>().expect("its own spelling"), choice);
            }
            assert_eq!(isa.to_string().parse::<KernelChoice>().expect("an instruction set"), KernelChoice::of(isa));
        }
        for bad in ["", "sse9", "avx2/bf16=int8", "avx2/"] {
            let error = bad.parse::<KernelChoice>().expect_err(bad).to_string();
            assert!(error.contains("avx512-bf16") && error.contains(&format!("`{bad}`")), "{error}");
        }
    }
}
