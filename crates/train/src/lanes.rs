//! Parallelism over groups of frames: a lane is one thread that takes share after share of the groups, so that a
//! group's working set stays in one core's cache and nothing synchronises inside a network.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::{ThreadPool, ThreadPoolBuilder};

/// Shares that the items are divided into: enough that a lane which another program slows down holds nobody up, few
/// enough that adding up what each gives costs little.
const N_SHARE: usize = 12;

/// A fixed number of lanes. What is in a share does not depend on them, so that sums per share are reproducible bit
/// for bit on any number of threads.
#[derive(Debug)]
pub(crate) struct Lanes {
    /// Pools of one thread each: what runs inside sees a rayon pool without parallelism.
    pools: Vec<ThreadPool>,
}

impl Lanes {
    /// `count` lanes (at least one).
    pub(crate) fn new(count: usize) -> Self {
        let pool = |i| ThreadPoolBuilder::new().num_threads(1).thread_name(move |_| format!("lane-{i}")).build();
        Self { pools: (0..count.max(1)).map(|i| pool(i).expect("the system lets us start a thread")).collect() }
    }

    /// Hands consecutive items out in shares and runs `work(items of a share)` on the lanes; returns the results in
    /// the order of the items.
    pub(crate) fn run<T: Send, R: Send>(&self, items: Vec<T>, work: impl Fn(Vec<T>) -> R + Sync) -> Vec<R> {
        let size = items.len().div_ceil(N_SHARE).max(1);
        let mut items = items.into_iter();
        let shares: Vec<_> =
            std::iter::from_fn(|| Some(items.by_ref().take(size).collect::<Vec<T>>()).filter(|it| !it.is_empty()))
                .map(|share| (Mutex::new(Some(share)), Mutex::new(None)))
                .collect();
        let next = AtomicUsize::new(0);
        let lane = || {
            while let Some((share, result)) = shares.get(next.fetch_add(1, Ordering::Relaxed)) {
                let share = lock(share).take().expect("every number is drawn once");
                *lock(result) = Some(work(share));
            }
        };
        std::thread::scope(|scope| self.pools.iter().for_each(|pool| drop(scope.spawn(|| pool.install(lane)))));
        let result = |(_, result): (_, Mutex<Option<R>>)| result.into_inner().ok().flatten();
        shares.into_iter().map(|share| result(share).expect("a lane only fails by a bug of ours")).collect()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().expect("nobody panics while holding the lock")
}
