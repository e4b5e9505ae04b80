//! Measures every control step against the control period.

use std::time::{Duration, Instant};

use crate::{ActionChunk, Episode, FeatureSpec, LatencyHistogram, Observation, Outcome, Policy, PolicyError};

/// Times each step of the wrapped policy and counts those over the deadline.
///
/// It measures only: a late step is neither interrupted nor replaced, and its action is passed on.
pub struct DeadlineGuard<P> {
    policy: P,
    deadline: Duration,
    latency: LatencyHistogram,
    misses: u64,
}

impl<P: Policy> DeadlineGuard<P> {
    /// Wraps `policy`; a step longer than `deadline` counts as a miss.
    pub fn new(policy: P, deadline: Duration) -> Self {
        Self { policy, deadline, latency: LatencyHistogram::default(), misses: 0 }
    }

    /// Latencies of all control steps so far, over all episodes.
    pub fn latency(&self) -> &LatencyHistogram {
        &self.latency
    }

    /// Control steps so far that took longer than the deadline.
    pub fn misses(&self) -> u64 {
        self.misses
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

    fn begin(&mut self, episode: &Episode) -> Result<(), PolicyError> {
        self.policy.begin(episode)
    }

    fn act(&mut self, observation: &Observation, chunk: &mut ActionChunk) -> Result<(), PolicyError> {
        let start = Instant::now();
        let result = self.policy.act(observation, chunk);
        let elapsed = start.elapsed();
        self.latency.record(elapsed);
        self.misses += u64::from(elapsed > self.deadline);
        result
    }

    fn end(&mut self, outcome: &Outcome, last: &Observation) -> Result<(), PolicyError> {
        self.policy.end(outcome, last)
    }
}
