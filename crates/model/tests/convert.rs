//! Hugging Face folders become parts of a checkpoint.

mod common;

use std::{
    fs,
    path::{Path, PathBuf},
};

use robomamba_model::{
    Checkpoint, Dtype, ModelError, TextTokenizer, VisionKind,
    convert::{self, PartConfig, from_hf},
};
use safetensors::SafeTensors;
use tempfile::TempDir;

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/hf").join(name)
}

/// A copy of a golden folder that a test may change, with a tokenizer for text models.
fn copy(name: &str) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for file in ["config.json", "model.safetensors"] {
        fs::copy(golden(name).join(file), dir.path().join(file)).unwrap();
    }
    let tokenizer = TextTokenizer::characters().unwrap().to_json().unwrap();
    fs::write(dir.path().join("tokenizer.json"), tokenizer).unwrap();
    dir
}

fn edit_config(dir: &Path, change: impl FnOnce(&mut serde_json::Value)) {
    let path = dir.join("config.json");
    let mut json = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    change(&mut json);
    fs::write(path, json.to_string()).unwrap();
}

/// Rewrites the weights under other names.
fn rename(dir: &Path, new_name: impl Fn(&str) -> Option<String>) {
    let path = dir.join("model.safetensors");
    let bytes = fs::read(&path).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let renamed = tensors.iter().filter_map(|(name, tensor)| Some((new_name(name)?, tensor)));
    fs::write(&path, safetensors::serialize(renamed, None).unwrap()).unwrap();
}

#[test]
fn every_kind_is_read_with_its_sizes_and_all_of_its_parameters() {
    for (name, kind, image_mean, image_std) in [
        ("vit", VisionKind::Vit, 0.5, 0.5),
        ("clip", VisionKind::Clip, 0.481_454_66, 0.268_629_54),
        ("siglip", VisionKind::Siglip, 0.5, 0.5),
        ("dinov2", VisionKind::Dinov2, 0.485, 0.229),
    ] {
        let converted = from_hf(&golden(name)).unwrap();
        let PartConfig::Vision(vision) = &converted.part else { panic!("{name} is no vision encoder") };
        assert_eq!((vision.kind, vision.image_size, vision.patch_size, vision.num_hidden_layers), (kind, 32, 8, 3));
        assert_eq!((vision.image_mean[0], vision.image_std[0]), (image_mean, image_std));
        assert!(converted.dropped.iter().all(|name| !name.contains("encoder.")), "{:?}", converted.dropped);
    }
    let converted = from_hf(&golden("bert")).unwrap();
    assert_eq!(converted.tokenizer.unwrap().encode("the bees", 8).unwrap(), [2, 33, 6, 31, 31, 32, 3]);
    assert!(matches!(&converted.part, PartConfig::Text(text) if text.vocab_size == 40 && text.layer_norm_eps == 1e-12));
    assert_eq!(converted.dropped, ["pooler.dense.bias", "pooler.dense.weight"]);
    let PartConfig::Backbone(mamba) = from_hf(&golden("mamba_odd")).unwrap().part else { panic!("no Mamba") };
    assert_eq!((mamba.d_model, mamba.d_state, mamba.d_conv, mamba.expand, mamba.dt_rank), (22, 5, 3, 3, 3));
}

#[test]
fn values_are_those_of_the_file() {
    for (folder, ours, theirs) in [
        ("mamba", "backbone.layers.2.mixer.A_log", "backbone.layers.2.mixer.A_log"),
        ("vit", "vision.embeddings.position_embeddings", "embeddings.position_embeddings"),
        ("clip", "vision.embeddings.cls_token", "embeddings.class_embedding"),
        ("clip", "vision.encoder.layer.1.output.dense.weight", "encoder.layers.1.mlp.fc2.weight"),
        ("siglip", "vision.layernorm.bias", "post_layernorm.bias"),
        ("siglip", "vision.encoder.layer.0.attention.output.dense.bias", "encoder.layers.0.self_attn.out_proj.bias"),
        ("dinov2", "vision.encoder.layer.2.intermediate.dense.weight", "encoder.layer.2.mlp.fc1.weight"),
        ("dinov2", "vision.encoder.layer.2.layernorm_after.bias", "encoder.layer.2.norm2.bias"),
    ] {
        let converted = from_hf(&golden(folder)).unwrap();
        let bytes = fs::read(golden(folder).join("model.safetensors")).unwrap();
        let tensors = SafeTensors::deserialize(&bytes).unwrap();
        let expected: Vec<f32> = bytemuck::pod_collect_to_vec(tensors.tensor(theirs).unwrap().data());
        assert_eq!(converted.weights.get(ours).unwrap(), expected, "{folder}: {ours}");
    }
}

