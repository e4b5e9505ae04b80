//! The scan in the order of the paper's formulas, in any float type: the twin that the fast paths are
//! tested against, and in f64 the oracle for gradients.

use num_traits::Float;

use super::{ScanGradOutput, ScanGrads, ScanInput, ScanOutput};
use crate::activation::reference::{sigmoid, silu, silu_grad, softplus};

/// Runs the scan over whole sequences; see [`super::forward`]. Arguments must fit the shape.
pub fn forward<T: Float>(input: &ScanInput<T>, output: ScanOutput<T>) {
    let shape = input.shape;
    let ScanOutput { mut y, h_last } = output;
    for batch in 0..shape.batch {
        for channel in 0..shape.d_inner {
            let mut h = initial_state(input, batch, channel);
            for row in batch * shape.seq_len..(batch + 1) * shape.seq_len {
                let sum = advance(input, row, channel, &mut h);
                y.row(row, shape.d_inner)[channel] = sum * gate(input, row, channel);
            }
            let first = (batch * shape.d_inner + channel) * shape.d_state;
            h_last[first..][..shape.d_state].copy_from_slice(&h);
        }
    }
}

fn initial_state<T: Float>(input: &ScanInput<T>, batch: usize, channel: usize) -> Vec<T> {
    let d_state = input.shape.d_state;
    let first = (batch * input.shape.d_inner + channel) * d_state;
    input.h0.map_or(vec![T::zero(); d_state], |h0| h0[first..][..d_state].to_vec())
}

fn step_size<T: Float>(input: &ScanInput<T>, row: usize, channel: usize) -> T {
    softplus(input.delta.data[row * input.delta.stride + channel] + input.params.dt_bias[channel])
}

fn gate<T: Float>(input: &ScanInput<T>, row: usize, channel: usize) -> T {
    input.z.map_or(T::one(), |z| silu(z.data[row * z.stride + channel]))
}

/// Moves the state of one channel `[d_state]` one step ahead and returns `sum_n C h + D u`.
fn advance<T: Float>(input: &ScanInput<T>, row: usize, channel: usize, h: &mut [T]) -> T {
    let d_state = input.shape.d_state;
    let u = input.u.data[row * input.u.stride + channel];
    let delta = step_size(input, row, channel);
    let (b, c) = (input.b.row(row, d_state), input.c.row(row, d_state));
    let mut sum = input.params.d[channel] * u;
    for n in 0..d_state {
        let a = -input.params.a_log[channel * d_state + n].exp();
        h[n] = (delta * a).exp() * h[n] + delta * b[n] * u;
        sum = sum + c[n] * h[n];
    }
    sum
}

/// Gradients of everything that the forward pass read; see [`super::backward`]. Keeps all states of one
/// channel instead of checkpoints.
pub fn backward<T: Float>(input: &ScanInput<T>, grad_output: ScanGradOutput<T>, mut grads: ScanGrads<T>) {
    let shape = input.shape;
    clear_sums(input, &mut grads);
    for batch in 0..shape.batch {
        for channel in 0..shape.d_inner {
            backward_channel(input, &grad_output, &mut grads, (batch, channel));
        }
    }
}

/// Zeroes the gradients that are sums over channels or over the batch.
fn clear_sums<T: Float>(input: &ScanInput<T>, grads: &mut ScanGrads<T>) {
    for row in 0..input.shape.rows() {
        grads.b.row(row, input.shape.d_state).fill(T::zero());
        grads.c.row(row, input.shape.d_state).fill(T::zero());
    }
    grads.a_log.fill(T::zero());
    grads.d.fill(T::zero());
    grads.dt_bias.fill(T::zero());
}

fn backward_channel<T: Float>(
    input: &ScanInput<T>,
    grad_output: &ScanGradOutput<T>,
    grads: &mut ScanGrads<T>,
    (batch, channel): (usize, usize),
) {
    let shape = input.shape;
    let (d_inner, d_state) = (shape.d_inner, shape.d_state);
    let first_row = batch * shape.seq_len;
    let mut states = vec![initial_state(input, batch, channel)];
    let mut sums = Vec::new();
    for t in 0..shape.seq_len {
        let mut h = states[t].clone();
        sums.push(advance(input, first_row + t, channel, &mut h));
        states.push(h);
    }

    let first_state = (batch * d_inner + channel) * d_state;
    let mut dh = grad_output.h_last.map_or(vec![T::zero(); d_state], |g| g[first_state..][..d_state].to_vec());
    for t in (0..shape.seq_len).rev() {
        let row = first_row + t;
        let dy_gated = grad_output.y.row(row, d_inner)[channel];
        let dy = dy_gated * gate(input, row, channel);
        if let (Some(z), Some(dz)) = (input.z, &mut grads.z) {
            dz.row(row, d_inner)[channel] = dy_gated * sums[t] * silu_grad(z.row(row, d_inner)[channel]);
        }

        let u = input.u.row(row, d_inner)[channel];
        let delta = step_size(input, row, channel);
        let (b, c) = (input.b.row(row, d_state), input.c.row(row, d_state));
        let mut du = dy * input.params.d[channel];
        let mut ddelta = T::zero();
        for n in 0..d_state {
            let rate = -input.params.a_log[channel * d_state + n].exp();
            let a = (delta * rate).exp();
            dh[n] = dh[n] + c[n] * dy;
            let dc = &mut grads.c.row(row, d_state)[n];
            *dc = *dc + states[t + 1][n] * dy;
            let db = &mut grads.b.row(row, d_state)[n];
            *db = *db + dh[n] * delta * u;
            du = du + dh[n] * delta * b[n];
            ddelta = ddelta + dh[n] * (b[n] * u + a * rate * states[t][n]);
            // dA_log = dA * A, because A = -exp(A_log).
            let da_log = &mut grads.a_log[channel * d_state + n];
            *da_log = *da_log + dh[n] * states[t][n] * a * delta * rate;
            dh[n] = dh[n] * a;
        }
        grads.u.row(row, d_inner)[channel] = du;
        let raw = input.delta.row(row, d_inner)[channel] + input.params.dt_bias[channel];
        let ddelta_raw = ddelta * sigmoid(raw);
        grads.delta.row(row, d_inner)[channel] = ddelta_raw;
        grads.dt_bias[channel] = grads.dt_bias[channel] + ddelta_raw;
        grads.d[channel] = grads.d[channel] + dy * u;
    }
    if let Some(h0) = &mut grads.h0 {
        h0[first_state..][..d_state].copy_from_slice(&dh);
    }
}
