//! The tensors of a model by name.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use crate::{ModelError, ParamSpec};

/// A dense tensor, row-major.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    /// Size of each dimension, outermost first.
    pub shape: Vec<usize>,
    /// The values, `shape.iter().product()` of them.
    pub data: Vec<f32>,
}

/// Named tensors, held as f32 whatever their type in the file.
///
/// Names and shapes are those of [`param_specs`](crate::param_specs).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Weights {
    tensors: BTreeMap<String, Tensor>,
}

impl Weights {
    /// No tensors.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds or replaces the tensor `name`.
    ///
    /// # Errors
    /// [`ModelError::Buffer`] when `data` does not fill `shape`.
    pub fn insert(&mut self, name: impl Into<String>, shape: Vec<usize>, data: Vec<f32>) -> Result<(), ModelError> {
        let expected = shape.iter().product();
        if data.len() != expected {
            return Err(ModelError::Buffer { what: "the data of a tensor", expected, found: data.len() });
        }
        self.tensors.insert(name.into(), Tensor { shape, data });
        Ok(())
    }

    /// The values of the tensor `name`, row-major.
    ///
    /// # Errors
    /// [`ModelError::MissingTensor`] when there is none of this name.
    pub fn get(&self, name: &str) -> Result<&[f32], ModelError> {
        self.tensor(name).map(|tensor| tensor.data.as_slice())
    }

    /// The shape of the tensor `name`.
    ///
    /// # Errors
    /// [`ModelError::MissingTensor`] when there is none of this name.
    pub fn shape(&self, name: &str) -> Result<&[usize], ModelError> {
        self.tensor(name).map(|tensor| tensor.shape.as_slice())
    }

    /// The tensor `name`, for changing its values in place.
    pub fn get_mut(&mut self, name: &str) -> Option<&mut [f32]> {
        self.tensors.get_mut(name).map(|tensor| tensor.data.as_mut_slice())
    }

    /// Takes the tensor `name` out.
    pub fn remove(&mut self, name: &str) -> Option<Tensor> {
        self.tensors.remove(name)
    }

    /// Every tensor, ordered by name.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &Tensor)> {
        self.tensors.iter().map(|(name, tensor)| (name.as_str(), tensor))
    }

    /// Number of tensors.
    pub fn len(&self) -> usize {
        self.tensors.len()
    }

    /// Whether there is no tensor.
    pub fn is_empty(&self) -> bool {
        self.tensors.is_empty()
    }

    /// Number of values in all tensors.
    pub fn numel(&self) -> usize {
        self.tensors.values().map(|tensor| tensor.data.len()).sum()
    }

    /// Checks that these are exactly the tensors of `specs`, with their shapes and finite values.
    ///
    /// # Errors
    /// Names the first tensor that is missing, unexpected, of another shape, or not finite.
    pub fn check(&self, specs: &[ParamSpec]) -> Result<(), ModelError> {
        check_layout(specs, |name| self.tensors.get(name).map(|tensor| tensor.shape.as_slice()))?;
        check_unexpected(specs, self.tensors.keys().map(String::as_str))?;
        self.tensors.iter().try_for_each(|(name, tensor)| check_finite(name, &tensor.data))
    }

    fn tensor(&self, name: &str) -> Result<&Tensor, ModelError> {
        self.tensors.get(name).ok_or_else(|| ModelError::MissingTensor {
            name: name.into(),
            expected: Vec::new(),
            n_missing: 1,
        })
    }
}

/// Where the tensors of a model come from.
///
/// Memory ([`Weights`]) or a folder ([`StoredCheckpoint`](crate::StoredCheckpoint)).
pub trait Tensors {
    /// The values of the tensor `name`, row-major.
    ///
    /// # Errors
    /// When there is none of this name, it has another shape than `shape`, or it cannot be read.
    fn values(&self, name: &str, shape: &[usize]) -> Result<Cow<'_, [f32]>, ModelError>;
}

impl Tensors for Weights {
    fn values(&self, name: &str, shape: &[usize]) -> Result<Cow<'_, [f32]>, ModelError> {
        let missing = || ModelError::MissingTensor { name: name.into(), expected: shape.to_vec(), n_missing: 1 };
        let tensor = self.tensors.get(name).ok_or_else(missing)?;
        check_shape(name, shape, &tensor.shape)?;
        Ok(Cow::Borrowed(&tensor.data))
    }
}

impl Extend<(String, Tensor)> for Weights {
    fn extend<I: IntoIterator<Item = (String, Tensor)>>(&mut self, tensors: I) {
        self.tensors.extend(tensors);
    }
}

impl FromIterator<(String, Tensor)> for Weights {
    fn from_iter<I: IntoIterator<Item = (String, Tensor)>>(tensors: I) -> Self {
        Self { tensors: tensors.into_iter().collect() }
    }
}

impl IntoIterator for Weights {
    type Item = (String, Tensor);
    type IntoIter = std::collections::btree_map::IntoIter<String, Tensor>;

    fn into_iter(self) -> Self::IntoIter {
        self.tensors.into_iter()
    }
}

/// Checks that every tensor of `specs` is there, with its shape.
pub(crate) fn check_layout<'a>(
    specs: &[ParamSpec],
    shape_of: impl Fn(&str) -> Option<&'a [usize]>,
) -> Result<(), ModelError> {
    let mut missing = specs.iter().filter(|spec| shape_of(&spec.name).is_none());
    if let Some(first) = missing.next() {
        return Err(ModelError::MissingTensor {
            name: first.name.clone(),
            expected: first.shape.clone(),
            n_missing: 1 + missing.count(),
        });
    }
    specs.iter().try_for_each(|spec| check_shape(&spec.name, &spec.shape, shape_of(&spec.name).unwrap_or_default()))
}

/// Checks that the tensor `name` has the `expected` shape.
pub(crate) fn check_shape(name: &str, expected: &[usize], found: &[usize]) -> Result<(), ModelError> {
    if found == expected {
        return Ok(());
    }
    Err(ModelError::Shape { name: name.into(), expected: expected.to_vec(), found: found.to_vec() })
}

/// Checks that every name is one of `specs`.
pub(crate) fn check_unexpected<'a>(
    specs: &[ParamSpec],
    names: impl Iterator<Item = &'a str>,
) -> Result<(), ModelError> {
    const SHOWN: usize = 3;
    let known: BTreeSet<&str> = specs.iter().map(|spec| spec.name.as_str()).collect();
    let unexpected: Vec<&str> = names.filter(|name| !known.contains(name)).collect();
    if unexpected.is_empty() {
        return Ok(());
    }
    let mut names = unexpected[..unexpected.len().min(SHOWN)].join(", ");
    if unexpected.len() > SHOWN {
        names += &format!(", and {} more", unexpected.len() - SHOWN);
    }
    Err(ModelError::UnexpectedTensors { names })
}

/// Checks that no value is NaN or infinite.
pub(crate) fn check_finite(name: &str, data: &[f32]) -> Result<(), ModelError> {
    match data.iter().position(|value| !value.is_finite()) {
        None => Ok(()),
        Some(index) => Err(ModelError::NotFinite { name: name.into(), index, value: data[index] }),
    }
}
