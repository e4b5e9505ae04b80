//! Attention head by head, on the panels of the matrix product.
//!
//! One item of work is a head of a batch element. Keys and values are packed once per item; the scores of
//! a block of queries become probabilities in place and meet the values while still in cache.

use std::ops::Range;

use super::{AttentionGrads, AttentionInput, AttentionScratch, AttentionShape};
use crate::matmul::Pair;
use crate::matmul::gemm::{self, Element, Left, Output, Right, Write, even_height, packed_len};
use crate::matmul::pack::{Pack, grow};
use crate::parallel::{SharedRows, for_each};
use crate::simd::{Op, Simd, prefetch};
use crate::softmax::rows::{exponentials, multiply as multiply_row, softmax, softmax_backward};
use crate::{Kernels, Rows, RowsMut, Threads};

/// Most queries whose scores are held at a time in the forward pass, a multiple of the product's tiles.
const QUERIES: usize = 60;

/// Values of a line of the cache.
const LINE: usize = 16;

/// Up to this many queries there is no gain in packing.
const QUERIES_UNPACKED: usize = 2;

/// Elements of the products of attention.
pub(super) trait Factor: Pack {
    /// Memory for scores and for factors.
    fn memory(scratch: &mut AttentionScratch) -> (&mut Vec<f32>, &mut Vec<Self>);
}

impl Factor for f32 {
    fn memory(scratch: &mut AttentionScratch) -> (&mut Vec<f32>, &mut Vec<f32>) {
        (&mut scratch.scores, &mut scratch.factors)
    }
}

impl Factor for Pair {
    fn memory(scratch: &mut AttentionScratch) -> (&mut Vec<f32>, &mut Vec<Pair>) {
        (&mut scratch.scores, &mut scratch.rounded)
    }
}

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
        Output {
            rows,
            first_row: self.batch * per_batch + first,
            first_column: self.columns().start,
            write: Write::Set,
        }
    }

    /// Prefetches query `query` and its share of the keys and values, whose rows are too far apart for the hardware.
    #[inline(always)]
    fn prefetch(&self, query: usize) {
        let AttentionInput { shape, q, k, v, .. } = self.input;
        self.prefetch_row(q, self.batch * shape.n_query + query);
        let keys = query * shape.n_key / shape.n_query..(query + 1) * shape.n_key / shape.n_query;
        for key in keys {
            self.prefetch_row(k, self.batch * shape.n_key + key);
            self.prefetch_row(v, self.batch * shape.n_key + key);
        }
    }

    #[inline(always)]
    fn prefetch_row(&self, rows: &Rows, row: usize) {
        let first = row * rows.stride + self.columns().start;
        (0..self.input.shape.head_dim).step_by(LINE).for_each(|i| prefetch(rows.data, first + i));
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

/// Cuts `items` for the threads: calls `work` with a range of items and working memory for `n_score` scores and
/// `n_factor` elements of factors.
fn with_scratch<E: Factor>(
    threads: Threads,
    items: usize,
    scratch: &mut AttentionScratch,
    (n_score, n_factor): (usize, usize),
    work: impl Fn(Range<usize>, &mut [f32], &mut [E]) + Send + Sync,
) {
    let slots = match threads {
        Threads::One => 1,
        Threads::Rayon => rayon::current_num_threads().min(items).max(1),
    };
    let (scores, factors) = E::memory(scratch);
    grow(scores, slots * n_score);
    grow(factors, slots * n_factor);
    let scores = SharedRows::new(RowsMut::new(scores, n_score));
    let factors = SharedRows::new(RowsMut::new(factors, n_factor));
    for_each(threads, slots, |slot| {
        // Safety: every slot has working memory of its own.
        let (scores, factors) = unsafe { (scores.part(slot, 0..n_score), factors.part(slot, 0..n_factor)) };
        work(slot * items / slots..(slot + 1) * items / slots, scores, factors);
    });
}

/// Runs all heads.
pub(super) fn forward<E: Factor>(
    kernels: Kernels,
    input: &AttentionInput,
    out: RowsMut,
    scratch: &mut AttentionScratch,
) {
    let shape = input.shape;
    let queries = even_height(shape.n_query, QUERIES);
    let is_packed = shape.n_query > QUERIES_UNPACKED;
    let room = E::left_len(queries, shape.head_dim).max(E::left_len(queries, shape.n_key));
    let packed = keys_len::<E>(input) + values_len::<E>(input) + room;
    let len = (queries * shape.n_key, if is_packed { packed } else { 0 });
    let out = SharedRows::new(out);
    with_scratch(kernels.threads(), shape.batch * shape.n_head, scratch, len, |heads, scores, factors: &mut [E]| {
        let end = heads.end;
        for index in heads {
            let head = Head::new(input, index);
            if is_packed {
                let next = (index + 1 < end).then(|| Head::new(input, index + 1));
                E::run(kernels, Forward { head, next, out: &out, scores, factors });
            } else {
                kernels.run(ForwardUnpacked { head, out: &out, scores: &mut scores[..shape.n_key] });
            }
        }
    });
}

/// Elements of the keys of a head as a right factor.
fn keys_len<E: Factor>(input: &AttentionInput) -> usize {
    packed_len(E::depth(input.shape.head_dim), input.shape.n_key)
}

/// Elements of the values of a head as a right factor.
fn values_len<E: Factor>(input: &AttentionInput) -> usize {
    packed_len(E::depth(input.shape.n_key), input.shape.head_dim)
}

struct Forward<'a, E> {
    head: Head<'a>,
    /// Whose turn is next.
    next: Option<Head<'a>>,
    out: &'a SharedRows<'a>,
    scores: &'a mut [f32],
    factors: &'a mut [E],
}

