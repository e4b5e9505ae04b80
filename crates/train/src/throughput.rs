//! How fast a model trains on this machine, on random data.

use std::time::Instant;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use robomamba_model::{ModelConfig, Weights};

use crate::corpus::Knowledge;
use crate::learner::{Labels, Learner, Lesson};
use crate::losses::LossConfig;
use crate::modules::batch::{Batch, Episodes, Frames, Pictures, Texts};
use crate::modules::policy::PolicyModel;
use crate::objectives::{Terms, auxiliary, confidence};
use crate::ops::Compute;
use crate::ops::loss::Target;
use crate::optimiser::OptimiserConfig;
use crate::{Parameters, Precision, Result};

/// Size of the measurement.
#[derive(Clone, Copy, Debug)]
pub struct ThroughputConfig {
    /// Episodes per batch.
    pub n_episode: usize,
    /// Steps per episode, each with a frame of its own.
    pub n_step: usize,
    /// Optimiser steps that are timed, after one for warming up.
    pub n_repeat: usize,
    /// Threads of the vision encoder.
    pub lanes: usize,
    /// Number format of the products of linear layers.
    pub precision: Precision,
    /// Whether the encoders are frozen and every frame's token is known, so that only backbone and heads learn.
    pub known_tokens: bool,
}

/// Measures whole optimiser steps and returns the frames per second of each.
///
/// # Errors
/// When the configuration is not consistent.
pub fn measure_throughput(config: &ModelConfig, size: ThroughputConfig) -> Result<Vec<f64>> {
    let knowledge = Knowledge { n_environment: 16, ..Knowledge::default() };
    let loss = LossConfig::default();
    let heads = loss.weights().heads(&knowledge);
    let mut parameters = Parameters::new(config, &Weights::random(config, 0), &heads)?;
    if size.known_tokens {
        parameters.freeze(&["vision", "text", "connector"].map(String::from))?;
    }
    let model = PolicyModel::new(config, Compute { lanes: size.lanes, precision: size.precision });
    let mut learner = Learner::new(model, parameters, &loss, OptimiserConfig::default())?;
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let lengths = vec![size.n_step; size.n_episode];
    let mut batch = random_batch(config, &lengths, &mut rng);
    let labels = random_labels(config, lengths.iter().sum(), knowledge, &mut rng);
    if size.known_tokens {
        let len = size.n_episode * size.n_step * config.backbone.d_model();
        batch.frames = Frames::Tokens((0..len).map(|_| rng.random_range(-1.0..1.0)).collect());
    }
    let lesson = Lesson { batch, labels, initial: Vec::new() };
    let mut rates = Vec::new();
    for _ in 0..=size.n_repeat {
        let start = Instant::now();
        learner.step(lesson.clone(), 1e-4)?;
        rates.push((size.n_episode * size.n_step) as f64 / start.elapsed().as_secs_f64());
    }
    Ok(rates.split_off(1))
}

/// A batch of random frames and words, episodes of these lengths, every step with a frame of its own.
pub(crate) fn random_batch(config: &ModelConfig, lengths: &[usize], rng: &mut ChaCha8Rng) -> Batch {
    let rows: usize = lengths.iter().sum();
    let n_word = 12.min(config.text.max_position_embeddings);
    let mut uniform = |len: usize| -> Vec<f32> { (0..len).map(|_| rng.random_range(-1.0..1.0)).collect() };
    let image_len = config.vision.n_patch() * config.vision.patch_dim();
    let patches = uniform(rows * config.features.cameras.len() * image_len);
    let state = uniform(rows * config.features.state.dim());
    let ids = (0..lengths.len() * n_word).map(|i| i * 7 % config.text.vocab_size).collect();
    let words = (0..lengths.len()).map(|i| n_word - i % 3).collect();
    Batch {
        frames: Frames::Pictures(Pictures {
            patches,
            instruction: lengths.iter().enumerate().flat_map(|(i, &len)| vec![i; len]).collect(),
            texts: Texts { ids, lengths: words, n_word },
        }),
        episodes: Episodes { lengths: lengths.into(), frame: (0..rows).collect(), state },
    }
}

/// Random labels of `rows` steps for the imitation loss and the objectives on the backbone's output.
pub(crate) fn random_labels(config: &ModelConfig, rows: usize, knowledge: Knowledge, rng: &mut ChaCha8Rng) -> Labels {
    let mut target = |len: usize| random_target(len, rng);
    let actions = target(rows * config.action_head.chunk_size * config.features.action.dim());
    let mut terms = Terms::default();
    terms.set("confidence", confidence::term(target(rows)));
    terms.set("auxiliary", auxiliary::term(target(rows * knowledge.n_environment)));
    Labels { actions, terms }
}

/// `len` random values of equal weight.
pub(crate) fn random_target(len: usize, rng: &mut ChaCha8Rng) -> Target {
    let values = (0..len).map(|_| rng.random_range(-1.0..1.0)).collect();
    Target { values, weights: vec![1.0 / len as f32; len].into() }
}
