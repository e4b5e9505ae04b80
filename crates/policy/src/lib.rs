//! The contract between robots and policies.
//!
//! This crate has no machine learning. An [`Environment`] gives an [`Observation`] at every control step, and a
//! [`Policy`] answers with an [`ActionChunk`]. A [`FeatureSpec`] lists the cameras, states and actions of the robot.
//! [`play()`] is the roll-out loop: it starts the policy's [`Episode`] and reports the [`Outcome`] to it.
//!
//! Wrappers add behaviour around any policy: [`ChunkQueue`] executes chunks, [`DeadlineGuard`] measures the latency of
//! every step.
#![forbid(unsafe_code)]

mod chunk;
mod deadline;
mod environment;
mod episode;
mod error;
mod features;
mod latency;
mod norm;
mod observation;
mod play;

pub use chunk::{ActionChunk, ChunkQueue};
pub use deadline::DeadlineGuard;
pub use environment::{Environment, StepOutcome};
pub use episode::{Episode, Outcome};
pub use error::PolicyError;
pub use features::{CameraSpec, FeatureSpec, VectorSpec};
pub use latency::LatencyHistogram;
pub use norm::{NormMode, NormStats, VectorStats};
pub use observation::{Image, Observation};
pub use play::{Driver, Played, Step, play};

/// Anything that turns observations into actions: a learned policy, a scripted expert, a remote server.
///
/// A policy is called once per control step, in order, even while an earlier chunk is being executed. A recurrent state
/// therefore never misses a step.
pub trait Policy: Send {
    /// The cameras, state and action that this policy expects and produces.
    fn features(&self) -> &FeatureSpec;

    /// Starts `episode`: forgets the state of the episode before, whether or not that one was ended.
    ///
    /// # Errors
    /// When the policy cannot start, for example because its server does not answer.
    fn begin(&mut self, episode: &Episode) -> Result<(), PolicyError>;

    /// Consumes one observation and writes the next actions into `chunk`, whose buffer is reused.
    ///
    /// # Errors
    /// When the observation does not fit [`Policy::features`]; the policy's state is then unchanged.
    fn act(&mut self, observation: &Observation, chunk: &mut ActionChunk) -> Result<(), PolicyError>;

    /// Learns how the episode ended. `last` is what was observed after the last action, where its consequence shows.
    ///
    /// Wrappers pass it on: experience is lost otherwise, which is why there is no default.
    ///
    /// # Errors
    /// When what was learned cannot be kept.
    fn end(&mut self, outcome: &Outcome, last: &Observation) -> Result<(), PolicyError>;
}

impl<P: Policy + ?Sized> Policy for Box<P> {
    fn features(&self) -> &FeatureSpec {
        (**self).features()
    }

    fn begin(&mut self, episode: &Episode) -> Result<(), PolicyError> {
        (**self).begin(episode)
    }

    fn act(&mut self, observation: &Observation, chunk: &mut ActionChunk) -> Result<(), PolicyError> {
        (**self).act(observation, chunk)
    }

    fn end(&mut self, outcome: &Outcome, last: &Observation) -> Result<(), PolicyError> {
        (**self).end(outcome, last)
    }
}
