//! Attention head by head, on the panels of the matrix product.
//!
//! One item of work is a head of a batch element. Keys and values are packed once per item; the scores of
//! a block of queries become probabilities in place and meet the values while still in cache.

use std::ops::Range;

use super::{AttentionGrads, AttentionInput};
use crate::matmul::gemm::{self, Left, Output, Right, packed_len};
use crate::parallel::{SharedRows, for_each};
use crate::simd::{Op, Simd};
use crate::softmax::rows::{exponentials, multiply as multiply_row, softmax, softmax_backward};
use crate::{Kernels, Rows, RowsMut, Threads};

/// Queries whose scores are held at a time in the forward pass, a multiple of the product's tiles.
const QUERIES: usize = 48;

/// Up to this many queries there is no gain in packing.
const QUERIES_UNPACKED: usize = 2;

/// One head of one batch element.
#[derive(Clone, Copy)]
struct Head<'a> {
    input: &'a AttentionInput<'a>,
    batch: usize,
    head: usize,
}

impl<'a> Head<'a> {
    fn new(input: &'a AttentionInput<'a>, index: usize) -> Self {
        Self { input, batch: index / input.shape.n_head, head: index % input.shape.n_head }
    }

    fn columns(&self) -> Range<usize> {
        let head_dim = self.input.shape.head_dim;
        self.head * head_dim..(self.head + 1) * head_dim
    }

    /// Its part of `count` rows per batch element.
    #[inline(always)]
    fn rows(self, rows: Rows<'a>, count: usize) -> impl Iterator<Item = &'a [f32]> {
        let first = self.batch * count;
        (first..first + count).map(move |row| &rows.data[row * rows.stride..][self.columns()])
    }

    /// Its part of `count` rows per batch element as a left factor, from row `first` on.
    fn left(self, rows: Rows<'a>, per_batch: usize, range: Range<usize>) -> Left<'a> {
        let start = (self.batch * per_batch + range.start) * rows.stride + self.columns().start;
        Left {
            data: rows.data.get(start..).unwrap_or_default(),
            rows: range.len(),
            depth: self.input.shape.head_dim,
            row_stride: rows.stride,
            depth_stride: 1,
        }
    }

    /// Where it writes into `per_batch` rows per batch element, from row `first` on.
    fn output(self, rows: &'a SharedRows<'a>, per_batch: usize, first: usize) -> Output<'a> {
        Output { rows, first_row: self.batch * per_batch + first, first_column: self.columns().start }
    }

    /// Makes probabilities of the scores of query `query`; hidden keys get 0.
    #[inline(always)]
    fn probabilities<S: Simd>(&self, s: S, query: usize, scores: &mut [f32]) {
        let inverse = self.exponentials(s, query, scores);
        multiply_row(s, scores, inverse);
    }

    /// The same but for the denominator, whose inverse is returned.
    #[inline(always)]
    fn exponentials<S: Simd>(&self, s: S, query: usize, scores: &mut [f32]) -> f32 {
        let visible = self.input.mask.visible(&self.input.shape, self.batch, query);
        let (seen, hidden) = scores.split_at_mut(visible);
        hidden.fill(0.0);
        exponentials(s, seen, self.input.scale)
    }
}

/// Cuts `items` for the threads: calls `work` with a range of items and working memory of `len` values.
fn with_scratch(
    threads: Threads,
    items: usize,
    (scratch, len): (&mut Vec<f32>, usize),
    work: impl Fn(Range<usize>, &mut [f32]) + Send + Sync,
) {
    let slots = match threads {
        Threads::One => 1,
        Threads::Rayon => rayon::current_num_threads().min(items).max(1),
    };
    if scratch.len() < slots * len {
        scratch.resize(slots * len, 0.0);
    }
    let scratch = SharedRows::flat(scratch);
    for_each(threads, slots, |slot| {
        // Safety: every slot has working memory of its own.
        let scratch = unsafe { scratch.part(0, slot * len..(slot + 1) * len) };
        work(slot * items / slots..(slot + 1) * items / slots, scratch);
    });
}

/// Runs all heads.
pub(super) fn forward(kernels: Kernels, input: &AttentionInput, out: RowsMut, scratch: &mut Vec<f32>) {
    let shape = input.shape;
    let packed = packed_len(shape.head_dim, shape.n_key) + packed_len(shape.n_key, shape.head_dim);
    let len = QUERIES.min(shape.n_query) * shape.n_key + if shape.n_query <= QUERIES_UNPACKED { 0 } else { packed };
    let out = SharedRows::new(out);
    with_scratch(kernels.threads(), shape.batch * shape.n_head, (scratch, len), |heads, scratch| {
        for index in heads {
            let head = Head::new(input, index);
            if shape.n_query <= QUERIES_UNPACKED {
                kernels.run(ForwardUnpacked { head, out: &out, scores: &mut scratch[..shape.n_key] });
            } else {
                kernels.run(Forward { head, out: &out, scratch });
            }
        }
    });
}

struct Forward<'a> {
    head: Head<'a>,
    out: &'a SharedRows<'a>,
    scratch: &'a mut [f32],
}

