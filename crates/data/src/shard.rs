//! One recorded episode as a file of the working folder.
//!
//! A shard holds the columns that do not depend on other episodes: features, timestamp, frame index, and the
//! instruction as text. The episode's statistics are its file metadata. It is written whole or not at all.

use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, BinaryArray, RecordBatch, StringArray, StructArray};
use arrow::buffer::{Buffer, OffsetBuffer};
use arrow::datatypes::{DataType, Field, Fields};
use parquet::arrow::ArrowWriter;
use parquet::file::metadata::KeyValue;
use serde_json::{Map, Value};

use crate::atomic::write_file;
use crate::column::{Column, Mismatch, Values};
use crate::columns::{FRAME_INDEX, TASK, TIMESTAMP};
use crate::parquet_file::{ParquetFile, properties};
use crate::stats::{FeatureStats, Stats};
use crate::{DataError, Result};

const STATS: &str = "stats";

/// A recorded episode: instruction of every frame, columns by name, statistics.
pub(crate) struct Shard {
    pub(crate) tasks: Vec<String>,
    pub(crate) columns: Vec<(String, ArrayRef)>,
    pub(crate) stats: Stats,
}

impl Shard {
    pub(crate) fn save(&self, path: &Path) -> Result<()> {
        let tasks: ArrayRef = Arc::new(StringArray::from_iter_values(&self.tasks));
        let columns = self.columns.iter().map(|(name, array)| (name.as_str(), array.clone()));
        let all = columns.chain([(TASK, tasks)]).map(|(name, array)| (name, array, true));
        let batch = RecordBatch::try_from_iter_with_nullable(all)
            .map_err(|error| DataError::parquet_write(path)(error.into()))?;
        let stats =
            serde_json::to_string(&self.stats).map_err(|source| DataError::Json { path: path.into(), source })?;
        write_file(path, |file| {
            let images = self.columns.iter().filter(|(_, array)| matches!(array.data_type(), DataType::Struct(_)));
            let options = properties(images.map(|(name, _)| name.as_str()));
            let mut writer =
                ArrowWriter::try_new(file, batch.schema(), Some(options)).map_err(DataError::parquet_write(path))?;
            writer.append_key_value_metadata(KeyValue::new(STATS.into(), stats));
            writer.write(&batch).map_err(DataError::parquet_write(path))?;
            writer.close().map_err(DataError::parquet_write(path))?;
            Ok(())
        })
    }

    pub(crate) fn load(path: &Path) -> Result<Self> {
        let file = ParquetFile::open(path, "a recorded episode")?;
        let batch = file.read_all(|_| true)?;
        let tasks = match file.values(&batch, TASK, 1)?.values() {
            Values::Text(tasks) => tasks.clone(),
            _ => return Err(file.mismatch(TASK, Mismatch { expected: "text".into(), found: "numbers".into() })),
        };
        let names = file.column_names().into_iter().filter(|name| *name != TASK);
        let columns = names.map(|name| Ok((name.to_string(), file.column(&batch, name)?.clone())));
        Ok(Self { tasks, columns: columns.collect::<Result<_>>()?, stats: stats_of(&file)? })
    }
}

fn stats_of(file: &ParquetFile) -> Result<Stats> {
    let text = file.key_value(STATS).unwrap_or("{}");
    let json: Map<String, Value> =
        serde_json::from_str(text).map_err(|source| DataError::Json { path: file.path.clone(), source })?;
    // The map has lost the order of the features; the columns still have it.
    let ordered = file.column_names().into_iter().filter_map(|name| Some((name, json.get(name)?)));
    let parsed = ordered.map(|(name, value)| match FeatureStats::from_json(value) {
        Ok(stats) => Ok((name.to_string(), stats)),
        Err(expected) => Err(DataError::invalid(&file.path, expected, value.to_string())),
    });
    parsed.collect()
}

/// A column of PNG bytes with file names, as Hugging Face's `Image` feature stores it.
pub(crate) fn image_column(bytes: Vec<u8>, lengths: &[usize]) -> ArrayRef {
    let names = StringArray::from_iter_values((0..lengths.len()).map(|frame| format!("frame-{frame:06}.png")));
    let offsets = OffsetBuffer::from_lengths(lengths.iter().copied());
    let data = BinaryArray::new(offsets, Buffer::from_vec(bytes), None);
    let fields =
        Fields::from(vec![Field::new("bytes", DataType::Binary, true), Field::new("path", DataType::Utf8, true)]);
    Arc::new(StructArray::new(fields, vec![Arc::new(data), Arc::new(names)], None))
}

/// The columns `timestamp` (seconds, frame / fps) and `frame_index` of an episode.
pub(crate) fn clock_columns(frames: usize, fps: u32) -> [(&'static str, Column); 2] {
    let seconds = (0..frames).map(|frame| (frame as f64 / f64::from(fps)) as f32).collect();
    [
        (TIMESTAMP, Column::new(1, Values::F32(seconds))),
        (FRAME_INDEX, Column::new(1, Values::Int((0..frames as i64).collect()))),
    ]
}

/// A column with the same integer in every row.
pub(crate) fn constant(value: usize, frames: usize) -> Column {
    Column::new(1, Values::Int(vec![value as i64; frames]))
}

/// A column that counts up from `first`.
pub(crate) fn counting(first: usize, frames: usize) -> Column {
    Column::new(1, Values::Int((first as i64..(first + frames) as i64).collect()))
}

/// Statistics of a column of numbers; None for text.
pub(crate) fn column_stats(column: &Column) -> Option<FeatureStats> {
    Some(FeatureStats::of_vectors(&column.to_f64()?, column.dim()))
}