impl<E: Factor> Op for Forward<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Forward { head, next, out, scores, factors } = self;
        let (input, shape) = (head.input, head.input.shape);
        let (keys, factors) = factors.split_at_mut(keys_len::<E>(input));
        let (values, room) = factors.split_at_mut(values_len::<E>(input));
        E::pack_transposed(s, head.rows(input.k, shape.n_key), shape.head_dim, keys);
        E::pack(s, head.rows(input.v, shape.n_key), shape.n_key, values);
        let height = even_height(shape.n_query, QUERIES).max(1);
        for first in (0..shape.n_query).step_by(height) {
            let queries = first..shape.n_query.min(first + height);
            let scores = &mut scores[..queries.len() * shape.n_key];
            let left = E::left(s, head.left(input.q, shape.n_query, queries.clone()), room);
            multiply(s, &left, (keys, shape.n_key), scores);
            let mut inverse = [0.0; QUERIES];
            for (row, scores) in scores.chunks_exact_mut(shape.n_key).enumerate() {
                inverse[row] = head.exponentials(s, first + row, scores);
                if let Some(next) = &next {
                    next.prefetch(first + row);
                }
            }
            let left = E::left(s, dense(scores, (queries.len(), shape.n_key)), room);
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
fn multiply<S: Simd, E: Element>(s: S, left: &Left<E>, (panels, columns): (&[E], usize), out: &mut [f32]) {
    let rows = SharedRows::new(RowsMut::new(out, columns));
    // Safety: the output is borrowed mutably.
    unsafe { multiply_into(s, left, (panels, columns), Output::whole(&rows)) }
}

/// Writes a product to a part of something larger.
///
/// # Safety
/// Nothing else may use this part meanwhile.
#[inline(always)]
unsafe fn multiply_into<S: Simd, E: Element>(s: S, left: &Left<E>, (panels, columns): (&[E], usize), output: Output) {
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
pub(super) fn backward<E: Factor>(
    kernels: Kernels,
    input: &AttentionInput,
    grad_out: Rows,
    grads: AttentionGrads,
    scratch: &mut AttentionScratch,
) {
    let shape = input.shape;
    let grads = SharedGrads { q: SharedRows::new(grads.q), k: SharedRows::new(grads.k), v: SharedRows::new(grads.v) };
    let len = (2 * shape.n_query * shape.n_key, panels_len::<E>(input) + room_len::<E>(input));
    with_scratch(kernels.threads(), shape.batch * shape.n_head, scratch, len, |heads, scores, factors: &mut [E]| {
        for index in heads {
            E::run(kernels, Backward { head: Head::new(input, index), grad_out, grads: &grads, scores, factors });
        }
    });
}

/// Elements of the largest right factor of the backward pass; there is one at a time.
fn panels_len<E: Factor>(input: &AttentionInput) -> usize {
    let shape = input.shape;
    let tokens = shape.n_key.max(shape.n_query);
    packed_len(E::depth(shape.head_dim), tokens).max(packed_len(E::depth(tokens), shape.head_dim))
}

/// The same of the left ones.
fn room_len<E: Factor>(input: &AttentionInput) -> usize {
    let AttentionShape { n_query, n_key, head_dim, .. } = input.shape;
    [(n_query, head_dim), (n_query, n_key), (n_key, n_query)]
        .into_iter()
        .map(|(rows, depth)| E::left_len(rows, depth))
        .fold(0, usize::max)
}

struct SharedGrads<'a> {
    q: SharedRows<'a>,
    k: SharedRows<'a>,
    v: SharedRows<'a>,
}

struct Backward<'a, E> {
    head: Head<'a>,
    grad_out: Rows<'a>,
    grads: &'a SharedGrads<'a>,
    scores: &'a mut [f32],
    factors: &'a mut [E],
}

