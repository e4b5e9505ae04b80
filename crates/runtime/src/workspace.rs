//! Working memory that all parts of the model share, because only one of them runs at a time.

use robomamba_kernels::Kernels;
use robomamba_kernels::attention::AttentionScratch;
use robomamba_kernels::matmul::ConvertedRows;

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
    }
}

/// The first `len` values of `buffer`, which grows if it has to.
pub(crate) fn room(buffer: &mut Vec<f32>, len: usize) -> &mut [f32] {
    if buffer.len() < len {
        buffer.resize(len, 0.0);
    }
    &mut buffer[..len]
}
