//! `meta/tasks.parquet`: which instruction has which `task_index`.

use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use parquet::arrow::ArrowWriter;
use parquet::file::metadata::KeyValue;

use crate::atomic::write_file;
use crate::column::{Mismatch, Values};
use crate::columns::{TASK, TASK_INDEX};
use crate::parquet_file::{ParquetFile, properties, with_metadata};
use crate::{DataError, Result, layout};

/// Instructions by `task_index`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tasks(Vec<Arc<str>>);

impl Tasks {
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn get(&self, index: usize) -> Option<&Arc<str>> {
        self.0.get(index)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<str>> {
        self.0.iter()
    }

    /// Index of `task`, which is added at the end when it is new.
    pub(crate) fn insert(&mut self, task: &str) -> usize {
        self.0.iter().position(|known| &**known == task).unwrap_or_else(|| {
            self.0.push(task.into());
            self.0.len() - 1
        })
    }

    pub(crate) fn load(root: &Path) -> Result<Self> {
        let file = ParquetFile::open(&root.join(layout::TASKS), "instructions and their indices")?;
        let batch = file.read_all(|_| true)?;
        let indices = file.indices(&batch, TASK_INDEX)?;
        // The instructions are the index of a pandas frame, called `task` by recent writers.
        let name =
            [TASK, "__index_level_0__"].into_iter().find(|name| file.column_names().contains(name)).unwrap_or(TASK);
        let column = file.values(&batch, name, 1)?;
        let Values::Text(texts) = column.values() else {
            return Err(file.mismatch(name, Mismatch { expected: "text".into(), found: "numbers".into() }));
        };
        let mut tasks = vec![None; indices.len()];
        for (index, text) in indices.iter().zip(texts) {
            if let Some(slot) = tasks.get_mut(*index) {
                *slot = Some(Arc::from(text.as_str()));
            }
        }
        tasks.into_iter().collect::<Option<Vec<_>>>().map(Self).ok_or_else(|| {
            let expected = format!("every `{TASK_INDEX}` from 0 to {} once", indices.len().saturating_sub(1));
            DataError::invalid(&file.path, expected, format!("{indices:?}"))
        })
    }

    pub(crate) fn save(&self, root: &Path) -> Result<()> {
        let path = root.join(layout::TASKS);
        let columns: [(&str, ArrayRef); 2] = [
            (TASK_INDEX, Arc::new(Int64Array::from_iter_values(0..self.0.len() as i64))),
            (TASK, Arc::new(StringArray::from_iter_values(&self.0))),
        ];
        let batch = RecordBatch::try_from_iter_with_nullable(columns.map(|(name, array)| (name, array, true)))
            .map_err(|error| DataError::parquet(&path)(error.into()))?;
        write_file(&path, |file| {
            let pandas = pandas_metadata();
            let schema = with_metadata(&batch.schema(), "pandas", &pandas);
            let mut writer = ArrowWriter::try_new(file, schema, Some(properties([].into_iter())))
                .map_err(DataError::parquet_write(&path))?;
            writer.append_key_value_metadata(KeyValue::new("pandas".into(), pandas));
            writer.write(&batch).map_err(DataError::parquet_write(&path))?;
            writer.close().map_err(DataError::parquet_write(&path))?;
            Ok(())
        })
    }
}

/// Makes [`TASK`] the index of the frame in pandas; LeRobot looks instructions up in it.
fn pandas_metadata() -> String {
    format!(
        concat!(
            r#"{{"index_columns": ["{task}"], "column_indexes": [{{"name": null, "field_name": null, "#,
            r#""pandas_type": "unicode", "numpy_type": "object", "metadata": {{"encoding": "UTF-8"}}}}], "columns": ["#,
            r#"{{"name": "{task_index}", "field_name": "{task_index}", "pandas_type": "int64", "numpy_type": "int64", "#,
            r#""metadata": null}}, {{"name": "{task}", "field_name": "{task}", "pandas_type": "unicode", "#,
            r#""numpy_type": "object", "metadata": null}}], "attributes": {{}}, "#,
            r#""creator": {{"library": "robomamba-data", "version": "0"}}, "pandas_version": "2.3.3"}}"#,
        ),
        task = TASK,
        task_index = TASK_INDEX,
    )
}
