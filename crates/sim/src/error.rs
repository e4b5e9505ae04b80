//! Why the simulator refuses a request.

use robomamba_policy::PolicyError;
use thiserror::Error;

/// Each variant is one cause; its message says what was expected, what was found and what to do.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SimError {
    /// The action has another number of dimensions.
    #[error("`action` must have {expected} values (dx, dy, grip), found {found}")]
    ActionLength {
        /// Dimensions of the robot.
        expected: usize,
        /// Dimensions that were given.
        found: usize,
    },
    /// The action holds NaN or an infinity; the simulation did not advance.
    #[error("`action[{index}]` ({name}) must be finite, found {found}; check the policy's output")]
    ActionNotFinite {
        /// Name of the dimension.
        name: &'static str,
        /// Its index.
        index: usize,
        /// The value that was given.
        found: f32,
    },
    /// An option of the scenario is out of its range.
    #[error("scenario option `{option}` must be {expected}, found {found}")]
    Option {
        /// Name of the option.
        option: &'static str,
        /// Values that are allowed.
        expected: &'static str,
        /// The value that was given.
        found: usize,
    },
    /// A task family with this name does not exist.
    #[error("task family must be one of {expected}, found `{found}`")]
    Family {
        /// The names of all families.
        expected: String,
        /// The name that was given.
        found: String,
    },
    /// The picture has no pixels, or too many.
    #[error("the picture must be 1x1 to {max}x{max} pixels (height x width), found {height}x{width}")]
    PictureSize {
        /// Rows that were asked for.
        height: usize,
        /// Columns that were asked for.
        width: usize,
        /// Largest side.
        max: usize,
    },
    /// The policy in a roll-out refused an observation or failed.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// The policy in a roll-out answered with an empty chunk.
    #[error("the policy planned no action for this step; it must fill `ActionChunk::actions` with at least one row")]
    EmptyChunk,
}
