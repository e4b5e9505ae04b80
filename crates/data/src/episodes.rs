//! `meta/episodes`: one row per episode, with its length, its place in the data files and its statistics.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, ListArray, RecordBatch, StringArray};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, Field};
use parquet::arrow::ArrowWriter;
use serde_json::{Map, Value, json};

use crate::atomic::{missing_or_unreadable, write_file};
use crate::column::{Column, Mismatch, Values};
use crate::columns::{EPISODE_INDEX, SUCCESS, episodes as episode_columns};
use crate::features::{DType, Features};
use crate::layout::{self, FileId};
use crate::parquet_file::{ParquetFile, properties};
use crate::stats::{FeatureStats, QUANTILES, Stats, StatsLayout};
use crate::{DataError, Result};

/// What is known of an episode without reading its frames.
#[derive(Clone, Debug, PartialEq)]
pub struct EpisodeMeta {
    /// Its number.
    pub index: usize,
    /// Instructions that occur in it.
    pub tasks: Vec<String>,
    /// Number of frames.
    pub length: usize,
    /// Number of frames of all episodes before it.
    pub from: usize,
    /// Outcome: whether any frame's `next.success` is true; None when the data set does not record it.
    pub success: Option<bool>,
    pub(crate) file: FileId,
    pub(crate) videos: Vec<VideoSpan>,
}

/// Where the frames of one camera of one episode are in a video file.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct VideoSpan {
    pub(crate) camera: String,
    pub(crate) file: FileId,
    pub(crate) from_s: f64,
}

/// All files of `meta/episodes`, in order.
fn files(root: &Path) -> Result<Vec<PathBuf>> {
    let folder = root.join(layout::EPISODES);
    let what = "episode metadata";
    let list = |folder: &Path| -> Result<Vec<PathBuf>> {
        let entries = fs::read_dir(folder).map_err(missing_or_unreadable(folder, what))?;
        let paths: Result<Vec<_>, _> = entries.map(|entry| entry.map(|entry| entry.path())).collect();
        let mut paths = paths.map_err(DataError::read(folder))?;
        paths.sort();
        Ok(paths)
    };
    let mut files = Vec::new();
    for chunk in list(&folder)?.iter().filter(|path| path.is_dir()) {
        files.extend(
            list(chunk)?.into_iter().filter(|path| path.extension().is_some_and(|extension| extension == "parquet")),
        );
    }
    if files.is_empty() {
        return Err(DataError::Missing { what, path: folder.join("chunk-000/file-000.parquet") });
    }
    Ok(files)
}

pub(crate) fn load(root: &Path, features: &Features) -> Result<Vec<EpisodeMeta>> {
    let success = episode_columns::stat(SUCCESS, "max");
    let mut episodes = Vec::new();
    for path in files(root)? {
        let file = ParquetFile::open(&path, "episode metadata")?;
        let batch = file.read_all(|name| !name.starts_with(episode_columns::STATS) || name == success)?;
        append(&file, &batch, features, &mut episodes)?;
    }
    episodes.sort_by_key(|episode| episode.index);
    Ok(episodes)
}

