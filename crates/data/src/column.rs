//! Values of one feature over the frames of an episode, and their Arrow form.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, FixedSizeListArray, Float32Array, Float64Array, Int64Array, PrimitiveArray,
    StringArray,
};
use arrow::buffer::ScalarBuffer;
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Field, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type,
    UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};

/// The values themselves, frame after frame.
#[derive(Clone, Debug, PartialEq)]
pub enum Values {
    /// `bool`.
    Bool(Vec<bool>),
    /// Any integer type.
    Int(Vec<i64>),
    /// `float32`.
    F32(Vec<f32>),
    /// `float64`.
    F64(Vec<f64>),
    /// `string`.
    Text(Vec<String>),
}

impl Values {
    /// Number of values of all frames together.
    pub fn len(&self) -> usize {
        match self {
            Self::Bool(values) => values.len(),
            Self::Int(values) => values.len(),
            Self::F32(values) => values.len(),
            Self::F64(values) => values.len(),
            Self::Text(values) => values.len(),
        }
    }

    /// Whether there is no value.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// One feature over all frames of an episode: `[frames, dim]`, row-major.
#[derive(Clone, Debug, PartialEq)]
pub struct Column {
    dim: usize,
    values: Values,
}

impl Column {
    /// Wraps `values`, `[frames, dim]` row-major.
    pub(crate) fn new(dim: usize, values: Values) -> Self {
        debug_assert!(dim > 0 && values.len().is_multiple_of(dim));
        Self { dim, values }
    }

    /// Values per frame.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// Number of frames.
    pub fn frames(&self) -> usize {
        self.values.len() / self.dim
    }

    /// All values, `[frames, dim]` row-major.
    pub fn values(&self) -> &Values {
        &self.values
    }

    /// The values if they are `float32`, `[frames, dim]`.
    pub fn as_f32(&self) -> Option<&[f32]> {
        match &self.values {
            Values::F32(values) => Some(values),
            _ => None,
        }
    }

    /// The values if they are integers, `[frames, dim]`.
    pub fn as_int(&self) -> Option<&[i64]> {
        match &self.values {
            Values::Int(values) => Some(values),
            _ => None,
        }
    }

    /// The values if they are `bool`, `[frames, dim]`.
    pub fn as_bool(&self) -> Option<&[bool]> {
        match &self.values {
            Values::Bool(values) => Some(values),
            _ => None,
        }
    }

    /// Any numbers as `f64`, `[frames, dim]`; false is 0 and true is 1. None for text.
    pub fn to_f64(&self) -> Option<Vec<f64>> {
        Some(match &self.values {
            Values::Bool(values) => values.iter().map(|&value| f64::from(u8::from(value))).collect(),
            Values::Int(values) => values.iter().map(|&value| value as f64).collect(),
            Values::F32(values) => values.iter().map(|&value| f64::from(value)).collect(),
            Values::F64(values) => values.clone(),
            Values::Text(_) => return None,
        })
    }

    /// Reads `[frames, dim]` values out of an Arrow column, through any nesting of lists.
    ///
    /// # Errors
    /// Says what the column must be and what it is.
    pub(crate) fn from_arrow(array: &ArrayRef, dim: usize) -> Result<Self, Mismatch> {
        let leaf = flatten(array, dim)?;
        let values = leaf_values(&leaf)?;
        if dim == 0 || values.len() != array.len() * dim {
            let found = format!("{} values in {} rows", values.len(), array.len());
            return Err(Mismatch { expected: format!("{dim} values per row"), found });
        }
        Ok(Self { dim, values })
    }

