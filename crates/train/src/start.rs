//! What a run starts from and how it computes: logged once, and written into `metrics.jsonl`.

use std::path::PathBuf;

use robomamba_kernels::KernelChoice;
use serde::{Deserialize, Serialize};

use crate::{Precision, TrainConfig};

/// The header of `metrics.jsonl`: a line `{"run": ..}` for every start of the process, before the steps that it takes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunStart {
    /// Version of this crate.
    pub version: String,
    /// Kernels in use: instruction set and choices made by measurement.
    pub kernels: String,
    /// Threads of the products.
    pub threads: usize,
    /// Threads of the vision encoder.
    pub vision_threads: usize,
    /// Number format of the products of linear layers.
    pub precision: Precision,
    /// Folders of the data sets.
    pub data: Vec<PathBuf>,
    /// Episodes of all data sets.
    pub episodes: usize,
    /// Frames of all data sets.
    pub frames: usize,
    /// Checkpoint that the run was initialised from, if any.
    pub initial_checkpoint: Option<PathBuf>,
    /// Optimiser steps before this start; above 0 the run was resumed.
    pub from_step: u64,
}

impl RunStart {
    /// The start of a run on data of `(episodes, frames)` after `from_step` steps.
    pub(crate) fn new(config: &TrainConfig, (episodes, frames): (usize, usize), from_step: u64) -> Self {
        let mut data: Vec<PathBuf> = config.data.iter().map(|data| data.path.clone()).collect();
        data.sort();
        data.dedup();
        Self {
            version: env!("CARGO_PKG_VERSION").into(),
            kernels: kernel_choice(),
            threads: rayon::current_num_threads(),
            vision_threads: config.threads,
            precision: config.precision,
            data,
            episodes,
            frames,
            initial_checkpoint: config.initial_checkpoint.clone(),
            from_step,
        }
    }

    /// Writes it to the log.
    pub(crate) fn log(&self) {
        let checkpoint = self.initial_checkpoint.as_ref().map(|path| path.display().to_string());
        let data: Vec<_> = self.data.iter().map(|path| path.display().to_string()).collect();
        tracing::info!(
            kernels = self.kernels,
            threads = self.threads,
            vision_threads = self.vision_threads,
            precision = %self.precision,
            data = data.join(", "),
            episodes = self.episodes,
            frames = self.frames,
            checkpoint = checkpoint.as_deref().unwrap_or("none"),
            from_step = self.from_step,
            "training starts"
        );
    }
}

/// The kernels that training computes with.
fn kernel_choice() -> String {
    KernelChoice::current().to_string()
}
