//! Aligned allocation for programs that compute.

use std::alloc::{GlobalAlloc, Layout, System};
use std::ptr;

/// Bytes of a cache line, and of the widest register.
const LINE: usize = 64;
/// Blocks smaller than this are not aligned.
const SIZE_MIN: usize = 1024;
/// Extra bytes so that an aligned block and its [`Origin`] fit.
const EXTRA: usize = LINE + size_of::<Origin>();

/// Start of the system's block, stored right before the aligned one.
type Origin = *mut u8;

/// The system's allocator, with every block of a kilobyte or more at the beginning of a cache line.
///
/// glibc places large blocks 16 bytes behind a cache line, so every 64-byte load of a vector or a matrix tile touches
/// two lines. Install it in the program that runs the kernels; without it they are correct and up to twice as slow.
/// glibc's own `memalign` is slower: training, with thousands of blocks per step, spent a seventh of its time there.
///
/// ```
/// #[global_allocator]
/// static ALLOCATOR: robomamba_kernels::LineAllocator = robomamba_kernels::LineAllocator;
///
/// let mut values = vec![0.0f32; 1000];
/// values.resize(100_000, 1.0);
/// assert_eq!(values.as_ptr().addr() % 64, 0);
/// ```
#[derive(Clone, Copy, Debug)]
pub struct LineAllocator;

/// Makes the system's allocator keep freed memory, for programs that soon ask for as much again, such as training.
///
/// glibc returns large blocks to Linux at once and gets new ones, zeroed page by page; a training step frees a
/// gigabyte. Peak memory stays with the process. A control loop, which allocates nothing, has no use for it. On other
/// systems nothing is done.
pub fn keep_freed_memory() {
    #[cfg(all(target_arch = "x86_64", target_os = "linux", target_env = "gnu"))]
    {
        /// Largest block that comes from the heap, which is kept, and not from a mapping of its own.
        const LARGEST: libc::c_int = libc::c_int::MAX;
        /// Bytes by which the heap grows at a time.
        const GROWTH: libc::c_int = 256 << 20;
        let settings = [(libc::M_MMAP_THRESHOLD, LARGEST), (libc::M_TRIM_THRESHOLD, -1), (libc::M_TOP_PAD, GROWTH)];
        for (setting, value) in settings {
            // Safety: `mallopt` may be called at any time; a setting that it does not know it refuses.
            unsafe { libc::mallopt(setting, value) };
        }
    }
}

/// Calls `work`, such as loading a model, with every block of 128 KiB and more in a memory mapping of its own.
///
/// Mappings go back to Linux when they are freed. Otherwise glibc raises that limit with each freed block, up to 32
/// MiB, and holes between the tensors of a model stay with the process. The limit is 32 MiB afterwards. On other
/// systems `work` is just called. It should not be used after [`keep_freed_memory`].
pub fn with_large_blocks_apart<R>(work: impl FnOnce() -> R) -> R {
    /// Sets the limit back when `work` is done, however that ends.
    struct Afterwards;

    impl Drop for Afterwards {
        fn drop(&mut self) {
            map_blocks_from(32 << 20);
        }
    }

    map_blocks_from(128 << 10);
    let _afterwards = Afterwards;
    work()
}

/// Sets how many bytes a block has at least that the system's allocator maps by itself.
#[cfg(all(target_arch = "x86_64", target_os = "linux", target_env = "gnu"))]
fn map_blocks_from(bytes: libc::c_int) {
    // Safety: `mallopt` may be called at any time.
    unsafe { libc::mallopt(libc::M_MMAP_THRESHOLD, bytes) };
}

#[cfg(not(all(target_arch = "x86_64", target_os = "linux", target_env = "gnu")))]
fn map_blocks_from(_: i32) {}

/// Whether blocks of this layout are moved to a line.
fn is_moved(layout: Layout) -> bool {
    layout.size() >= SIZE_MIN && layout.align() <= LINE
}

/// Layout of the system's block around one of `size` bytes; `None` where that is too long for this machine.
fn around(size: usize) -> Option<Layout> {
    Layout::from_size_align(size.checked_add(EXTRA)?, align_of::<Origin>()).ok()
}

/// The block within the system's block `origin`, null for null.
///
/// # Safety
/// `origin` must be null or have [`EXTRA`] bytes.
unsafe fn within(origin: Origin) -> *mut u8 {
    if origin.is_null() {
        return origin;
    }
    // Safety: the line begins after the origin and at most `EXTRA` bytes behind the beginning.
    unsafe {
        let first = origin.add(size_of::<Origin>());
        let block = first.add(first.align_offset(LINE));
        block.cast::<Origin>().sub(1).write(origin);
        block
    }
}

/// Where the system's block around `block` begins.
///
/// # Safety
/// `block` must come from [`within`].
unsafe fn origin_of(block: *mut u8) -> Origin {
    // Safety: `within` has written it there.
    unsafe { block.cast::<Origin>().sub(1).read() }
}

