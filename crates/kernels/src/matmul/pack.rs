//! Factors of a product in the order in which it reads them.

use std::cell::Cell;
use std::thread::LocalKey;

use super::gemm::{Element, Left, PANEL};
use crate::simd::{MAX_LANES, Simd, prefetch};

/// Values of a row that is packed are asked for so long before they are read.
const AHEAD: usize = 64;

/// Elements of which factors are made as they come.
pub(crate) trait Pack: Element {
    /// Memory of this thread for a left and a right factor.
    fn rooms() -> &'static LocalKey<Cell<[Vec<Self>; 2]>>;
    /// Elements of the room that [`Pack::left`] needs.
    fn left_len(rows: usize, depth: usize) -> usize;
    /// The left factor `values` `[rows, depth]`, row-major or the transpose of a row-major matrix, in these elements.
    fn left<'a, S: Simd>(s: S, values: Left<'a>, room: &'a mut [Self]) -> Left<'a, Self>;
    /// Packs rows `[depth, columns]` as a right factor; columns beyond the last are left as they are, or zero.
    fn pack<'a, S: Simd>(s: S, rows: impl Iterator<Item = &'a [f32]>, depth: usize, panels: &mut [Self]);
    /// Packs the transpose of rows `[columns, depth]`; columns beyond the last are left as they are.
    #[inline(always)]
    fn pack_transposed<'a, S: Simd>(s: S, rows: impl Iterator<Item = &'a [f32]>, depth: usize, panels: &mut [Self]) {
        let (len, mut rows) = (Self::depth(depth) * PANEL, rows);
        for first in (0..).step_by(S::LANES) {
            let (mut columns, mut count) = ([&[] as &[f32]; MAX_LANES], 0);
            while let Some(row) = (count < S::LANES).then(|| rows.next()).flatten() {
                columns[count] = row;
                count += 1;
            }
            if count == 0 {
                break;
            }
            pack_columns(s, &columns[..count], first % PANEL, &mut panels[first / PANEL * len..][..len]);
        }
    }
    /// The bits of the elements of a row's next values, a register's lanes of them; where values end, anything.
    fn round<S: Simd>(s: S, values: &[f32], words: &mut [i32]);
    /// Elements as their bits.
    fn words(elements: &mut [Self]) -> &mut [i32];
}

impl Pack for f32 {
    fn rooms() -> &'static LocalKey<Cell<[Vec<Self>; 2]>> {
        thread_local! {
            static ROOMS: Cell<[Vec<f32>; 2]> = const { Cell::new([Vec::new(), Vec::new()]) };
        }
        &ROOMS
    }

    fn left_len(rows: usize, depth: usize) -> usize {
        depth * column_stride(rows)
    }

    #[inline(always)]
    fn left<'a, S: Simd>(_: S, values: Left<'a>, room: &'a mut [Self]) -> Left<'a> {
        let Left { data, rows, depth, depth_stride, .. } = values;
        if depth_stride == 1 {
            return values;
        }
        // Rows of what it is the transpose of may lie many pages apart.
        let stride = column_stride(rows);
        for (k, column) in room.chunks_exact_mut(stride).take(depth).enumerate() {
            column[..rows].copy_from_slice(&data[k * depth_stride..][..rows]);
        }
        Left { data: room, rows, depth, row_stride: 1, depth_stride: stride }
    }

    #[inline(always)]
    fn pack<'a, S: Simd>(_: S, rows: impl Iterator<Item = &'a [f32]>, depth: usize, panels: &mut [Self]) {
        for (k, row) in rows.enumerate() {
            let (whole, rest) = row.as_chunks::<PANEL>();
            for (panel, values) in whole.iter().enumerate() {
                panels[(panel * depth + k) * PANEL..][..PANEL].copy_from_slice(values);
            }
            if !rest.is_empty() {
                panels[(whole.len() * depth + k) * PANEL..][..rest.len()].copy_from_slice(rest);
            }
        }
    }

    #[inline(always)]
    fn round<S: Simd>(s: S, values: &[f32], words: &mut [i32]) {
        // Safety: both types have 32 bits, and each of them is a value of both.
        let bits = unsafe { std::slice::from_raw_parts(values.as_ptr().cast::<i32>(), values.len()) };
        if bits.len() >= S::LANES {
            s.store_i32(s.load_i32(bits), words);
        } else {
            words[..bits.len()].copy_from_slice(bits);
        }
    }

    #[inline(always)]
    fn words(elements: &mut [f32]) -> &mut [i32] {
        // Safety: both types have 32 bits, and each of them is a value of both.
        unsafe { std::slice::from_raw_parts_mut(elements.as_mut_ptr().cast::<i32>(), elements.len()) }
    }
}

/// Makes room for `len` elements.
pub(crate) fn grow<E: Copy + Default>(memory: &mut Vec<E>, len: usize) {
    if memory.len() < len {
        memory.resize(len, E::default());
    }
}

/// Elements from one step of the depth to the next where a transposed left factor was copied: an odd number of lines of
/// the cache, so that steps do not displace each other.
pub(crate) fn column_stride(rows: usize) -> usize {
    (rows.div_ceil(MAX_LANES) | 1) * MAX_LANES
}

/// Packs rows of the transpose of a right factor, a register's lanes of them at most, which become the columns of a
/// panel from `first` on.
#[inline(always)]
fn pack_columns<S: Simd, E: Pack>(s: S, rows: &[&[f32]], first: usize, panel: &mut [E]) {
    let mut block = [0; MAX_LANES * MAX_LANES];
    for (i, panel) in panel.chunks_mut(S::LANES * PANEL).enumerate() {
        for (row, words) in rows.iter().zip(block.chunks_exact_mut(S::LANES)) {
            let first = i * S::LANES * E::VALUES;
            prefetch(row, first + AHEAD);
            E::round(s, &row[row.len().min(first)..], words);
        }
        s.transpose(&mut block[..S::LANES * S::LANES]);
        for (panel, words) in panel.chunks_exact_mut(PANEL).zip(block.chunks_exact(S::LANES)) {
            let columns = E::words(&mut panel[first..]);
            if rows.len() == S::LANES {
                s.store_i32(s.load_i32(words), columns);
            } else {
                columns[..rows.len()].copy_from_slice(&words[..rows.len()]);
            }
        }
    }
}
