//! Threads that stand by between short operations.
//!
//! A step of a trunk is more than a hundred products of a few microseconds, one after the other. To wake a thread of the pool for each of them, or to have it
//! steal its share, takes about as long as the share itself. A team is asked for once, as a parallel region of OpenMP is: its helpers watch one word of
//! memory, from which whoever is free takes the next piece. The leader, whose operations they are, waits for nothing but pieces that somebody works
//! on, so a helper that comes late, or never, is not missed.

use std::cell::{Cell, UnsafeCell};
use std::hint::spin_loop;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread;

use crate::{Kernels, Threads};

/// Looks at a word that has not changed before the core is offered to somebody else: some ten microseconds.
const PATIENCE: u32 = 1 << 9;
/// What [`Team::span`] says when there will be no more operations.
const ENDED: u64 = u64::MAX;

/// Values that are written by several threads have a pair of cache lines of their own.
#[repr(align(128))]
struct Apart<T>(T);

/// What a leader and its helpers share.
pub(crate) struct Team {
    /// The pieces of the present operation that nobody has taken: from the lower half of the word to the upper one, which is not among them.
    span: Apart<AtomicU64>,
    /// Pieces of it that are done.
    done: Apart<AtomicUsize>,
    /// Who takes a piece may read it until that piece is done; the leader may write it when no piece is left or being worked on.
    work: UnsafeCell<Option<NonNull<Work>>>,
}

/// Does the piece of this number.
type Work = dyn Fn(usize) + Sync;

// Safety: `work` is shared as its description says, and can be called from any thread.
unsafe impl Sync for Team {}

thread_local! {
    /// The team that this thread leads.
    static LED: Cell<Option<NonNull<Team>>> = const { Cell::new(None) };
}

impl Kernels {
    /// Calls `work` while all threads of the pool stand by for the operations in it, which makes a series of short ones faster. The threads
    /// are busy meanwhile, even if they wait. With one thread, or within such a call, it is `work()` and no more.
    ///
    /// # Panics
    /// When `work` does.
    pub fn together<R: Send>(self, work: impl FnOnce() -> R + Send) -> R {
        let helpers = match self.threads() {
            Threads::One => 0,
            Threads::Rayon => rayon::current_num_threads() - 1,
        };
        if helpers == 0 || LED.get().is_some() {
            return work();
        }
        let team = Team::new();
        let (mut work, mut result) = (Some(work), None);
        team.with_helpers(helpers, &mut || {
            let _leader = Leader::of(&team);
            result = work.take().map(|work| work());
        });
        result.expect("the leader's part was called")
    }
}

/// Calls `work` for all of `0..items`, with the team that this thread leads; says whether there is one.
pub(crate) fn for_each(items: usize, work: &(impl Fn(usize) + Sync)) -> bool {
    // What a piece does in turn is not for the team, which is busy.
    let Some(team) = LED.take() else { return false };
    let _again = Again(team);
    // Safety: `Leader` takes the pointer back before the team ends.
    unsafe { team.as_ref() }.for_each(items, work);
    true
}

/// Lets this thread lead again.
struct Again(NonNull<Team>);

impl Drop for Again {
    fn drop(&mut self) {
        LED.set(Some(self.0));
    }
}

/// While it lives, this thread leads; then the helpers go.
struct Leader<'a>(&'a Team);

impl<'a> Leader<'a> {
    fn of(team: &'a Team) -> Self {
        LED.set(Some(NonNull::from(team)));
        Self(team)
    }
}

impl Drop for Leader<'_> {
    fn drop(&mut self) {
        LED.set(None);
        self.0.span.0.store(ENDED, Ordering::Release);
    }
}

impl Team {
    fn new() -> Self {
        Self { span: Apart(AtomicU64::new(0)), done: Apart(AtomicUsize::new(0)), work: UnsafeCell::new(None) }
    }

    /// Calls `lead` on a thread of the pool, and helps on so many others when they are free.
    fn with_helpers(&self, helpers: usize, lead: &mut (dyn FnMut() + Send)) {
        if helpers == 0 {
            return lead();
        }
        rayon::join(|| self.with_helpers(helpers - 1, lead), || self.help());
    }

