//! Parquet files: opened once, read by ranges of rows, written one row group per call.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchReader};
use arrow::compute::concat_batches;
use arrow::datatypes::{Schema, SchemaRef};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
use parquet::basic::Compression;
use parquet::file::metadata::ColumnChunkMetaData;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;

use crate::atomic::missing_or_unreadable;
use crate::column::{Column, Mismatch};
use crate::{DataError, Result};

/// Path and footer of a parquet file.
#[derive(Clone, Debug)]
pub(crate) struct ParquetFile {
    pub(crate) path: PathBuf,
    footer: ArrowReaderMetadata,
}

impl ParquetFile {
    pub(crate) fn open(path: &Path, what: &'static str) -> Result<Self> {
        let file = File::open(path).map_err(missing_or_unreadable(path, what))?;
        let size = file.metadata().map_err(DataError::read(path))?.len();
        let footer = ArrowReaderMetadata::load(&file, ArrowReaderOptions::new()).map_err(DataError::parquet(path))?;
        if let Some(found) = bad_footer(&footer, size) {
            return Err(DataError::invalid(path, "a footer that fits the file (restore it from a copy)", found));
        }
        Ok(Self { path: path.into(), footer })
    }

    pub(crate) fn rows(&self) -> usize {
        self.footer.metadata().file_metadata().num_rows().max(0) as usize
    }

    pub(crate) fn column_names(&self) -> Vec<&str> {
        self.footer.schema().fields().iter().map(|field| field.name().as_str()).collect()
    }

    pub(crate) fn data_type(&self, column: &str) -> Option<&arrow::datatypes::DataType> {
        self.footer.schema().field_with_name(column).ok().map(|field| field.data_type())
    }

    /// Value of a key in the file's metadata.
    pub(crate) fn key_value(&self, key: &str) -> Option<&str> {
        let entries = self.footer.metadata().file_metadata().key_value_metadata()?;
        entries.iter().find(|entry| entry.key == key)?.value.as_deref()
    }

    /// Rows `start..start + length` of the `wanted` columns. Only the row groups that hold them are decoded.
    pub(crate) fn read(&self, start: usize, length: usize, wanted: impl Fn(&str) -> bool) -> Result<RecordBatch> {
        let file = File::open(&self.path).map_err(DataError::read(&self.path))?;
        let (groups, offset) = self.row_groups(start, length);
        let roots = self.column_names().into_iter().enumerate().filter(|(_, name)| wanted(name)).map(|(i, _)| i);
        let mask = ProjectionMask::roots(self.footer.parquet_schema(), roots);
        let reader = ParquetRecordBatchReaderBuilder::new_with_metadata(file, self.footer.clone())
            .with_row_groups(groups)
            .with_projection(mask)
            .with_batch_size(length.max(1))
            .with_offset(offset)
            .with_limit(length)
            .build()
            .map_err(DataError::parquet(&self.path))?;
        let schema = reader.schema();
        let batches =
            reader
                .collect::<Result<Vec<_>, _>>()
                .and_then(|batches| {
                    if let [batch] = &batches[..] { Ok(batch.clone()) } else { concat_batches(&schema, &batches) }
                })
                .map_err(|error| DataError::parquet(&self.path)(error.into()))?;
        if batches.num_rows() != length {
            let found = format!("{} rows", self.rows());
            return Err(DataError::invalid(&self.path, format!("rows {start} to {}", start + length), found));
        }
        Ok(batches)
    }

    pub(crate) fn read_all(&self, wanted: impl Fn(&str) -> bool) -> Result<RecordBatch> {
        self.read(0, self.rows(), wanted)
    }

    /// Row groups that overlap the rows, and the offset of `start` in the first of them.
    fn row_groups(&self, start: usize, length: usize) -> (Vec<usize>, usize) {
        let mut groups = Vec::new();
        let (mut first_row, mut offset) = (0, 0);
        for (index, group) in self.footer.metadata().row_groups().iter().enumerate() {
            let end = first_row + group.num_rows().max(0) as usize;
            if first_row < start + length && end > start {
                if groups.is_empty() {
                    offset = start - first_row.min(start);
                }
                groups.push(index);
            }
            first_row = end;
        }
        (groups, offset)
    }

