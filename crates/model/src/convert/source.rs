//! The files of a Hugging Face folder.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
};

use serde::Deserialize;

use crate::{
    ModelError, TextTokenizer,
    checkpoint::{WEIGHTS, parse},
    tensor_file::TensorFile,
    weights::Tensor,
};

const INDEX: &str = "model.safetensors.index.json";

/// The tensors of one `model.safetensors`, or of its shards.
pub(crate) struct Source {
    dir: PathBuf,
    files: Vec<TensorFile>,
    /// The file of each tensor.
    index: BTreeMap<String, usize>,
    read: BTreeSet<String>,
}

/// `model.safetensors.index.json`; its metadata is not needed.
#[derive(Deserialize)]
struct ShardIndex {
    weight_map: BTreeMap<String, String>,
}

impl Source {
    pub(crate) fn open(dir: &Path) -> Result<Self, ModelError> {
        let files = shard_names(dir)?
            .into_iter()
            .map(|name| TensorFile::open(&dir.join(name)))
            .collect::<Result<Vec<_>, _>>()?;
        let names = files.iter().enumerate().flat_map(|(i, file)| file.names().map(move |name| (name.to_string(), i)));
        Ok(Self { dir: dir.into(), index: names.collect(), files, read: BTreeSet::new() })
    }

    pub(crate) fn contains(&self, name: &str) -> bool {
        self.index.contains_key(name)
    }

    /// The name by which the tensor is there: norms of old BERT checkpoints call weight and bias gamma and beta.
    pub(crate) fn resolve(&self, name: &str, shape: &[usize]) -> Result<String, ModelError> {
        let old = match name.rsplit_once('.') {
            Some((module, "weight")) => format!("{module}.gamma"),
            Some((module, "bias")) => format!("{module}.beta"),
            _ => String::new(),
        };
        [name.to_string(), old].into_iter().find(|name| self.contains(name)).ok_or_else(|| ModelError::MissingTensor {
            name: name.into(),
            expected: shape.to_vec(),
            n_missing: 1,
        })
    }

    pub(crate) fn read(&mut self, name: &str) -> Result<Tensor, ModelError> {
        let file = self.index.get(name).and_then(|&i| self.files.get_mut(i));
        let file = file.ok_or_else(|| ModelError::MissingFile {
            path: self.dir.join(WEIGHTS),
            expected: format!("tensor `{name}`"),
        })?;
        self.read.insert(name.into());
        file.read(name)
    }

    /// Tensors that nobody has read.
    pub(crate) fn unread(&self) -> Vec<String> {
        self.index.keys().filter(|name| !self.read.contains(*name)).cloned().collect()
    }
}

/// The weight files of `dir`.
fn shard_names(dir: &Path) -> Result<Vec<String>, ModelError> {
    if dir.join(WEIGHTS).is_file() {
        return Ok(vec![WEIGHTS.into()]);
    }
    let path = dir.join(INDEX);
    if path.is_file() {
        let json = fs::read(&path).map_err(|source| ModelError::Read { path: path.clone(), source })?;
        let index: ShardIndex = parse(&path, &json)?;
        let names: BTreeSet<String> = index.weight_map.into_values().collect();
        return match names.iter().find(|name| Path::new(name).file_name() != Some(name.as_ref())) {
            Some(name) => Err(ModelError::Json { path, reason: format!("{name:?} is no file name") }),
            None => Ok(names.into_iter().collect()),
        };
    }
    Err(ModelError::Unsupported {
        path: dir.into(),
        field: "the weights".into(),
        expected: format!("{WEIGHTS} or {INDEX} (`save_pretrained` of transformers writes them)"),
        found: list(dir)?,
    })
}

/// The files of `dir`, for a message.
fn list(dir: &Path) -> Result<String, ModelError> {
    let entries = fs::read_dir(dir).map_err(|source| ModelError::Read { path: dir.into(), source })?;
    let mut names: Vec<String> =
        entries.filter_map(Result::ok).map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    Ok(if names.is_empty() { "an empty folder".into() } else { names.join(", ") })
}

/// The tokenizer beside a text encoder.
pub(crate) fn tokenizer(dir: &Path) -> Result<TextTokenizer, ModelError> {
    let path = dir.join("tokenizer.json");
    match fs::read(&path) {
        Ok(json) => TextTokenizer::from_json(&json),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(ModelError::Unsupported {
            path: dir.into(),
            field: "the tokenizer".into(),
            expected: "tokenizer.json (a fast tokenizer's `save_pretrained` writes it)".into(),
            found: list(dir)?,
        }),
        Err(source) => Err(ModelError::Read { path, source }),
    }
}
