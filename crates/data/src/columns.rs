//! The name of every column, once.
//!
//! Columns of a frame first, then those that only `meta/episodes` has. A vector of one dimension is a plain column;
//! a longer one is a fixed-size list. The recorder is `robomamba data record`.

use robomamba_policy::FeatureSpec;

/// The robot's own state, float32 `[state_dim]` in the robot's units; an input of the policy.
/// Written by every recorder, read by training. LeRobot: `OBS_STATE`.
pub const STATE: &str = FeatureSpec::STATE;

/// The action to imitate, float32 `[action_dim]` in the robot's units, chosen after the frame's observation.
/// Written by every recorder, read by training. LeRobot: `ACTION`.
pub const ACTION: &str = FeatureSpec::ACTION;

/// The action that the robot executed, float32 `[action_dim]`; [`ACTION`] is the expert's answer to the same frame.
/// Written by the recorder for analysis; nothing here reads it. No counterpart in LeRobot.
pub const ACTION_EXECUTED: &str = "action.executed";

/// What precedes a camera's name: uint8 images `[height, width, 3]`, RGB.
/// Written by every recorder, read by training. LeRobot: `OBS_IMAGES`.
pub const IMAGES: &str = "observation.images.";

/// Privileged state of a simulator, float32 `[dim]`; training predicts it, no policy sees it.
/// Written by the recorder, read by training's auxiliary loss. LeRobot: `OBS_ENV_STATE`.
pub const ENVIRONMENT_STATE: &str = "observation.environment_state";

/// Where the things named by the instruction are in an image of `camera`, float32 `[2 * n_point]`.
///
/// Each point is x and y as fractions of the image's width and height, from the top left corner. Both are negative for
/// an absent point. Written by the recorder, read by training's auxiliary losses. No counterpart in LeRobot.
pub fn grounding(camera: &str) -> String {
    format!("observation.grounding.{}", short_name(camera))
}

/// All things in an image of `camera`, float32 `[4 * n_thing]`.
///
/// Each thing is x, y, kind and colour: fractions as in [`grounding`], then two class numbers; all are negative for an
/// absent thing. Written by the recorder, read by training's auxiliary losses. No counterpart in LeRobot.
pub fn things(camera: &str) -> String {
    format!("observation.things.{}", short_name(camera))
}

/// A camera's name without [`IMAGES`].
fn short_name(camera: &str) -> &str {
    camera.strip_prefix(IMAGES).unwrap_or(camera)
}

/// Whether the step after the frame completed the task, bool.
///
/// True in the last frame of a successful episode, false elsewhere. Written by the recorder, read as
/// [`Episode::success`](crate::Episode::success). LeRobot's simulated data sets have it under this name.
pub const SUCCESS: &str = "next.success";

/// Whether [`ACTION`] may be imitated, bool; true everywhere when the column is absent.
/// Written by the recorder, read by training. No counterpart in LeRobot.
pub const IS_DEMONSTRATION: &str = "is_demonstration";

/// Seed of the episode's scene, int64, the same in all its frames.
/// Written by the recorder, for repeating an episode; nothing here reads it. No counterpart in LeRobot.
pub const SEED: &str = "seed";

/// Time since the start of the episode, float32, seconds: [`FRAME_INDEX`] divided by the frame rate. Written by
/// [`EpisodeWriter`](crate::EpisodeWriter), read by [`check()`](crate::check()). LeRobot: `DEFAULT_FEATURES`.
pub const TIMESTAMP: &str = "timestamp";

/// Number of the frame within its episode, int64, from 0.
/// Written by [`EpisodeWriter`](crate::EpisodeWriter), checked by every read. LeRobot: `DEFAULT_FEATURES`.
pub const FRAME_INDEX: &str = "frame_index";

/// Number of the episode within the data set, int64, from 0; also a column of `meta/episodes`.
/// Written by [`DatasetWriter`](crate::DatasetWriter), checked by every read. LeRobot: `DEFAULT_FEATURES`.
pub const EPISODE_INDEX: &str = "episode_index";

/// Number of the frame within the data set, int64, from 0.
/// Written by [`DatasetWriter`](crate::DatasetWriter), checked by every read. LeRobot: `DEFAULT_FEATURES`.
pub const INDEX: &str = "index";

/// Number of the frame's instruction, int64, a row of `meta/tasks.parquet`.
/// Written by [`DatasetWriter`](crate::DatasetWriter), read as [`Episode::tasks`](crate::Episode::tasks).
/// LeRobot: `DEFAULT_FEATURES`.
pub const TASK_INDEX: &str = "task_index";

/// The instruction, text: the index of `meta/tasks.parquet`, and a column of a single recorded episode.
/// Written by [`DatasetWriter`](crate::DatasetWriter), read as [`Episode::tasks`](crate::Episode::tasks).
/// LeRobot: `load_tasks`.
pub const TASK: &str = "task";

/// Columns of `meta/episodes`, one row per episode. LeRobot: `LeRobotDatasetMetadata.save_episode`.
pub(crate) mod episodes {
    /// Different instructions of the episode, lists of text.
    pub(crate) const TASKS: &str = "tasks";
    /// Number of frames, int64.
    pub(crate) const LENGTH: &str = "length";
    /// First frame of the episode, counted over the data set, int64.
    pub(crate) const FROM_INDEX: &str = "dataset_from_index";
    /// Frame after the last one of the episode, counted over the data set, int64.
    pub(crate) const TO_INDEX: &str = "dataset_to_index";
    /// Folder of the episode's frames, int64.
    pub(crate) const DATA_CHUNK: &str = "data/chunk_index";
    /// File of the episode's frames, int64.
    pub(crate) const DATA_FILE: &str = "data/file_index";
    /// Folder of this row, int64.
    pub(crate) const OWN_CHUNK: &str = "meta/episodes/chunk_index";
    /// File of this row, int64.
    pub(crate) const OWN_FILE: &str = "meta/episodes/file_index";
    /// What precedes the columns of [`stat`].
    pub(crate) const STATS: &str = "stats/";

    /// A statistic of a feature over the episode, lists of float64 (int64 for `count`).
    pub(crate) fn stat(feature: &str, stat: &str) -> String {
        format!("{STATS}{feature}/{stat}")
    }

    /// Folder of the video with the episode's frames of `camera`, int64.
    pub(crate) fn video_chunk(camera: &str) -> String {
        format!("videos/{camera}/chunk_index")
    }

    /// File of the video with the episode's frames of `camera`, int64.
    pub(crate) fn video_file(camera: &str) -> String {
        format!("videos/{camera}/file_index")
    }

    /// Time of the episode's first frame within its video, float64, seconds.
    pub(crate) fn video_from_s(camera: &str) -> String {
        format!("videos/{camera}/from_timestamp")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_of_a_camera_carry_its_name() {
        for (camera, expected) in [
            ("observation.images.top", ["observation.grounding.top", "observation.things.top"]),
            ("observation.images.arm.left", ["observation.grounding.arm.left", "observation.things.arm.left"]),
            ("wrist", ["observation.grounding.wrist", "observation.things.wrist"]),
        ] {
            assert_eq!([grounding(camera), things(camera)], expected);
        }
    }
}
