//! Measures every control step against the control period.

use std::time::{Duration, Instant};

use crate::{ActionChunk, FeatureSpec, Observation, Policy, PolicyError};

/// Latencies of the control steps so far.
#[derive(Clone, Debug, Default)]
pub struct DeadlineStats {
    /// Time of every step in nanoseconds, in order.
    pub latency_ns: Vec<u64>,
    /// Steps that took longer than the deadline.
    pub misses: usize,
}

impl DeadlineStats {
    /// The `p`-th percentile (0 to 100, nearest rank) of the latency in milliseconds; 0 before the first step.
    pub fn percentile_ms(&self, p: f64) -> f64 {
        let mut sorted = self.latency_ns.clone();
        sorted.sort_unstable();
        let rank = (p / 100.0 * sorted.len() as f64).ceil().max(1.0) as usize;
        sorted.get(rank - 1).map_or(0.0, |&ns| ns as f64 / 1e6)
    }

    /// Steps per second that the policy alone could sustain: the inverse of the mean latency in Hz.
    pub fn rate_hz(&self) -> f64 {
        let total_s = self.latency_ns.iter().sum::<u64>() as f64 / 1e9;
        if total_s > 0.0 { self.latency_ns.len() as f64 / total_s } else { 0.0 }
    }
}

/// Times each step of the wrapped policy and counts those over the deadline.
pub struct DeadlineGuard<P> {
    policy: P,
    deadline: Duration,
    stats: DeadlineStats,
}

impl<P: Policy> DeadlineGuard<P> {
    /// Wraps `policy`; a step longer than `deadline` is a miss. Room for `capacity` steps is reserved.
    pub fn new(policy: P, deadline: Duration, capacity: usize) -> Self {
        Self { policy, deadline, stats: DeadlineStats { latency_ns: Vec::with_capacity(capacity), misses: 0 } }
    }

    /// What was measured so far.
    pub fn stats(&self) -> &DeadlineStats {
        &self.stats
    }

    /// The wrapped policy.
    pub fn inner(&self) -> &P {
        &self.policy
    }
}

impl<P: Policy> Policy for DeadlineGuard<P> {
    fn features(&self) -> &FeatureSpec {
        self.policy.features()
    }

    fn act(&mut self, observation: &Observation, chunk: &mut ActionChunk) -> Result<(), PolicyError> {
        let start = Instant::now();
        let result = self.policy.act(observation, chunk);
        let elapsed = start.elapsed();
        self.stats.latency_ns.push(elapsed.as_nanos() as u64);
        self.stats.misses += usize::from(elapsed > self.deadline);
        result
    }

    fn reset(&mut self) {
        self.policy.reset();
    }
}
