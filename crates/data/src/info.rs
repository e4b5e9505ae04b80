//! `meta/info.json`.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::atomic::{read_json, write_json};
use crate::features::{DType, Features};
use crate::layout::{self, FileId};
use crate::{DataError, Result};

/// The header of a data set (upstream: `DatasetInfo`). Fields that are not listed here are ignored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Info {
    /// Version of the format, `v3.0`.
    pub codebase_version: String,
    /// Frames per second.
    #[serde(deserialize_with = "whole_fps")]
    pub fps: u32,
    /// What a frame holds.
    pub features: Features,
    /// Number of episodes.
    pub total_episodes: usize,
    /// Number of frames of all episodes.
    pub total_frames: usize,
    /// Number of different instructions.
    pub total_tasks: usize,
    /// Files per chunk folder.
    #[serde(default = "default_chunks_size")]
    pub chunks_size: usize,
    /// Size in MiB from which on a new parquet file is started.
    #[serde(default = "default_data_mb")]
    pub data_files_size_in_mb: usize,
    /// Size in MiB from which on a new video file is started.
    #[serde(default = "default_video_mb")]
    pub video_files_size_in_mb: usize,
    /// Template of the paths of the parquet files.
    pub data_path: String,
    /// Template of the paths of the videos, if there are any.
    #[serde(default)]
    pub video_path: Option<String>,
    /// Kind of robot.
    #[serde(default)]
    pub robot_type: Option<String>,
    /// Named ranges of episodes, `{"train": "0:50"}`.
    #[serde(default)]
    pub splits: serde_json::Map<String, serde_json::Value>,
}

fn default_chunks_size() -> usize {
    1000
}

fn default_data_mb() -> usize {
    100
}

fn default_video_mb() -> usize {
    200
}

fn whole_fps<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    let fps = f64::deserialize(deserializer)?;
    if fps.fract() == 0.0 && (1.0..=1e6).contains(&fps) {
        Ok(fps as u32)
    } else {
        Err(serde::de::Error::custom(format!("`fps` must be a positive whole number, found {fps}")))
    }
}

impl Info {
    pub(crate) fn new(features: Features, fps: u32, robot_type: &str) -> Self {
        Self {
            codebase_version: "v3.0".into(),
            fps,
            features,
            total_episodes: 0,
            total_frames: 0,
            total_tasks: 0,
            chunks_size: default_chunks_size(),
            data_files_size_in_mb: default_data_mb(),
            video_files_size_in_mb: default_video_mb(),
            data_path: layout::DATA_PATH.into(),
            video_path: None,
            robot_type: Some(robot_type.into()),
            splits: serde_json::Map::new(),
        }
    }

    pub(crate) fn load(root: &Path) -> Result<Self> {
        let path = root.join(layout::INFO);
        let info: Self = read_json(&path, "the header of a LeRobotDataset v3.0")?;
        info.validate(&path)?;
        Ok(info)
    }

    pub(crate) fn save(&self, root: &Path) -> Result<()> {
        write_json(&root.join(layout::INFO), self)
    }

    fn validate(&self, path: &Path) -> Result<()> {
        if !self.codebase_version.starts_with("v3.") {
            let expected = "`codebase_version` v3.0 (older ones: convert with LeRobot's convert_dataset_v21_to_v30)";
            return Err(DataError::invalid(path, expected, self.codebase_version.clone()));
        }
        for (name, dtype) in &Features::DEFAULT {
            match self.features.get(name) {
                Some(feature) if feature.dim() == 1 => {}
                Some(feature) => {
                    return Err(DataError::invalid(
                        path,
                        format!("feature `{name}` with one value"),
                        format!("shape {:?}", feature.shape),
                    ));
                }
                None => {
                    let found = format!("features {}", self.features.names());
                    return Err(DataError::invalid(path, format!("feature `{name}` ({dtype})"), found));
                }
            }
        }
        let has_video = self.features.iter().any(|(_, feature)| feature.dtype == DType::Video);
        let templates = [Some(&self.data_path), self.video_path.as_ref().filter(|_| has_video)];
        for template in templates.into_iter().flatten() {
            if FileId::default().path(template, "key").is_none() {
                let expected = "a path template inside the data set with {chunk_index}, {file_index} and {video_key}";
                return Err(DataError::invalid(path, expected, format!("`{template}`")));
            }
        }
        if has_video && self.video_path.is_none() {
            return Err(DataError::invalid(path, "`video_path`, since there are video features", "null"));
        }
        Ok(())
    }
}
