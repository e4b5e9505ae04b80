//! Row-major views whose rows may be slices of wider rows.

use crate::KernelError;

/// Rows of values `[rows, width]`, read-only; row `i` starts at `data[i * stride]`.
///
/// The width comes from the shape of the operation. `delta`, `B` and `C` of a Mamba block, for example,
/// are column ranges of one projection `[rows, dt_rank + 2 * d_state]`; they are viewed without a copy by
/// `Rows::strided(&projection[dt_rank..], dt_rank + 2 * d_state)`.
#[derive(Clone, Copy, Debug)]
pub struct Rows<'a, T = f32> {
    pub(crate) data: &'a [T],
    pub(crate) stride: usize,
}

impl<'a, T> Rows<'a, T> {
    /// Contiguous rows of `width` values.
    pub fn new(data: &'a [T], width: usize) -> Self {
        Self { data, stride: width }
    }

    /// Rows that start `stride` values apart.
    pub fn strided(data: &'a [T], stride: usize) -> Self {
        Self { data, stride }
    }

    /// The first `width` values of row `row`.
    #[inline(always)]
    pub fn row(&self, row: usize, width: usize) -> &'a [T] {
        &self.data[row * self.stride..][..width]
    }

    /// Checks that the view holds `[rows, width]`.
    pub(crate) fn check(&self, tensor: &'static str, rows: usize, width: usize) -> Result<(), KernelError> {
        check_view(tensor, self.data.len(), self.stride, (rows, width))
    }
}

/// Rows of values `[rows, width]`, writable; row `i` starts at `data[i * stride]`.
#[derive(Debug)]
pub struct RowsMut<'a, T = f32> {
    pub(crate) data: &'a mut [T],
    pub(crate) stride: usize,
}

impl<'a, T> RowsMut<'a, T> {
    /// Contiguous rows of `width` values.
    pub fn new(data: &'a mut [T], width: usize) -> Self {
        Self { data, stride: width }
    }

    /// Rows that start `stride` values apart.
    pub fn strided(data: &'a mut [T], stride: usize) -> Self {
        Self { data, stride }
    }

    /// The first `width` values of row `row`.
    #[inline(always)]
    pub fn row(&mut self, row: usize, width: usize) -> &mut [T] {
        &mut self.data[row * self.stride..][..width]
    }

    /// The same rows for a shorter time.
    pub fn reborrow(&mut self) -> RowsMut<'_, T> {
        RowsMut { data: self.data, stride: self.stride }
    }

    /// Checks that the view holds `[rows, width]`.
    pub(crate) fn check(&self, tensor: &'static str, rows: usize, width: usize) -> Result<(), KernelError> {
        check_view(tensor, self.data.len(), self.stride, (rows, width))
    }
}

fn check_view(tensor: &'static str, len: usize, stride: usize, shape: (usize, usize)) -> Result<(), KernelError> {
    let (rows, width) = shape;
    if rows > 1 && stride < width {
        return Err(KernelError::Stride { tensor, width, stride });
    }
    let needed = if rows == 0 { 0 } else { (rows - 1) * stride + width };
    if len < needed { Err(KernelError::Length { tensor, expected: needed, found: len }) } else { Ok(()) }
}
