//! The seam between a robot, simulated or real, and whatever controls it.

use crate::{Episode, FeatureSpec, Observation, Outcome, PolicyError};

/// A robot in the middle of an episode: it observes, acts and judges how the episode stands.
///
/// How an episode starts is the business of the concrete type: a simulator resets to a scenario, a real robot waits for
/// its operator. [`play`](crate::play()) takes over from there.
pub trait Environment {
    /// Cameras, state and action of the robot.
    fn features(&self) -> &FeatureSpec;

    /// What identifies the running episode.
    fn episode(&self) -> Episode;

    /// Observes the present moment. The next call overwrites the buffer.
    ///
    /// # Errors
    /// When the robot or the simulator fails.
    fn observe(&mut self) -> Result<&Observation, PolicyError>;

    /// Executes `action`, `[action_dim]` in robot units, for one control step.
    ///
    /// # Errors
    /// When the action has a wrong length or is not finite, in which case nothing moves, or when the robot fails.
    fn step(&mut self, action: &[f32]) -> Result<StepOutcome, PolicyError>;
}

/// How the episode stands after a control step.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StepOutcome {
    /// How the episode ended; `None` while it runs.
    pub outcome: Option<Outcome>,
    /// Fraction of the task that is done, in `[0, 1]`, for example sub-goals reached.
    pub progress: f32,
}

impl StepOutcome {
    /// Whether the episode is over.
    pub fn is_over(&self) -> bool {
        self.outcome.is_some()
    }

    /// Whether the task is accomplished.
    pub fn is_success(&self) -> bool {
        self.outcome.as_ref().is_some_and(Outcome::is_success)
    }
}