    /// One column of a batch of this file.
    pub(crate) fn column<'a>(&self, batch: &'a RecordBatch, name: &str) -> Result<&'a ArrayRef> {
        batch.column_by_name(name).ok_or_else(|| {
            self.mismatch(name, Mismatch { expected: "there".into(), found: self.column_names().join(", ") })
        })
    }

    /// A numeric or text column of a batch of this file, `dim` values per row.
    pub(crate) fn values(&self, batch: &RecordBatch, name: &str, dim: usize) -> Result<Column> {
        Column::from_arrow(self.column(batch, name)?, dim).map_err(|mismatch| self.mismatch(name, mismatch))
    }

    /// A column of non-negative integers of a batch of this file.
    pub(crate) fn indices(&self, batch: &RecordBatch, name: &str) -> Result<Vec<usize>> {
        let column = self.values(batch, name, 1)?;
        let indices = column.as_int().map(|values| values.iter().map(|&value| usize::try_from(value)).collect());
        match indices {
            Some(Ok(indices)) => Ok(indices),
            _ => {
                let found = "another type or a negative value".into();
                Err(self.mismatch(name, Mismatch { expected: "non-negative integers".into(), found }))
            }
        }
    }

    pub(crate) fn mismatch(&self, column: &str, mismatch: Mismatch) -> DataError {
        DataError::Column {
            path: self.path.clone(),
            column: column.into(),
            expected: mismatch.expected,
            found: mismatch.found,
        }
    }
}

/// What is wrong with the offsets and sizes in a footer; the parquet crate does not check them.
fn bad_footer(footer: &ArrowReaderMetadata, size: u64) -> Option<String> {
    let metadata = footer.metadata();
    let rows = metadata.file_metadata().num_rows();
    let groups = metadata.row_groups().iter().fold(0i64, |sum, group| sum.saturating_add(group.num_rows()));
    if rows < 0 || groups != rows || metadata.row_groups().iter().any(|group| group.num_rows() < 0) {
        return Some(format!("{rows} rows, {groups} in the row groups"));
    }
    let columns = metadata.row_groups().iter().flat_map(|group| group.columns());
    let outside = |column: &ColumnChunkMetaData| {
        let start = column.dictionary_page_offset().unwrap_or(column.data_page_offset());
        let parts = [start, column.data_page_offset(), column.compressed_size(), column.num_values()];
        let end = start.checked_add(column.compressed_size());
        parts.iter().any(|part| *part < 0) || end.is_none_or(|end| end as u64 > size)
    };
    columns
        .into_iter()
        .find(|column| outside(column))
        .map(|column| format!("column `{}` outside of it", column.column_path()))
}

/// How files are written: snappy and dictionaries as upstream; no statistics of `opaque` columns (images).
pub(crate) fn properties<'a>(opaque: impl Iterator<Item = &'a str>) -> WriterProperties {
    let mut builder = WriterProperties::builder()
        .set_compression(Compression::SNAPPY)
        .set_statistics_enabled(EnabledStatistics::Chunk)
        .set_max_row_group_row_count(None);
    for name in opaque {
        let path = ColumnPath::new(vec![name.into(), "bytes".into()]);
        builder = builder.set_column_statistics_enabled(path, EnabledStatistics::None);
    }
    builder.build()
}

/// The schema with one more entry in its own metadata.
///
/// Arrow's readers (pandas, Hugging Face `datasets`) read it instead of the file's key-value metadata when a file has
/// an Arrow schema.
pub(crate) fn with_metadata(schema: &Schema, key: &str, value: &str) -> SchemaRef {
    let mut metadata = schema.metadata().clone();
    metadata.insert(key, value);
    Arc::new(schema.clone().with_metadata(metadata))
}