fn append(file: &ParquetFile, batch: &RecordBatch, features: &Features, out: &mut Vec<EpisodeMeta>) -> Result<()> {
    let indices = |name: &str| file.indices(batch, name);
    let (index, length, from) =
        (indices(EPISODE_INDEX)?, indices(episode_columns::LENGTH)?, indices(episode_columns::FROM_INDEX)?);
    let (chunk, number) = (indices(episode_columns::DATA_CHUNK)?, indices(episode_columns::DATA_FILE)?);
    let tasks = text_lists(file, batch, episode_columns::TASKS)?;
    let success = batch
        .column_by_name(&episode_columns::stat(SUCCESS, "max"))
        .and_then(|array| Column::from_arrow(array, 1).ok()?.to_f64());
    let mut spans = vec![Vec::new(); index.len()];
    for (camera, _) in features.iter().filter(|(_, feature)| feature.dtype == DType::Video) {
        let (chunk, number) =
            (indices(&episode_columns::video_chunk(camera))?, indices(&episode_columns::video_file(camera))?);
        let column = episode_columns::video_from_s(camera);
        let from_s = file
            .values(batch, &column, 1)?
            .to_f64()
            .ok_or_else(|| file.mismatch(&column, Mismatch { expected: "a number".into(), found: "text".into() }))?;
        for (row, spans) in spans.iter_mut().enumerate() {
            let file = FileId { chunk: chunk[row], file: number[row] };
            spans.push(VideoSpan { camera: camera.into(), file, from_s: from_s[row] });
        }
    }
    for (row, (tasks, videos)) in tasks.into_iter().zip(spans).enumerate() {
        out.push(EpisodeMeta {
            index: index[row],
            tasks,
            length: length[row],
            from: from[row],
            success: success.as_ref().map(|max| max[row] > 0.5),
            file: FileId { chunk: chunk[row], file: number[row] },
            videos,
        });
    }
    Ok(())
}

fn text_lists(file: &ParquetFile, batch: &RecordBatch, name: &str) -> Result<Vec<Vec<String>>> {
    let array = file.column(batch, name)?;
    let (DataType::List(_), 0) = (array.data_type(), array.null_count()) else {
        let found = array.data_type().to_string();
        return Err(file.mismatch(name, Mismatch { expected: "lists of text without nulls".into(), found }));
    };
    let row = |row: ArrayRef| match Column::from_arrow(&row, 1).map(|column| column.values().clone()) {
        Ok(Values::Text(texts)) => Ok(texts),
        _ => {
            let found = array.data_type().to_string();
            Err(file.mismatch(name, Mismatch { expected: "lists of text".into(), found }))
        }
    };
    array.as_list::<i32>().iter().flatten().map(row).collect()
}

/// Statistics of every episode in the order of their indices; those of features without complete columns are left out.
pub(crate) fn load_stats(root: &Path, features: &Features) -> Result<Vec<Stats>> {
    let mut rows = Vec::new();
    for path in files(root)? {
        let file = ParquetFile::open(&path, "episode metadata")?;
        let batch = file.read_all(|name| name == EPISODE_INDEX || name.starts_with(episode_columns::STATS))?;
        for (row, index) in file.indices(&batch, EPISODE_INDEX)?.into_iter().enumerate() {
            rows.push((index, row_stats(&batch, row, features)));
        }
    }
    rows.sort_by_key(|(index, _)| *index);
    Ok(rows.into_iter().map(|(_, stats)| stats).collect())
}

fn row_stats(batch: &RecordBatch, row: usize, features: &Features) -> Stats {
    let of_feature = |name: &str| {
        let mut map = Map::new();
        for stat in ["min", "max", "mean", "std", "count"].into_iter().chain(QUANTILES.map(|(name, _)| name)) {
            let Some(array) = batch.column_by_name(&episode_columns::stat(name, stat)) else { continue };
            // Cameras have `[channels, 1, 1]`; only whether there is nesting matters for reading them back.
            let nested = matches!(array.data_type(), DataType::List(field) if field.data_type().is_nested());
            let values = list_values(array, row)?;
            map.insert(stat.into(), if nested { json!([values]) } else { json!(values) });
        }
        FeatureStats::from_json(&Value::Object(map)).ok()
    };
    features.iter().filter_map(|(name, _)| Some((name.to_string(), of_feature(name)?))).collect()
}

fn list_values(array: &ArrayRef, row: usize) -> Option<Vec<f64>> {
    let mut values = array.slice(row, 1);
    while let DataType::List(_) = values.data_type() {
        let list = values.as_list::<i32>();
        let (start, end) = (list.offsets().first() as usize, list.offsets().last() as usize);
        values = list.values().slice(start, end - start);
    }
    Column::from_arrow(&values, 1).ok()?.to_f64()
}

/// What is written of an episode.
pub(crate) struct EpisodeRow {
    pub(crate) meta: EpisodeMeta,
    pub(crate) stats: Stats,
}

