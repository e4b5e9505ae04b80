//! Parallelism over groups of frames: every lane is one thread that takes every n-th group, so that a
//! group's working set stays in one core's cache and nothing synchronises inside a network.

use rayon::{ThreadPool, ThreadPoolBuilder};

/// A fixed number of lanes. Which lane handles which item depends on their numbers only, so that sums per
/// lane are reproducible bit for bit.
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

    /// Hands the items out round-robin and runs `work(lane, items of the lane)` on every lane; returns the
    /// results in the order of the lanes.
    pub(crate) fn run<T: Send, R: Send>(&self, items: Vec<T>, work: impl Fn(Vec<T>) -> R + Sync) -> Vec<R> {
        let mut shares: Vec<Vec<T>> = self.pools.iter().map(|_| Vec::new()).collect();
        for (i, item) in items.into_iter().enumerate() {
            shares[i % self.pools.len()].push(item);
        }
        std::thread::scope(|scope| {
            let work = &work;
            let running: Vec<_> = self
                .pools
                .iter()
                .zip(shares)
                .map(|(pool, share)| scope.spawn(move || pool.install(|| work(share))))
                .collect();
            running.into_iter().map(|lane| lane.join().expect("a lane only fails by a bug of ours")).collect()
        })
    }
}
