//! Where the files of a data set are.

use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};

pub(crate) const INFO: &str = "meta/info.json";
pub(crate) const STATS: &str = "meta/stats.json";
pub(crate) const TASKS: &str = "meta/tasks.parquet";
pub(crate) const EPISODES: &str = "meta/episodes";
pub(crate) const RECORDING: &str = "meta/recording.json";
pub(crate) const DATA_PATH: &str = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet";
pub(crate) const EPISODES_PATH: &str = "meta/episodes/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet";

/// Which file of a kind: files are numbered within chunks of `chunks_size` files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct FileId {
    /// Folder number.
    pub chunk: usize,
    /// File number in the folder.
    pub file: usize,
}

impl FileId {
    /// The file after this one (upstream: `update_chunk_file_indices`).
    pub(crate) fn next(self, chunks_size: usize) -> Self {
        if self.file + 1 < chunks_size {
            Self { file: self.file + 1, ..self }
        } else {
            Self { chunk: self.chunk + 1, file: 0 }
        }
    }

    /// Fills a template of `info.json` such as `data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet`.
    /// None when it has a placeholder that the format does not know or leaves the data set's folder.
    pub(crate) fn path(self, template: &str, video_key: &str) -> Option<PathBuf> {
        let mut path = String::new();
        let mut rest = template;
        while let Some(open) = rest.find('{') {
            let close = open + rest[open..].find('}')?;
            path.push_str(&rest[..open]);
            path.push_str(&self.placeholder(&rest[open + 1..close], video_key)?);
            rest = &rest[close + 1..];
        }
        path.push_str(rest);
        let inside = Path::new(&path).components().all(|part| matches!(part, Component::Normal(_)));
        (inside && !path.is_empty()).then(|| path.into())
    }

    fn placeholder(self, text: &str, video_key: &str) -> Option<String> {
        let (name, format) = text.split_once(':').unwrap_or((text, "d"));
        let number = match name {
            "video_key" => return Some(video_key.into()),
            "chunk_index" | "episode_chunk" => self.chunk,
            "file_index" => self.file,
            _ => return None,
        };
        let width = format.strip_suffix('d')?;
        let width = if width.is_empty() { 0 } else { width.parse::<usize>().ok().filter(|width| *width < 20)? };
        Some(format!("{number:0width$}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_are_filled_like_pythons_format() {
        let id = FileId { chunk: 7, file: 1234 };
        let cases = [
            (DATA_PATH, Some("data/chunk-007/file-1234.parquet")),
            (
                "videos/{video_key}/c{chunk_index}/f{file_index:05d}.mp4",
                Some("videos/observation.images.top/c7/f01234.mp4"),
            ),
            ("data/{episode_index}.parquet", None),
            ("data/{chunk_index:03d", None),
            ("../{chunk_index}", None),
            ("/etc/{chunk_index}", None),
            ("", None),
        ];
        for (template, expected) in cases {
            assert_eq!(id.path(template, "observation.images.top"), expected.map(PathBuf::from), "{template}");
        }
    }

    #[test]
    fn files_roll_over_into_the_next_chunk() {
        assert_eq!(FileId { chunk: 0, file: 998 }.next(1000), FileId { chunk: 0, file: 999 });
        assert_eq!(FileId { chunk: 0, file: 999 }.next(1000), FileId { chunk: 1, file: 0 });
    }
}
