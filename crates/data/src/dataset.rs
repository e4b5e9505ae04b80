//! Opens a data set and reads its episodes.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::DataType;
use rayon::prelude::*;
use robomamba_policy::{FeatureSpec, NormMode, NormStats};

use crate::column::{Column, Mismatch};
use crate::columns::{ACTION, EPISODE_INDEX, FRAME_INDEX, INDEX, STATE, TASK_INDEX};
use crate::episode::{Camera, Episode, Frames};
use crate::episodes::{self, EpisodeMeta, VideoSpan};
use crate::features::{DType, Feature, Features};
use crate::image::EncodedFrames;
use crate::info::Info;
use crate::layout::{self, FileId};
use crate::parquet_file::ParquetFile;
use crate::stats::{FeatureStats, Stats};
use crate::tasks::Tasks;
use crate::video::VideoFile;
use crate::{DataError, Result};

/// An opened data set: all metadata is read and validated, frames are read episode by episode.
#[derive(Clone, Debug)]
pub struct Dataset {
    root: PathBuf,
    info: Info,
    tasks: Tasks,
    episodes: Vec<EpisodeMeta>,
    stats: Stats,
    files: BTreeMap<FileId, DataFile>,
    videos: BTreeMap<(String, FileId), VideoFile>,
}

/// A data file and the number of frames in all files before it.
#[derive(Clone, Debug)]
struct DataFile {
    parquet: ParquetFile,
    first_frame: usize,
}

impl Dataset {
    /// Opens the data set in the folder `root` and validates everything but the frames themselves.
    ///
    /// # Errors
    /// Names the first file, column or count that is missing, damaged or contradicts another.
    pub fn open(root: impl AsRef<Path>) -> Result<Self> {
        let root = root.as_ref();
        let info = Info::load(root)?;
        let tasks = Tasks::load(root)?;
        let episodes = episodes::load(root, &info.features)?;
        let stats = Stats::load(root)?;
        let files = open_data_files(root, &info, &episodes)?;
        let videos = open_videos(root, &info, &episodes)?;
        let dataset = Self { root: root.into(), info, tasks, episodes, stats, files, videos };
        dataset.validate_counts()?;
        dataset.validate_files()?;
        Ok(dataset)
    }

    /// The folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The header.
    pub fn info(&self) -> &Info {
        &self.info
    }

    /// What every frame holds.
    pub fn features(&self) -> &Features {
        &self.info.features
    }

    /// Frames per second.
    pub fn fps(&self) -> u32 {
        self.info.fps
    }

    /// Number of episodes.
    pub fn len(&self) -> usize {
        self.episodes.len()
    }

    /// Whether there is no episode.
    pub fn is_empty(&self) -> bool {
        self.episodes.is_empty()
    }

    /// Number of frames of all episodes.
    pub fn frames(&self) -> usize {
        self.info.total_frames
    }

    /// Instructions by `task_index`.
    pub fn tasks(&self) -> impl Iterator<Item = &str> {
        self.tasks.iter().map(|task| &**task)
    }

    /// What is known of the episodes without reading them.
    pub fn episodes(&self) -> &[EpisodeMeta] {
        &self.episodes
    }

    /// Statistics over the whole data set, as its writer computed them.
    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    /// Statistics of every episode, as the writer computed them.
    ///
    /// # Errors
    /// When the episode metadata cannot be read.
    pub fn episode_stats(&self) -> Result<Vec<Stats>> {
        episodes::load_stats(&self.root, &self.info.features)
    }

    /// The interface of the robot that was recorded.
    ///
    /// # Errors
    /// When there is no `observation.state` or `action`.
    pub fn robot(&self) -> Result<FeatureSpec> {
        self.info.features.robot(self.info.fps)
    }

    /// What a policy needs to normalise state and action.
    ///
    /// # Errors
    /// When `stats.json` lacks one of them.
    pub fn norm_stats(&self, mode: NormMode) -> Result<NormStats> {
        let of = |name: &str| {
            self.stats.get(name).map(|stats: &FeatureStats| stats.normalisation(mode)).ok_or_else(|| {
                DataError::Feature {
                    feature: name.into(),
                    expected: "in meta/stats.json".into(),
                    found: "it is not; recompute the statistics".into(),
                }
            })
        };
        Ok(NormStats { state: of(STATE)?, action: of(ACTION)? })
    }

    /// Reads episode `index` into memory; images stay encoded.
    ///
    /// # Errors
    /// When there is no such episode, or its file is damaged or contradicts the metadata.
    pub fn episode(&self, index: usize) -> Result<Episode> {
        let features = &self.info.features;
        self.episode_with(index, &|name| {
            features.get(name).is_some_and(|feature| !matches!(feature.dtype, DType::Unknown(_)))
        })
    }

