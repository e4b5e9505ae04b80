//! Moving rows: gathering, and joining the keys of the connector.

use std::sync::Arc;

use burn::tensor::Tensor;
use rayon::prelude::*;

use super::{Forward, FusedOp, Input, apply};
use crate::gemm::add;

/// `y[i] = x[index[i]]` over the rows of `x` `[rows, width]`; the gradient adds up where rows repeat.
pub(crate) fn gather(x: Input, index: Arc<[usize]>, width: usize) -> Tensor<2> {
    apply(Gather { index, width }, [x])
}

#[derive(Clone, Debug)]
struct Gather {
    index: Arc<[usize]>,
    width: usize,
}

impl FusedOp<1, 2> for Gather {
    type Saved = ();

    fn forward(&self, [x]: [&[f32]; 1]) -> Forward<2, ()> {
        let mut output = Vec::with_capacity(self.index.len() * self.width);
        for &row in self.index.iter() {
            output.extend_from_slice(&x[row * self.width..][..self.width]);
        }
        Forward { output, shape: [self.index.len(), self.width], saved: () }
    }

    fn backward(&self, [x]: [&[f32]; 1], (): &(), grad: &[f32], _: [bool; 1]) -> [Option<Vec<f32>>; 1] {
        let mut dx = vec![0.0; x.len()];
        for (&row, grad) in self.index.iter().zip(grad.chunks_exact(self.width)) {
            add(&mut dx[row * self.width..][..self.width], grad);
        }
        [Some(dx)]
    }
}

/// The mean of the first `lengths[i]` of every `n_row` rows of `x` `[lengths.len() * n_row, width]`.
pub(crate) fn mean_rows(x: Input, lengths: Arc<[usize]>, n_row: usize) -> Tensor<2> {
    apply(MeanRows { lengths, n_row }, [x])
}

#[derive(Clone, Debug)]
struct MeanRows {
    lengths: Arc<[usize]>,
    n_row: usize,
}

impl MeanRows {
    /// Width of a row of `x`.
    fn width(&self, x: &[f32]) -> usize {
        x.len() / (self.lengths.len() * self.n_row)
    }
}

impl FusedOp<1, 2> for MeanRows {
    type Saved = ();

    fn forward(&self, [x]: [&[f32]; 1]) -> Forward<2, ()> {
        let width = self.width(x);
        let mut output = vec![0.0; self.lengths.len() * width];
        let groups = x.chunks_exact(self.n_row * width).zip(self.lengths.iter());
        for ((rows, &len), mean) in groups.zip(output.chunks_exact_mut(width)) {
            rows.chunks_exact(width).take(len).for_each(|row| add(mean, row));
            mean.iter_mut().for_each(|value| *value /= len as f32);
        }
        Forward { shape: [self.lengths.len(), width], output, saved: () }
    }

    fn backward(&self, [x]: [&[f32]; 1], (): &(), grad: &[f32], _: [bool; 1]) -> [Option<Vec<f32>>; 1] {
        let width = self.width(x);
        let mut dx = vec![0.0; x.len()];
        let groups = dx.chunks_exact_mut(self.n_row * width).zip(self.lengths.iter());
        for ((rows, &len), grad) in groups.zip(grad.chunks_exact(width)) {
            for row in rows.chunks_exact_mut(width).take(len) {
                row.iter_mut().zip(grad).for_each(|(dx, grad)| *dx = grad / len as f32);
            }
        }
        [Some(dx)]
    }
}

/// How the keys of one frame are laid out: the patches of all cameras, then the words of its instruction.
#[derive(Clone, Debug)]
pub(crate) struct KeyLayout {
    /// Instruction of each frame.
    pub instruction: Arc<[usize]>,
    /// Cameras per frame.
    pub n_camera: usize,
    /// Patches per camera.
    pub n_patch: usize,
    /// Words per instruction, the longest of the batch.
    pub n_word: usize,
    /// Width of a row.
    pub width: usize,
}

impl KeyLayout {
    /// Rows per frame.
    pub(crate) fn n_key(&self) -> usize {
        self.n_camera * self.n_patch + self.n_word
    }
}

/// Joins `patches` `[n_frame * n_camera * n_patch, width]` plus `camera` `[n_camera, width]` with `words`
/// `[n_instruction * n_word, width]` to `[n_frame * n_key, width]`.
pub(crate) fn join_keys(layout: KeyLayout, patches: Input, camera: Input, words: Input) -> Tensor<2> {
    apply(JoinKeys(layout), [patches, camera, words])
}

