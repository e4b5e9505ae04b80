//! Parallelism over groups of frames. A lane is one thread that takes share after share of the groups: a group's
//! working set stays in one core's cache, and nothing synchronises inside a network.

use std::sync::Mutex;

use rayon::{ThreadPool, ThreadPoolBuilder};

/// Number of shares of the items: enough to balance the load when another program slows one lane down, few enough that
/// adding up their results costs little.
const N_SHARE: usize = 12;

/// A fixed number of lanes. Shares do not depend on it, so sums per share are the same to the bit on any number of
/// threads.
#[derive(Debug)]
pub(crate) struct Lanes {
    /// Pools of one thread each, in which rayon runs without parallelism.
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
        let shares = std::iter::from_fn(|| {
            let share: Vec<T> = items.by_ref().take(size).collect();
            (!share.is_empty()).then_some(share)
        });
        let queue = Mutex::new(shares.collect::<Vec<_>>().into_iter().enumerate());
        let next = || queue.lock().expect("nobody panics while holding the lock").next();
        let lane = || std::iter::from_fn(next).map(|(i, share)| (i, work(share))).collect::<Vec<_>>();
        let mut results: Vec<(usize, R)> = std::thread::scope(|scope| {
            let running: Vec<_> = self.pools.iter().map(|pool| scope.spawn(|| pool.install(lane))).collect();
            running.into_iter().flat_map(|lane| lane.join().expect("a lane only fails by a bug of ours")).collect()
        });
        results.sort_unstable_by_key(|&(i, _)| i);
        results.into_iter().map(|(_, result)| result).collect()
    }
}
