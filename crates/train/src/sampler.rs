//! Which episodes go into which batch.
//!
//! This is a pure function of the seed, so a run can be continued, and repeated, from the number of a batch alone.

use std::ops::Range;

use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::config::BatchConfig;
use crate::corpus::{Corpus, Recorded, Source};

/// Approximate number of batches in a round. Within a round every data set contributes exactly its share.
const BATCHES_PER_ROUND: usize = 32;

/// Steps of one episode in a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    /// Data set and episode in it.
    pub episode: (usize, usize),
    /// First step.
    pub start: usize,
    /// Number of steps.
    pub len: usize,
    /// Index in the previous batch of the segment that this one continues.
    pub continues: Option<usize>,
}

impl Segment {
    /// Its steps of the episode.
    pub(crate) fn steps(&self) -> Range<usize> {
        self.start..self.start + self.len
    }
}

/// The segments of one batch.
pub(crate) type SampledBatch = Vec<Segment>;

/// Position of a batch in the order of the data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Cursor {
    /// Round.
    pub round: u64,
    /// Batch in the round.
    pub batch: usize,
}

/// Samples rounds of batches.
#[derive(Clone, Debug)]
pub(crate) struct Sampler {
    seed: u64,
    config: BatchConfig,
    sources: Vec<SampledSource>,
}

/// Sizes of a data set.
#[derive(Clone, Debug)]
pub(crate) struct SourceSizes {
    /// Share of the encoded frames, relative to the others.
    pub weight: f64,
    /// Steps of a window; `None` for whole episodes.
    pub window: Option<usize>,
    /// Sizes of each episode.
    pub episodes: Vec<EpisodeSize>,
}

/// Size of an episode, or what a batch has spent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct EpisodeSize {
    /// Steps.
    pub steps: usize,
    /// Distinct frames.
    pub frames: usize,
}

#[derive(Clone, Debug)]
struct SampledSource {
    window: Option<usize>,
    /// Sizes of each episode.
    sizes: Vec<EpisodeSize>,
    /// Draws that it contributes to a round.
    quota: usize,
}

impl Sampler {
    pub(crate) fn new(corpus: &Corpus, config: &BatchConfig, seed: u64) -> Self {
        let size = |episode: &Recorded| EpisodeSize { steps: episode.len, frames: episode.runs.len() };
        let sizes = |source: &Source| SourceSizes {
            weight: source.weight,
            window: source.window,
            episodes: source.episodes.iter().map(size).collect(),
        };
        Self::of_sizes(corpus.sources.iter().map(sizes).collect(), config, seed)
    }

    /// A sampler for data sets of these sizes.
    pub(crate) fn of_sizes(sources: Vec<SourceSizes>, config: &BatchConfig, seed: u64) -> Self {
        let total: f64 = sources.iter().map(|source| source.weight).sum();
        let sources = sources.into_iter().map(|SourceSizes { weight, window, episodes: sizes }| {
            let mean = sizes.iter().map(|&size| drawn_frames(size, window)).sum::<f64>() / sizes.len() as f64;
            let frames = weight / total * (BATCHES_PER_ROUND * config.max_frames) as f64;
            SampledSource { window, sizes, quota: ((frames / mean).round() as usize).max(1) }
        });
        Self { seed, config: config.clone(), sources: sources.collect() }
    }

    /// All batches of round `round`, at least one.
    pub(crate) fn round(&self, round: u64) -> Vec<SampledBatch> {
        let mut drawn: Vec<Segment> = Vec::new();
        for (i, source) in self.sources.iter().enumerate() {
            let first = round * source.quota as u64;
            drawn.extend(self.draws(i, first..first + source.quota as u64));
        }
        drawn.shuffle(&mut self.rng(&[1, round]));
        self.pack(drawn)
    }

    /// These draws from a source, each an episode or a window of it. Every pass over the source is a new permutation.
    fn draws(&self, i: usize, draws: Range<u64>) -> Vec<Segment> {
        let count = self.sources[i].sizes.len() as u64;
        let passes = draws.start / count..=(draws.end - 1) / count;
        let of_pass = passes.flat_map(|pass| {
            let mut order: Vec<usize> = (0..count as usize).collect();
            order.shuffle(&mut self.rng(&[2, i as u64, pass]));
            let (first, last) = (draws.start.max(pass * count), draws.end.min((pass + 1) * count));
            (first..last).map(move |draw| self.draw(i, draw, order[(draw % count) as usize])).collect::<Vec<_>>()
        });
        of_pass.collect()
    }

    fn draw(&self, i: usize, draw: u64, episode: usize) -> Segment {
        let source = &self.sources[i];
        let steps = source.sizes[episode].steps;
        let len = steps.min(source.window.unwrap_or(usize::MAX)).min(self.config.max_seq_len);
        let start = match source.window {
            Some(_) => self.rng(&[5, i as u64, draw]).random_range(0..=steps - len),
            None => 0,
        };
        Segment { episode: (i, episode), start, len, continues: None }
    }

    /// Fills batches in order. The rest of an episode after `max_seq_len` steps comes first in the next batch.
    fn pack(&self, drawn: Vec<Segment>) -> Vec<SampledBatch> {
        let mut waiting = drawn.into_iter().peekable();
        let mut batches: Vec<SampledBatch> = Vec::new();
        loop {
            let mut batch = batches.last().map_or_else(Vec::new, |last| self.continuations(last));
            let mut spent = batch.iter().fold(EpisodeSize::default(), |spent, segment| self.spend(spent, segment));
            while let Some(segment) = waiting.peek() {
                let after = self.spend(spent, segment);
                if !batch.is_empty() && (after.frames > self.config.max_frames || after.steps > self.config.max_steps) {
                    break;
                }
                spent = after;
                batch.extend(waiting.next());
            }
            if batch.is_empty() {
                return batches;
            }
            batches.push(batch);
        }
    }

    fn continuations(&self, last: &[Segment]) -> SampledBatch {
        let rest = last.iter().enumerate().filter_map(|(place, segment)| {
            let (source, episode) = segment.episode;
            let start = segment.start + segment.len;
            let left = self.sources[source].sizes[episode].steps - start;
            (left > 0 && self.sources[source].window.is_none()).then(|| Segment {
                episode: segment.episode,
                start,
                len: left.min(self.config.max_seq_len),
                continues: Some(place),
            })
        });
        rest.collect()
    }

    /// Adds a segment to what is spent; its frames are its share of the episode's.
    fn spend(&self, spent: EpisodeSize, segment: &Segment) -> EpisodeSize {
        let EpisodeSize { steps, frames } = self.sources[segment.episode.0].sizes[segment.episode.1];
        let share = (frames * segment.len).div_ceil(steps);
        EpisodeSize { steps: spent.steps + segment.len, frames: spent.frames + share }
    }

    fn rng(&self, purpose: &[u64]) -> ChaCha8Rng {
        seeded(self.seed, purpose)
    }
}

/// Mean number of frames of one draw from an episode.
fn drawn_frames(EpisodeSize { steps, frames }: EpisodeSize, window: Option<usize>) -> f64 {
    frames as f64 * window.map_or(1.0, |window| window.min(steps) as f64 / steps as f64)
}

/// A generator for one purpose of a run: the words are mixed into its 256-bit seed.
pub(crate) fn seeded(seed: u64, purpose: &[u64]) -> ChaCha8Rng {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    for (word, bytes) in purpose.iter().zip(bytes[8..].chunks_exact_mut(8)) {
        bytes.copy_from_slice(&word.to_le_bytes());
    }
    ChaCha8Rng::from_seed(bytes)
}
