//! Small models for tests.
#![allow(dead_code)]

use robomamba_model::{BackboneConfig, Checkpoint, ModelConfig, Preset, TextTokenizer};
use robomamba_policy::{CameraSpec, FeatureSpec, VectorSpec};

pub fn features() -> FeatureSpec {
    let camera = |name: &str, height, width| CameraSpec { name: name.into(), height, width };
    FeatureSpec {
        cameras: vec![camera("observation.images.top", 32, 32), camera("observation.images.wrist", 24, 40)],
        state: VectorSpec::new(["x_m", "y_m", "gripper_opening"]),
        action: VectorSpec::new(["dx", "dy"]),
        fps: 20,
    }
}

pub fn nano() -> ModelConfig {
    Preset::Nano.config(features())
}

pub fn nano_transformer() -> ModelConfig {
    let mut config = nano();
    config.backbone = BackboneConfig::Transformer(config.backbone.to_transformer(64));
    config
}

pub fn checkpoint() -> Checkpoint {
    Checkpoint::random(nano(), TextTokenizer::characters().unwrap(), 7).unwrap()
}
