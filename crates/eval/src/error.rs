//! Why results cannot be read, drawn or logged.

use std::path::PathBuf;

use thiserror::Error;

/// Each variant is one cause; its message says what was expected, what was found and what to do.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum EvalError {
    /// A file of records cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why the system refused.
        source: std::io::Error,
    },
    /// A line of a file of records is not an episode record.
    #[error(
        "{}, line {line}: expected an episode record as one JSON object with suite, task, seed, outcome and steps: {source}",
        path.display()
    )]
    Record {
        /// The file.
        path: PathBuf,
        /// Number of the line, from 1.
        line: usize,
        /// What the JSON reader found.
        source: serde_json::Error,
    },
    /// A file of records has none.
    #[error("{} holds no episode record; expected one JSON object per line", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// An image cannot be encoded as PNG.
    #[error("cannot encode an image of {height}x{width} pixels (height x width) as PNG: {source}")]
    Png {
        /// Rows.
        height: usize,
        /// Columns.
        width: usize,
        /// What the encoder refused.
        source: png::EncodingError,
    },
    /// The MCAP file cannot be written.
    #[error("cannot write the MCAP log: {0}")]
    Mcap(#[from] mcap::McapError),
    /// The system refused to write a file.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why the system refused.
        source: std::io::Error,
    },
}
