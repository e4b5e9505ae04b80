//! What a data set holds, in one line or as JSON.

use std::fmt;

use anyhow::Result;
use robomamba_data::{Dataset, columns};
use serde::Serialize;

/// Counts over a whole data set.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Summary {
    /// Its folder.
    pub path: String,
    /// Number of episodes.
    pub episodes: usize,
    /// Number of frames.
    pub frames: usize,
    /// Number of different instructions.
    pub instructions: usize,
    /// Control rate in Hz.
    pub fps: u32,
    /// Episodes that reached their goal; `None` when outcomes are not recorded.
    pub successes: Option<usize>,
    /// Episodes to be imitated; `None` when the data set does not mark them.
    pub demonstrations: Option<usize>,
    /// Frames of the shortest and the longest episode.
    pub episode_frames: (usize, usize),
}

impl Summary {
    /// Reads every episode of `dataset`, without decoding images.
    ///
    /// # Errors
    /// When an episode cannot be read.
    pub fn of(dataset: &Dataset) -> Result<Self> {
        let mut summary = Self {
            path: dataset.root().display().to_string(),
            episodes: dataset.len(),
            frames: dataset.frames(),
            instructions: dataset.tasks().count(),
            fps: dataset.fps(),
            successes: None,
            demonstrations: None,
            episode_frames: (usize::MAX, 0),
        };
        for index in 0..dataset.len() {
            let episode = dataset.episode_without_images(index)?;
            let (min, max) = summary.episode_frames;
            summary.episode_frames = (min.min(episode.len()), max.max(episode.len()));
            count(&mut summary.successes, episode.success());
            count(
                &mut summary.demonstrations,
                episode.bool(columns::IS_DEMONSTRATION).ok().map(|flags| flags.contains(&true)),
            );
        }
        Ok(summary)
    }
}

fn count(total: &mut Option<usize>, flag: Option<bool>) {
    if let Some(flag) = flag {
        *total.get_or_insert(0) += usize::from(flag);
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (shortest, longest) = self.episode_frames;
        write!(f, "{} episodes of {shortest} to {longest} frames, {} frames", self.episodes, self.frames)?;
        write!(f, ", {} instructions", self.instructions)?;
        if let Some(successes) = self.successes {
            write!(f, ", {successes} successful")?;
        }
        if let Some(demonstrations) = self.demonstrations {
            write!(f, ", {demonstrations} to be imitated")?;
        }
        Ok(())
    }
}
