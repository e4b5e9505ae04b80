//! Records a data set: episodes in parallel and in any order, each written whole or not at all.
//!
//! ```text
//! DIR.partial/recording.json     settings; another recording cannot continue here
//! DIR.partial/lock               held while a process records
//! DIR.partial/episode-000007     a finished episode
//! DIR.partial/dataset/           the data set while it is put together from the episodes
//! DIR                            the finished data set, renamed from there
//! ```
//!
//! A killed process loses only its unfinished episodes. The next run asks [`DatasetWriter::pending`] for the rest. The
//! finished data set equals that of an uninterrupted run to the byte, if an episode's content depends on its index
//! only.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use robomamba_policy::Image;

use crate::column::{Column, Values};
use crate::columns::TASK;
use crate::features::{DType, Feature, Features};
use crate::image::encode_png;
use crate::recording::Recording;
use crate::shard::{Shard, clock_columns, column_stats, image_column};
use crate::stats::PixelCounts;
use crate::{DataError, Result, assemble, layout};

/// Settings of a recording.
#[derive(Clone, Debug, PartialEq)]
pub struct WriterConfig {
    /// What a frame holds, without the features that the format adds itself (`timestamp`, `frame_index`, ...).
    pub features: Features,
    /// Frames per second.
    pub fps: u32,
    /// Kind of robot, for example `tabletop`.
    pub robot_type: String,
    /// Number of episodes to record.
    pub episodes: usize,
    /// What else determines the content: task families, seeds, versions.
    /// Only a recording with an equal recipe continues an interrupted one.
    pub recipe: serde_json::Value,
}

