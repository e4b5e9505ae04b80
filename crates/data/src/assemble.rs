//! Puts recorded episodes together into a data set, in order and without any outside influence.

use std::fs::{self, File};
use std::io::BufWriter;
use std::path::{Path, PathBuf};

use arrow::array::{ArrayRef, RecordBatch};
use parquet::arrow::ArrowWriter;
use parquet::file::metadata::KeyValue;
use serde_json::json;

use crate::column::{Column, Values};
use crate::columns::{EPISODE_INDEX, INDEX, SUCCESS, TASK_INDEX};
use crate::episodes::{self, EpisodeMeta, EpisodeRow};
use crate::features::{DType, Feature, Features};
use crate::info::Info;
use crate::layout::{self, FileId};
use crate::parquet_file::{properties, with_metadata};
use crate::recording::Recording;
use crate::shard::{Shard, column_stats, constant, counting};
use crate::stats::Stats;
use crate::tasks::Tasks;
use crate::{DataError, Result};

const MIB: usize = 1 << 20;

/// Builds the data set in the working folder `partial`, moves it to `target` and removes the working folder.
pub(crate) fn assemble(shards: &[PathBuf], recording: &Recording, partial: &Path, target: &Path) -> Result<()> {
    let root = partial.join("dataset");
    // What an interrupted attempt left is worth nothing.
    match fs::remove_dir_all(&root) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(DataError::write(&root)(error)),
        _ => {}
    }
    let built = build(shards, recording, &root);
    if built.is_err() {
        // Frees the disk; the error to report is the first one.
        let _ = fs::remove_dir_all(&root);
    }
    built?;
    robomamba_files::sync_folders(&root).map_err(DataError::write(&root))?;
    fs::rename(&root, target).map_err(DataError::write(target))?;
    robomamba_files::sync_parent(target).map_err(DataError::write(target))?;
    fs::remove_dir_all(partial).map_err(DataError::write(partial))
}

fn build(shards: &[PathBuf], recording: &Recording, root: &Path) -> Result<()> {
    let mut info = Info::new(all_features(&recording.features), recording.fps, &recording.robot_type);
    let mut tasks = Tasks::default();
    let mut files = DataFiles::new(root, &info);
    let mut rows: Vec<EpisodeRow> = Vec::new();
    let mut from = 0;
    for (index, path) in shards.iter().enumerate() {
        let mut episode = Placed::new(Shard::load(path)?, index, from, &mut tasks);
        let file = files.append(&episode.batch(path)?)?;
        from += episode.frames();
        rows.push(episode.into_row(file));
    }
    files.close()?;
    let stats: Vec<Stats> = rows.iter().map(|row| row.stats.clone()).collect();
    tasks.save(root)?;
    episodes::save(root, &rows)?;
    Stats::aggregate(&stats).save(root)?;
    info.total_episodes = rows.len();
    info.total_frames = from;
    info.total_tasks = tasks.len();
    info.splits.insert("train".into(), format!("0:{}", rows.len()).into());
    info.save(root)?;
    let mut recording = recording.clone();
    recording.digest_files(root)?;
    recording.save(root, layout::RECORDING)
}

/// The recorder's features, then the format's own.
fn all_features(features: &Features) -> Features {
    let own = features.iter().map(|(name, feature)| (name.to_string(), feature.clone()));
    own.chain(Features::DEFAULT.map(|(name, dtype)| (name.to_string(), Feature::scalar(dtype)))).collect()
}

/// A recorded episode that knows its place in the data set.
struct Placed {
    shard: Shard,
    index: usize,
    from: usize,
}

impl Placed {
    fn new(mut shard: Shard, index: usize, from: usize, tasks: &mut Tasks) -> Self {
        let frames = shard.tasks.len();
        let task_indices = shard.tasks.iter().map(|task| tasks.insert(task) as i64).collect();
        let columns = [
            (EPISODE_INDEX, constant(index, frames)),
            (INDEX, counting(from, frames)),
            (TASK_INDEX, Column::new(1, Values::Int(task_indices))),
        ];
        let more = columns.iter().filter_map(|(name, column)| Some((name.to_string(), column_stats(column)?)));
        let known = shard.stats.iter().map(|(name, stats)| (name.to_string(), stats.clone()));
        shard.stats = known.chain(more).collect();
        shard.columns.extend(columns.iter().map(|(name, column)| (name.to_string(), column.to_arrow())));
        Self { shard, index, from }
    }

