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
fn the_baseline_has_the_parameters_of_the_mamba_backbone_within_a_percent() {
    let backbone = |config: &ModelConfig| {
        let specs = param_specs(config).into_iter().filter(|spec| spec.name.starts_with("backbone."));
        specs.map(|spec| spec.numel()).sum::<usize>() as f64
    };
    for preset in [Preset::Tabletop, Preset::Small, Preset::Base] {
        let mut config = preset.config(common::features());
        let mamba = backbone(&config);
        transformer(&mut config, |_| ());
        let ratio = backbone(&config) / mamba;
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

/// The tree of a JSON object.
fn tree(json: &str) -> serde_json::Map<String, serde_json::Value> {
    serde_json::from_str(json).unwrap()
}

#[test]
fn sizes_of_a_preset_can_be_changed_in_every_part() {
    let preset = Preset::Nano.config(common::features());
    assert_eq!(preset.with_sizes(&tree("{}")).unwrap(), preset);
    let changes = r#"{"vision": {"image_size": 64, "patch_size": 16, "num_hidden_layers": 3, "hidden_size": 64},
        "text": {"num_hidden_layers": 1}, "connector": {"n_query": 2, "layer_norm_eps": 1e-6},
        "backbone": {"d_model": 80, "n_layer": 5, "d_state": 4}, "action_head": {"chunk_size": 12},
        "confidence_head": {"hidden_size": 8}}"#;
    let changed = preset.with_sizes(&tree(changes)).unwrap();
    let mut expected = preset.clone();
    (expected.vision.image_size, expected.vision.patch_size, expected.vision.num_hidden_layers) = (64, 16, 3);
    (expected.vision.hidden_size, expected.vision.intermediate_size) = (64, 256);
    expected.text.num_hidden_layers = 1;
    (expected.connector.n_query, expected.connector.layer_norm_eps) = (2, 1e-6);
    let backbone = mamba(&mut expected);
    (backbone.d_model, backbone.n_layer, backbone.d_state, backbone.dt_rank) = (80, 5, 4, 5);
    expected.action_head.chunk_size = 12;
    expected.confidence_head.hidden_size = 8;
    assert_eq!(changed, expected);
    let own = preset.with_sizes(&tree(r#"{"backbone": {"d_model": 80, "dt_rank": 2}}"#)).unwrap();
    assert_eq!(mamba(&mut own.clone()).dt_rank, 2, "what is given is not derived");
}

#[test]
fn sizes_that_do_not_exist_or_fit_are_named() {
    let cases = [
        (r#"{"vison": {"image_size": 64}}"#, "`model.vison` must be one of", "vision"),
        (r#"{"vision": {"size": 64}}"#, "`model.vision.size` must be one of", "image_size"),
        (r#"{"vision": 64}"#, "`model.vision`", "a table"),
        (r#"{"vision": {"image_size": {"height": 1}}}"#, "`model.vision.image_size`", "a table"),
        (r#"{"vision": {"image_size": "large"}}"#, "`model.vision.image_size`", "a whole number"),
        (r#"{"vision": {"image_size": -1}}"#, "`model.vision.image_size`", "found -1"),
        (r#"{"vision": {"image_size": 30}}"#, "vision", "30"),
        (r#"{"vision": {"num_attention_heads": 5}}"#, "vision", "5"),
        (r#"{"backbone": {"d_model": 0}}"#, "d_model", "0"),
        (r#"{"backbone": {"kind": "transformer"}}"#, "`model.backbone.kind`", "the setting `backbone` decides it"),
        (r#"{"features": {}}"#, "`model.features`", "the data set decides it"),
        (r#"{"text": {"vocab_size": 9}}"#, "`model.text.vocab_size`", "the tokenizer decides it"),
        (r#"{"action_head": {"n_mode": 2}}"#, "`model.action_head.n_mode`", "the setting `n_mode` decides it"),
    ];
    let preset = Preset::Nano.config(common::features());
    for (changes, field, found) in cases {
        let error = preset.with_sizes(&tree(changes)).unwrap_err().to_string();
        assert!(error.contains(field) && error.contains(found), "{changes}: {error}");
    }
}
