//! What identifies an episode, and how it ended.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// What identifies an episode: its task, and the robot and scene by which a memory finds related experience.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Episode {
    /// Collection of tasks, for example `tabletop` or `libero_10`.
    pub suite: Arc<str>,
    /// Task within the suite, for example `push`.
    pub task: Arc<str>,
    /// Kind of robot, for example `tabletop` or `so101`: experience is shared between robots of one kind.
    pub robot: Arc<str>,
    /// Identifies the scene: equal for all attempts at the same scene, different for any other.
    pub scene: Arc<str>,
    /// Selects the initial conditions within the task.
    pub seed: u64,
    /// Number of earlier attempts at the same scene.
    pub attempt: u64,
    /// Instruction at the first control step.
    pub instruction: Arc<str>,
}

/// How an episode ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The task is accomplished.
    Succeeded,
    /// A mistake that cannot be repaired within the episode.
    Failed {
        /// Cause in the environment's own terms, in snake case, for example `wrong_object`.
        reason: Cow<'static, str>,
        /// Number of control steps after which the mistake had happened.
        step: usize,
    },
    /// The step limit was reached.
    TimedOut,
    /// Ended from outside: an interruption, or an error of the robot or of the policy.
    Aborted,
}

impl Outcome {
    /// Whether the task is accomplished.
    pub fn is_success(&self) -> bool {
        *self == Self::Succeeded
    }
}

impl fmt::Display for Outcome {
    /// The outcome in a few words; a failure as its reason, for example `wrong object`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Succeeded => f.pad("succeeded"),
            Self::Failed { reason, .. } => f.pad(&reason.replace('_', " ")),
            Self::TimedOut => f.pad("timed out"),
            Self::Aborted => f.pad("aborted"),
        }
    }
}
