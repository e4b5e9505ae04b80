//! The contract between robots and policies.
//!
//! No machine learning lives here: an [`Observation`] goes in, an [`ActionChunk`] comes out, and a
//! [`FeatureSpec`] says which cameras, states and actions a robot has. Wrappers add behaviour around
//! any [`Policy`]: [`ChunkQueue`] executes chunks, [`DeadlineGuard`] measures and enforces the control
//! period, [`Recorder`] hands every step to a sink.
#![forbid(unsafe_code)]

mod chunk;
mod deadline;
mod error;
mod features;
mod norm;
mod observation;
mod recorder;

pub use chunk::{ActionChunk, ChunkQueue};
pub use deadline::{DeadlineGuard, DeadlineStats};
pub use error::PolicyError;
pub use features::{CameraSpec, FeatureSpec, VectorSpec};
pub use norm::{NormMode, NormStats, VectorStats};
pub use observation::{Image, Observation};
pub use recorder::{Recorder, StepSink};

/// Anything that turns observations into actions: a learned policy, a scripted expert, a remote server.
///
/// A policy is called once per control step, in order, also while an earlier chunk is still being
/// executed, so that a recurrent state never misses a step.
pub trait Policy {
    /// The cameras, state and action that this policy expects and produces.
    fn features(&self) -> &FeatureSpec;

    /// Consumes one observation and writes the planned actions into `chunk`, whose buffer is reused.
    ///
    /// # Errors
    /// When the observation does not fit [`Policy::features`]; the policy's state is then unchanged.
    fn act(&mut self, observation: &Observation, chunk: &mut ActionChunk) -> Result<(), PolicyError>;

    /// Starts a new episode: forgets everything that happened before.
    fn reset(&mut self);
}

impl<P: Policy + ?Sized> Policy for Box<P> {
    fn features(&self) -> &FeatureSpec {
        (**self).features()
    }

    fn act(&mut self, observation: &Observation, chunk: &mut ActionChunk) -> Result<(), PolicyError> {
        (**self).act(observation, chunk)
    }

    fn reset(&mut self) {
        (**self).reset();
    }
}
