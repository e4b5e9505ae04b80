//! Why an observation or an action is refused, and how a policy or an environment fails.

use thiserror::Error;

/// Each variant is one cause; its message says what was expected, what was found and what to do.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum PolicyError {
    /// The byte buffer does not have the size of the image.
    #[error(
        "an RGB image of {height}x{width} has {expected} bytes (height * width * 3), found {found}; pass 8-bit RGB without alpha or padding"
    )]
    ImageBytes {
        /// Rows.
        height: usize,
        /// Columns.
        width: usize,
        /// Bytes that such an image has.
        expected: usize,
        /// Bytes that were given.
        found: usize,
    },
    /// A camera of the policy is not in the observation.
    #[error(
        "camera `{expected}` is missing; the observation has [{found}]; rename the camera or give the policy that one"
    )]
    MissingCamera {
        /// Name of the camera that the policy needs.
        expected: String,
        /// Names that were given.
        found: String,
    },
    /// An image has another size than the policy was built for.
    #[error("camera `{camera}` must be {}x{} (height x width), found {}x{}; resize it before it reaches the policy", expected.0, expected.1, found.0, found.1)]
    ImageSize {
        /// Feature name of the camera.
        camera: String,
        /// Height and width in pixels that the policy expects.
        expected: (usize, usize),
        /// Height and width in pixels that were given.
        found: (usize, usize),
    },
    /// The state vector has another length.
    #[error("`observation.state` must have {expected} values ({names}), found {found}")]
    StateLength {
        /// Dimensions that the policy expects.
        expected: usize,
        /// Their names.
        names: String,
        /// Dimensions that were given.
        found: usize,
    },
    /// The state vector holds NaN or an infinity.
    #[error("`observation.state[{index}]` ({name}) must be finite, found {found}; check the robot's sensor")]
    StateNotFinite {
        /// Name of the dimension.
        name: String,
        /// Its index.
        index: usize,
        /// The value that was given.
        found: f32,
    },
    /// The instruction is empty or too long for the text encoder.
    #[error("{reason}; say in a sentence or two what the robot shall do")]
    Instruction {
        /// What is wrong with it.
        reason: String,
    },
    /// A statistic needed for normalisation is missing or unusable.
    #[error("normalisation of `{feature}`: {reason}")]
    Normalisation {
        /// Feature name.
        feature: String,
        /// What is wrong with the statistic.
        reason: String,
    },
    /// The action has another number of dimensions than the robot.
    #[error("`action` must have {expected} values ({names}), found {found}")]
    ActionLength {
        /// Dimensions of the robot.
        expected: usize,
        /// Their names.
        names: String,
        /// Dimensions that were given.
        found: usize,
    },
    /// The action holds NaN or an infinity; nothing has moved.
    #[error("`action[{index}]` ({name}) must be finite, found {found}; check the policy's output")]
    ActionNotFinite {
        /// Name of the dimension.
        name: String,
        /// Its index.
        index: usize,
        /// The value that was given.
        found: f32,
    },
    /// The policy answered with an empty chunk.
    #[error("the chunk of actions is empty; the policy must fill `ActionChunk::actions` with at least one row")]
    EmptyChunk,
    /// The policy behind the interface failed for a reason of its own.
    #[error("the policy failed: {0}")]
    Other(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The robot or the simulator failed for a reason of its own.
    #[error("the environment failed: {0}")]
    Environment(#[source] Box<dyn std::error::Error + Send + Sync>),
}