impl Op for Forward<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Forward { head, out, scratch } = self;
        let (input, shape) = (head.input, head.input.shape);
        let (keys, scratch) = scratch.split_at_mut(packed_len(shape.head_dim, shape.n_key));
        let (values, scores) = scratch.split_at_mut(packed_len(shape.n_key, shape.head_dim));
        gemm::pack_transposed(head.rows(input.k, shape.n_key), shape.head_dim, keys);
        gemm::pack(head.rows(input.v, shape.n_key), shape.n_key, values);
        for first in (0..shape.n_query).step_by(QUERIES) {
            let queries = first..shape.n_query.min(first + QUERIES);
            let scores = &mut scores[..queries.len() * shape.n_key];
            let left = head.left(input.q, shape.n_query, queries.clone());
            multiply(s, &left, (keys, shape.n_key), scores);
            let mut inverse = [0.0; QUERIES];
            for (row, scores) in scores.chunks_exact_mut(shape.n_key).enumerate() {
                inverse[row] = head.exponentials(s, first + row, scores);
            }
            let left = dense(scores, (queries.len(), shape.n_key));
            // Safety: every head has columns of its own.
            unsafe { multiply_into(s, &left, (values, shape.head_dim), head.output(out, shape.n_query, first)) };
            // The denominators come last, where rows are shorter.
            for (query, inverse) in queries.zip(inverse) {
                // Safety: as above.
                let row = unsafe { out.part(head.batch * shape.n_query + query, head.columns()) };
                multiply_row(s, row, inverse);
            }
        }
    }
}

/// A contiguous matrix as a left factor.
#[inline(always)]
fn dense(data: &[f32], (rows, depth): (usize, usize)) -> Left<'_> {
    Left { data, rows, depth, row_stride: depth, depth_stride: 1 }
}

/// The transpose `[depth, rows]` of a contiguous matrix as a left factor.
#[inline(always)]
fn transposed(data: &[f32], (depth, rows): (usize, usize)) -> Left<'_> {
    Left { data, rows, depth, row_stride: 1, depth_stride: rows }
}

/// Writes a product to contiguous memory.
#[inline(always)]
fn multiply<S: Simd>(s: S, left: &Left, (panels, columns): (&[f32], usize), out: &mut [f32]) {
    let rows = SharedRows::new(RowsMut::new(out, columns));
    // Safety: the output is borrowed mutably.
    unsafe { multiply_into(s, left, (panels, columns), Output { rows: &rows, first_row: 0, first_column: 0 }) }
}

/// Writes a product to a part of something larger.
///
/// # Safety
/// Nothing else may use this part meanwhile.
#[inline(always)]
unsafe fn multiply_into<S: Simd>(s: S, left: &Left, (panels, columns): (&[f32], usize), output: Output) {
    let right = Right { panels, columns };
    // Safety: the caller's promise.
    unsafe { gemm::product(s, (left, &right), None, output, 0..columns.div_ceil(gemm::PANEL)) }
}

/// A few queries: keys and values are read where they lie, each once per query.
struct ForwardUnpacked<'a> {
    head: Head<'a>,
    out: &'a SharedRows<'a>,
    /// `[n_key]`.
    scores: &'a mut [f32],
}

impl Op for ForwardUnpacked<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let ForwardUnpacked { head, out, scores } = self;
        let (input, shape) = (head.input, head.input.shape);
        for (query, q) in head.rows(input.q, shape.n_query).enumerate() {
            let visible = input.mask.visible(&shape, head.batch, query);
            for (score, key) in scores.iter_mut().zip(head.rows(input.k, shape.n_key)).take(visible) {
                *score = dot(s, q, key);
            }
            softmax(s, &mut scores[..visible], input.scale);
            let row = head.batch * shape.n_query + query;
            // Safety: every head has columns of its own.
            let out = unsafe { out.part(row, head.columns()) };
            weighted_sum(s, (&scores[..visible], head.rows(input.v, shape.n_key)), out);
        }
    }
}

