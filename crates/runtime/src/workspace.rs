//! Working memory that all parts of the model share, because only one of them runs at a time.

use std::ops::Range;

use robomamba_kernels::attention::AttentionScratch;
use robomamba_kernels::matmul::ConvertedRows;
use robomamba_kernels::{Kernels, Threads};

use crate::RuntimeError;

/// Fewest rows that are worth a block of their own: each block reads all weights, and products of fewer rows than a
/// tile add in another order.
pub(crate) const BLOCK_ROWS_MIN: usize = 16;

/// The kernels that a caller runs on and the memory that they work in.
///
/// Buffers grow to what the largest call needs and are reused, so that later calls of that size allocate
/// nothing. One workspace serves any number of models, one call at a time.
#[derive(Clone, Debug)]
pub struct Workspace {
    pub(crate) kernels: Kernels,
    /// The residual stream, `[rows, width]`.
    pub(crate) residual: Vec<f32>,
    /// Input of a block after its norm, `[rows, width]`.
    pub(crate) normed: Vec<f32>,
    /// Output of a block before it is added to the residual stream, `[rows, width]`.
    pub(crate) branch: Vec<f32>,
    /// The widest projection of a block: queries, keys and values, or Mamba's input and gate.
    pub(crate) projected: Vec<f32>,
    /// Output of attention, of the convolution or of the scan.
    pub(crate) mixed: Vec<f32>,
    /// Hidden layer of an MLP, or the scan's output.
    pub(crate) hidden: Vec<f32>,
    /// Mamba's low-rank step size with `B` and `C`, or a second hidden layer.
    pub(crate) narrow: Vec<f32>,
    /// Mamba's step size.
    pub(crate) delta: Vec<f32>,
    /// The state that a sequence starts from.
    pub(crate) start: Vec<f32>,
    /// Cosines and sines of the rotary positions, `[rows, head_dim]`.
    pub(crate) rotation: Vec<f32>,
    /// Inputs of a product in 8 bits.
    pub(crate) converted: ConvertedRows,
    pub(crate) attention: AttentionScratch,
    /// Of the blocks of rows that go through a layer by themselves.
    pub(crate) blocks: Vec<Workspace>,
}

impl Workspace {
    /// Empty working memory for `kernels`.
    pub fn new(kernels: Kernels) -> Self {
        Self {
            kernels,
            residual: Vec::new(),
            normed: Vec::new(),
            branch: Vec::new(),
            projected: Vec::new(),
            mixed: Vec::new(),
            hidden: Vec::new(),
            narrow: Vec::new(),
            delta: Vec::new(),
            start: Vec::new(),
            rotation: Vec::new(),
            converted: ConvertedRows::default(),
            attention: AttentionScratch::default(),
            blocks: Vec::new(),
        }
    }

    /// The kernels that run in it.
    pub fn kernels(&self) -> Kernels {
        self.kernels
    }

    /// Bytes held at present.
    pub fn bytes(&self) -> usize {
        let buffers = [
            &self.residual,
            &self.normed,
            &self.branch,
            &self.projected,
            &self.mixed,
            &self.hidden,
            &self.narrow,
            &self.delta,
            &self.start,
            &self.rotation,
        ];
        buffers.iter().map(|buffer| buffer.capacity() * size_of::<f32>()).sum::<usize>()
            + self.converted.bytes()
            + self.attention.bytes()
            + self.blocks.iter().map(Self::bytes).sum::<usize>()
    }
}

/// The first `len` values of `buffer`, which grows if it has to.
pub(crate) fn room(buffer: &mut Vec<f32>, len: usize) -> &mut [f32] {
    if buffer.len() < len {
        buffer.resize(len, 0.0);
    }
    &mut buffer[..len]
}

/// How rows are shared between threads.
#[derive(Clone, Copy)]
pub(crate) struct Cut {
    /// Rows in all.
    pub rows: usize,
    /// Rows that are worth a thread of their own.
    pub least: usize,
}

/// Calls `work` for blocks of at least `least` rows that together are the rows of `out` `[rows, width]`, one for each
/// thread: with the rows of the block, working memory that is the block's from call to call, and its part of `out`.
///
/// A block stays on one core while `work` runs, and mostly from call to call, so what it computes stays in that core's
/// cache, where threads that share the columns of every product send each other all of it. What is computed for a row
/// must not depend on the block that it is in.
pub(crate) fn for_each_block(
    kernels: Kernels,
    blocks: &mut Vec<Workspace>,
    cut: Cut,
    out: &mut [f32],
    work: impl Fn(Range<usize>, &mut Workspace, &mut [f32]) -> Result<(), RuntimeError> + Send + Sync,
) -> Result<(), RuntimeError> {
    let threads = match kernels.threads() {
        Threads::One => 1,
        Threads::Rayon => rayon::current_num_threads(),
    };
    let Cut { rows, least } = cut;
    let count = threads.min(rows / least).max(1);
    // Threads without a block of their own help with the products of the others.
    let within = if threads > count { kernels } else { kernels.with_threads(Threads::One) };
    blocks.resize_with(count.max(blocks.len()), || Workspace::new(within));
    let blocks = &mut blocks[..count];
    blocks.iter_mut().for_each(|workspace| workspace.kernels = within);
    in_halves(blocks, 0..rows, out, &work)
}

/// Gives every block its share of `rows`, which `out` holds; no share is smaller than all would be if they were equal,
/// rounded down.
fn in_halves(
    blocks: &mut [Workspace],
    rows: Range<usize>,
    out: &mut [f32],
    work: &(impl Fn(Range<usize>, &mut Workspace, &mut [f32]) -> Result<(), RuntimeError> + Send + Sync),
) -> Result<(), RuntimeError> {
    if let [workspace] = blocks {
        return work(rows, workspace, out);
    }
    let (half, width) = (blocks.len() / 2, out.len() / rows.len());
    let middle = rows.len() * half / blocks.len();
    let (first, second) = blocks.split_at_mut(half);
    let (first_out, second_out) = out.split_at_mut(middle * width);
    let middle = rows.start + middle;
    let (first, second) = rayon::join(
        || in_halves(first, rows.start..middle, first_out, work),
        || in_halves(second, middle..rows.end, second_out, work),
    );
    first.and(second)
}