    /// Reads episode `index` without its cameras, which is much faster.
    ///
    /// # Errors
    /// As for [`Dataset::episode`].
    pub fn episode_without_images(&self, index: usize) -> Result<Episode> {
        let features = &self.info.features;
        let wanted = |feature: &Feature| !feature.is_camera() && !matches!(feature.dtype, DType::Unknown(_));
        self.episode_with(index, &|name| features.get(name).is_some_and(wanted))
    }

    fn episode_with(&self, index: usize, wanted: &dyn Fn(&str) -> bool) -> Result<Episode> {
        let meta = self.episodes.get(index).ok_or(DataError::NoEpisode { index, total: self.len() })?;
        let file = self.files.get(&meta.file).ok_or(DataError::NoEpisode { index, total: self.len() })?;
        let batch = file.parquet.read(meta.from - file.first_frame, meta.length, wanted)?;
        let rows = Rows { dataset: self, meta, file: &file.parquet, batch };
        rows.check_order()?;
        let named = |name: &str| Arc::<str>::from(name);
        let (mut columns, mut cameras) = (Vec::new(), Vec::new());
        for (name, feature) in self.info.features.iter().filter(|(name, _)| wanted(name)) {
            match feature.dtype {
                DType::Image => cameras.push(rows.images(name, feature)?),
                DType::Video => cameras.push(rows.video(name, feature)?),
                _ => columns.push((named(name), rows.column(name, feature)?)),
            }
        }
        Ok(Episode { index, fps: self.info.fps, tasks: rows.tasks()?, columns, cameras })
    }

    /// Reads the episodes one after the other.
    pub fn iter(&self) -> impl Iterator<Item = Result<Episode>> {
        (0..self.len()).map(|index| self.episode(index))
    }

    /// Reads the episodes in parallel, for rayon's adaptors.
    pub fn par_iter(&self) -> impl IndexedParallelIterator<Item = Result<Episode>> {
        (0..self.len()).into_par_iter().map(|index| self.episode(index))
    }

    /// Reads all episodes into memory, in parallel; images stay encoded.
    ///
    /// # Errors
    /// The first episode's that cannot be read.
    pub fn load(&self) -> Result<Vec<Episode>> {
        self.par_iter().collect()
    }

    fn validate_counts(&self) -> Result<()> {
        let path = self.root.join(layout::INFO);
        let frames: usize = self.episodes.iter().map(|episode| episode.length).sum();
        let counts = [
            ("total_episodes", self.info.total_episodes, self.episodes.len(), "rows in meta/episodes"),
            ("total_frames", self.info.total_frames, frames, "frames in all episodes"),
            ("total_tasks", self.info.total_tasks, self.tasks.len(), "rows in meta/tasks.parquet"),
        ];
        for (name, declared, found, what) in counts {
            if declared != found {
                return Err(DataError::invalid(&path, format!("`{name}` {found} ({what})"), declared.to_string()));
            }
        }
        let mut from = 0;
        for (position, episode) in self.episodes.iter().enumerate() {
            if episode.index != position || episode.from != from || episode.length == 0 {
                let expected = format!("episode {position} starting at frame {from} with at least one frame");
                let found = format!("episode {} starting at {} with {}", episode.index, episode.from, episode.length);
                return Err(DataError::invalid(&self.root.join(layout::EPISODES), expected, found));
            }
            from += episode.length;
        }
        Ok(())
    }

    fn validate_files(&self) -> Result<()> {
        for (id, file) in &self.files {
            let frames: usize =
                self.episodes.iter().filter(|episode| episode.file == *id).map(|episode| episode.length).sum();
            if file.parquet.rows() != frames {
                let found = format!("{} rows", file.parquet.rows());
                return Err(DataError::invalid(&file.parquet.path, format!("{frames} rows by meta/episodes"), found));
            }
            self.info.features.iter().try_for_each(|(name, feature)| validate_column(&file.parquet, name, feature))?;
        }
        Ok(())
    }
}

fn open_data_files(root: &Path, info: &Info, episodes: &[EpisodeMeta]) -> Result<BTreeMap<FileId, DataFile>> {
    let mut files = BTreeMap::new();
    for episode in episodes {
        if let Entry::Vacant(slot) = files.entry(episode.file) {
            // `Info` has validated the template.
            let path = root.join(episode.file.path(&info.data_path, "").unwrap_or_default());
            let parquet = ParquetFile::open(&path, "frames")?;
            slot.insert(DataFile { parquet, first_frame: episode.from });
        }
    }
    Ok(files)
}

