//! A control step allocates nothing: counted, not assumed.

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use robomamba_model::Preset;
use robomamba_policy::{ActionChunk, Policy};
use robomamba_runtime::{Format, FrameReuse, Model, RuntimeOptions, Session};

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

const STEPS: usize = 50;

/// One test, so that no other one allocates at the same time.
#[test]
fn act_allocates_nothing_after_the_first_step() {
    let quantised = |format| {
        let checkpoint = common::checkpoint(Preset::Nano, |_| {});
        Arc::new(Model::from_checkpoint(format, &checkpoint).expect("a random checkpoint is complete"))
    };
    let models = [
        ("mamba", common::nano()),
        ("mamba in bf16", quantised(Format::Bf16)),
        ("mamba in int8", quantised(Format::Int8)),
        ("transformer", common::nano_transformer(8)),
    ];
    let cases =
        || models.iter().flat_map(|(name, model)| [FrameReuse::Exact, FrameReuse::Off].map(|r| (*name, model, r)));
    for (name, model, frame_reuse) in cases() {
        assert_eq!(allocations(model, 1, frame_reuse), 0, "{name}, {frame_reuse:?}");
    }
    // A thread pool allocates when a thread starts, first takes work or ends, and now and then for its queue.
    for (name, model, frame_reuse) in cases() {
        let by_pool = allocations(model, 2, frame_reuse);
        assert!(by_pool < STEPS / 2, "{name}, {frame_reuse:?}, two threads: {by_pool} allocations");
    }
}

/// Allocations in [`STEPS`] control steps of an episode after the first.
fn allocations(model: &Arc<Model>, threads: usize, frame_reuse: FrameReuse) -> usize {
    let options = RuntimeOptions { threads: NonZeroUsize::new(threads), frame_reuse, ..Default::default() };
    let mut session = Session::new(model.clone(), &options).expect("threads can be started");
    let observations: Vec<_> = (0..STEPS as u64).map(common::observation).collect();
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
    ALLOCATIONS.load(Ordering::Relaxed) - before
}
