//! Why a kernel refuses its arguments.

use thiserror::Error;

/// Each variant is one cause; its message says what was expected, what was found and what to do.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum KernelError {
    /// A slice or view does not hold what the shape says.
    #[error("`{tensor}` must hold {expected} f32 values, found {found}; make it match the shape of the call")]
    Length {
        /// Name of the argument.
        tensor: &'static str,
        /// Values that the shape asks for.
        expected: usize,
        /// Values that were given.
        found: usize,
    },
    /// The rows of a strided view overlap.
    #[error("the rows of `{tensor}` are {width} wide but only {stride} apart; pass the stride of the whole row")]
    Stride {
        /// Name of the argument.
        tensor: &'static str,
        /// Values per row.
        width: usize,
        /// Distance between rows.
        stride: usize,
    },
    /// A dimension is outside what the operation supports.
    #[error("`{dimension}` must be {expected}, found {found}")]
    Dimension {
        /// Name of the dimension.
        dimension: &'static str,
        /// What is allowed, in words.
        expected: &'static str,
        /// The value that was given.
        found: usize,
    },
    /// One of two arguments that belong together is missing.
    #[error("`{present}` was given without `{missing}`; pass both or neither")]
    Missing {
        /// The argument that is there.
        present: &'static str,
        /// The argument that is not.
        missing: &'static str,
    },
    /// This processor cannot run the instruction set.
    #[error("{isa} is not available on this processor, which has {available}")]
    Isa {
        /// What was asked for.
        isa: String,
        /// Names of those that there are.
        available: String,
    },
    /// Weights cannot be stored like that.
    #[error("the format of weights must be f32, bf16 or int8, found `{found}`")]
    Format {
        /// What was asked for.
        found: String,
    },
    /// The checkpoints of a scan belong to another call.
    #[error("the scan's checkpoints were written for {expected}, this call has {found}; run the forward pass again")]
    Checkpoints {
        /// Shape and instruction set of the forward pass.
        expected: String,
        /// Shape and instruction set of the backward pass.
        found: String,
    },
    /// A choice of kernels cannot be read.
    #[error("expected kernels as ISA, ISA/bf16=native or ISA/bf16=f32 with an ISA of {isas}, found `{found}`")]
    Choice {
        /// Names of all instruction sets.
        isas: String,
        /// What was given.
        found: String,
    },
    /// The kernels of the process are in use already.
    #[error("the kernels {found} cannot be pinned, for {current} is in use already; pin them before anything else")]
    Pinned {
        /// What the process uses.
        current: String,
        /// What was asked for.
        found: String,
    },
}

/// Checks that an argument holds exactly `expected` values.
pub(crate) fn check_len(tensor: &'static str, found: usize, expected: usize) -> Result<(), KernelError> {
    if found == expected { Ok(()) } else { Err(KernelError::Length { tensor, expected, found }) }
}