// Safety: a block lies within one of the system's that is long enough, and is given back with the layout it was asked
// for with.
unsafe impl GlobalAlloc for LineAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if !is_moved(layout) {
            // Safety: the caller's promise.
            return unsafe { System.alloc(layout) };
        }
        let Some(around) = around(layout.size()) else { return ptr::null_mut() };
        // Safety: the size is not 0, and the block has the extra bytes.
        unsafe { within(System.alloc(around)) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if !is_moved(layout) {
            // Safety: the caller's promise.
            return unsafe { System.alloc_zeroed(layout) };
        }
        let Some(around) = around(layout.size()) else { return ptr::null_mut() };
        // Safety: as in `alloc`.
        unsafe { within(System.alloc_zeroed(around)) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        if !is_moved(layout) {
            // Safety: the caller's promise.
            return unsafe { System.dealloc(block, layout) };
        }
        let Some(around) = around(layout.size()) else { return };
        // Safety: the block was moved when it was made, as its layout says.
        unsafe { System.dealloc(origin_of(block), around) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // Safety: `size` is not too large for the alignment by the caller's promise.
        let wanted = unsafe { Layout::from_size_align_unchecked(size, layout.align()) };
        match (is_moved(layout), is_moved(wanted)) {
            // Safety: the caller's promise.
            (false, false) => unsafe { System.realloc(block, layout, size) },
            (true, true) => {
                let (Some(old), Some(new)) = (around(layout.size()), around(size)) else { return ptr::null_mut() };
                // Safety: the system's block is made as long as the new one needs; it keeps its bytes, which lie as far
                // from its beginning as before, and are moved if the line does not.
                unsafe {
                    let origin = origin_of(block);
                    let offset = block.offset_from_unsigned(origin);
                    let origin = System.realloc(origin, old, new.size());
                    if origin.is_null() {
                        return origin;
                    }
                    let first = origin.add(size_of::<Origin>());
                    let kept = first.add(first.align_offset(LINE));
                    if kept.offset_from_unsigned(origin) != offset {
                        ptr::copy(origin.add(offset), kept, layout.size().min(size));
                    }
                    within(origin)
                }
            }
            // Safety: both blocks have at least the bytes that are copied, and do not overlap.
            _ => unsafe {
                let new = self.alloc(wanted);
                if !new.is_null() {
                    ptr::copy_nonoverlapping(block, new, layout.size().min(size));
                    self.dealloc(block, layout);
                }
                new
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fills a block of `len` bytes with bytes that tell their places.
    unsafe fn fill(block: *mut u8, len: usize) {
        for i in 0..len {
            // Safety: within the block, by the caller's promise.
            unsafe { block.add(i).write(i as u8) };
        }
    }

    unsafe fn is_filled(block: *const u8, len: usize) -> bool {
        // Safety: within the block, by the caller's promise.
        let byte = |i| unsafe { block.add(i).read() };
        (0..len).all(|i| byte(i) == i as u8)
    }

    #[test]
    fn blocks_begin_at_lines_and_keep_their_bytes() {
        let sizes = [1, 16, 1000, 1024, 1025, 5000, 1 << 20, 3000, 1024, 1023, 40, 200_000];
        for align in [1, 8, 64, 128, 4096] {
            let layout = |size| Layout::from_size_align(size, align).unwrap();
            // Safety: every block is used within its size and given back with its layout.
            unsafe {
                let mut block = LineAllocator.alloc(layout(sizes[0]));
                fill(block, sizes[0]);
                for pair in sizes.windows(2) {
                    block = LineAllocator.realloc(block, layout(pair[0]), pair[1]);
                    assert!(is_filled(block, pair[0].min(pair[1])), "{pair:?} at {align}");
                    assert!(block.addr().is_multiple_of(align));
                    assert!(pair[1] < SIZE_MIN || block.addr().is_multiple_of(LINE), "{pair:?} at {align}");
                    fill(block, pair[1]);
                }
                LineAllocator.dealloc(block, layout(sizes[sizes.len() - 1]));
            }
        }
    }

    #[test]
    fn zeroed_blocks_are_zero() {
        for size in [10, 1024, 100_000] {
            let layout = Layout::from_size_align(size, 4).unwrap();
            // Safety: the block is read within its size and given back with its layout.
            unsafe {
                let block = LineAllocator.alloc_zeroed(layout);
                assert!((0..size).all(|i| block.add(i).read() == 0));
                LineAllocator.dealloc(block, layout);
            }
        }
    }

    #[test]
    fn a_block_that_cannot_be_had_is_null() {
        let layout = Layout::from_size_align(isize::MAX as usize - 63, 1).unwrap();
        // Safety: nothing is done with the block.
        assert!(unsafe { LineAllocator.alloc(layout) }.is_null());
    }
}
