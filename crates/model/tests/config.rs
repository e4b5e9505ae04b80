//! Configurations that make no model are refused with the field's name.

mod common;

use robomamba_model::{BackboneConfig, MambaConfig, ModelConfig, Preset, TransformerConfig, param_specs};

fn mamba(config: &mut ModelConfig) -> &mut MambaConfig {
    match &mut config.backbone {
        BackboneConfig::Mamba(mamba) => mamba,
        BackboneConfig::Transformer(_) => panic!("the presets are Mamba models"),
    }
}

fn transformer(config: &mut ModelConfig, change: impl Fn(&mut TransformerConfig)) {
    let mut transformer = config.backbone.to_transformer(64);
    change(&mut transformer);
    config.backbone = BackboneConfig::Transformer(transformer);
}

#[test]
fn every_preset_is_a_model_with_either_backbone() {
    for preset in Preset::ALL {
        let mut config = preset.config(common::features());
        config.check().unwrap();
        transformer(&mut config, |_| ());
        config.check().unwrap();
    }
}

#[test]
fn the_baseline_has_the_parameters_of_the_mamba_trunk_within_a_percent() {
    let trunk = |config: &ModelConfig| {
        let specs = param_specs(config).into_iter().filter(|spec| spec.name.starts_with("backbone."));
        specs.map(|spec| spec.numel()).sum::<usize>() as f64
    };
    for preset in [Preset::Tabletop, Preset::Small, Preset::Base] {
        let mut config = preset.config(common::features());
        let mamba = trunk(&config);
        transformer(&mut config, |_| ());
        let ratio = trunk(&config) / mamba;
        assert!((ratio - 1.0).abs() < 0.01, "{preset}: {ratio}");
    }
}

type Change = fn(&mut ModelConfig);

const BAD: [(&str, Change); 22] = [
    ("features.cameras", |c| c.features.cameras.clear()),
    ("features.cameras", |c| c.features.cameras[1].name = c.features.cameras[0].name.clone()),
    ("features.cameras[observation.images.top].width", |c| c.features.cameras[0].width = 0),
    ("features.state.names", |c| c.features.state.names.clear()),
    ("features.action.names", |c| c.features.action.names.push("dx".into())),
    ("features.fps", |c| c.features.fps = 0),
    ("vision.image_size", |c| c.vision.image_size = 33),
    ("vision.patch_size", |c| c.vision.patch_size = 0),
    ("vision.hidden_size", |c| c.vision.num_attention_heads = 3),
    ("vision.num_attention_heads", |c| c.vision.num_attention_heads = 0),
    ("vision.layer_norm_eps", |c| c.vision.layer_norm_eps = f32::NAN),
    ("vision.image_std", |c| c.vision.image_std[1] = 0.0),
    ("vision.image_mean", |c| c.vision.image_mean[2] = f32::INFINITY),
    ("text.max_position_embeddings", |c| c.text.max_position_embeddings = 2),
    ("text.vocab_size", |c| c.text.vocab_size = usize::MAX),
    ("connector.n_query", |c| c.connector.n_query = 0),
    ("backbone.d_state", |c| mamba(c).d_state = 0),
    ("backbone.expand * backbone.d_model", |c| mamba(c).expand = 1 << 20),
    ("backbone.rms_norm_eps", |c| mamba(c).rms_norm_eps = -1.0),
    ("backbone.d_model", |c| transformer(c, |t| t.num_attention_heads = 48)),
    ("backbone.context_len", |c| transformer(c, |t| t.context_len = 0)),
    ("action_head.chunk_size", |c| c.action_head.chunk_size = 0),
];

#[test]
fn a_bad_field_is_named_with_its_value_and_what_it_may_be() {
    for (field, change) in BAD {
        let mut config = common::nano();
        change(&mut config);
        let message = config.check().expect_err(field).to_string();
        assert!(message.starts_with(&format!("configuration `{field}` must be ")), "{field}: {message}");
        assert!(message.contains(", found "), "{message}");
    }
}

#[test]
fn unknown_keys_are_errors_at_every_level() {
    let json = serde_json::to_value(common::nano()).unwrap();
    serde_json::from_value::<ModelConfig>(json.clone()).unwrap();
    for pointer in
        ["", "/features", "/features/cameras/0", "/vision", "/text", "/connector", "/backbone", "/action_head"]
    {
        let mut bad = json.clone();
        bad.pointer_mut(pointer).unwrap()["n_layers"] = 3.into();
        let error = serde_json::from_value::<ModelConfig>(bad).expect_err(pointer).to_string();
        assert!(error.contains("unknown field `n_layers`"), "{pointer}: {error}");
    }
    let mut bad = json;
    bad["backbone"]["kind"] = "rnn".into();
    let error = serde_json::from_value::<ModelConfig>(bad).unwrap_err().to_string();
    assert!(error.contains("unknown variant `rnn`, expected `mamba` or `transformer`"), "{error}");
}

#[test]
fn presets_are_found_by_name() {
    for preset in Preset::ALL {
        assert_eq!(preset.to_string().parse::<Preset>().unwrap(), preset);
    }
    let message = "large".parse::<Preset>().unwrap_err().to_string();
    assert!(message.contains("one of nano, tabletop, small, base, found `large`"), "{message}");
}
