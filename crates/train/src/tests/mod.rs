//! Tests of the graph from inside.

mod batching;
mod gemm;
mod gradients;
mod grounding;
mod losses;
mod parity;
mod planning;
mod recognition;
mod stock;
