//! Threads that stay awake between the operations of a control step.
//!
//! An operation of a step takes some ten microseconds, about as long as waking a thread that sleeps. The workers of a
//! [`SpinPool`] therefore watch for the next operation for a while before they sleep, and the caller works too and
//! waits for those workers only that came in time.

use std::any::Any;
use std::cell::{Cell, UnsafeCell};
use std::fmt;
use std::hint::spin_loop;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// How long a worker watches for the next operation before it sleeps: longer than the gaps within a control step,
/// shorter than those between two.
const WATCH: Duration = Duration::from_micros(300);
/// Looks between two at the clock, or between two at which a waiting thread lets others run.
const LOOKS: u32 = 256;

/// A fixed number of threads for [`Threads::Spin`](crate::Threads::Spin), the calling one among them.
///
/// ```
/// use robomamba_kernels::{Isa, Kernels, SpinPool, Threads, activation::{self, Activation}};
///
/// let pool = SpinPool::new(2)?;
/// let kernels = Kernels::new(Isa::detect(), Threads::Spin)?;
/// let (x, mut y) = (vec![1.0; 100_000], vec![0.0; 100_000]);
/// pool.enter(|| activation::forward(kernels, Activation::Gelu, &x, &mut y))?;
/// assert!(y.iter().all(|y| (y - 0.841_345).abs() < 1e-6));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct SpinPool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
}

impl SpinPool {
    /// Starts `threads - 1` workers.
    ///
    /// # Errors
    /// When the system does not let us start a thread.
    pub fn new(threads: usize) -> io::Result<Self> {
        let n_worker = threads.saturating_sub(1);
        let shared =
            Arc::new(Shared { asleep: (0..n_worker).map(|_| AtomicBool::new(false)).collect(), ..Shared::default() });
        let mut pool = Self { shared, workers: Vec::with_capacity(n_worker) };
        for i in 0..n_worker {
            let shared = Arc::clone(&pool.shared);
            // If one cannot be started, dropping the pool ends the others.
            let worker = thread::Builder::new().name(format!("robomamba-{}", i + 1)).spawn(move || shared.serve(i))?;
            pool.workers.push(worker);
        }
        Ok(pool)
    }

    /// Its threads, the calling one among them.
    pub fn threads(&self) -> usize {
        1 + self.workers.len()
    }

    /// Runs `work` on this thread; operations of [`Threads::Spin`](crate::Threads::Spin) in it are shared with the
    /// workers. While another thread has entered the pool and is running an operation, this one works alone.
    pub fn enter<R>(&self, work: impl FnOnce() -> R) -> R {
        /// Restores the pool that was current before, also when `work` panics.
        struct Restore(*const SpinPool);
        impl Drop for Restore {
            fn drop(&mut self) {
                CURRENT.set(self.0);
            }
        }
        let _restore = Restore(CURRENT.replace(self));
        work()
    }

    fn for_each(&self, items: usize, work: &(dyn Fn(usize) + Sync)) {
        let turn = if self.workers.is_empty() { None } else { Turn::take(&self.shared.taken) };
        if turn.is_none() {
            return (0..items).for_each(work);
        }
        let open = Open::new(&self.shared, Operation { work, items });
        for (worker, asleep) in self.workers.iter().zip(&self.shared.asleep) {
            if asleep.swap(false, Ordering::SeqCst) {
                worker.thread().unpark();
            }
        }
        self.shared.take_items(work, items);
        drop(open);
        if let Some(panic) = self.shared.panic().take() {
            resume_unwind(panic);
        }
    }
}

impl Drop for SpinPool {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        for worker in self.workers.drain(..) {
            worker.thread().unpark();
            // A worker catches the panics of what it runs.
            drop(worker.join());
        }
    }
}

thread_local! {
    /// The pool that this thread has entered.
    static CURRENT: Cell<*const SpinPool> = const { Cell::new(std::ptr::null()) };
}

fn current<R>(with: impl FnOnce(Option<&SpinPool>) -> R) -> R {
    // Safety: `SpinPool::enter` borrows the pool for as long as the pointer is set.
    with(unsafe { CURRENT.get().as_ref() })
}

