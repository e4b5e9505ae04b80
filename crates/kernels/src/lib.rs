//! CPU kernels of RoboMamba: selective scan, convolution, norms, attention and matrix products.
//!
//! # How to call
//! Make one [`Kernels`] handle at load; it says which instruction set and threads to use, and every
//! operation takes it first. Tensors are plain `f32` slices, row-major; a [`Rows`] view stands where a
//! tensor may be a column range of a wider one. Shapes and arguments travel in small structs, whose
//! fields say what they hold:
//!
//! ```
//! use robomamba_kernels::{Kernels, Rows, RowsMut, scan::{self, ScanInput, ScanOutput, ScanParams, ScanShape}};
//!
//! let shape = ScanShape { batch: 1, seq_len: 2, d_inner: 3, d_state: 4 };
//! let (channels, states) = (vec![0.5; 2 * 3], vec![0.25; 2 * 4]);
//! let input = ScanInput {
//!     shape,
//!     params: ScanParams { a_log: &[0.0; 12], d: &[1.0; 3], dt_bias: &[0.0; 3] },
//!     u: Rows::new(&channels, 3),
//!     delta: Rows::new(&channels, 3),
//!     b: Rows::new(&states, 4),
//!     c: Rows::new(&states, 4),
//!     z: None,
//!     h0: None,
//! };
//! let (mut y, mut h_last) = (vec![0.0; 6], vec![0.0; 12]);
//! let output = ScanOutput { y: RowsMut::new(&mut y, 3), h_last: &mut h_last };
//! scan::forward(Kernels::detect(), &input, output, None)?;
//! # Ok::<(), robomamba_kernels::KernelError>(())
//! ```
//!
//! Programs should install [`LineAllocator`], or loads of whole registers read two cache lines each.
//!
//! Backward passes overwrite the gradients that they are given. Sequences come as
//! `[batch * seq_len, width]` rows, recurrent states as `[batch, d_inner, ..]`. Every folder has a
//! `reference` beside the fast path: the formula in any float type, and in f64 the oracle of the tests.

pub mod activation;
mod allocator;
#[cfg(target_arch = "x86_64")]
mod amx;
pub mod attention;
mod choice;
pub mod conv1d;
mod error;
mod handle;
mod isa;
pub mod limits;
pub mod matmul;
mod measure;
pub mod norm;
mod parallel;
pub mod scan;
mod simd;
pub mod softmax;
mod view;

pub use allocator::{LineAllocator, keep_freed_memory, with_large_blocks_apart};
pub use choice::{Bf16Products, KernelChoice};
pub use error::KernelError;
pub use handle::Kernels;
pub use isa::{Isa, Threads};
pub use view::{Rows, RowsMut};
