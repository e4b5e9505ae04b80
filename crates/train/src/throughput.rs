//! How fast a model trains on this machine, on random data.

use std::sync::Arc;
use std::time::Instant;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use robomamba_model::{ModelConfig, Weights};

use crate::learner::{Labels, Learner, LossConfig};
use crate::modules::{Batch, Episodes, Frames, Pictures, PolicyModel, Texts};
use crate::ops::Compute;
use crate::ops::loss::Target;
use crate::optimiser::OptimiserConfig;
use crate::{Parameters, Precision, Result, TrainingHeads};

/// Size of the measurement.
#[derive(Clone, Copy, Debug)]
pub struct ThroughputConfig {
    /// Episodes per batch.
    pub n_episode: usize,
    /// Steps per episode, each with a frame of its own.
    pub n_step: usize,
    /// Optimiser steps that are timed; one more comes before them.
    pub n_repeat: usize,
    /// Threads of the vision encoder.
    pub lanes: usize,
    /// Of the products of linear layers.
    pub precision: Precision,
    /// Whether the encoders are frozen and every frame's token is known, so that trunk and heads are all that learns.
    pub known_tokens: bool,
}

/// Measures whole optimiser steps and returns the frames per second of each.
///
/// # Errors
/// When the configuration is not consistent.
pub fn measure_throughput(config: &ModelConfig, size: ThroughputConfig) -> Result<Vec<f64>> {
    let heads = TrainingHeads { n_auxiliary: 16, ..TrainingHeads::default() };
    let mut parameters = Parameters::new(config, &Weights::random(config, 0), heads)?;
    if size.known_tokens {
        parameters.freeze(&["vision", "text", "connector"].map(String::from))?;
    }
    let model = PolicyModel::new(config, heads, Compute { lanes: size.lanes, precision: size.precision });
    let mut learner = Learner::new(model, parameters, LossConfig::default(), OptimiserConfig::default())?;
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let (mut batch, labels) = random_batch(config, (size.n_episode, size.n_step), heads, &mut rng);
    if size.known_tokens {
        let len = size.n_episode * size.n_step * config.backbone.d_model();
        batch.frames = Frames::Tokens((0..len).map(|_| rng.random_range(-1.0..1.0)).collect());
    }
    let mut rates = Vec::new();
    for _ in 0..=size.n_repeat {
        let start = Instant::now();
        learner.step(batch.clone(), &labels, &[], 1e-4)?;
        rates.push((size.n_episode * size.n_step) as f64 / start.elapsed().as_secs_f64());
    }
    Ok(rates.split_off(1))
}

/// A batch of random frames, words and targets, every step with a frame of its own.
pub(crate) fn random_batch(
    config: &ModelConfig,
    (batch, seq_len): (usize, usize),
    heads: TrainingHeads,
    rng: &mut ChaCha8Rng,
) -> (Batch, Labels) {
    let rows = batch * seq_len;
    let n_word = 12.min(config.text.max_position_embeddings);
    let mut normal = |len: usize| -> Vec<f32> { (0..len).map(|_| rng.random_range(-1.0..1.0)).collect() };
    let image_len = config.vision.n_patch() * config.vision.patch_dim();
    let patches = normal(rows * config.features.cameras.len() * image_len);
    let state = normal(rows * config.features.state.dim());
    let mut target = |len: usize| Target { values: normal(len).into(), weights: vec![1.0 / len as f32; len].into() };
    let labels = Labels {
        actions: target(rows * config.action_head.chunk_size * config.features.action.dim()),
        confidence: target(rows),
        auxiliary: target(rows * heads.n_auxiliary),
        pointing: target(rows * heads.n_pointing),
        naming: target(rows * heads.n_naming),
    };
    let ids = (0..batch * n_word).map(|i| i * 7 % config.text.vocab_size).collect();
    let lengths: Arc<[usize]> = (0..batch).map(|i| n_word - i % 3).collect();
    let inputs = Batch {
        frames: Frames::Pictures(Pictures {
            patches,
            instruction: (0..rows).map(|row| row / seq_len).collect(),
            texts: Texts { ids, lengths, n_word },
            pointers: [].into(),
            things: [].into(),
        }),
        episodes: Episodes { lengths: vec![seq_len; batch].into(), frame: (0..rows).collect(), state },
    };
    (inputs, labels)
}
