//! What can be wrong with a model, its files and its inputs.

use std::{io, path::PathBuf};

use robomamba_policy::PolicyError;
use thiserror::Error;

/// Each variant is one cause; its message says what was expected, what was found and what to do.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ModelError {
    /// A value of the configuration makes no model.
    #[error(
        "configuration `{field}` must be {expected}, found {found}; change it in config.json or in the training configuration"
    )]
    Config {
        /// Path of the field, for example `vision.patch_size`.
        field: String,
        /// What it may be.
        expected: String,
        /// What it is.
        found: String,
    },
    /// A JSON file does not have the structure that it should have.
    #[error("`{}` is not what it should be: {reason}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// What the parser found, with line and column.
        reason: String,
    },
    /// A file or folder cannot be read.
    #[error("cannot read `{}`: {source}; check the path and its permissions", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file or folder cannot be written.
    #[error("cannot write `{}`: {source}; nothing was changed at the destination; free some space or choose another folder", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file of the checkpoint is not there.
    #[error("`{}` is missing; a checkpoint folder holds {expected}; copy the whole folder again", path.display())]
    MissingFile {
        /// The file.
        path: PathBuf,
        /// What a complete folder holds.
        expected: String,
    },
    /// A file of the checkpoint is not the one that was saved.
    #[error("`{}` is damaged: its {what} must be {expected}, found {found}; copy the checkpoint again, or after an edit on purpose run `robomamba checkpoint seal`", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The property that differs.
        what: &'static str,
        /// Its value when it was saved.
        expected: String,
        /// Its value now.
        found: String,
    },
    /// The checkpoint was written by another version of the format.
    #[error("`{}` has format version {found}, this build reads version {expected}; use the matching release of RoboMamba", path.display())]
    FormatVersion {
        /// The file.
        path: PathBuf,
        /// The version that this build reads.
        expected: u32,
        /// The version of the file.
        found: u32,
    },
    /// A safetensors file is malformed.
    #[error("`{}` is no readable safetensors file: {reason}", path.display())]
    SafeTensors {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A tensor that the model needs is absent.
    #[error(
        "tensor `{name}` of shape {expected:?} is missing ({n_missing} missing in all); the weights belong to another configuration"
    )]
    MissingTensor {
        /// The first missing tensor.
        name: String,
        /// The shape that it should have.
        expected: Vec<usize>,
        /// How many are missing.
        n_missing: usize,
    },
    /// There are tensors that the model does not have.
    #[error("unexpected tensors [{names}]; the weights belong to another configuration")]
    UnexpectedTensors {
        /// The first of them, and how many more.
        names: String,
    },
    /// A tensor has another shape.
    #[error(
        "tensor `{name}` must have shape {expected:?}, found {found:?}; the weights belong to another configuration"
    )]
    Shape {
        /// The tensor.
        name: String,
        /// Its shape by the configuration.
        expected: Vec<usize>,
        /// Its shape in the file.
        found: Vec<usize>,
    },
    /// A tensor has a type that is not read.
    #[error("tensor `{name}` must be {expected}, found {found}; convert the weights to one of these types")]
    TensorDtype {
        /// The tensor.
        name: String,
        /// The types that are read.
        expected: &'static str,
        /// The type in the file.
        found: String,
    },
    /// A weight is NaN or infinite.
    #[error(
        "tensor `{name}` must be finite, found {value} at index {index}; the training diverged or the file is damaged; take an earlier checkpoint"
    )]
    NotFinite {
        /// The tensor.
        name: String,
        /// Flat index of the first such value.
        index: usize,
        /// The value.
        value: f32,
    },
    /// The normalisation statistics do not fit the features.
    #[error(transparent)]
    Stats(#[from] PolicyError),
    /// The tokenizer cannot be read or built.
    #[error("tokenizer: {reason}")]
    Tokenizer {
        /// What is wrong with it.
        reason: String,
    },
    /// An instruction without words.
    #[error(
        "the instruction must have at least one word, found {found:?}; say in a sentence or two what the robot shall do"
    )]
    EmptyInstruction {
        /// The beginning of the text.
        found: String,
    },
    /// An instruction that does not fit the text encoder.
    #[error(
        "the instruction has {n_words} words, which are {found} tokens; the text encoder takes at most {limit} tokens; shorten it to a sentence or two"
    )]
    InstructionTooLong {
        /// Words that were given.
        n_words: usize,
        /// Tokens of the text, `[CLS]` and `[SEP]` included.
        found: usize,
        /// Most tokens that the encoder takes.
        limit: usize,
    },
    /// A buffer of an image transform has the wrong size.
    #[error("{what} must have {expected} values, found {found}; make the buffers with the transform's own sizes")]
    Buffer {
        /// Which buffer.
        what: &'static str,
        /// Its length by the transform.
        expected: usize,
        /// Its length.
        found: usize,
    },
    /// Fewer than two checkpoints to average.
    #[error("an average takes at least two checkpoints, found {found}; name stages of one training")]
    NothingToAverage {
        /// How many there are.
        found: usize,
    },
    /// Checkpoints that cannot be averaged.
    #[error(
        "checkpoints must differ in nothing but their weights to be averaged, and the {what} of number {number} of {of} is not that of the first; name stages of one training"
    )]
    Unlike {
        /// What differs.
        what: &'static str,
        /// Which of them, from 1.
        number: usize,
        /// How many there are.
        of: usize,
    },
    /// A foreign checkpoint has a variant that this model does not have.
    #[error("`{}`: {field} must be {expected}, found {found}; this variant cannot be converted", path.display())]
    Unsupported {
        /// The folder or file.
        path: PathBuf,
        /// What differs.
        field: String,
        /// What can be converted.
        expected: String,
        /// What the checkpoint has.
        found: String,
    },
}

impl ModelError {
    pub(crate) fn config(field: impl Into<String>, expected: impl Into<String>, found: impl ToString) -> Self {
        Self::Config { field: field.into(), expected: expected.into(), found: found.to_string() }
    }

    pub(crate) fn tokenizer(reason: impl ToString) -> Self {
        Self::Tokenizer { reason: reason.to_string() }
    }
}

impl From<ModelError> for PolicyError {
    /// Text errors become [`PolicyError::Instruction`], which a caller can correct; the rest is opaque.
    fn from(error: ModelError) -> Self {
        match error {
            ModelError::EmptyInstruction { found } => {
                Self::Instruction { reason: format!("the instruction must have at least one word, found {found:?}") }
            }
            ModelError::InstructionTooLong { n_words, found, limit } => Self::Instruction {
                reason: format!("the instruction has {n_words} words, {found} tokens; at most {limit} tokens fit"),
            },
            ModelError::Stats(error) => error,
            other => Self::Other(Box::new(other)),
        }
    }
}
