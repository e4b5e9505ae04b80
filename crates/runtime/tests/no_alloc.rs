//! A control step allocates nothing: counted, not assumed.

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};

use robomamba_policy::{ActionChunk, Policy};
use robomamba_runtime::{FrameReuse, RuntimeOptions, Session};

struct Counting;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

// Safety: every call is passed on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // Safety: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // Safety: the caller's promises are passed on.
        unsafe { System.dealloc(ptr, layout) }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // Safety: the caller's promises are passed on.
        unsafe { System.realloc(ptr, layout, new_size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// One test, so that no other one allocates at the same time.
#[test]
fn act_allocates_nothing_after_the_first_step() {
    let one = NonZeroUsize::new(1);
    let models = [("mamba", common::nano()), ("transformer", common::nano_transformer(8))];
    let observations: Vec<_> = (0..50).map(common::observation).collect();
    for (name, model) in models {
        for frame_reuse in [FrameReuse::Exact, FrameReuse::Off] {
            let options = RuntimeOptions { threads: one, frame_reuse, ..Default::default() };
            let mut session = Session::new(model.clone(), &options).expect("one thread is always there");
            let mut chunk = ActionChunk::default();
            // The Transformer's scores grow until its context is full.
            for observation in &observations[..10] {
                session.act(observation, &mut chunk).expect("the observation fits");
            }
            session.reset();
            let before = ALLOCATIONS.load(Ordering::Relaxed);
            for observation in &observations {
                session.act(observation, &mut chunk).expect("the observation fits");
            }
            let allocations = ALLOCATIONS.load(Ordering::Relaxed) - before;
            assert_eq!(allocations, 0, "{name}, {frame_reuse:?}: {allocations} allocations in 50 steps");
        }
    }
}