/// One value of a frame.
#[derive(Clone, Copy, Debug)]
pub enum Value<'a> {
    /// `float32`, `[dim]`.
    F32(&'a [f32]),
    /// `float64`, `[dim]`.
    F64(&'a [f64]),
    /// `int64`, `[dim]`.
    Int(&'a [i64]),
    /// `bool` of one dimension.
    Bool(bool),
    /// A camera's image.
    Image(&'a Image),
}

impl Value<'_> {
    fn describe(&self) -> String {
        match self {
            Self::F32(values) => format!("float32 [{}]", values.len()),
            Self::F64(values) => format!("float64 [{}]", values.len()),
            Self::Int(values) => format!("int64 [{}]", values.len()),
            Self::Bool(_) => "bool [1]".into(),
            Self::Image(image) => format!("image [{}, {}, 3]", image.height(), image.width()),
        }
    }
}

/// One frame to record: the instruction and exactly one value for every feature, in any order.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    /// The instruction.
    pub task: &'a str,
    /// Feature names and values.
    pub values: &'a [(&'a str, Value<'a>)],
}

/// A data set that is being recorded. Shared by all threads that record episodes.
#[derive(Debug)]
pub struct DatasetWriter {
    target: PathBuf,
    partial: PathBuf,
    recording: Recording,
    _lock: File,
}

impl DatasetWriter {
    /// Starts a recording into the folder `target`, or continues an interrupted one with the same settings.
    ///
    /// # Errors
    /// - [`DataError::AlreadyComplete`] when the same recording is finished.
    /// - [`DataError::Occupied`] when something else has this name.
    /// - [`DataError::OtherRecording`] when the working folder belongs to other settings.
    /// - [`DataError::Locked`] when another process records there.
    /// - Others when the settings are invalid or the disk cannot be written.
    pub fn create(target: impl AsRef<Path>, config: WriterConfig) -> Result<Self> {
        let target = target.as_ref();
        let recording = recording_of(config)?;
        let partial = partial_folder(target)?;
        refuse_existing(target, &partial, &recording)?;
        fs::create_dir_all(&partial).map_err(DataError::write(&partial))?;
        let lock = lock(&partial)?;
        continue_or_begin(&partial, &recording)?;
        Ok(Self { target: target.into(), partial, recording, _lock: lock })
    }

    /// The settings.
    pub fn recording(&self) -> &Recording {
        &self.recording
    }

    /// Episodes that are not recorded yet.
    pub fn pending(&self) -> Vec<usize> {
        (0..self.recording.episodes).filter(|&index| !self.shard_path(index).exists()).collect()
    }

    /// Begins to record episode `index`. It exists once [`EpisodeWriter::save`] returns.
    ///
    /// # Errors
    /// When the episode is recorded already or beyond the number of episodes.
    pub fn episode(&self, index: usize) -> Result<EpisodeWriter> {
        if index >= self.recording.episodes {
            return Err(DataError::NoEpisode { index, total: self.recording.episodes });
        }
        let path = self.shard_path(index);
        if path.exists() {
            return Err(DataError::Episodes(format!(
                "episode {index} is recorded already; record only the pending ones"
            )));
        }
        Ok(EpisodeWriter::new(index, path, &self.recording))
    }

    /// Puts the episodes together and moves the finished data set to its place.
    ///
    /// # Errors
    /// When an episode is still pending, or a file cannot be read or written; the episodes stay, and the same command
    /// continues.
    pub fn finalize(self) -> Result<()> {
        let pending = self.pending();
        if let [first, ..] = pending[..] {
            let total = self.recording.episodes;
            return Err(DataError::Episodes(format!(
                "{} of {total} episodes are not recorded yet (the first is {first}); record them before finalizing",
                pending.len()
            )));
        }
        let shards: Vec<PathBuf> = (0..self.recording.episodes).map(|index| self.shard_path(index)).collect();
        assemble::assemble(&shards, &self.recording, &self.partial, &self.target)
    }

    fn shard_path(&self, index: usize) -> PathBuf {
        self.partial.join(format!("episode-{index:06}"))
    }
}

fn recording_of(config: WriterConfig) -> Result<Recording> {
    let names: Vec<&str> = config.features.iter().map(|(name, _)| name).collect();
    let reserved: Vec<&str> = Features::DEFAULT.iter().map(|(name, _)| *name).chain([TASK]).collect();
    for (position, (name, feature)) in config.features.iter().enumerate() {
        if names[..position].contains(&name) || reserved.contains(&name) || name.is_empty() || name.contains('/') {
            return Err(DataError::Config(format!(
                "feature name `{name}` is empty, repeated, reserved or has a slash"
            )));
        }
        let written = match feature.dtype {
            DType::Image => feature.shape.len() == 3 && feature.shape[2] == Image::CHANNELS,
            DType::Bool => feature.shape == [1],
            DType::Int64 | DType::Float32 | DType::Float64 => feature.shape.len() == 1,
            _ => false,
        };
        if !written || feature.dim() == 0 {
            return Err(DataError::Config(format!(
                "feature `{name}` of type {} and shape {:?}; write images [height, width, 3], bool [1], or int64, float32, float64 [dim]",
                feature.dtype, feature.shape
            )));
        }
    }
    if config.episodes == 0 || config.fps == 0 || names.is_empty() {
        return Err(DataError::Config("at least one feature, one episode and one frame per second are needed".into()));
    }
    Ok(Recording {
        writer: concat!(env!("CARGO_PKG_NAME"), " ", env!("CARGO_PKG_VERSION")).into(),
        robot_type: config.robot_type,
        fps: config.fps,
        episodes: config.episodes,
        features: config.features,
        recipe: config.recipe,
        files: Vec::new(),
    })
}

fn partial_folder(target: &Path) -> Result<PathBuf> {
    let name =
        target.file_name().ok_or_else(|| DataError::Config(format!("{} is no folder name", target.display())))?;
    let mut partial = name.to_owned();
    partial.push(".partial");
    Ok(target.with_file_name(partial))
}

/// Refuses a target that exists and is not empty.
///
/// A working folder beside a finished data set was left by a process that was killed between its last two steps.
fn refuse_existing(target: &Path, partial: &Path, recording: &Recording) -> Result<()> {
    let is_empty = fs::read_dir(target).map(|mut entries| entries.next().is_none());
    if !target.exists() || is_empty.unwrap_or(false) {
        return Ok(());
    }
    match Recording::load(target, layout::RECORDING) {
        Ok(done) if done.difference(recording).is_none() => {
            if partial.exists() {
                fs::remove_dir_all(partial).map_err(DataError::write(partial))?;
            }
            Err(DataError::AlreadyComplete { path: target.into() })
        }
        _ => Err(DataError::Occupied { path: target.into() }),
    }
}

/// Locks the working folder. The system releases the lock when the process ends, even when it is killed.
fn lock(partial: &Path) -> Result<File> {
    let path = partial.join("lock");
    let file = File::create(&path).map_err(DataError::write(&path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(DataError::Locked { path: partial.into() }),
        Err(TryLockError::Error(error)) => Err(DataError::write(&path)(error)),
    }
}

fn continue_or_begin(partial: &Path, recording: &Recording) -> Result<()> {
    match Recording::load(partial, "recording.json") {
        Ok(begun) => match begun.difference(recording) {
            None => Ok(()),
            Some(difference) => Err(DataError::OtherRecording { path: partial.into(), difference }),
        },
        Err(DataError::Missing { .. }) => recording.save(partial, "recording.json"),
        Err(other) => Err(other),
    }
}

/// One episode that is being recorded; dropped without [`EpisodeWriter::save`], it leaves nothing.
#[derive(Debug)]
pub struct EpisodeWriter {
    index: usize,
    path: PathBuf,
    fps: u32,
    tasks: Vec<String>,
    columns: Vec<FeatureColumn>,
}

#[derive(Debug)]
struct FeatureColumn {
    name: String,
    feature: Feature,
    buffer: Buffer,
}

#[derive(Debug)]
enum Buffer {
    Values(Values),
    Images(Images),
}

/// Encoded frames of one camera. A frame equal to the one before is not encoded or counted again.
#[derive(Debug, Default)]
struct Images {
    bytes: Vec<u8>,
    lengths: Vec<usize>,
    counts: PixelCounts,
    last: Option<(Image, Arc<PixelCounts>)>,
}

impl EpisodeWriter {
    fn new(index: usize, path: PathBuf, recording: &Recording) -> Self {
        let columns = recording.features.iter().map(|(name, feature)| FeatureColumn {
            name: name.into(),
            feature: feature.clone(),
            buffer: match feature.dtype {
                DType::Image => Buffer::Images(Images::default()),
                DType::Bool => Buffer::Values(Values::Bool(Vec::new())),
                DType::Float32 => Buffer::Values(Values::F32(Vec::new())),
                DType::Float64 => Buffer::Values(Values::F64(Vec::new())),
                _ => Buffer::Values(Values::Int(Vec::new())),
            },
        });
        Self { index, path, fps: recording.fps, tasks: Vec::new(), columns: columns.collect() }
    }

    /// Index of the episode.
    pub fn index(&self) -> usize {
        self.index
    }

    /// Number of frames so far.
    pub fn len(&self) -> usize {
        self.tasks.len()
    }

    /// Whether there is no frame yet.
    pub fn is_empty(&self) -> bool {
        self.tasks.is_empty()
    }

    /// Adds a frame. Its time is its number divided by the frame rate.
    ///
    /// # Errors
    /// Names the feature that is missing, unknown, not finite, or of another type or shape. The episode must be dropped
    /// then.
    pub fn add_frame(&mut self, frame: &Frame) -> Result<()> {
        let place = Place { episode: self.index, frame: self.tasks.len() };
        if frame.task.trim().is_empty() {
            return Err(place.error(TASK, "an instruction of at least one word", "an empty text"));
        }
        if let Some((name, _)) =
            frame.values.iter().find(|(name, _)| self.columns.iter().all(|column| column.name != *name))
        {
            let names: Vec<_> = self.columns.iter().map(|column| format!("`{}`", column.name)).collect();
            return Err(place.error(name, &format!("one of {}", names.join(", ")), "a feature of another name"));
        }
        for column in &mut self.columns {
            let mut given = frame.values.iter().filter(|(name, _)| *name == column.name);
            match (given.next(), given.next()) {
                (Some((_, value)), None) => column.push(*value, &place)?,
                (None, _) => return Err(place.error(&column.name, &column.expected(), "nothing")),
                (Some(_), Some(_)) => return Err(place.error(&column.name, &column.expected(), "two values")),
            }
        }
        self.tasks.push(frame.task.into());
        Ok(())
    }

    /// Computes the episode's statistics and writes it to disk, whole or not at all.
    ///
    /// # Errors
    /// When there is no frame or the file cannot be written.
    pub fn save(self) -> Result<()> {
        let frames = self.tasks.len();
        if frames == 0 {
            return Err(DataError::Episodes(format!("episode {} has no frame; add at least one", self.index)));
        }
        let (mut columns, mut stats) = (Vec::new(), Vec::new());
        for FeatureColumn { name, feature, buffer } in self.columns {
            let (array, of_column) = match buffer {
                Buffer::Images(images) => (image_column(images.bytes, &images.lengths), Some(images.counts.stats())),
                Buffer::Values(values) => {
                    let column = Column::new(feature.dim(), values);
                    (column.to_arrow(), column_stats(&column))
                }
            };
            stats.extend(of_column.map(|of_column| (name.clone(), of_column)));
            columns.push((name, array));
        }
        for (name, column) in clock_columns(frames, self.fps) {
            stats.extend(column_stats(&column).map(|of_column| (name.to_string(), of_column)));
            columns.push((name.to_string(), column.to_arrow()));
        }
        Shard { tasks: self.tasks, columns, stats: stats.into_iter().collect() }.save(&self.path)
    }
}

/// Place of an invalid value.
struct Place {
    episode: usize,
    frame: usize,
}

impl Place {
    fn error(&self, feature: &str, expected: &str, found: &str) -> DataError {
        DataError::Frame {
            episode: self.episode,
            frame: self.frame,
            feature: feature.into(),
            expected: expected.into(),
            found: found.into(),
        }
    }
}

impl FeatureColumn {
    fn expected(&self) -> String {
        format!("{} {:?}", self.feature.dtype, self.feature.shape)
    }

    fn push(&mut self, value: Value, place: &Place) -> Result<()> {
        let dim = self.feature.dim();
        match (&mut self.buffer, value) {
            (Buffer::Images(images), Value::Image(image))
                if self.feature.image_size() == Some((image.height(), image.width())) =>
            {
                let name = format!("`{}` in frame {} of episode {}", self.name, place.frame, place.episode);
                return images.push(image, &name);
            }
            (Buffer::Values(Values::Bool(out)), Value::Bool(value)) => out.push(value),
            (Buffer::Values(Values::Int(out)), Value::Int(values)) if values.len() == dim => out.extend(values),
            (Buffer::Values(Values::F32(out)), Value::F32(values)) if values.len() == dim => {
                finite(values.iter().map(|&value| f64::from(value)), &self.name, place)?;
                out.extend(values);
            }
            (Buffer::Values(Values::F64(out)), Value::F64(values)) if values.len() == dim => {
                finite(values.iter().copied(), &self.name, place)?;
                out.extend(values);
            }
            _ => return Err(place.error(&self.name, &self.expected(), &value.describe())),
        }
        Ok(())
    }
}

fn finite(values: impl Iterator<Item = f64>, name: &str, place: &Place) -> Result<()> {
    match values.enumerate().find(|(_, value)| !value.is_finite()) {
        None => Ok(()),
        Some((index, value)) => Err(place.error(name, "finite", &format!("{value} at index {index}"))),
    }
}

impl Images {
    fn push(&mut self, image: &Image, name: &str) -> Result<()> {
        // Arrow counts the bytes of a column in 32 bits.
        if self.bytes.len() > (i32::MAX as usize).saturating_sub(2 * image.data().len()) {
            let reason = "the encoded images of an episode must stay below 2 GiB; record shorter episodes".into();
            return Err(DataError::Image { place: name.into(), reason });
        }
        match &self.last {
            Some((last, counts)) if last == image => {
                let length = self.lengths.last().copied().unwrap_or_default();
                self.bytes.extend_from_within(self.bytes.len() - length..);
                self.lengths.push(length);
                self.counts.add(counts);
            }
            _ => {
                let png = encode_png(image, name)?;
                let counts = Arc::new(PixelCounts::of(image));
                self.lengths.push(png.len());
                self.bytes.extend(png);
                self.counts.add(&counts);
                self.last = Some((image.clone(), counts));
            }
        }
        Ok(())
    }
}
