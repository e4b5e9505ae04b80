//! The graph that is trained against the runtime that is shipped, step by step from pixels and words.

use std::sync::Arc;

use burn::tensor::Tensor;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use robomamba_model::{BackboneConfig, Checkpoint, ImageTransform, ModelConfig, Preset, TextTokenizer, VisionKind};
use robomamba_policy::{ActionChunk, CameraSpec, FeatureSpec, Image, Observation, Policy, VectorSpec};
use robomamba_runtime::{Format, Model, RuntimeOptions, Session};

use super::COMPUTE;
use crate::modules::batch::{Batch, Episodes, Frames, Pictures, Texts};
use crate::modules::policy::PolicyModel;
use crate::{Parameters, ops};

const TOLERANCE: f32 = 1e-4;
const INSTRUCTIONS: [&str; 2] = ["move to the red disc", "push the blue square into the green zone, then stop"];

fn features(n_camera: usize, size: usize) -> FeatureSpec {
    let camera = |i| CameraSpec { name: format!("observation.images.camera{i}"), height: size, width: size };
    FeatureSpec {
        cameras: (0..n_camera).map(camera).collect(),
        state: VectorSpec::new(["x_m", "y_m", "gripper_opening"]),
        action: VectorSpec::new(["dx", "dy", "grip"]),
        fps: 20,
    }
}

/// Weights away from their initial values, so that zero biases and unit norms do not hide anything.
fn checkpoint(config: ModelConfig) -> Checkpoint {
    let mut checkpoint = Checkpoint::random(config, TextTokenizer::characters().unwrap(), 11).unwrap();
    let mut rng = ChaCha8Rng::seed_from_u64(12);
    let names: Vec<String> = checkpoint.weights.iter().map(|(name, _)| name.to_string()).collect();
    for name in names {
        for value in checkpoint.weights.get_mut(&name).unwrap() {
            *value += rng.random_range(-0.02..0.02);
        }
    }
    checkpoint
}

fn observations(features: &FeatureSpec, instruction: &str, n_step: usize, rng: &mut ChaCha8Rng) -> Vec<Observation> {
    let mut image = |height: usize, width: usize| {
        let data = (0..height * width * 3).map(|_| rng.random_range(0..=255u8)).collect();
        Image::from_rgb(height, width, data).unwrap()
    };
    let images: Vec<Vec<_>> = (0..n_step)
        .map(|_| features.cameras.iter().map(|c| (Arc::from(&*c.name), image(c.height, c.width))).collect())
        .collect();
    let observation = |(i, images)| Observation {
        images,
        state: vec![i as f32 * 0.1, -0.3, 0.5],
        instruction: instruction.into(),
        timestamp_ns: 0,
    };
    images.into_iter().enumerate().map(observation).collect()
}

/// The observations of all episodes as one batch of the training graph.
fn batch(checkpoint: &Checkpoint, episodes: &[Vec<Observation>]) -> Batch {
    let config = &checkpoint.config;
    let all: Vec<_> = episodes.iter().flatten().collect();
    let mut patches = Vec::new();
    for observation in &all {
        for (camera, (_, image)) in config.features.cameras.iter().zip(&observation.images) {
            let transform = ImageTransform::new(&config.vision, camera.height, camera.width).unwrap();
            let start = patches.len();
            patches.resize(start + transform.patches_len(), 0.0);
            transform.apply(image.data(), &mut transform.scratch(), &mut patches[start..]).unwrap();
        }
    }
    let tokens = |text: &str| checkpoint.tokenizer.encode(text, config.text.max_position_embeddings).unwrap();
    let tokens: Vec<_> = episodes.iter().map(|episode| tokens(&episode[0].instruction)).collect();
    let n_word = tokens.iter().map(Vec::len).max().unwrap();
    let padded = |ids: &Vec<u32>| (0..n_word).map(|i| ids.get(i).map_or(0, |&id| id as usize)).collect::<Vec<_>>();
    Batch {
        frames: Frames::Pictures(Pictures {
            patches,
            instruction: episodes.iter().enumerate().flat_map(|(i, episode)| vec![i; episode.len()]).collect(),
            texts: Texts {
                ids: tokens.iter().flat_map(padded).collect(),
                lengths: tokens.iter().map(Vec::len).collect(),
                n_word,
            },
        }),
        episodes: Episodes {
            lengths: episodes.iter().map(Vec::len).collect(),
            frame: (0..all.len()).collect(),
            state: all.iter().flat_map(|observation| observation.state.clone()).collect(),
        },
    }
}

