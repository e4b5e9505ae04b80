//! Models with random weights and random observations for them.
#![allow(dead_code)] // Every test binary uses a part of it.

use std::sync::Arc;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use robomamba_model::{BackboneConfig, Checkpoint, ModelConfig, Preset, TextTokenizer};
use robomamba_policy::{CameraSpec, FeatureSpec, Image, NormMode, Observation, VectorSpec, VectorStats};
use robomamba_runtime::{Format, Model, RuntimeOptions, Session};

/// Two cameras, one of which must be resized.
pub fn features() -> FeatureSpec {
    let camera = |name: &str, height, width| CameraSpec { name: format!("observation.images.{name}"), height, width };
    FeatureSpec {
        cameras: vec![camera("top", 32, 32), camera("wrist", 40, 48)],
        state: VectorSpec::new(["x_m", "y_m", "opening"]),
        action: VectorSpec::new(["dx", "dy"]),
        fps: 20,
    }
}

/// A checkpoint of `preset` with random weights and statistics that are not the identity.
pub fn checkpoint(preset: Preset, edit: impl FnOnce(&mut ModelConfig)) -> Checkpoint {
    let mut config = preset.config(features());
    edit(&mut config);
    let tokenizer = TextTokenizer::characters().expect("characters always fit");
    config.text.vocab_size = config.text.vocab_size.max(tokenizer.vocab_size());
    let mut checkpoint = Checkpoint::random(config, tokenizer, 7).expect("the preset is valid");
    checkpoint.stats.action =
        VectorStats { mode: NormMode::MeanStd, mean: vec![0.5, -0.5], std: vec![2.0, 0.1], ..VectorStats::identity(2) };
    enlarge(&mut checkpoint);
    checkpoint
}

/// Freshly initialised encoders hardly depend on their input; larger weights let mistakes show.
fn enlarge(checkpoint: &mut Checkpoint) {
    let names: Vec<String> = checkpoint.weights.iter().map(|(name, _)| name.to_owned()).collect();
    let mut rng = ChaCha8Rng::seed_from_u64(11);
    for name in names.iter().filter(|name| !name.starts_with("backbone")) {
        let matrix = checkpoint.weights.shape(name).is_ok_and(|shape| shape.len() > 1);
        let values = checkpoint.weights.get_mut(name).expect("the name is one of the weights");
        let factor = if matrix { 3.0 } else { 1.0 };
        values.iter_mut().for_each(|value| *value = factor * *value + rng.random_range(-0.02..0.02));
    }
}

/// The nano model.
pub fn nano() -> Arc<Model> {
    model(&checkpoint(Preset::Nano, |_| {}))
}

/// The nano model with the Transformer backbone.
pub fn nano_transformer(context_len: usize) -> Arc<Model> {
    model(&checkpoint(Preset::Nano, |config| {
        config.backbone = BackboneConfig::Transformer(config.backbone.to_transformer(context_len));
    }))
}

pub fn model(checkpoint: &Checkpoint) -> Arc<Model> {
    Arc::new(Model::from_checkpoint(Format::F32, checkpoint).expect("a random checkpoint is complete"))
}

pub fn session(model: &Arc<Model>) -> Session {
    Session::new(model.clone(), &RuntimeOptions::default()).expect("default options work everywhere")
}

/// A random observation; equal seeds give equal ones.
pub fn observation(seed: u64) -> Observation {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let spec = features();
    let images = spec.cameras.iter().map(|camera| {
        let data = (0..camera.height * camera.width * 3).map(|_| rng.random()).collect();
        (camera.name.as_str().into(), Image::from_rgb(camera.height, camera.width, data).expect("the size is right"))
    });
    Observation {
        images: images.collect(),
        state: (0..spec.state.dim()).map(|_| rng.random_range(-1.0..1.0)).collect(),
        instruction: "push the red block to the left".into(),
        timestamp_ns: seed * 50_000_000,
    }
}

/// Random numbers in [-1, 1).
pub fn noise(seed: u64, len: usize) -> Vec<f32> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    (0..len).map(|_| rng.random_range(-1.0..1.0)).collect()
}

/// Largest absolute difference; NaN counts as infinite.
pub fn max_abs_diff(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    let difference = |(a, b): (&f32, &f32)| if (a - b).is_nan() { f32::INFINITY } else { (a - b).abs() };
    a.iter().zip(b).map(difference).fold(0.0, f32::max)
}
