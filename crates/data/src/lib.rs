//! LeRobotDataset v3.0: reading, writing, statistics and checks.
//!
//! A data set is a folder:
//!
//! ```text
//! meta/info.json                            features, rates, counts, path templates
//! meta/stats.json                           min, max, mean, std, count, q01 to q99 per feature
//! meta/tasks.parquet                        instruction -> task_index
//! meta/episodes/chunk-000/file-000.parquet  one row per episode: length, where its frames are, its statistics
//! data/chunk-000/file-000.parquet           one row per frame; cameras of dtype `image` as PNG bytes
//! videos/KEY/chunk-000/file-000.mp4         cameras of dtype `video`, several episodes per file
//! ```
//!
//! [`Dataset`] reads such a folder from any writer. [`DatasetWriter`] records one, in parallel over episodes, and may
//! be killed at any time. [`check`] verifies every frame. [`columns`] names all columns. The layout follows
//! `lerobot/datasets` of LeRobot 0.6.1.
#![forbid(unsafe_code)]

mod assemble;
mod atomic;
mod check;
mod colour;
mod column;
pub mod columns;
mod dataset;
mod episode;
mod episodes;
mod error;
mod features;
mod image;
mod info;
mod layout;
mod parquet_file;
mod recording;
mod shard;
mod stats;
mod summary;
mod tasks;
mod video;
mod writer;

pub use check::{Finding, Report, Severity, check, compute_stats};
pub use column::{Column, Values};
pub use dataset::Dataset;
pub use episode::{Camera, Episode};
pub use episodes::EpisodeMeta;
pub use error::DataError;
pub use features::{DType, Feature, Features};
pub use image::{EncodedFrames, decode_png, encode_png};
pub use info::Info;
pub use recording::{Recording, digest};
pub use stats::{FeatureStats, QUANTILES, Stats, StatsLayout};
pub use summary::{Summary, TaskSummary};
pub use writer::{DatasetWriter, EpisodeWriter, Frame, Value, WriterConfig};

/// Result of this crate's functions.
pub type Result<T, E = DataError> = std::result::Result<T, E>;