impl<E: Factor> Op for Backward<'_, E> {
    type Output = ();

    /// With `P` the probabilities and `S` the scores before the scale:
    /// `dV = P^T dO`, `dP = dO V^T`, `dS = softmax'(dP)`, `dQ = dS K`, `dK = dS^T Q`.
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Backward { head, grad_out, grads, scores, factors } = self;
        let (input, shape) = (head.input, head.input.shape);
        let (n_query, n_key, head_dim) = (shape.n_query, shape.n_key, shape.head_dim);
        let (p, ds) = scores.split_at_mut(n_query * n_key);
        let (panels, room) = factors.split_at_mut(panels_len::<E>(input));

        E::pack_transposed(s, head.rows(input.k, n_key), head_dim, panels);
        let left = E::left(s, head.left(input.q, n_query, 0..n_query), room);
        multiply(s, &left, (panels, n_key), p);
        for (query, row) in p.chunks_exact_mut(n_key).enumerate() {
            head.probabilities(s, query, row);
        }
        E::pack(s, head.rows(grad_out, n_query), n_query, panels);
        let left = E::left(s, transposed(p, (n_query, n_key)), room);
        // Safety: every head has columns of its own, here and below.
        unsafe { multiply_into(s, &left, (panels, head_dim), head.output(&grads.v, n_key, 0)) };

        E::pack_transposed(s, head.rows(input.v, n_key), head_dim, panels);
        let left = E::left(s, head.left(grad_out, n_query, 0..n_query), room);
        multiply(s, &left, (panels, n_key), ds);
        for (p, ds) in p.chunks_exact(n_key).zip(ds.chunks_exact_mut(n_key)) {
            softmax_backward(s, p, ds, input.scale);
        }
        E::pack(s, head.rows(input.k, n_key), n_key, panels);
        let left = E::left(s, dense(ds, (n_query, n_key)), room);
        // Safety: as above.
        unsafe { multiply_into(s, &left, (panels, head_dim), head.output(&grads.q, n_query, 0)) };
        E::pack(s, head.rows(input.q, n_query), n_query, panels);
        let left = E::left(s, transposed(ds, (n_query, n_key)), room);
        // Safety: as above.
        unsafe { multiply_into(s, &left, (panels, head_dim), head.output(&grads.k, n_key, 0)) };
    }
}