/// Writes all episodes into one file, with upstream's columns in upstream's order.
pub(crate) fn save(root: &Path, rows: &[EpisodeRow]) -> Result<()> {
    let path = root.join(FileId::default().path(layout::EPISODES_PATH, "").unwrap_or_default());
    let batch = to_batch(rows).map_err(|error| DataError::parquet(&path)(error.into()))?;
    write_file(&path, |file| {
        let mut writer = ArrowWriter::try_new(file, batch.schema(), Some(properties([].into_iter())))
            .map_err(DataError::parquet_write(&path))?;
        writer.write(&batch).map_err(DataError::parquet_write(&path))?;
        writer.close().map_err(DataError::parquet_write(&path))?;
        Ok(())
    })
}

fn to_batch(rows: &[EpisodeRow]) -> Result<RecordBatch, arrow::error::ArrowError> {
    let integers = |get: &dyn Fn(&EpisodeMeta) -> usize| -> ArrayRef {
        Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| get(&row.meta) as i64)))
    };
    let mut columns = vec![
        (EPISODE_INDEX.to_string(), integers(&|meta| meta.index)),
        (episode_columns::TASKS.into(), tasks_column(rows)),
        (episode_columns::LENGTH.into(), integers(&|meta| meta.length)),
        (episode_columns::DATA_CHUNK.into(), integers(&|meta| meta.file.chunk)),
        (episode_columns::DATA_FILE.into(), integers(&|meta| meta.file.file)),
        (episode_columns::FROM_INDEX.into(), integers(&|meta| meta.from)),
        (episode_columns::TO_INDEX.into(), integers(&|meta| meta.from + meta.length)),
    ];
    let names: Vec<&str> = rows.first().map(|row| row.stats.iter().map(|(name, _)| name).collect()).unwrap_or_default();
    for name in names {
        let stats: Vec<&FeatureStats> = rows.iter().filter_map(|row| row.stats.get(name)).collect();
        columns.extend(stats_columns(name, &stats));
    }
    columns.push((episode_columns::OWN_CHUNK.into(), integers(&|_| 0)));
    columns.push((episode_columns::OWN_FILE.into(), integers(&|_| 0)));
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, array)| (name, array, true)))
}

fn tasks_column(rows: &[EpisodeRow]) -> ArrayRef {
    let texts = StringArray::from_iter_values(rows.iter().flat_map(|row| &row.meta.tasks));
    list_of(Arc::new(texts), rows.iter().map(|row| row.meta.tasks.len()))
}

fn stats_columns(name: &str, stats: &[&FeatureStats]) -> Vec<(String, ArrayRef)> {
    let entries =
        stats.first().map(|first| first.entries().map(|(stat, _)| stat).collect::<Vec<_>>()).unwrap_or_default();
    let mut columns = Vec::new();
    for (position, stat) in entries.into_iter().enumerate() {
        let rows: Vec<&[f64]> =
            stats.iter().filter_map(|stats| stats.entries().nth(position)).map(|(_, row)| row).collect();
        let mut array = Column::new(1, Values::F64(rows.concat())).to_arrow();
        if stats[0].layout == StatsLayout::Image {
            // `[channels, 1, 1]`: every value is wrapped in two lists of its own.
            for _ in 0..2 {
                let singles = std::iter::repeat_n(1, array.len());
                array = list_of(array, singles);
            }
        }
        columns.push((episode_columns::stat(name, stat), list_of(array, rows.iter().map(|row| row.len()))));
        if stat == "std" {
            let counts = Int64Array::from_iter_values(stats.iter().map(|stats| stats.count as i64));
            columns.push((episode_columns::stat(name, "count"), list_of(Arc::new(counts), stats.iter().map(|_| 1))));
        }
    }
    columns
}

fn list_of(values: ArrayRef, lengths: impl Iterator<Item = usize>) -> ArrayRef {
    let element = Arc::new(Field::new("element", values.data_type().clone(), true));
    Arc::new(ListArray::new(element, OffsetBuffer::from_lengths(lengths), values, None))
}
