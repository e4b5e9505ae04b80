//! Tests of the graph from inside.

use crate::Precision;
use crate::ops::Compute;

mod batching;
mod gemm;
mod gradients;
mod grounding;
mod losses;
mod parity;
mod planning;
mod recognition;
mod stock;

/// On two threads, exactly.
const COMPUTE: Compute = Compute { lanes: 2, precision: Precision::F32 };
