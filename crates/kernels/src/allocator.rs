//! A global allocator for programs that compute.

use std::alloc::{GlobalAlloc, Layout, System};

/// Bytes of a cache line, and of the widest register.
const LINE: usize = 64;
/// Smaller blocks are left to the system as they are.
const SIZE_MIN: usize = 1024;

/// The system's allocator, with every block of a kilobyte or more at the beginning of a cache line.
///
/// glibc puts large blocks 16 bytes behind one, so that every 64-byte load of a vector or a matrix tile reads two lines. Install it in the
/// program that runs the kernels; they are right without it, but up to twice as slow.
///
/// ```
/// #[global_allocator]
/// static ALLOCATOR: robomamba_kernels::LineAllocator = robomamba_kernels::LineAllocator;
///
/// let values = vec![0.0f32; 1000];
/// assert_eq!(values.as_ptr().addr() % 64, 0);
/// ```
#[derive(Clone, Copy, Debug)]
pub struct LineAllocator;

fn aligned(layout: Layout) -> Layout {
    if layout.size() < SIZE_MIN { layout } else { layout.align_to(LINE).unwrap_or(layout) }
}

// Safety: every call goes to the system's allocator with the same function of its layout.
unsafe impl GlobalAlloc for LineAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // Safety: the caller's promise; an alignment that is larger changes nothing about it.
        unsafe { System.alloc(aligned(layout)) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // Safety: the block came from `alloc` with this layout, so from the system with that one.
        unsafe { System.dealloc(block, aligned(layout)) }
    }
}