#[test]
fn models_around_the_part_and_old_norm_names_are_understood() {
    for (folder, prefix) in [("vit", "vit."), ("clip", "vision_model."), ("bert", "bert."), ("dinov2", "dinov2.")] {
        let (plain, dir) = (copy(folder), copy(folder));
        rename(dir.path(), |name| Some(format!("{prefix}{name}")));
        assert_eq!(from_hf(dir.path()).unwrap().weights, from_hf(plain.path()).unwrap().weights, "{folder}");
    }
    // MambaModel without a language-model head around it.
    let dir = copy("mamba");
    rename(dir.path(), |name| name.strip_prefix("backbone.").map(String::from));
    assert_eq!(from_hf(dir.path()).unwrap().weights, from_hf(&golden("mamba")).unwrap().weights);
    let dir = copy("bert");
    rename(dir.path(), |name| {
        Some(name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"))
    });
    assert_eq!(from_hf(dir.path()).unwrap().weights, from_hf(copy("bert").path()).unwrap().weights);
}

#[test]
fn the_vision_tower_of_a_two_tower_model_is_taken() {
    let dir = copy("siglip");
    edit_config(dir.path(), |json| {
        let vision = json.take();
        *json = serde_json::json!({"model_type": "siglip", "text_config": {}, "vision_config": vision});
    });
    rename(dir.path(), |name| Some(format!("vision_model.{name}")));
    assert_eq!(from_hf(dir.path()).unwrap().weights, from_hf(&golden("siglip")).unwrap().weights);
}

#[test]
fn shards_are_read_as_one_model() {
    let dir = copy("mamba");
    let path = dir.path().join("model.safetensors");
    let bytes = fs::read(&path).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let mut map = serde_json::Map::new();
    for (i, shard) in ["a.safetensors", "b.safetensors"].into_iter().enumerate() {
        let part: Vec<_> = tensors.iter().enumerate().filter(|(n, _)| n % 2 == i).map(|(_, tensor)| tensor).collect();
        map.extend(part.iter().map(|(name, _)| (name.to_string(), shard.into())));
        fs::write(dir.path().join(shard), safetensors::serialize(part, None).unwrap()).unwrap();
    }
    fs::remove_file(&path).unwrap();
    let index = dir.path().join("model.safetensors.index.json");
    fs::write(&index, serde_json::json!({"metadata": {}, "weight_map": map}).to_string()).unwrap();
    assert_eq!(from_hf(dir.path()).unwrap().weights, from_hf(&golden("mamba")).unwrap().weights);

    fs::remove_file(dir.path().join("b.safetensors")).unwrap();
    assert!(from_hf(dir.path()).unwrap_err().to_string().contains("b.safetensors"));
    fs::write(&index, r#"{"weight_map": {"x": "../outside.safetensors"}}"#).unwrap();
    assert!(from_hf(dir.path()).unwrap_err().to_string().contains("is no file name"));
}

type Change = fn(&mut serde_json::Value);

#[test]
fn variants_with_other_operations_are_refused_by_field() {
    let cases: [(&str, Change, &str); 12] = [
        ("mamba", |json| json["use_conv_bias"] = false.into(), "`use_conv_bias` must be true, found false"),
        ("mamba", |json| json["use_bias"] = true.into(), "`use_bias` must be false, found true"),
        ("mamba", |json| json["hidden_act"] = "relu".into(), "`hidden_act` must be \"silu\", found \"relu\""),
        ("mamba", |json| json["intermediate_size"] = 65.into(), "`intermediate_size` must be 64, found 65"),
        ("dinov2", |json| json["use_swiglu_ffn"] = true.into(), "`use_swiglu_ffn` must be false, found true"),
        ("vit", |json| json["qkv_bias"] = false.into(), "`qkv_bias` must be true, found false"),
        ("clip", |json| json["hidden_act"] = "gelu".into(), "`hidden_act` must be \"quick_gelu\", found \"gelu\""),
        ("siglip", |json| json["image_size"] = 33.into(), "`vision.image_size` must be a multiple of"),
        ("bert", |json| json["position_embedding_type"] = "relative_key".into(), "`position_embedding_type` must be"),
        ("bert", |json| json["model_type"] = "roberta".into(), "`model_type` must be mamba, bert, vit, clip"),
        ("bert", |json| json["hidden_size"] = "wide".into(), "`hidden_size`: invalid type: string \"wide\""),
        ("bert", |json| json["num_hidden_layers"] = 2.into(), "tensor `encoder.layer.2."),
    ];
    for (folder, change, expected) in cases {
        let dir = copy(folder);
        edit_config(dir.path(), change);
        let message = from_hf(dir.path()).unwrap_err().to_string();
        assert!(message.contains(expected), "{folder}: {message}");
    }
}

#[test]
fn missing_files_and_tensors_are_named() {
    let dir = copy("bert");
    rename(dir.path(), |name| (name != "embeddings.LayerNorm.bias").then(|| name.into()));
    assert!(
        matches!(from_hf(dir.path()), Err(ModelError::MissingTensor { name, .. }) if name == "embeddings.LayerNorm.bias")
    );

    let dir = copy("bert");
    fs::remove_file(dir.path().join("tokenizer.json")).unwrap();
    assert!(from_hf(dir.path()).unwrap_err().to_string().contains("tokenizer must be tokenizer.json"));
    fs::rename(dir.path().join("model.safetensors"), dir.path().join("pytorch_model.bin")).unwrap();
    let message = from_hf(dir.path()).unwrap_err().to_string();
    assert!(message.contains("found config.json, pytorch_model.bin"), "{message}");
    fs::remove_file(dir.path().join("config.json")).unwrap();
    assert!(matches!(from_hf(dir.path()), Err(ModelError::MissingFile { .. })));

    let dir = copy("vit");
    edit_config(dir.path(), |json| json["intermediate_size"] = 57.into());
    let message = from_hf(dir.path()).unwrap_err().to_string();
    assert!(message.contains("intermediate.dense.weight` must have shape [57, 32], found [56, 32]"), "{message}");
}

#[test]
fn parts_make_a_checkpoint_that_is_saved_and_loaded() {
    let bert = copy("bert");
    // The characters' tokenizer has more pieces than the small vocabulary of the golden model.
    let parts = |names: &[&str]| names.iter().map(|name| from_hf(&golden(name)).unwrap()).collect::<Vec<_>>();
    let checkpoint = convert::merge(common::nano(), parts(&["clip", "mamba"]), 5).unwrap();
    assert_eq!(checkpoint.config.vision.kind, VisionKind::Clip);
    assert_eq!(checkpoint.config.backbone.d_model(), 32);
    assert!(checkpoint.card.contains("Its backbone comes from `mamba`."), "{}", checkpoint.card);
    let dir = bert.path().join("merged");
    checkpoint.save(&dir, Dtype::F32).unwrap();
    let loaded = Checkpoint::load(&dir).unwrap();
    let name = "backbone.layers.0.mixer.dt_proj.bias";
    assert_eq!(loaded.weights.get(name).unwrap(), parts(&["mamba"])[0].weights.get(name).unwrap());
    // The rest is drawn with the seed.
    assert_eq!(checkpoint.weights, convert::merge(common::nano(), parts(&["clip", "mamba"]), 5).unwrap().weights);

    let error = convert::merge(common::nano(), parts(&["clip", "vit"]), 5).unwrap_err().to_string();
    assert!(error.contains("the only vision encoder of the model"), "{error}");
    let error = convert::merge(common::nano(), vec![from_hf(bert.path()).unwrap()], 5).unwrap_err().to_string();
    assert!(error.contains("`text.vocab_size` must be at least 109"), "{error}");
}