/// The chunk of the likeliest mode of every row.
fn chosen_chunks(chunks: Tensor<2>, modes: Option<Tensor<2>>) -> Vec<f32> {
    let (width, chunks) = (chunks.dims()[1], ops::values(chunks));
    let Some(modes) = modes else { return chunks };
    let (n_mode, logits) = (modes.dims()[1], ops::values(modes));
    let rows = chunks.chunks_exact(width).zip(logits.chunks_exact(n_mode));
    let chosen = rows.flat_map(|(chunks, logits)| {
        let likeliest = (0..n_mode).max_by(|&a, &b| logits[a].total_cmp(&logits[b])).unwrap();
        chunks[likeliest * width / n_mode..][..width / n_mode].to_vec()
    });
    chosen.collect()
}

fn check(config: ModelConfig, lengths: &[usize]) {
    let name = format!("{:?}, {} wide", config.vision.kind, config.vision.hidden_size);
    let checkpoint = checkpoint(config);
    let config = &checkpoint.config;
    let mut rng = ChaCha8Rng::seed_from_u64(13);
    let episodes: Vec<_> =
        lengths.iter().zip(INSTRUCTIONS).map(|(&n, text)| observations(&config.features, text, n, &mut rng)).collect();

    let mut parameters = Parameters::new(config, &checkpoint.weights, &[]).unwrap();
    let leaves = parameters.lend(COMPUTE.precision);
    let outputs = PolicyModel::new(config, COMPUTE).forward(&leaves, batch(&checkpoint, &episodes), &[]);
    let (actions, logits) = (chosen_chunks(outputs.chunks, outputs.modes), ops::values(outputs.taps.confidence));

    let model = Arc::new(Model::from_checkpoint(Format::F32, &checkpoint).unwrap());
    let width = config.action_head.chunk_size * config.features.action.dim();
    let (mut chunk, mut rows) = (ActionChunk::default(), actions.chunks_exact(width).zip(&logits));
    let mut worst: f32 = 0.0;
    for episode in &episodes {
        let mut session = Session::new(Arc::clone(&model), &RuntimeOptions::default()).unwrap();
        for observation in episode {
            session.act(observation, &mut chunk).unwrap();
            let (expected, logit) = rows.next().unwrap();
            let differences = expected.iter().zip(&chunk.actions).map(|(a, b)| (a - b).abs());
            let probability = 1.0 / (1.0 + (-logit).exp());
            worst = differences.fold(worst, f32::max).max((probability - chunk.success_probability.unwrap()).abs());
        }
    }
    assert!(worst < TOLERANCE, "{name}: training and runtime differ by {worst}");
}

#[test]
fn nano_of_every_vision_kind_and_both_backbones() {
    for (i, kind) in [VisionKind::Vit, VisionKind::Clip, VisionKind::Siglip, VisionKind::Dinov2].into_iter().enumerate()
    {
        let mut config = Preset::Nano.config(features(1 + i % 2, 32 + 8 * (i % 2)));
        config.text.vocab_size = 512;
        config.vision.kind = kind;
        config.action_head.n_mode = 1 + i;
        check(config.clone(), &[7, 4]);
        config.backbone = BackboneConfig::Transformer(config.backbone.to_transformer(64));
        check(config, &[7, 4]);
    }
}

#[test]
fn tabletop() {
    check(Preset::Tabletop.config(features(1, 96)), &[5, 3]);
}

#[test]
fn small() {
    check(Preset::Small.config(features(1, 224)), &[2]);
}

#[test]
fn base() {
    check(Preset::Base.config(features(1, 224)), &[2]);
}
