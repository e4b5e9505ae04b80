//! Rows of per-channel values, turned so that a register holds one value of several channels.

use super::{MAX_LANES, Simd};

/// Reads rows `[channels, width]` into registers `[block, width]`; lanes without a
/// channel are 0.
#[inline(always)]
pub(crate) fn load_transposed<S: Simd>(s: S, values: &[f32], width: usize) -> Vec<S::V> {
    let mut registers = Vec::with_capacity(values.len() / S::LANES + width);
    for block in values.chunks(S::LANES * width) {
        for n in 0..width {
            let mut lanes = [0.0; MAX_LANES];
            for (lane, channel) in lanes.iter_mut().zip(block.chunks_exact(width)) {
                *lane = channel[n];
            }
            registers.push(s.load(&lanes));
        }
    }
    registers
}

/// Undoes [`load_transposed`].
#[inline(always)]
pub(crate) fn store_transposed<S: Simd>(s: S, registers: &[S::V], values: &mut [f32], width: usize) {
    for (block, registers) in values.chunks_mut(S::LANES * width).zip(registers.chunks_exact(width)) {
        for (n, &register) in registers.iter().enumerate() {
            let mut lanes = [0.0; MAX_LANES];
            s.store(register, &mut lanes);
            for (lane, channel) in lanes.iter().zip(block.chunks_exact_mut(width)) {
                channel[n] = *lane;
            }
        }
    }
}
