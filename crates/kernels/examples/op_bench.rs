//! Times the matrix product, attention and the elementwise operations on every instruction set.
//!
//! `cargo run --release -p robomamba-kernels --example op_bench`
//!
//! Prints medians on one thread, and for the product also those of `rten-gemm` on one thread.

use std::error::Error;
use std::hint::black_box;
use std::time::Instant;

use robomamba_kernels::activation::{self, Activation};
use robomamba_kernels::attention::{self, AttentionInput, AttentionScratch, AttentionShape, Mask};
use robomamba_kernels::conv1d;
use robomamba_kernels::matmul::{ConvertedRows, Format, PackedMatrix};
use robomamba_kernels::scan::{self, ScanParams, StepInput};
use robomamba_kernels::{Isa, Kernels, LineAllocator, Rows, RowsMut, Threads};
use rten_gemm::{GemmExecutor, GemmInputA, GemmInputB, GemmOptions};
use rten_tensor::NdTensorView;

#[global_allocator]
static ALLOCATOR: LineAllocator = LineAllocator;

/// Products of the `base` preset: rows, outputs, inputs; the last three those of half the patches of an image, as each
/// of two threads takes them.
const PRODUCTS: [(usize, usize, usize); 7] = [
    (1, 3072, 768),
    (1, 768, 1536),
    (16, 3072, 768),
    (197, 3072, 768),
    (99, 768, 768),
    (99, 3072, 768),
    (99, 768, 3072),
];

fn main() -> Result<(), Box<dyn Error>> {
    for isa in Isa::available() {
        let kernels = Kernels::new(isa, Threads::One)?;
        println!("{isa:?}, one thread");
        products(kernels)?;
        self_attention(kernels)?;
        elementwise(kernels)?;
        steps(kernels)?;
    }
    println!("rten-gemm, one thread");
    rayon::ThreadPoolBuilder::new().num_threads(1).build()?.install(rten);
    Ok(())
}

/// Median time of `work` in microseconds.
fn median_us(mut work: impl FnMut()) -> f64 {
    let mut times: Vec<f64> = (0..31)
        .map(|_| {
            let start = Instant::now();
            work();
            start.elapsed().as_nanos() as f64 / 1e3
        })
        .collect();
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

fn wave(len: usize) -> Vec<f32> {
    (0..len).map(|i| (i as f32 * 0.37).sin()).collect()
}

fn report_product(what: &str, (rows, n_out, n_in): (usize, usize, usize), bytes: usize, us: f64) {
    let operations = 2.0 * (rows * n_out * n_in) as f64;
    let rates = format!("{:.1} GFLOP/s, {:.1} GB/s of weights", operations / us / 1e3, bytes as f64 / us / 1e3);
    println!("  {what} product {rows} x {n_out} x {n_in}: {us:.1} us, {rates}");
}

fn products(kernels: Kernels) -> Result<(), Box<dyn Error>> {
    let mut quantised = ConvertedRows::default();
    for (format, size) in Format::ALL.into_iter().flat_map(|format| PRODUCTS.map(|size| (format, size))) {
        let (rows, n_out, n_in) = size;
        let matrix = PackedMatrix::new(format, (n_out, n_in), &wave(n_out * n_in), Some(&wave(n_out)))?;
        let (x, mut y) = (wave(rows * n_in), vec![0.0; rows * n_out]);
        let us = median_us(|| {
            let out = RowsMut::new(black_box(&mut y), n_out);
            matrix.apply(kernels, rows, Rows::new(&x, n_in), out, &mut quantised).unwrap();
        });
        report_product(&format!("{format:?}"), size, matrix.bytes(), us);
    }
    Ok(())
}

fn rten() {
    let gemm = GemmExecutor::<f32>::default();
    for (rows, n_out, n_in) in PRODUCTS {
        let (weight, bias, x) = (wave(n_out * n_in), wave(n_out), wave(rows * n_in));
        let weight = NdTensorView::from_data([n_out, n_in], weight.as_slice());
        let x = NdTensorView::from_data([rows, n_in], x.as_slice());
        let packed = gemm.prepack_b(weight.transposed());
        // A single row runs fastest on the weights as they are.
        let right = if rows == 1 { GemmInputB::Unpacked(weight.transposed()) } else { GemmInputB::Packed(&packed) };
        let mut y = vec![0.0; rows * n_out];
        let us = median_us(|| {
            let options = GemmOptions { bias: Some(rten_gemm::BiasVector::Row(&bias)), ..GemmOptions::default() };
            gemm.gemm(black_box(&mut y), GemmInputA::Unpacked(x), right, options).unwrap();
        });
        report_product("rten", (rows, n_out, n_in), 4 * n_out * n_in, us);
    }
}

fn self_attention(kernels: Kernels) -> Result<(), Box<dyn Error>> {
    let shape = AttentionShape { batch: 1, n_query: 197, n_key: 197, n_head: 12, head_dim: 64 };
    let width = shape.width();
    let qkv = wave(197 * 3 * width);
    let part = |i: usize| Rows::strided(&qkv[i * width..], 3 * width);
    let input = AttentionInput {
        shape,
        q: part(0),
        k: part(1),
        v: part(2),
        scale: 0.125,
        mask: Mask::Full,
        format: Format::F32,
    };
    let (mut out, mut scratch) = (vec![0.0; 197 * width], AttentionScratch::default());
    let us = median_us(|| {
        attention::forward(kernels, &input, RowsMut::new(&mut out, width), &mut scratch).unwrap();
    });
    println!(
        "  attention 197 x 197, 12 heads of 64: {us:.0} us, {:.1} GFLOP/s",
        4.0 * 197.0 * 197.0 * 768.0 / us / 1e3
    );
    Ok(())
}

fn elementwise(kernels: Kernels) -> Result<(), Box<dyn Error>> {
    let x = wave(197 * 768);
    let mut y = x.clone();
    for f in [Activation::Silu, Activation::Gelu, Activation::GeluTanh, Activation::Softplus] {
        let us = median_us(|| activation::forward(kernels, f, &x, &mut y).unwrap());
        println!("  {f:?}: {:.3} ns per value", us * 1e3 / x.len() as f64);
    }
    Ok(())
}

/// The recurrent parts of one block of the `base` preset.
fn steps(kernels: Kernels) -> Result<(), Box<dyn Error>> {
    let (channels, small) = (wave(1536), wave(16));
    let (a_log, taps) = (vec![0.5; 1536 * 16], wave(1536 * 4));
    let params = ScanParams { a_log: &a_log, d: &channels, dt_bias: &channels };
    let weights = scan::StepWeights::new((1536, 16), &params)?;
    let filter = conv1d::StepWeights::new((1536, 4), &taps, &channels)?;
    let (mut h, mut window, mut y) = (vec![0.0; 1536 * 16], vec![0.0; 1536 * 3], vec![0.0; 1536]);
    let input = StepInput { u: &channels, delta: &channels, b: &small, c: &small, z: Some(&channels) };
    let scan_us = median_us(|| scan::step(kernels, &weights, &input, &mut h, &mut y).unwrap());
    let conv_us = median_us(|| conv1d::step(kernels, &filter, &channels, &mut window, &mut y).unwrap());
    println!("  step of 1536 channels: scan {scan_us:.2} us, convolution {conv_us:.2} us");
    Ok(())
}
