//! The figures of `inspect`.

mod common;

use robomamba_model::{BackboneConfig, Dtype, Part, Preset, StateSummary, Summary, param_specs};

#[test]
fn sums_are_those_of_the_parameters() {
    for preset in Preset::ALL {
        let config = preset.config(common::features());
        let summary = Summary::of(&config, Dtype::F32);
        let params: usize = param_specs(&config).iter().map(|spec| spec.numel()).sum();
        assert_eq!((summary.params(), summary.bytes()), (params, 4 * params));
        assert_eq!(summary.params_by_dtype["f32"], params);
        assert_eq!(summary.tensors.len(), param_specs(&config).len());
    }
}

#[test]
fn base_costs_what_is_published_of_its_parts() {
    let mut features = common::features();
    features.cameras.truncate(1);
    let summary = Summary::of(&Preset::Base.config(features), Dtype::F32);
    let part = |part: Part| summary.parts.iter().find(|summary| summary.part == part).unwrap();
    // ViT-B/16: 86 M parameters, 17.5 G multiply-adds at 224 px (Touvron et al. 2021, table 5).
    assert!((85_000_000..87_000_000).contains(&part(Part::Vision).params));
    assert!((33_500_000_000..35_500_000_000).contains(&part(Part::Vision).flops_per_step));
    // The model mamba-130m without its embedding of 50,280 words.
    assert!((90_000_000..91_000_000).contains(&part(Part::Backbone).params));
    // 24 layers x 1536 channels x (16 states + 3 inputs) x 4 bytes.
    assert_eq!(summary.state, StateSummary::Mamba { ssm_bytes: 2_359_296, conv_bytes: 442_368 });
    assert_eq!((summary.state.bytes(1), summary.state.bytes(10_000)), (2_801_664, 2_801_664));
    // The text encoder runs once per instruction.
    assert_eq!((part(Part::Text).flops_per_step, part(Part::Text).weight_bytes_per_step), (0, 0));
    assert!(part(Part::Text).flops_per_instruction > 2_000_000_000);
}

#[test]
fn a_cache_grows_to_its_limit_and_stays_there() {
    let config = common::nano_transformer();
    let BackboneConfig::Transformer(transformer) = &config.backbone else { panic!("no Transformer") };
    let state = Summary::of(&config, Dtype::F32).state;
    let per_step = 2 * transformer.n_layer * transformer.d_model * 4;
    assert_eq!([0, 1, 64, 65].map(|n_step| state.bytes(n_step)), [0, per_step, 64 * per_step, 64 * per_step]);
}

#[test]
fn a_folder_shows_the_types_that_it_has() {
    let parent = tempfile::tempdir().unwrap();
    let (dir, checkpoint) = (parent.path().join("model"), common::checkpoint());
    checkpoint.save(&dir, Dtype::Int8).unwrap();
    let summary = Summary::load(&dir).unwrap();
    assert_eq!(summary, Summary::of(&checkpoint.config, Dtype::Int8));
    let file = std::fs::metadata(dir.join("model.safetensors")).unwrap().len() as usize;
    assert!((summary.bytes() + 1..summary.bytes() + 30_000).contains(&file));
    checkpoint.save(&dir, Dtype::Bf16).unwrap();
    let summary = Summary::load(&dir).unwrap();
    assert_eq!(summary, Summary::of(&checkpoint.config, Dtype::Bf16));
    let dtype = |name: &str| summary.tensors.iter().find(|tensor| tensor.name == name).unwrap().dtype;
    assert_eq!(dtype("backbone.layers.0.mixer.A_log"), Dtype::F32);
    assert_eq!(dtype("backbone.layers.0.mixer.in_proj.weight"), Dtype::Bf16);
    // Header apart, the file has exactly these bytes.
    let file = std::fs::metadata(dir.join("model.safetensors")).unwrap().len() as usize;
    assert!((summary.bytes() + 1..summary.bytes() + 20_000).contains(&file));
    std::fs::remove_file(dir.join("config.json")).unwrap();
    assert!(Summary::load(&dir).unwrap_err().to_string().contains("config.json"));
}

#[test]
fn the_table_names_parts_totals_and_on_request_tensors() {
    let summary = Summary::of(&common::nano(), Dtype::F32);
    let table = summary.to_string();
    for word in ["vision", "text", "connector", "backbone", "heads", "total", "constant", " f32"] {
        assert!(table.contains(word), "{word} is not in\n{table}");
    }
    assert!(!table.contains("A_log") && format!("{summary:#}").contains("backbone.layers.1.mixer.A_log"));
    let json = serde_json::to_value(&summary).unwrap();
    assert_eq!(json["state"]["kind"], "mamba");
    assert_eq!(json["parts"][0]["part"], "vision");
}