/// Threads of the pool that this thread has entered; 1 without one.
pub(crate) fn current_threads() -> usize {
    current(|pool| pool.map_or(1, SpinPool::threads))
}

/// Calls `work` for every item on the pool that this thread has entered; the order is free.
pub(crate) fn for_each(items: usize, work: impl Fn(usize) + Sync) {
    current(|pool| match pool {
        Some(pool) => pool.for_each(items, &work),
        None => (0..items).for_each(work),
    });
}

/// What the workers are to do: `work(i)` for all `i` below `items`.
#[derive(Clone, Copy)]
struct Operation<'a> {
    work: &'a (dyn Fn(usize) + Sync),
    items: usize,
}

#[derive(Default)]
struct Shared {
    /// Operations so far; a worker that sees it change looks whether it can still help.
    epoch: AtomicUsize,
    /// [`OPEN`] while an operation may be joined, plus [`MEMBER`] for every worker in it.
    gate: AtomicUsize,
    /// The next item of the operation.
    next: AtomicUsize,
    /// Written while the gate is 0, read by members only; the lifetime is that of the [`Open`] that wrote it.
    operation: UnsafeCell<Option<Operation<'static>>>,
    /// A thread is running an operation.
    taken: AtomicBool,
    stop: AtomicBool,
    /// Which workers sleep.
    asleep: Box<[AtomicBool]>,
    /// What a worker's item panicked with.
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

const OPEN: usize = 1;
const MEMBER: usize = 2;

// Safety: `operation` is only accessed under the protocol that its comment states; what it points to is `Sync`.
unsafe impl Sync for Shared {}
// Safety: as above.
unsafe impl Send for Shared {}

impl Shared {
    fn panic(&self) -> MutexGuard<'_, Option<Box<dyn Any + Send>>> {
        self.panic.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take_items(&self, work: &(dyn Fn(usize) + Sync), items: usize) {
        loop {
            let item = self.next.fetch_add(1, Ordering::Relaxed);
            if item >= items {
                return;
            }
            work(item);
        }
    }

    /// The life of worker `i`.
    fn serve(&self, i: usize) {
        let mut seen = 0;
        while let Some(epoch) = self.next_epoch(i, seen) {
            seen = epoch;
            if self.join() {
                // Safety: this worker is a member, so that the operation stays as it is until it leaves.
                if let Some(Operation { work, items }) = unsafe { *self.operation.get() }
                    && let Err(panic) = catch_unwind(AssertUnwindSafe(|| self.take_items(work, items)))
                {
                    *self.panic() = Some(panic);
                }
                self.gate.fetch_sub(MEMBER, Ordering::Release);
            }
        }
    }

    /// Waits until the epoch is not `seen` any more; `None` when the pool is dropped.
    fn next_epoch(&self, i: usize, seen: usize) -> Option<usize> {
        let changed = || {
            let epoch = self.epoch.load(Ordering::SeqCst);
            (epoch != seen).then_some(epoch)
        };
        let stopped = || self.stop.load(Ordering::SeqCst);
        let since = Instant::now();
        while since.elapsed() < WATCH {
            for _ in 0..LOOKS {
                if let Some(epoch) = changed() {
                    return Some(epoch);
                }
                spin_loop();
            }
            if stopped() {
                return None;
            }
        }
        loop {
            // Said before looking a last time: who opens an operation counts it before looking who sleeps.
            self.asleep[i].store(true, Ordering::SeqCst);
            let epoch = changed();
            if epoch.is_some() || stopped() {
                self.asleep[i].store(false, Ordering::SeqCst);
                return epoch.filter(|_| !stopped());
            }
            thread::park();
        }
    }

    /// Becomes a member of the operation, if there is one that is open.
    fn join(&self) -> bool {
        let enter = |gate: usize| (gate & OPEN != 0).then_some(gate + MEMBER);
        self.gate.fetch_update(Ordering::Acquire, Ordering::Relaxed, enter).is_ok()
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("workers", &self.asleep.len()).finish_non_exhaustive()
    }
}

/// The right to run an operation, for one thread at a time.
struct Turn<'a>(&'a AtomicBool);