#[derive(Clone, Debug)]
struct JoinKeys(KeyLayout);

impl FusedOp<3, 2> for JoinKeys {
    type Saved = ();

    fn forward(&self, [patches, camera, words]: [&[f32]; 3]) -> Forward<2, ()> {
        let KeyLayout { instruction, n_camera, n_patch, n_word, width } = &self.0;
        let (frame_len, word_len) = (n_camera * n_patch * width, n_word * width);
        let mut output = vec![0.0; instruction.len() * (frame_len + word_len)];
        let frames = output.par_chunks_exact_mut(frame_len + word_len).zip(patches.par_chunks_exact(frame_len));
        frames.zip(&instruction[..]).for_each(|((output, patches), &instruction)| {
            let (out_patches, out_words) = output.split_at_mut(frame_len);
            out_patches.copy_from_slice(patches);
            for (rows, camera) in out_patches.chunks_exact_mut(n_patch * width).zip(camera.chunks_exact(*width)) {
                rows.chunks_exact_mut(*width).for_each(|row| add(row, camera));
            }
            out_words.copy_from_slice(&words[instruction * word_len..][..word_len]);
        });
        Forward { output, shape: [instruction.len() * self.0.n_key(), *width], saved: () }
    }

    fn backward(
        &self,
        [patches, camera, words]: [&[f32]; 3],
        (): &(),
        grad: &[f32],
        _: [bool; 3],
    ) -> [Option<Vec<f32>>; 3] {
        let KeyLayout { instruction, n_camera, n_patch, n_word, width } = &self.0;
        let (frame_len, word_len) = (n_camera * n_patch * width, n_word * width);
        let mut d_patches = vec![0.0; patches.len()];
        let frames = d_patches.par_chunks_exact_mut(frame_len).zip(grad.par_chunks_exact(frame_len + word_len));
        frames.for_each(|(d_patches, grad)| d_patches.copy_from_slice(&grad[..frame_len]));
        let (mut d_camera, mut d_words) = (vec![0.0; camera.len()], vec![0.0; words.len()]);
        for (grad, &instruction) in grad.chunks_exact(frame_len + word_len).zip(instruction.iter()) {
            let (grad_patches, grad_words) = grad.split_at(frame_len);
            for (rows, camera) in grad_patches.chunks_exact(n_patch * width).zip(d_camera.chunks_exact_mut(*width)) {
                rows.chunks_exact(*width).for_each(|row| add(camera, row));
            }
            add(&mut d_words[instruction * word_len..][..word_len], grad_words);
        }
        [Some(d_patches), Some(d_camera), Some(d_words)]
    }
}

/// `y[f, q] = query[q] + shift[instruction[f], q]`: `query` `[n_query * width]`, `shift`
/// `[n_instruction, n_query * width]`, `y` `[n_frame * n_query, width]`.
pub(crate) fn shifted_queries(query: Input, shift: Input, instruction: Arc<[usize]>, width: usize) -> Tensor<2> {
    apply(ShiftedQueries { instruction, width }, [query, shift])
}

#[derive(Clone, Debug)]
struct ShiftedQueries {
    instruction: Arc<[usize]>,
    width: usize,
}

impl FusedOp<2, 2> for ShiftedQueries {
    type Saved = ();

    fn forward(&self, [query, shift]: [&[f32]; 2]) -> Forward<2, ()> {
        let mut output = Vec::with_capacity(self.instruction.len() * query.len());
        for &instruction in self.instruction.iter() {
            let shift = &shift[instruction * query.len()..][..query.len()];
            output.extend(query.iter().zip(shift).map(|(query, shift)| query + shift));
        }
        Forward { shape: [output.len() / self.width, self.width], output, saved: () }
    }

    fn backward(&self, [query, shift]: [&[f32]; 2], (): &(), grad: &[f32], _: [bool; 2]) -> [Option<Vec<f32>>; 2] {
        let (mut d_query, mut d_shift) = (vec![0.0; query.len()], vec![0.0; shift.len()]);
        for (grad, &instruction) in grad.chunks_exact(query.len()).zip(self.instruction.iter()) {
            add(&mut d_query, grad);
            add(&mut d_shift[instruction * query.len()..][..query.len()], grad);
        }
        [Some(d_query), Some(d_shift)]
    }
}
