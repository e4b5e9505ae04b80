//! Attention as its formula says, one query and head at a time, in any float type.

use num_traits::Float;

use super::{AttentionGrads, AttentionInput};
use crate::softmax::reference as softmax;
use crate::{Rows, RowsMut};

/// The part of row `row` that belongs to head `head`.
fn head<'a, T>(input: &AttentionInput<T>, rows: Rows<'a, T>, row: usize, head: usize) -> &'a [T] {
    let head_dim = input.shape.head_dim;
    &rows.row(row, input.shape.width())[head * head_dim..][..head_dim]
}

fn dot<T: Float>(a: &[T], b: &[T]) -> T {
    a.iter().zip(b).fold(T::zero(), |sum, (&a, &b)| sum + a * b)
}

/// Adds `factor * x` to `y`.
fn add_scaled<T: Float>(y: &mut [T], factor: T, x: &[T]) {
    for (y, &x) in y.iter_mut().zip(x) {
        *y = *y + factor * x;
    }
}

/// Probabilities of the keys that one query sees.
fn probabilities<T: Float>(input: &AttentionInput<T>, (batch, query, h): (usize, usize, usize)) -> Vec<T> {
    let shape = &input.shape;
    let q = head(input, input.q, batch * shape.n_query + query, h);
    let visible = input.mask.visible(shape, batch, query);
    let score = |key| input.scale * dot(q, head(input, input.k, batch * shape.n_key + key, h));
    let mut row: Vec<T> = (0..visible).map(score).collect();
    softmax::apply(&mut row);
    row
}

/// Writes `out`; see [`super::forward`]. Arguments must fit the shape.
pub fn forward<T: Float>(input: &AttentionInput<T>, mut out: RowsMut<T>) {
    for at in positions(input) {
        let (batch, query, h) = at;
        let shape = &input.shape;
        let row = out.row(batch * shape.n_query + query, shape.width());
        let out = &mut row[h * shape.head_dim..][..shape.head_dim];
        out.fill(T::zero());
        for (key, &p) in probabilities(input, at).iter().enumerate() {
            add_scaled(out, p, head(input, input.v, batch * shape.n_key + key, h));
        }
    }
}

/// Every `(batch, query, head)`.
fn positions<T>(input: &AttentionInput<T>) -> impl Iterator<Item = (usize, usize, usize)> + use<T> {
    let shape = input.shape;
    (0..shape.batch).flat_map(move |b| (0..shape.n_query).flat_map(move |q| (0..shape.n_head).map(move |h| (b, q, h))))
}

/// Gradients of everything that the forward pass read; see [`super::backward`].
pub fn backward<T: Float>(input: &AttentionInput<T>, grad_out: Rows<T>, mut grads: AttentionGrads<T>) {
    let shape = input.shape;
    let width = shape.width();
    for row in 0..shape.batch * shape.n_query {
        grads.q.row(row, width).fill(T::zero());
    }
    for row in 0..shape.batch * shape.n_key {
        grads.k.row(row, width).fill(T::zero());
        grads.v.row(row, width).fill(T::zero());
    }
    for at in positions(input) {
        let (batch, query, h) = at;
        let columns = h * shape.head_dim..(h + 1) * shape.head_dim;
        let query_row = batch * shape.n_query + query;
        let p = probabilities(input, at);
        let dout = head(input, grad_out, query_row, h);
        let key_row = |key| batch * shape.n_key + key;
        let dp: Vec<T> = (0..p.len()).map(|key| dot(dout, head(input, input.v, key_row(key), h))).collect();
        let mut dscore = vec![T::zero(); p.len()];
        softmax::backward((&p, &dp), &mut dscore);
        for key in 0..p.len() {
            let ds = dscore[key] * input.scale;
            add_scaled(&mut grads.v.row(key_row(key), width)[columns.clone()], p[key], dout);
            let q = head(input, input.q, query_row, h);
            add_scaled(&mut grads.k.row(key_row(key), width)[columns.clone()], ds, q);
            let k = head(input, input.k, key_row(key), h);
            add_scaled(&mut grads.q.row(query_row, width)[columns.clone()], ds, k);
        }
    }
}
