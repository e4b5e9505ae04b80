//! Attention and MLP as the encoders and the connector use them.

use std::mem;
use std::ops::Range;

use robomamba_kernels::activation::Activation;
use robomamba_kernels::attention::{self, AttentionInput, AttentionShape, Mask};
use robomamba_kernels::matmul::{ConvertedRows, PackedMatrix};
use robomamba_kernels::norm;
use robomamba_kernels::{Kernels, Rows, RowsMut};

use crate::RuntimeError;
use crate::params::{Bias, NormParams, Params};
use crate::workspace::{Workspace, room};

/// Applies linear layers with these kernels and this scratch memory.
pub(crate) struct Linear<'a> {
    pub kernels: Kernels,
    pub converted: &'a mut ConvertedRows,
}

impl Linear<'_> {
    /// `y = x W^T + bias` with the packed `matrix`: `x` `[rows, n_in]`, `y` `[rows, n_out]`.
    pub fn apply(self, matrix: &PackedMatrix, x: &[f32], y: &mut [f32]) -> Result<(), RuntimeError> {
        let rows = x.len() / matrix.n_in();
        let (x, y) = (Rows::new(x, matrix.n_in()), RowsMut::new(y, matrix.n_out()));
        Ok(matrix.apply(self.kernels, rows, x, y, self.converted)?)
    }
}

/// Multi-head self-attention with the projections of queries, keys and values in one matrix.
#[derive(Clone, Debug)]
pub(crate) struct SelfAttention {
    /// `[3 * width, width]`: queries, keys, values.
    pub qkv: PackedMatrix,
    /// `[width, width]`.
    pub out: PackedMatrix,
    pub n_head: usize,
}

impl SelfAttention {
    /// Reads `workspace.normed` `[rows, width]`, one sequence, and writes `workspace.branch` of the same shape.
    pub fn forward(&self, rows: usize, workspace: &mut Workspace) -> Result<(), RuntimeError> {
        let mut qkv = mem::take(&mut workspace.projected);
        self.project(rows, room(&mut qkv, rows * self.qkv.n_out()), workspace)?;
        self.attend(0..rows, &qkv[..rows * self.qkv.n_out()], workspace)?;
        workspace.projected = qkv;
        Ok(())
    }

    /// Queries, keys and values `qkv` `[rows, 3 * width]` of `workspace.normed` `[rows, width]`.
    pub fn project(&self, rows: usize, qkv: &mut [f32], workspace: &mut Workspace) -> Result<(), RuntimeError> {
        let Workspace { kernels, converted, normed, .. } = workspace;
        Linear { kernels: *kernels, converted }.apply(&self.qkv, &normed[..rows * self.qkv.n_in()], qkv)
    }

    /// Lets the rows `queries` of a sequence attend to all of it, `qkv` `[n_row, 3 * width]`, and writes
    /// `workspace.branch` `[queries, width]`.
    pub fn attend(&self, queries: Range<usize>, qkv: &[f32], workspace: &mut Workspace) -> Result<(), RuntimeError> {
        let (width, rows) = (self.qkv.n_in(), queries.len());
        let Workspace { kernels, converted, mixed, branch, attention, .. } = workspace;
        let (n_key, head_dim, mixed) = (qkv.len() / (3 * width), width / self.n_head, room(mixed, rows * width));
        let input = AttentionInput {
            shape: AttentionShape { batch: 1, n_query: rows, n_key, n_head: self.n_head, head_dim },
            q: Rows::strided(&qkv[queries.start * 3 * width..], 3 * width),
            k: Rows::strided(&qkv[width..], 3 * width),
            v: Rows::strided(&qkv[2 * width..], 3 * width),
            scale: (head_dim as f32).sqrt().recip(),
            mask: Mask::Full,
            format: self.qkv.format(),
        };
        attention::forward(*kernels, &input, RowsMut::new(mixed, width), attention)?;
        Linear { kernels: *kernels, converted }.apply(&self.out, mixed, room(branch, rows * width))
    }
}

/// `fc2(fc1(x))`.
#[derive(Clone, Debug)]
pub(crate) struct Mlp {
    /// With the activation.
    pub fc1: PackedMatrix,
    pub fc2: PackedMatrix,
}

impl Mlp {
    /// Reads `workspace.normed` `[rows, n_in]` and writes `workspace.branch` `[rows, n_out]`.
    pub fn forward(&self, rows: usize, workspace: &mut Workspace) -> Result<(), RuntimeError> {
        let Workspace { kernels, converted, normed, hidden, branch, .. } = workspace;
        let hidden = room(hidden, rows * self.fc1.n_out());
        Linear { kernels: *kernels, converted }.apply(&self.fc1, &normed[..rows * self.fc1.n_in()], hidden)?;
        Linear { kernels: *kernels, converted }.apply(&self.fc2, hidden, room(branch, rows * self.fc2.n_out()))
    }
}

/// `fc1 -> GELU -> fc2` of widths `(n_in, n_hidden, n_out)`.
pub(crate) fn gelu_mlp(params: &Params, (n_in, n_hidden, n_out): (usize, usize, usize)) -> Result<Mlp, RuntimeError> {
    Ok(Mlp {
        fc1: params.linear("fc1", (n_hidden, n_in), Bias::With)?.activated(Activation::Gelu),
        fc2: params.linear("fc2", (n_out, n_hidden), Bias::With)?,
    })
}

/// `workspace.normed = norm(workspace.residual)` for `rows` rows.
pub(crate) fn normalise(norm: &NormParams, rows: usize, workspace: &mut Workspace) -> Result<(), RuntimeError> {
    let (norm, Workspace { kernels, residual, normed, .. }) = (norm.view(), workspace);
    let width = norm.width();
    let (x, y) = (&residual[..rows * width], room(normed, rows * width));
    Ok(norm::forward(*kernels, &norm, rows, Rows::new(x, width), RowsMut::new(y, width))?)
}

/// Adds the branch to the residual stream and norms the sum for the next block:
/// `residual += branch; normed = norm(residual)`, `rows` rows each.
pub(crate) fn add_and_normalise(norm: &NormParams, rows: usize, workspace: &mut Workspace) -> Result<(), RuntimeError> {
    let (norm, Workspace { kernels, residual, normed, branch, .. }) = (norm.view(), workspace);
    let len = rows * norm.width();
    Ok(norm::add_forward(*kernels, &norm, &branch[..len], &mut residual[..len], room(normed, len))?)
}

/// `sum += x`, elementwise.
pub(crate) fn add(sum: &mut [f32], x: &[f32]) {
    for (sum, x) in sum.iter_mut().zip(x) {
        *sum += x;
    }
}
