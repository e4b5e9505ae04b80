//! Why the simulator refuses a request.

use robomamba_policy::PolicyError;
use thiserror::Error;

/// Each variant is one cause; its message says what was expected, what was found and what to do.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SimError {
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
    /// The image has no pixels, or too many.
    #[error("the picture must be 1x1 to {max}x{max} pixels (height x width), found {height}x{width}")]
    PictureSize {
        /// Rows that were asked for.
        height: usize,
        /// Columns that were asked for.
        width: usize,
        /// Largest side.
        max: usize,
    },
    /// The roll-out failed: a refused observation or action, or a driver's own error.
    #[error(transparent)]
    Policy(#[from] PolicyError),
}
