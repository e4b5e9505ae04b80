//! Tests of what is private.

use crate::Precision;
use crate::ops::Compute;

mod batching;
mod gemm;
mod gradients;
mod grounding;
mod losses;
mod parity;
mod recognition;
mod sampling;
mod stock;

/// Two threads, f32.
const COMPUTE: Compute = Compute { lanes: 2, precision: Precision::F32 };
