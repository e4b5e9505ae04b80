//! Independent pieces of work over threads, and the disjoint writes that they share.

use std::marker::PhantomData;
use std::ops::Range;

use rayon::prelude::*;

use crate::{RowsMut, Threads};

/// Calls `work` for every item; the order is free.
pub(crate) fn for_each(threads: Threads, items: usize, work: impl Fn(usize) + Send + Sync) {
    match threads {
        Threads::Rayon if items > 1 => (0..items).into_par_iter().for_each(work),
        _ => (0..items).for_each(work),
    }
}

/// Calls `work` for one range per thread, which together are `0..len`; all but the last are multiples of `grain` long.
pub(crate) fn for_each_range(threads: Threads, len: usize, grain: usize, work: impl Fn(Range<usize>) + Send + Sync) {
    let count = match threads {
        Threads::One => 1,
        Threads::Rayon => rayon::current_num_threads(),
    };
    let size = len.div_ceil(count).next_multiple_of(grain).max(1);
    for_each(threads, len.div_ceil(size), |i| work(i * size..len.min((i + 1) * size)));
}

/// Collects the result of `work` for every item, in the order of the items.
pub(crate) fn map<R: Send>(threads: Threads, items: usize, work: impl Fn(usize) -> R + Send + Sync) -> Vec<R> {
    match threads {
        Threads::Rayon if items > 1 => (0..items).into_par_iter().map(work).collect(),
        _ => (0..items).map(work).collect(),
    }
}

/// Rows of which several threads write disjoint parts.
pub(crate) struct SharedRows<'a, T = f32> {
    data: *mut T,
    len: usize,
    stride: usize,
    lifetime: PhantomData<&'a mut [T]>,
}

// Safety: parts are only handed out under the contract of `part`, that no two overlap at a time.
unsafe impl<T: Send> Send for SharedRows<'_, T> {}
// Safety: as above.
unsafe impl<T: Send> Sync for SharedRows<'_, T> {}

impl<'a, T> SharedRows<'a, T> {
    pub(crate) fn new(rows: RowsMut<'a, T>) -> Self {
        let RowsMut { data, stride } = rows;
        Self { data: data.as_mut_ptr(), len: data.len(), stride, lifetime: PhantomData }
    }

    /// One row of everything.
    pub(crate) fn flat(data: &'a mut [T]) -> Self {
        Self::new(RowsMut { stride: data.len(), data })
    }

    /// Prefetches the cache line of column `column` of row `row`, if there is one, for writing.
    #[inline(always)]
    pub(crate) fn prefetch(&self, row: usize, column: usize) {
        #[cfg(target_arch = "x86_64")]
        if row * self.stride + column < self.len {
            use std::arch::x86_64::{_MM_HINT_ET0, _mm_prefetch};
            // Safety: a prefetch has no effect but on speed, and the value lies in the allocation.
            unsafe { _mm_prefetch::<_MM_HINT_ET0>(self.data.add(row * self.stride + column).cast()) }
        }
    }

    /// Columns `columns` of row `row`.
    ///
    /// # Safety
    /// While the result lives, no other part that overlaps it may be asked for.
    #[allow(clippy::mut_from_ref)] // The contract above stands in for the borrow checker.
    #[inline(always)]
    pub(crate) unsafe fn part(&self, row: usize, columns: Range<usize>) -> &mut [T] {
        let first = row * self.stride + columns.start;
        assert!(columns.start <= columns.end && first + columns.len() <= self.len);
        // Safety: within the allocation by the assertion, and not aliased by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.data.add(first), columns.len()) }
    }
}