    fn for_each(&self, items: usize, work: &(impl Fn(usize) + Sync)) {
        let items = u32::try_from(items).expect("fewer than four thousand million pieces");
        let work: &(dyn Fn(usize) + Sync) = work;
        // Safety: only the lifetime changes; `rest` ends no sooner than the last piece that anybody takes.
        let work = unsafe { std::mem::transmute::<&(dyn Fn(usize) + Sync), &'static Work>(work) };
        // Safety: the operation before this one has ended, so nobody reads it.
        unsafe { *self.work.get() = Some(NonNull::from(work)) };
        self.done.0.store(0, Ordering::Relaxed);
        self.span.0.store(u64::from(items) << 32, Ordering::Release);
        let rest = Rest { team: self, items: items as usize };
        while let Some(piece) = self.take(Side::First) {
            self.run(piece);
        }
        drop(rest);
    }

    fn help(&self) {
        let mut pause = Pause::default();
        while self.span.0.load(Ordering::Relaxed) != ENDED {
            match self.take(Side::Last) {
                Some(piece) => {
                    self.run(piece);
                    pause = Pause::default();
                }
                None => pause.wait(),
            }
        }
    }

    /// Takes a piece, if there is one. That the word can have been the same in an earlier operation does no harm: a piece of the present one is taken.
    fn take(&self, side: Side) -> Option<usize> {
        let mut span = self.span.0.load(Ordering::Acquire);
        loop {
            let (first, end) = (span & u64::from(u32::MAX), span >> 32);
            // Also when the team has ended.
            if first >= end {
                return None;
            }
            let (piece, rest) = match side {
                Side::First => (first, end << 32 | (first + 1)),
                Side::Last => (end - 1, (end - 1) << 32 | first),
            };
            match self.span.0.compare_exchange_weak(span, rest, Ordering::Acquire, Ordering::Acquire) {
                Ok(_) => return Some(piece as usize),
                Err(now) => span = now,
            }
        }
    }

    /// Does a piece that was taken.
    fn run(&self, piece: usize) {
        let _done = Done(&self.done.0);
        // Safety: the piece was taken and is not done.
        let work = unsafe { *self.work.get() };
        // Safety: as above.
        work.map(|work| unsafe { work.as_ref() }(piece));
    }
}

/// Leader and helpers take pieces from both ends, so that successive ones, which lie side by side in memory, are of one thread.
#[derive(Clone, Copy)]
enum Side {
    First,
    Last,
}

/// Counts a piece as done, also when it panics.
struct Done<'a>(&'a AtomicUsize);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Release);
    }
}

/// Waits until no piece is being worked on. When a piece of the leader's panicked, the others are not begun.
struct Rest<'a> {
    team: &'a Team,
    items: usize,
}

impl Drop for Rest<'_> {
    fn drop(&mut self) {
        while self.team.take(Side::First).is_some() {
            drop(Done(&self.team.done.0));
        }
        let mut pause = Pause::default();
        while self.team.done.0.load(Ordering::Acquire) < self.items {
            pause.wait();
        }
    }
}

/// Waiting for another thread that is expected soon, or may have no core.
#[derive(Default)]
struct Pause {
    turns: u32,
}

impl Pause {
    fn wait(&mut self) {
        self.turns += 1;
        if self.turns.is_multiple_of(PATIENCE) { thread::yield_now() } else { spin_loop() }
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::atomic::AtomicU32;

    use super::*;
    use crate::parallel;

    fn in_pool<R: Send>(threads: usize, work: impl FnOnce() -> R + Send) -> R {
        rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads start").install(work)
    }

    /// How often each of `items` was done in an operation of this thread's.
    fn counts(items: usize) -> Vec<u32> {
        let counts: Vec<_> = (0..items).map(|_| AtomicU32::new(0)).collect();
        parallel::for_each(Threads::Rayon, items, |i| {
            counts[i].fetch_add(1, Ordering::Relaxed);
        });
        counts.into_iter().map(AtomicU32::into_inner).collect()
    }

    #[test]
    fn every_piece_is_done_once_and_before_the_next_operation() {
        let repeats = if cfg!(miri) { 3 } else { 300 };
        for threads in 1..=4 {
            in_pool(threads, || {
                Kernels::detect().together(|| {
                    for items in (0..repeats).flat_map(|_| [1, 2, 3, 8, 31]) {
                        assert_eq!(counts(items), vec![1; items], "{items} pieces on {threads} threads");
                    }
                });
            });
        }
    }

    #[test]
    fn a_team_helps_while_there_is_one() {
        let helped = || {
            let leader = thread::current().id();
            let others = AtomicU32::new(0);
            // Helpers may come late, but they come.
            for _ in 0..1_000_000 {
                assert!(for_each(8, &|_| {
                    others.fetch_add(u32::from(thread::current().id() != leader), Ordering::Relaxed);
                }));
                if others.load(Ordering::Relaxed) > 0 {
                    return true;
                }
                thread::yield_now();
            }
            false
        };
        in_pool(2, || {
            assert!(!for_each(8, &|_| ()), "there is no team yet");
            assert!(Kernels::detect().together(helped));
            assert!(!for_each(8, &|_| ()), "there is no team any more");
            Kernels::detect().with_threads(Threads::One).together(|| assert!(!for_each(8, &|_| ())));
        });
    }

    #[test]
    fn operations_within_pieces_and_teams_within_teams_are_possible() {
        in_pool(3, || {
            let kernels = Kernels::detect();
            kernels.together(|| {
                parallel::for_each(Threads::Rayon, 7, |_| assert_eq!(counts(5), [1; 5]));
                kernels.together(|| assert_eq!(counts(6), [1; 6]));
                assert_eq!(counts(9), [1; 9]);
            });
        });
    }

    #[test]
    fn two_leaders_do_not_wait_for_each_other() {
        in_pool(2, || {
            let lead = || Kernels::detect().together(|| (0..100).for_each(|_| assert_eq!(counts(4), [1; 4])));
            rayon::join(lead, lead);
        });
    }

    #[test]
    fn a_piece_that_panics_ends_the_team_and_harms_no_other() {
        in_pool(2, || {
            for bad in 0..8 {
                let ended = catch_unwind(AssertUnwindSafe(|| {
                    Kernels::detect().together(|| {
                        parallel::for_each(Threads::Rayon, 8, |i| assert_ne!(i, bad));
                    });
                }));
                assert!(ended.is_err(), "piece {bad}");
                assert_eq!(counts(8), [1; 8]);
                assert!(LED.get().is_none());
            }
        });
    }
}
