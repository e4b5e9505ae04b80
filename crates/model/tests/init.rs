//! The initialisation: complete, deterministic, and with the published distributions.

mod common;

use robomamba_model::{Weights, param_specs};

#[test]
fn random_weights_are_exactly_the_parameters_of_every_backbone() {
    for config in [common::nano(), common::nano_transformer()] {
        let weights = Weights::random(&config, 3);
        weights.check(&param_specs(&config)).unwrap();
    }
}

#[test]
fn a_seed_always_gives_the_same_bits() {
    let config = common::nano();
    let weights = Weights::random(&config, 3);
    assert_eq!(weights, Weights::random(&config, 3));
    assert_ne!(weights, Weights::random(&config, 4));
    // FNV-1a over all bits in name order: any change of the generator or the maths shows here.
    let bits = weights.iter().flat_map(|(_, tensor)| tensor.data.iter().flat_map(|value| value.to_le_bytes()));
    let hash =
        bits.fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    assert_eq!(hash, 0x8160_009f_73f1_89df, "{hash:#018x}");
}

/// Name, and the interval in which all of the tensor's values and its standard deviation must lie.
const RANGES: [(&str, [f64; 2], [f64; 2]); 16] = [
    ("vision.encoder.layer.0.layernorm_before.weight", [1.0, 1.0], [0.0, 0.0]),
    ("vision.encoder.layer.0.layernorm_before.bias", [0.0, 0.0], [0.0, 0.0]),
    ("text.embeddings.LayerNorm.weight", [1.0, 1.0], [0.0, 0.0]),
    ("text.embeddings.word_embeddings.weight", [-0.04, 0.04], [0.015, 0.02]),
    // 0.02 * sqrt(768 / 32) = 0.098, cut at two deviations, which narrows it to 0.88 of that.
    ("vision.encoder.layer.1.intermediate.dense.weight", [-0.196, 0.196], [0.078, 0.095]),
    ("vision.encoder.layer.1.intermediate.dense.bias", [0.0, 0.0], [0.0, 0.0]),
    ("vision.embeddings.position_embeddings", [-0.5, 0.5], [0.2, 0.4]),
    ("connector.norm_kv.weight", [1.0, 1.0], [0.0, 0.0]),
    ("head.action.fc3.bias", [0.0, 0.0], [0.0, 0.0]),
    ("backbone.norm_f.weight", [1.0, 1.0], [0.0, 0.0]),
    ("backbone.layers.0.mixer.D", [1.0, 1.0], [0.0, 0.0]),
    // 1 / sqrt(48) = 0.1443; uniform: deviation 1 / sqrt(3) of it.
    ("backbone.layers.0.mixer.in_proj.weight", [-0.1444, 0.1444], [0.08, 0.087]),
    // 1 / sqrt(96) / sqrt(2) = 0.0722
    ("backbone.layers.1.mixer.out_proj.weight", [-0.0722, 0.0722], [0.04, 0.044]),
    ("backbone.layers.0.mixer.conv1d.weight", [-0.5, 0.5], [0.25, 0.33]),
    ("backbone.layers.0.mixer.conv1d.bias", [-0.5, 0.5], [0.2, 0.35]),
    ("backbone.layers.0.mixer.dt_proj.weight", [-0.578, 0.578], [0.29, 0.37]),
];

#[test]
fn distributions_are_the_documented_ones() {
    let weights = Weights::random(&common::nano(), 0);
    for (name, [low, high], [std_low, std_high]) in RANGES {
        let values: Vec<f64> = weights.get(name).unwrap().iter().map(|&value| f64::from(value)).collect();
        assert!(values.iter().all(|value| (low..=high).contains(value)), "{name} leaves [{low}, {high}]");
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        let std = (values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / values.len() as f64).sqrt();
        assert!((std_low..=std_high).contains(&std), "{name} has standard deviation {std}");
    }
}

#[test]
fn mamba_starts_with_the_published_step_sizes_and_decay_rates() {
    let weights = Weights::random(&common::nano(), 0);
    let a_log = weights.get("backbone.layers.1.mixer.A_log").unwrap();
    for channel in a_log.chunks_exact(8) {
        for (n, value) in channel.iter().enumerate() {
            assert!((value.exp() - (n + 1) as f32).abs() < 1e-5);
        }
    }
    let steps =
        weights.get("backbone.layers.1.mixer.dt_proj.bias").unwrap().iter().map(|&bias| f64::from(bias).exp().ln_1p());
    let (low, high) = steps.fold((f64::MAX, 0f64), |(low, high), step| (low.min(step), high.max(step)));
    assert!(low > 0.99e-3 && low < 2e-3 && high < 1.01e-1 && high > 5e-2, "step sizes from {low} to {high}");
}
