//! The seam between a simulated robot and whatever drives it.

use robomamba_policy::{FeatureSpec, Observation};
use serde::{Deserialize, Serialize};

use crate::{Scenario, SimError};

/// A robot in a world of its own: reset it, look, act, and learn how it went.
pub trait Environment {
    /// Cameras, state and action of the robot.
    fn features(&self) -> &FeatureSpec;

    /// Starts the episode that `scenario` describes.
    ///
    /// # Errors
    /// When an option of the scenario is out of range; the running episode then stays as it is.
    fn reset(&mut self, scenario: &Scenario) -> Result<(), SimError>;

    /// What the robot sees now. The buffer belongs to the environment and is overwritten by the next call.
    fn observe(&mut self) -> &Observation;

    /// Executes `action`, `[action_dim]`, for one control step.
    ///
    /// # Errors
    /// When the action has a wrong length or is not finite; nothing has moved then.
    fn step(&mut self, action: &[f32]) -> Result<StepOutcome, SimError>;
}

/// How the episode stands after a control step.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepOutcome {
    /// Running, or how it ended.
    pub status: Status,
    /// Sub-goals reached so far, as a fraction of all, in `[0, 1]`.
    pub progress: f32,
}

impl StepOutcome {
    /// Whether the task is accomplished.
    pub fn success(&self) -> bool {
        self.status == Status::Succeeded
    }

    /// Whether the episode is over, for whatever reason.
    pub fn done(&self) -> bool {
        self.status != Status::Running
    }
}

/// State of an episode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Not over yet.
    Running,
    /// The task is accomplished.
    Succeeded,
    /// Something irreparable happened.
    Failed(Failure),
    /// The step cap was reached.
    TimedOut,
}

/// What went wrong irreparably.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Failure {
    /// The hand settled on, or moved, an object that was not named.
    WrongObject,
    /// A button that was never asked for was pressed.
    WrongButton,
    /// A later sub-goal was done before its turn.
    WrongOrder,
    /// The hand acted before the go signal.
    TooEarly,
    /// The button was pressed too often or too seldom.
    WrongCount,
    /// The container that does not open was tried.
    WrongContainer,
    /// A glued block was lifted, or a fragile one pushed.
    WrongManner,
    /// The hand left its start in the wrong direction.
    WrongDirection,
}
