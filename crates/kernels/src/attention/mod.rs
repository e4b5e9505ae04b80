//! Multi-head attention, small enough that the scores of one head stay in cache.
//!
//! Vaswani et al., arXiv 1706.03762, equation 1, per batch element and head:
//! `out = softmax(scale q k^T) v`. Heads lie side by side in a row, as `view(.., n_head, head_dim)` has it.
//! `q`, `k` and `v` may be column ranges of one projection; see [`Rows`].

mod heads;
pub mod reference;

use crate::error::check_len;
use crate::matmul::{Format, Pair};
use crate::{Bf16Products, KernelError, Kernels, Rows, RowsMut};

/// Sizes of an attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttentionShape {
    /// Independent sequences.
    pub batch: usize,
    /// Queries per sequence.
    pub n_query: usize,
    /// Keys and values per sequence.
    pub n_key: usize,
    /// Heads.
    pub n_head: usize,
    /// Values per head.
    pub head_dim: usize,
}

impl AttentionShape {
    /// Width of a row, `n_head * head_dim`.
    pub fn width(&self) -> usize {
        self.n_head * self.head_dim
    }
}

/// Everything that attention reads.
#[derive(Clone, Copy, Debug)]
pub struct AttentionInput<'a, T = f32> {
    /// Sizes of all the others.
    pub shape: AttentionShape,
    /// `[batch * n_query, n_head * head_dim]`.
    pub q: Rows<'a, T>,
    /// `[batch * n_key, n_head * head_dim]`.
    pub k: Rows<'a, T>,
    /// `[batch * n_key, n_head * head_dim]`.
    pub v: Rows<'a, T>,
    /// Factor of the scores, usually `1 / sqrt(head_dim)`.
    pub scale: T,
    /// Which keys a query sees.
    pub mask: Mask<'a>,
    /// Numbers in which products are computed where there are more than two queries. With [`Format::Bf16`] and
    /// [`Format::Int8`] their factors, probabilities too, are rounded to bf16 where the processor multiplies it
    /// ([`Isa::multiplies_bf16`](crate::Isa::multiplies_bf16)) and not clearly slower than f32
    /// ([`Bf16Products::Native`]). Scores and sums are f32.
    pub format: Format,
}

/// Which keys a query sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mask<'a> {
    /// All of them.
    Full,
    /// The first `lengths[b]` of batch element `b`, each at least 1: for padded text.
    KeyLengths(&'a [usize]),
    /// Query `i` sees keys `0..=i + n_key - n_query`: for sequences with a history.
    Causal,
}

/// Gradients that [`backward`] writes; earlier contents are overwritten, not added to.
#[derive(Debug)]
pub struct AttentionGrads<'a, T = f32> {
    /// `[batch * n_query, n_head * head_dim]`.
    pub q: RowsMut<'a, T>,
    /// `[batch * n_key, n_head * head_dim]`.
    pub k: RowsMut<'a, T>,
    /// `[batch * n_key, n_head * head_dim]`.
    pub v: RowsMut<'a, T>,
}

impl Mask<'_> {
    /// Number of keys that query `query` of batch element `batch` sees.
    #[inline]
    pub fn visible(&self, shape: &AttentionShape, batch: usize, query: usize) -> usize {
        match self {
            Mask::Full => shape.n_key,
            Mask::KeyLengths(lengths) => lengths[batch],
            Mask::Causal => query + 1 + shape.n_key - shape.n_query,
        }
    }

    fn check(&self, shape: &AttentionShape) -> Result<(), KernelError> {
        match self {
            Mask::Full => Ok(()),
            Mask::KeyLengths(lengths) => {
                check_len("key lengths", lengths.len(), shape.batch)?;
                match lengths.iter().find(|&&length| length == 0 || length > shape.n_key) {
                    Some(&found) => {
                        Err(KernelError::Dimension { dimension: "key length", expected: "1 to n_key", found })
                    }
                    None => Ok(()),
                }
            }
            Mask::Causal if shape.n_key < shape.n_query => {
                Err(KernelError::Dimension { dimension: "n_key", expected: "at least n_query", found: shape.n_key })
            }
            Mask::Causal => Ok(()),
        }
    }
}

impl<T> AttentionInput<'_, T> {
    fn check(&self) -> Result<(), KernelError> {
        let shape = &self.shape;
        if shape.n_key == 0 {
            return Err(KernelError::Dimension { dimension: "n_key", expected: "at least 1", found: 0 });
        }
        self.q.check("q", shape.batch * shape.n_query, shape.width())?;
        self.k.check("k", shape.batch * shape.n_key, shape.width())?;
        self.v.check("v", shape.batch * shape.n_key, shape.width())?;
        self.mask.check(shape)
    }
}

/// Working memory of [`forward`] and [`backward`]; grows to what the largest call needs and is then
/// reused, so that later calls of that size allocate nothing.
#[derive(Clone, Debug, Default)]
pub struct AttentionScratch {
    scores: Vec<f32>,
    factors: Vec<f32>,
    rounded: Vec<Pair>,
}

impl AttentionScratch {
    /// Bytes held at present.
    pub fn bytes(&self) -> usize {
        (self.scores.capacity() + self.factors.capacity()) * size_of::<f32>()
            + self.rounded.capacity() * size_of::<Pair>()
    }
}

/// Writes `out` `[batch * n_query, n_head * head_dim]`.
///
/// # Errors
/// When an argument does not fit `input.shape`; nothing is written then.
pub fn forward(
    kernels: Kernels,
    input: &AttentionInput,
    out: RowsMut,
    scratch: &mut AttentionScratch,
) -> Result<(), KernelError> {
    input.check()?;
    out.check("out", input.shape.batch * input.shape.n_query, input.shape.width())?;
    if rounds(kernels, input.format) {
        heads::forward::<Pair>(kernels, input, out, scratch);
    } else {
        heads::forward::<f32>(kernels, input, out, scratch);
    }
    Ok(())
}

/// Gradients of everything that [`forward`] read; the probabilities are computed again.
///
/// # Errors
/// When an argument does not fit `input.shape`; nothing is written then.
pub fn backward(
    kernels: Kernels,
    input: &AttentionInput,
    grad_out: Rows,
    grads: AttentionGrads,
    scratch: &mut AttentionScratch,
) -> Result<(), KernelError> {
    let (shape, width) = (&input.shape, input.shape.width());
    input.check()?;
    grad_out.check("grad of out", shape.batch * shape.n_query, width)?;
    grads.q.check("grad of q", shape.batch * shape.n_query, width)?;
    grads.k.check("grad of k", shape.batch * shape.n_key, width)?;
    grads.v.check("grad of v", shape.batch * shape.n_key, width)?;
    if rounds(kernels, input.format) {
        heads::backward::<Pair>(kernels, input, grad_out, grads, scratch);
    } else {
        heads::backward::<f32>(kernels, input, grad_out, grads, scratch);
    }
    Ok(())
}

/// Whether factors are rounded to bf16.
fn rounds(kernels: Kernels, format: Format) -> bool {
    let native = kernels.bf16() == Bf16Products::Native && kernels.isa().multiplies_bf16();
    format != Format::F32 && native
}