#[inline(always)]
fn dot<S: Simd>(s: S, a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [s.zero(); 2];
    for (i, (a, b)) in a.chunks(S::LANES).zip(b.chunks(S::LANES)).enumerate() {
        sums[i % 2] = s.fma(s.load_partial(a), s.load_partial(b), sums[i % 2]);
    }
    s.reduce_sum(s.add(sums[0], sums[1]))
}

/// `out = sum_i weights_i rows_i`.
#[inline(always)]
fn weighted_sum<'a, S: Simd>(s: S, (weights, rows): (&[f32], impl Iterator<Item = &'a [f32]>), out: &mut [f32]) {
    out.fill(0.0);
    for (&weight, row) in weights.iter().zip(rows) {
        let weight = s.splat(weight);
        for (out, x) in out.chunks_mut(S::LANES).zip(row.chunks(S::LANES)) {
            s.store_partial(s.fma(weight, s.load_partial(x), s.load_partial(out)), out);
        }
    }
}

/// Gradients of all heads.
pub(super) fn backward(
    kernels: Kernels,
    input: &AttentionInput,
    grad_out: Rows,
    grads: AttentionGrads,
    scratch: &mut Vec<f32>,
) {
    let shape = input.shape;
    let grads = SharedGrads { q: SharedRows::new(grads.q), k: SharedRows::new(grads.k), v: SharedRows::new(grads.v) };
    let len = 2 * shape.n_query * shape.n_key + panels_len(input);
    with_scratch(kernels.threads(), shape.batch * shape.n_head, (scratch, len), |heads, scratch| {
        for index in heads {
            kernels.run(Backward { head: Head::new(input, index), grad_out, grads: &grads, scratch });
        }
    });
}

/// Room for the largest factor that the backward pass packs; one at a time.
fn panels_len(input: &AttentionInput) -> usize {
    let shape = input.shape;
    let tokens = shape.n_key.max(shape.n_query);
    packed_len(shape.head_dim, tokens).max(packed_len(tokens, shape.head_dim))
}

struct SharedGrads<'a> {
    q: SharedRows<'a>,
    k: SharedRows<'a>,
    v: SharedRows<'a>,
}

struct Backward<'a> {
    head: Head<'a>,
    grad_out: Rows<'a>,
    grads: &'a SharedGrads<'a>,
    scratch: &'a mut [f32],
}

impl Op for Backward<'_> {
    type Output = ();

    /// With `P` the probabilities and `S` the scores before the scale:
    /// `dV = P^T dO`, `dP = dO V^T`, `dS = softmax'(dP)`, `dQ = dS K`, `dK = dS^T Q`.
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Backward { head, grad_out, grads, scratch } = self;
        let (input, shape) = (head.input, head.input.shape);
        let (n_query, n_key, head_dim) = (shape.n_query, shape.n_key, shape.head_dim);
        let (p, scratch) = scratch.split_at_mut(n_query * n_key);
        let (ds, panels) = scratch.split_at_mut(n_query * n_key);

        gemm::pack_transposed(head.rows(input.k, n_key), head_dim, panels);
        multiply(s, &head.left(input.q, n_query, 0..n_query), (panels, n_key), p);
        for (query, row) in p.chunks_exact_mut(n_key).enumerate() {
            head.probabilities(s, query, row);
        }
        gemm::pack(head.rows(grad_out, n_query), n_query, panels);
        // Safety: every head has columns of its own, here and below.
        unsafe {
            multiply_into(s, &transposed(p, (n_query, n_key)), (panels, head_dim), head.output(&grads.v, n_key, 0));
        }

        gemm::pack_transposed(head.rows(input.v, n_key), head_dim, panels);
        multiply(s, &head.left(grad_out, n_query, 0..n_query), (panels, n_key), ds);
        for (p, ds) in p.chunks_exact(n_key).zip(ds.chunks_exact_mut(n_key)) {
            softmax_backward(s, p, ds, input.scale);
        }
        gemm::pack(head.rows(input.k, n_key), n_key, panels);
        // Safety: as above.
        unsafe {
            multiply_into(s, &dense(ds, (n_query, n_key)), (panels, head_dim), head.output(&grads.q, n_query, 0))
        };
        gemm::pack(head.rows(input.q, n_query), n_query, panels);
        // Safety: as above.
        unsafe {
            multiply_into(s, &transposed(ds, (n_query, n_key)), (panels, head_dim), head.output(&grads.k, n_key, 0));
        }
    }
}
