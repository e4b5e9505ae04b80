//! What a control step runs allocates nothing on one thread, on every instruction set.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use robomamba_kernels::activation::{self, Activation};
use robomamba_kernels::attention::{self, AttentionInput, AttentionScratch, AttentionShape, Mask};
use robomamba_kernels::matmul::{ConvertedRows, Format, PackedMatrix};
use robomamba_kernels::norm::{self, Norm, NormKind};
use robomamba_kernels::scan::{self, ScanParams, StepInput};
use robomamba_kernels::{Isa, KernelError, Kernels, Rows, RowsMut, Threads, conv1d, softmax};

/// The system's allocator, counting.
struct Counting;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

// Safety: everything is passed on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // Safety: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // Safety: the caller's promise.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const D_INNER: usize = 70;
const D_STATE: usize = 16;
const D_CONV: usize = 4;

/// Weights, states and working memory of a small control step.
struct Fixture {
    x: Vec<f32>,
    y: Vec<f32>,
    h: Vec<f32>,
    window: Vec<f32>,
    scan: scan::StepWeights,
    conv: conv1d::StepWeights,
    matrices: Vec<PackedMatrix>,
    converted: ConvertedRows,
    scratch: AttentionScratch,
}

impl Fixture {
    fn new() -> Result<Self, KernelError> {
        let channels = [0.5; D_INNER];
        let params = ScanParams { a_log: &[0.1; D_INNER * D_STATE], d: &channels, dt_bias: &channels };
        Ok(Self {
            x: vec![0.5; 8 * D_INNER],
            y: vec![0.0; 8 * D_INNER],
            h: vec![0.0; D_INNER * D_STATE],
            window: vec![0.0; D_INNER * (D_CONV - 1)],
            scan: scan::StepWeights::new((D_INNER, D_STATE), &params)?,
            conv: conv1d::StepWeights::new((D_INNER, D_CONV), &[0.2; D_INNER * D_CONV], &channels)?,
            matrices: Format::ALL
                .into_iter()
                .map(|format| PackedMatrix::new(format, (D_INNER, D_INNER), &[0.1; D_INNER * D_INNER], Some(&channels)))
                .collect::<Result<_, _>>()?,
            converted: ConvertedRows::default(),
            scratch: AttentionScratch::default(),
        })
    }

    fn run(&mut self, kernels: Kernels) -> Result<(), KernelError> {
        let (x, y) = (&self.x[..D_INNER], &mut self.y[..D_INNER]);
        conv1d::step(kernels, &self.conv, x, &mut self.window, y)?;
        let input = StepInput { u: x, delta: x, b: &x[..D_STATE], c: &x[..D_STATE], z: Some(x) };
        scan::step(kernels, &self.scan, &input, &mut self.h, y)?;
        for (matrix, rows) in self.matrices.iter().flat_map(|matrix| [(matrix, 1), (matrix, 8)]) {
            let (x, y) = (Rows::new(&self.x, D_INNER), RowsMut::new(&mut self.y, D_INNER));
            matrix.apply(kernels, rows, x, y, &mut self.converted)?;
        }
        let norm = Norm { kind: NormKind::Rms, weight: &self.x[..D_INNER], bias: None, eps: 1e-5 };
        norm::forward(kernels, &norm, 8, Rows::new(&self.x, D_INNER), RowsMut::new(&mut self.y, D_INNER))?;
        activation::apply(kernels, Activation::Gelu, &mut self.y);
        softmax::apply(kernels, D_INNER, &mut self.y)?;
        for (n_query, format) in [(1, Format::F32), (8, Format::F32), (8, Format::Bf16)] {
            let shape = AttentionShape { batch: 1, n_query, n_key: 8, n_head: 2, head_dim: D_INNER / 2 };
            let rows = Rows::new(&self.x, D_INNER);
            let input = AttentionInput { shape, q: rows, k: rows, v: rows, scale: 0.2, mask: Mask::Full, format };
            attention::forward(kernels, &input, RowsMut::new(&mut self.y, D_INNER), &mut self.scratch)?;
        }
        Ok(())
    }
}

// One test only: the counter belongs to the whole process.
#[test]
fn a_control_step_allocates_nothing() {
    for isa in Isa::available() {
        let kernels = Kernels::new(isa, Threads::One).unwrap();
        let mut fixture = Fixture::new().unwrap();
        fixture.run(kernels).unwrap();
        let before = ALLOCATIONS.load(Ordering::Relaxed);
        fixture.run(kernels).unwrap();
        assert_eq!(ALLOCATIONS.load(Ordering::Relaxed) - before, 0, "allocations on {isa:?}");
    }
}