    /// The Arrow column: plain for one value per frame, else a fixed-size list.
    pub(crate) fn to_arrow(&self) -> ArrayRef {
        let leaf: ArrayRef = match &self.values {
            Values::Bool(values) => Arc::new(BooleanArray::from(values.clone())),
            Values::Int(values) => Arc::new(Int64Array::from(values.clone())),
            Values::F32(values) => Arc::new(Float32Array::from(values.clone())),
            Values::F64(values) => Arc::new(Float64Array::from(values.clone())),
            Values::Text(values) => Arc::new(StringArray::from_iter_values(values)),
        };
        if self.dim == 1 {
            return leaf;
        }
        let element = Arc::new(Field::new("element", leaf.data_type().clone(), true));
        Arc::new(FixedSizeListArray::new(element, self.dim as i32, leaf, None))
    }
}

/// What a column must be, and what it is.
#[derive(Debug)]
pub(crate) struct Mismatch {
    pub(crate) expected: String,
    pub(crate) found: String,
}

/// The innermost array of nested lists; every row must hold `dim` values.
fn flatten(array: &ArrayRef, dim: usize) -> Result<ArrayRef, Mismatch> {
    if array.null_count() > 0 {
        return Err(Mismatch { expected: "without nulls".into(), found: format!("{} nulls", array.null_count()) });
    }
    let inner = match array.data_type() {
        DataType::FixedSizeList(_, size) => {
            let list = array.as_fixed_size_list();
            let (start, length) = (list.value_offset_at(0), *size as usize * list.len());
            list.values().slice(start, length)
        }
        DataType::List(_) => {
            let offsets = array.as_list::<i32>().offsets();
            uniform(offsets.windows(2).map(|pair| (pair[1] - pair[0]) as usize), dim)?;
            let (start, end) = (offsets[0] as usize, offsets[offsets.len() - 1] as usize);
            array.as_list::<i32>().values().slice(start, end - start)
        }
        DataType::LargeList(_) => {
            let offsets = array.as_list::<i64>().offsets();
            uniform(offsets.windows(2).map(|pair| (pair[1] - pair[0]) as usize), dim)?;
            let (start, end) = (offsets[0] as usize, offsets[offsets.len() - 1] as usize);
            array.as_list::<i64>().values().slice(start, end - start)
        }
        _ => return Ok(array.clone()),
    };
    flatten(&inner, dim)
}

fn uniform(mut lengths: impl Iterator<Item = usize>, dim: usize) -> Result<(), Mismatch> {
    let first = lengths.next().unwrap_or(dim);
    match lengths.find(|length| *length != first) {
        None => Ok(()),
        Some(other) => Err(Mismatch {
            expected: format!("{dim} values per row"),
            found: format!("lists of {first} and of {other}"),
        }),
    }
}

fn leaf_values(leaf: &ArrayRef) -> Result<Values, Mismatch> {
    Ok(match leaf.data_type() {
        DataType::Boolean => Values::Bool(leaf.as_boolean().values().iter().collect()),
        DataType::Float32 => Values::F32(leaf.as_primitive::<Float32Type>().values().to_vec()),
        DataType::Float64 => Values::F64(leaf.as_primitive::<Float64Type>().values().to_vec()),
        DataType::Int8 => widen::<Int8Type>(leaf),
        DataType::Int16 => widen::<Int16Type>(leaf),
        DataType::Int32 => widen::<Int32Type>(leaf),
        DataType::Int64 => Values::Int(leaf.as_primitive::<Int64Type>().values().to_vec()),
        DataType::UInt8 => widen::<UInt8Type>(leaf),
        DataType::UInt16 => widen::<UInt16Type>(leaf),
        DataType::UInt32 => widen::<UInt32Type>(leaf),
        DataType::UInt64 => {
            let values = leaf.as_primitive::<UInt64Type>().values();
            let narrow = |&value: &u64| i64::try_from(value).ok();
            Values::Int(
                values
                    .iter()
                    .map(narrow)
                    .collect::<Option<_>>()
                    .ok_or_else(|| Mismatch { expected: "integers below 2^63".into(), found: "larger ones".into() })?,
            )
        }
        DataType::Utf8 => Values::Text(leaf.as_string::<i32>().iter().flatten().map(Into::into).collect()),
        DataType::LargeUtf8 => Values::Text(leaf.as_string::<i64>().iter().flatten().map(Into::into).collect()),
        other => {
            return Err(Mismatch {
                expected: "bool, integer, float32, float64 or string".into(),
                found: other.to_string(),
            });
        }
    })
}

fn widen<T: ArrowPrimitiveType>(leaf: &ArrayRef) -> Values
where
    T::Native: Into<i64>,
{
    let values: &ScalarBuffer<T::Native> = PrimitiveArray::<T>::values(leaf.as_primitive::<T>());
    Values::Int(values.iter().map(|&value| value.into()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::ListArray;

    #[test]
    fn values_survive_arrow_and_slicing() {
        let columns = [
            Column::new(1, Values::Bool(vec![true, false, true])),
            Column::new(3, Values::F32((0..9).map(|i| i as f32 / 7.0).collect())),
            Column::new(2, Values::F64((0..6).map(|i| f64::from(i) / 3.0).collect())),
            Column::new(1, Values::Int(vec![i64::MIN, 0, i64::MAX])),
            Column::new(1, Values::Text(vec!["a".into(), String::new(), "ü".into()])),
        ];
        for column in columns {
            let array = column.to_arrow();
            assert_eq!(Column::from_arrow(&array, column.dim()).unwrap(), column);
            let tail = Column::from_arrow(&array.slice(1, 2), column.dim()).unwrap();
            assert_eq!(tail.frames(), 2);
            if let (Some(all), Some(tail)) = (column.to_f64(), tail.to_f64()) {
                assert_eq!(all[column.dim()..], tail);
            }
        }
    }

    #[test]
    fn ragged_lists_nulls_and_wrong_sizes_are_named() {
        let ragged: ArrayRef = Arc::new(ListArray::from_iter_primitive::<Float32Type, _, _>([
            Some(vec![Some(1.0), Some(2.0)]),
            Some(vec![Some(1.0)]),
        ]));
        assert_eq!(Column::from_arrow(&ragged, 2).unwrap_err().found, "lists of 2 and of 1");
        let null: ArrayRef = Arc::new(Float32Array::from(vec![Some(1.0), None]));
        assert_eq!(Column::from_arrow(&null, 1).unwrap_err().found, "1 nulls");
        let narrow: ArrayRef = Arc::new(Float32Array::from(vec![1.0, 2.0]));
        assert_eq!(Column::from_arrow(&narrow, 3).unwrap_err().expected, "3 values per row");
    }
}
