//! The convolution as its formula says, in any float type.

use num_traits::Float;

use super::{ConvGradOutput, ConvGrads, ConvInput, ConvOutput};
use crate::activation::reference::{silu, silu_grad};

/// Where the input of step `t - (d_conv - 1) + k` of a sequence is kept.
enum Source {
    State(usize),
    Row(usize),
}

/// The source of tap `k` at step `t` of sequence `batch`, for channel `channel`.
fn source<T>(input: &ConvInput<T>, (batch, channel): (usize, usize), past: usize) -> Source {
    let memory = input.shape.d_conv - 1;
    match past.checked_sub(memory) {
        Some(t) => Source::Row(batch * input.shape.seq_len + t),
        None => Source::State((batch * input.shape.d_inner + channel) * memory + past),
    }
}

/// Input number `past` of a sequence, counted from the oldest value of the state.
fn read<T: Float>(input: &ConvInput<T>, at: (usize, usize), past: usize) -> T {
    match source(input, at, past) {
        Source::Row(row) => input.x.row(row, input.shape.d_inner)[at.1],
        Source::State(index) => input.state.map_or(T::zero(), |state| state[index]),
    }
}

fn before_silu<T: Float>(input: &ConvInput<T>, at: (usize, usize), t: usize) -> T {
    let d_conv = input.shape.d_conv;
    (0..d_conv).fold(input.bias[at.1], |sum, k| sum + input.weight[at.1 * d_conv + k] * read(input, at, t + k))
}

/// Convolves whole sequences; see [`super::forward`]. Arguments must fit the shape.
pub fn forward<T: Float>(input: &ConvInput<T>, output: ConvOutput<T>) {
    let shape = input.shape;
    let ConvOutput { mut y, state_last } = output;
    let memory = shape.d_conv - 1;
    for batch in 0..shape.batch {
        for channel in 0..shape.d_inner {
            let at = (batch, channel);
            for t in 0..shape.seq_len {
                y.row(batch * shape.seq_len + t, shape.d_inner)[channel] = silu(before_silu(input, at, t));
            }
            for k in 0..memory {
                state_last[(batch * shape.d_inner + channel) * memory + k] = read(input, at, shape.seq_len + k);
            }
        }
    }
}

/// Gradients of everything that the forward pass read; see [`super::backward`].
pub fn backward<T: Float>(input: &ConvInput<T>, grad_output: ConvGradOutput<T>, mut grads: ConvGrads<T>) {
    let shape = input.shape;
    let memory = shape.d_conv - 1;
    grads.weight.fill(T::zero());
    grads.bias.fill(T::zero());
    for batch in 0..shape.batch {
        for channel in 0..shape.d_inner {
            let at = (batch, channel);
            // Gradient of every input of the sequence, the state's first.
            let mut dx = vec![T::zero(); memory + shape.seq_len];
            if let Some(last) = grad_output.state_last {
                let first = (batch * shape.d_inner + channel) * memory;
                dx[shape.seq_len..].copy_from_slice(&last[first..][..memory]);
            }
            for t in 0..shape.seq_len {
                let dy = grad_output.y.row(batch * shape.seq_len + t, shape.d_inner)[channel];
                let dp = dy * silu_grad(before_silu(input, at, t));
                grads.bias[channel] = grads.bias[channel] + dp;
                for k in 0..shape.d_conv {
                    let tap = channel * shape.d_conv + k;
                    grads.weight[tap] = grads.weight[tap] + dp * read(input, at, t + k);
                    dx[t + k] = dx[t + k] + dp * input.weight[tap];
                }
            }
            for (past, &value) in dx.iter().enumerate() {
                match (source(input, at, past), &mut grads.state) {
                    (Source::Row(row), _) => grads.x.row(row, shape.d_inner)[channel] = value,
                    (Source::State(index), Some(state)) => state[index] = value,
                    (Source::State(_), None) => {}
                }
            }
        }
    }
}
