//! Hands every control step to a sink: a data set writer, a log, a test.

use crate::{ActionChunk, FeatureSpec, Observation, Policy, PolicyError};

/// Receives what a policy saw and did.
pub trait StepSink {
    /// One control step: the observation and the chunk that the policy answered with.
    fn step(&mut self, observation: &Observation, chunk: &ActionChunk);

    /// A new episode starts.
    fn reset(&mut self);
}

/// Passes every step of the wrapped policy on to a [`StepSink`].
pub struct Recorder<P, S> {
    policy: P,
    sink: S,
}

impl<P: Policy, S: StepSink> Recorder<P, S> {
    /// Records the steps of `policy` into `sink`.
    pub fn new(policy: P, sink: S) -> Self {
        Self { policy, sink }
    }

    /// The wrapped policy.
    pub fn inner(&self) -> &P {
        &self.policy
    }

    /// The sink, to read what it received.
    pub fn sink(&self) -> &S {
        &self.sink
    }

    /// Ends the recording and hands the sink back.
    pub fn into_sink(self) -> S {
        self.sink
    }
}

impl<P: Policy, S: StepSink> Policy for Recorder<P, S> {
    fn features(&self) -> &FeatureSpec {
        self.policy.features()
    }

    fn act(&mut self, observation: &Observation, chunk: &mut ActionChunk) -> Result<(), PolicyError> {
        self.policy.act(observation, chunk)?;
        self.sink.step(observation, chunk);
        Ok(())
    }

    fn reset(&mut self) {
        self.policy.reset();
        self.sink.reset();
    }
}
