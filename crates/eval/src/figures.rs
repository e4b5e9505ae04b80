//! What a demonstration measured; the content of its JSON.

use serde::Serialize;

use crate::machine::Machine;
use crate::{EpisodeRecord, Latency, TaskScore};

/// One control step at 30 Hz, in milliseconds.
pub const DEADLINE_MS: f64 = 1000.0 / 30.0;

/// All figures of one demonstration.
#[derive(Clone, Debug, Serialize)]
pub struct Figures {
    /// Success in every task.
    pub tasks: Vec<TaskScore>,
    /// Time from observation to action.
    pub latency: Latency,
    /// Control steps per second that the policy alone sustains: the inverse of its mean latency.
    pub control_rate_hz: f64,
    /// Control steps per second of the whole loop, with simulation, rendering and logging.
    pub loop_rate_hz: f64,
    /// Control steps that took longer than [`Figures::deadline_ms`].
    pub deadline_misses: u64,
    /// Time that a control step may take.
    pub deadline_ms: f64,
    /// Control steps in all.
    pub steps: u64,
    /// Size of the policy's recurrent state.
    pub state_bytes: StateBytes,
    /// Most memory that the process occupied, in 10^6 bytes; null where the system does not report it.
    pub peak_rss_mb: Option<f64>,
    /// Where this was measured.
    pub machine: Machine,
    /// Folder of the checkpoint.
    pub checkpoint: String,
    /// Numbers in which its matrices were stored and multiplied.
    pub precision: String,
    /// Every episode.
    pub episodes: Vec<EpisodeRecord>,
}

/// Size of the state in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct StateBytes {
    /// After the first control step.
    pub first: usize,
    /// After the last one.
    pub last: usize,
}

impl StateBytes {
    /// Takes in the size after one more control step.
    pub fn observe(&mut self, bytes: usize) {
        if self.first == 0 {
            self.first = bytes;
        }
        self.last = bytes;
    }
}