impl<'a> Turn<'a> {
    fn take(taken: &'a AtomicBool) -> Option<Self> {
        (!taken.swap(true, Ordering::Acquire)).then(|| Self(taken))
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

/// An open operation. Dropping it, also by a panic, ends it when its last member has left.
struct Open<'a>(&'a Shared);

impl<'a> Open<'a> {
    /// The caller has the turn, so that the gate is 0.
    fn new(shared: &'a Shared, operation: Operation<'a>) -> Self {
        *shared.panic() = None;
        // Safety: no worker is a member, so that nobody reads; and nobody will after this `Open`, which waits for all
        // members, so that the operation lives as long as it is read.
        unsafe { *shared.operation.get() = Some(std::mem::transmute::<Operation<'a>, Operation<'static>>(operation)) };
        shared.next.store(0, Ordering::Relaxed);
        shared.gate.store(OPEN, Ordering::Release);
        shared.epoch.fetch_add(1, Ordering::SeqCst);
        Self(shared)
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        let mut gate = self.0.gate.fetch_sub(OPEN, Ordering::Acquire) - OPEN;
        let mut looks = 0;
        while gate != 0 {
            looks += 1;
            if looks % LOOKS == 0 {
                // The member may wait for this very core.
                thread::yield_now();
            }
            spin_loop();
            gate = self.0.gate.load(Ordering::Acquire);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use super::*;

    fn meet(barrier: &Barrier) {
        barrier.wait();
    }

    fn up(count: &AtomicUsize) {
        count.fetch_add(1, Ordering::Relaxed);
    }

    /// Every item is done once by the time that an operation ends, operation after operation, awake and asleep.
    #[test]
    fn every_item_is_done_once() {
        for threads in [1, 2, 3, 5] {
            let pool = SpinPool::new(threads).unwrap();
            for operation in 0..if cfg!(miri) { 20 } else { 2000 } {
                let items = operation % 23;
                let counts: Vec<_> = (0..items).map(|_| AtomicUsize::new(0)).collect();
                pool.enter(|| for_each(items, |i| up(&counts[i])));
                assert!(counts.iter().all(|count| count.load(Ordering::Relaxed) == 1), "{threads} threads");
                if operation % 500 == 7 {
                    thread::sleep(2 * WATCH);
                }
            }
        }
    }

    /// With items that wait for each other, an operation only ends if several threads share it.
    #[test]
    fn workers_take_part() {
        let pool = SpinPool::new(3).unwrap();
        let barrier = Barrier::new(3);
        pool.enter(|| for_each(3, |_| meet(&barrier)));
        assert_eq!(pool.enter(current_threads), 3);
        assert_eq!(current_threads(), 1);
    }

    #[test]
    fn an_operation_within_an_item_runs_on_its_thread() {
        let pool = SpinPool::new(2).unwrap();
        let count = AtomicUsize::new(0);
        pool.enter(|| for_each(4, |_| for_each(5, |_| up(&count))));
        assert_eq!(count.into_inner(), 20);
    }

    #[test]
    fn two_threads_may_use_one_pool() {
        let pool = SpinPool::new(2).unwrap();
        let count = AtomicUsize::new(0);
        let use_it = || pool.enter(|| (0..100).for_each(|_| for_each(3, |_| up(&count))));
        thread::scope(|scope| {
            scope.spawn(use_it);
            scope.spawn(use_it);
        });
        assert_eq!(count.into_inner(), 600);
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_pool_goes_on() {
        let pool = SpinPool::new(2).unwrap();
        let barrier = Barrier::new(2);
        for wrong in 0..2 {
            let operation = || {
                pool.enter(|| {
                    for_each(2, |i| {
                        meet(&barrier);
                        assert!(i != wrong, "item {i}");
                    });
                });
            };
            let panic = catch_unwind(AssertUnwindSafe(operation)).unwrap_err();
            assert_eq!(panic.downcast_ref::<String>().map(String::as_str), Some(&*format!("item {wrong}")));
        }
        pool.enter(|| for_each(2, |_| meet(&barrier)));
    }
}