fn open_videos(root: &Path, info: &Info, episodes: &[EpisodeMeta]) -> Result<BTreeMap<(String, FileId), VideoFile>> {
    let mut videos = BTreeMap::new();
    for VideoSpan { camera, file, .. } in episodes.iter().flat_map(|episode| &episode.videos) {
        if let Entry::Vacant(slot) = videos.entry((camera.clone(), *file)) {
            let template = info.video_path.as_deref().unwrap_or_default();
            slot.insert(VideoFile::open(&root.join(file.path(template, camera).unwrap_or_default()))?);
        }
    }
    Ok(videos)
}

/// Checks presence and type of a feature's column.
fn validate_column(file: &ParquetFile, name: &str, feature: &Feature) -> Result<()> {
    if matches!(feature.dtype, DType::Video | DType::Unknown(_)) {
        return Ok(());
    }
    let Some(data_type) = file.data_type(name) else {
        let found = format!("columns {}", file.column_names().join(", "));
        return Err(file.mismatch(name, Mismatch { expected: format!("there ({})", feature.dtype), found }));
    };
    let mut leaf = data_type;
    while let DataType::List(field) | DataType::LargeList(field) | DataType::FixedSizeList(field, _) = leaf {
        leaf = field.data_type();
    }
    let fits = match feature.dtype {
        DType::Bool => *leaf == DataType::Boolean,
        DType::Int64 | DType::OtherInteger(_) => leaf.is_integer(),
        DType::Float32 => *leaf == DataType::Float32,
        DType::Float64 => *leaf == DataType::Float64,
        DType::Text => matches!(leaf, DataType::Utf8 | DataType::LargeUtf8),
        DType::Image => matches!(leaf, DataType::Struct(_)),
        DType::Video | DType::Unknown(_) => true,
    };
    if fits {
        return Ok(());
    }
    let expected = format!("{} by meta/info.json", feature.dtype);
    Err(file.mismatch(name, Mismatch { expected, found: data_type.to_string() }))
}

/// The rows of one episode, as read from its file.
struct Rows<'a> {
    dataset: &'a Dataset,
    meta: &'a EpisodeMeta,
    file: &'a ParquetFile,
    batch: RecordBatch,
}

impl Rows<'_> {
    fn column(&self, name: &str, feature: &Feature) -> Result<Column> {
        self.file.values(&self.batch, name, feature.dim())
    }

    fn images(&self, name: &str, feature: &Feature) -> Result<Camera> {
        let array = self.file.column(&self.batch, name)?;
        let frames = EncodedFrames::from_arrow(array).map_err(|mismatch| self.file.mismatch(name, mismatch))?;
        self.camera(name, feature, Frames::Png(frames))
    }

    fn video(&self, name: &str, feature: &Feature) -> Result<Camera> {
        let span = self.meta.videos.iter().find(|span| span.camera == name);
        let video = span.and_then(|span| Some((span, self.dataset.videos.get(&(name.to_string(), span.file))?)));
        let (span, video) = video.ok_or_else(|| DataError::Feature {
            feature: name.into(),
            expected: "a video that meta/episodes knows".into(),
            found: format!("episode {} has none", self.meta.index),
        })?;
        let clip = video.clip(span.from_s, self.meta.length, self.dataset.info.fps)?;
        self.camera(name, feature, Frames::Av1(clip))
    }

    fn camera(&self, name: &str, feature: &Feature, frames: Frames) -> Result<Camera> {
        let size = feature.image_size().ok_or_else(|| {
            let found = format!("{:?}", feature.shape);
            self.file.mismatch(name, Mismatch { expected: "of shape [height, width, 3]".into(), found })
        })?;
        Ok(Camera { name: name.into(), episode: self.meta.index, size, frames })
    }

    /// The rows must be this episode's frames in order.
    fn check_order(&self) -> Result<()> {
        let from = self.meta.from;
        let expected: [(&str, &dyn Fn(usize) -> usize); 3] =
            [(EPISODE_INDEX, &|_| self.meta.index), (FRAME_INDEX, &|row| row), (INDEX, &|row| from + row)];
        for (name, expected) in expected {
            let found = self.file.indices(&self.batch, name)?;
            if let Some(row) = (0..found.len()).find(|&row| found[row] != expected(row)) {
                let expected = format!("`{name}` {} in row {row} of episode {}", expected(row), self.meta.index);
                return Err(DataError::invalid(&self.file.path, expected, found[row].to_string()));
            }
        }
        Ok(())
    }

    fn tasks(&self) -> Result<Vec<Arc<str>>> {
        let task = |index: usize| {
            self.dataset.tasks.get(index).cloned().ok_or_else(|| {
                let expected = format!("`{TASK_INDEX}` below {}", self.dataset.tasks.len());
                DataError::invalid(&self.file.path, expected, index.to_string())
            })
        };
        self.file.indices(&self.batch, TASK_INDEX)?.into_iter().map(task).collect()
    }
}