    fn frames(&self) -> usize {
        self.shard.tasks.len()
    }

    fn batch(&mut self, path: &Path) -> Result<RecordBatch> {
        let columns = std::mem::take(&mut self.shard.columns);
        let columns: Vec<(String, ArrayRef, bool)> =
            columns.into_iter().map(|(name, array)| (name, array, true)).collect();
        RecordBatch::try_from_iter_with_nullable(columns).map_err(|error| DataError::parquet(path)(error.into()))
    }

    fn into_row(self, file: FileId) -> EpisodeRow {
        let mut tasks = Vec::new();
        for task in &self.shard.tasks {
            if !tasks.contains(task) {
                tasks.push(task.clone());
            }
        }
        let success = self.shard.stats.get(SUCCESS).map(|stats| stats.max[0] > 0.5);
        let (index, length, from) = (self.index, self.frames(), self.from);
        let meta = EpisodeMeta { index, tasks, length, from, success, file, videos: Vec::new() };
        EpisodeRow { meta, stats: self.shard.stats }
    }
}

/// The data files, one row group per episode; a new file is begun when the last one is full.
struct DataFiles<'a> {
    root: &'a Path,
    limit: usize,
    chunks_size: usize,
    huggingface: String,
    images: Vec<String>,
    current: FileId,
    open: Option<(PathBuf, ArrowWriter<BufWriter<File>>)>,
}

impl<'a> DataFiles<'a> {
    fn new(root: &'a Path, info: &Info) -> Self {
        let images = info.features.iter().filter(|(_, feature)| feature.dtype == DType::Image);
        Self {
            root,
            limit: info.data_files_size_in_mb * MIB,
            chunks_size: info.chunks_size,
            huggingface: huggingface_metadata(&info.features),
            images: images.map(|(name, _)| name.into()).collect(),
            current: FileId::default(),
            open: None,
        }
    }

    fn append(&mut self, episode: &RecordBatch) -> Result<FileId> {
        if self.open.as_ref().is_some_and(|(_, writer)| writer.bytes_written() >= self.limit) {
            self.close()?;
            self.current = self.current.next(self.chunks_size);
        }
        if self.open.is_none() {
            self.open = Some(self.begin(episode)?);
        }
        if let Some((path, writer)) = &mut self.open {
            writer.write(episode).and_then(|()| writer.flush()).map_err(DataError::parquet_write(path))?;
        }
        Ok(self.current)
    }

    fn begin(&self, episode: &RecordBatch) -> Result<(PathBuf, ArrowWriter<BufWriter<File>>)> {
        let path = self.root.join(self.current.path(layout::DATA_PATH, "").unwrap_or_default());
        let folder = path.parent().unwrap_or(self.root);
        fs::create_dir_all(folder).map_err(DataError::write(folder))?;
        let file = BufWriter::with_capacity(1 << 20, File::create(&path).map_err(DataError::write(&path))?);
        let schema = with_metadata(&episode.schema(), "huggingface", &self.huggingface);
        let options = properties(self.images.iter().map(String::as_str));
        let mut writer = ArrowWriter::try_new(file, schema, Some(options)).map_err(DataError::parquet_write(&path))?;
        writer.append_key_value_metadata(KeyValue::new("huggingface".into(), self.huggingface.clone()));
        Ok((path, writer))
    }

    fn close(&mut self) -> Result<()> {
        let Some((path, writer)) = self.open.take() else { return Ok(()) };
        let file = writer.into_inner().map_err(DataError::parquet_write(&path))?;
        let file = file.into_inner().map_err(|error| DataError::write(&path)(error.into_error()))?;
        file.sync_all().map_err(DataError::write(&path))
    }
}

/// Types of the columns for the Hugging Face `datasets` library (upstream: `get_hf_features_from_features`).
fn huggingface_metadata(features: &Features) -> String {
    let entries = features.iter().map(|(name, feature)| {
        let value = json!({"dtype": feature.dtype.to_string(), "_type": "Value"});
        let of_feature = match (&feature.dtype, feature.dim()) {
            (DType::Image, _) => json!({"_type": "Image"}),
            (_, 1) => value,
            (_, dim) => json!({"feature": value, "length": dim, "_type": "List"}),
        };
        // Joined by hand, since the order of the columns matters and a JSON map would sort them.
        format!("{}: {of_feature}", json!(name))
    });
    format!(r#"{{"info": {{"features": {{{}}}}}}}"#, entries.collect::<Vec<_>>().join(", "))
}
