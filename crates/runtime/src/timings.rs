//! Where the time of a control step goes.

use std::time::Instant;

/// Time of each part of one control step, in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StepTimings {
    /// Checking, comparing, resizing and normalising of images and state.
    pub preprocess_ns: u64,
    /// Tokenising and encoding of the instruction; next to nothing unless it changed.
    pub text_ns: u64,
    /// The vision encoder; nothing when every image is the one before.
    pub vision_ns: u64,
    /// The connector.
    pub connector_ns: u64,
    /// The backbone.
    pub backbone_ns: u64,
    /// Heads and unnormalising.
    pub heads_ns: u64,
}

impl StepTimings {
    /// Time of the whole step in nanoseconds.
    pub fn total_ns(&self) -> u64 {
        self.preprocess_ns + self.text_ns + self.vision_ns + self.connector_ns + self.backbone_ns + self.heads_ns
    }
}

/// Measures laps.
pub(crate) struct Stopwatch(Instant);

impl Stopwatch {
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// Nanoseconds since the start or the lap before.
    pub fn lap(&mut self) -> u64 {
        let now = Instant::now();
        let elapsed = now.duration_since(self.0);
        self.0 = now;
        elapsed.as_nanos() as u64
    }
}
