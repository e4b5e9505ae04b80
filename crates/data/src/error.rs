//! Why a data set cannot be read or written.

use std::io;
use std::path::{Path, PathBuf};

use parquet::errors::ParquetError;
use thiserror::Error;

/// Each variant is one cause; its message says what was expected, what was found and what to do.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum DataError {
    /// A file that the format requires is not there.
    #[error("{} is missing ({what}); copy the whole data set again or record it again", path.display())]
    Missing {
        /// What the file holds.
        what: &'static str,
        /// Where it should be.
        path: PathBuf,
    },
    /// The operating system refused to read a file.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The operating system refused to write a file; nothing stays under its final name.
    #[error("cannot write {}: {source}; free space or fix permissions, then run the same command again to continue", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A parquet file is damaged or truncated.
    #[error("{} is not a readable parquet file: {source}; restore it from a copy or record it again", path.display())]
    Parquet {
        /// The file.
        path: PathBuf,
        /// Why.
        source: ParquetError,
    },
    /// A JSON file is damaged or lacks a field.
    #[error("{}: {source}; restore it from a copy or record it again", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: serde_json::Error,
    },
    /// A file can be read, but contradicts the format or another file.
    #[error("{}: expected {expected}, found {found}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What the format asks for.
        expected: String,
        /// What is there.
        found: String,
    },
    /// A column of a parquet file is missing or has another type.
    #[error("{}: column `{column}` must be {expected}, found {found}", path.display())]
    Column {
        /// The file.
        path: PathBuf,
        /// Name of the column.
        column: String,
        /// Its required type.
        expected: String,
        /// What is there.
        found: String,
    },
    /// No such feature, or not of the asked kind.
    #[error("feature `{feature}` must be {expected}; {found}")]
    Feature {
        /// Name of the feature.
        feature: String,
        /// What was asked for.
        expected: String,
        /// What the data set has.
        found: String,
    },
    /// No such episode.
    #[error("episode {index} does not exist; the data set has {total} episodes, numbered from 0")]
    NoEpisode {
        /// The index that was asked for.
        index: usize,
        /// How many there are.
        total: usize,
    },
    /// No such frame.
    #[error("frame {index} does not exist; the episode has {total} frames, numbered from 0")]
    NoFrame {
        /// The index that was asked for.
        index: usize,
        /// How many there are.
        total: usize,
    },
    /// One image cannot be encoded or decoded.
    #[error("{place}: {reason}")]
    Image {
        /// Which image.
        place: String,
        /// What is wrong.
        reason: String,
    },
    /// A frame that is to be recorded does not fit the features.
    #[error("frame {frame} of episode {episode}: `{feature}` must be {expected}, found {found}")]
    Frame {
        /// Index of the episode.
        episode: usize,
        /// Index of the frame in it.
        frame: usize,
        /// Feature that does not fit.
        feature: String,
        /// What the data set's features ask for.
        expected: String,
        /// What was passed.
        found: String,
    },
    /// The configuration of a writer cannot be recorded.
    #[error("cannot record such a data set: {0}")]
    Config(String),
    /// The target folder holds a finished data set of the very same recipe: nothing is left to do.
    #[error("{} is already complete, recorded with the same settings; use it, or choose another folder to record more", path.display())]
    AlreadyComplete {
        /// The data set.
        path: PathBuf,
    },
    /// The target folder exists and is something else.
    #[error("{} already exists and was not recorded with these settings; choose another folder or delete that one", path.display())]
    Occupied {
        /// The folder.
        path: PathBuf,
    },
    /// An unfinished recording of other settings is in the working folder.
    #[error("{} holds an unfinished recording with other settings ({difference}); finish that one with its own command, choose another folder, or delete it", path.display())]
    OtherRecording {
        /// The working folder.
        path: PathBuf,
        /// What differs.
        difference: String,
    },
    /// Another process records into the same folder.
    #[error("{} is being recorded by another process; wait for it or choose another folder", path.display())]
    Locked {
        /// The working folder.
        path: PathBuf,
    },
    /// An episode was asked to be recorded twice, or is missing at the end.
    #[error("{0}")]
    Episodes(String),
}

impl DataError {
    pub(crate) fn read(path: &Path) -> impl FnOnce(io::Error) -> Self + '_ {
        move |source| Self::Read { path: path.into(), source }
    }

    pub(crate) fn write(path: &Path) -> impl Fn(io::Error) -> Self + '_ {
        move |source| Self::Write { path: path.into(), source }
    }

    pub(crate) fn parquet(path: &Path) -> impl FnOnce(ParquetError) -> Self + '_ {
        move |source| Self::Parquet { path: path.into(), source }
    }

    /// An error of the parquet writer: an I/O error keeps its kind, so that a full disk is named as such.
    pub(crate) fn parquet_write(path: &Path) -> impl FnOnce(ParquetError) -> Self + '_ {
        move |source| Self::Write { path: path.into(), source: io_error(source) }
    }

    pub(crate) fn invalid(path: &Path, expected: impl Into<String>, found: impl Into<String>) -> Self {
        Self::Invalid { path: path.into(), expected: expected.into(), found: found.into() }
    }
}

fn io_error(error: ParquetError) -> io::Error {
    match error {
        ParquetError::External(inner) => match inner.downcast::<io::Error>() {
            Ok(inner) => *inner,
            Err(inner) => io::Error::other(inner),
        },
        other => io::Error::other(other),
    }
}
