//! `config.json` and `preprocessor_config.json` of Hugging Face. Fields that a file leaves out have the
//! default of the configuration class in `transformers`.

use std::{fs, io, path::Path};

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::names::Naming;
use crate::{
    MambaConfig, ModelError, ParamSpec, TextConfig, VisionConfig, VisionKind, check,
    checkpoint::{CONFIG, parse},
    params,
};

/// The configuration of a converted part.
#[derive(Clone, Debug, PartialEq)]
pub enum PartConfig {
    /// A vision encoder.
    Vision(VisionConfig),
    /// A text encoder.
    Text(TextConfig),
    /// A Mamba backbone.
    Backbone(MambaConfig),
}

impl PartConfig {
    /// What it is, in words.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Vision(_) => "vision encoder",
            Self::Text(_) => "text encoder",
            Self::Backbone(_) => "backbone",
        }
    }

    /// Its parameters, named as in a checkpoint.
    pub(crate) fn specs(&self) -> Vec<ParamSpec> {
        match self {
            Self::Vision(config) => params::vision_specs(config),
            Self::Text(config) => params::text_specs(config),
            Self::Backbone(config) => params::mamba_specs(config),
        }
    }
}

/// The part that the folder holds and how its tensors are named.
pub(crate) fn read(dir: &Path) -> Result<(PartConfig, Naming), ModelError> {
    let path = dir.join(CONFIG);
    let config = Fields { path: &path, map: read_object(&path)?.ok_or_else(|| missing(&path))? };
    let model_type: String = config.required("model_type")?;
    let vision = |kind, config: &Fields| Ok((PartConfig::Vision(vision(dir, kind, config)?), Naming::Vision(kind)));
    match model_type.as_str() {
        "mamba" => Ok((PartConfig::Backbone(mamba(&config)?), Naming::Mamba)),
        "bert" => Ok((PartConfig::Text(bert(&config)?), Naming::Bert)),
        "vit" => vision(VisionKind::Vit, &config),
        "clip_vision_model" => vision(VisionKind::Clip, &config),
        "clip" => vision(VisionKind::Clip, &config.nested("vision_config")?),
        "siglip_vision_model" => vision(VisionKind::Siglip, &config),
        "siglip" => vision(VisionKind::Siglip, &config.nested("vision_config")?),
        "dinov2" => vision(VisionKind::Dinov2, &config),
        other => {
            let expected = "mamba, bert, vit, clip, clip_vision_model, siglip, siglip_vision_model or dinov2";
            Err(config.unsupported("model_type", expected, format!("`{other}`")))
        }
    }
}

fn missing(path: &Path) -> ModelError {
    ModelError::MissingFile { path: path.into(), expected: "config.json and model.safetensors".into() }
}

fn mamba(config: &Fields) -> Result<MambaConfig, ModelError> {
    config.must_be("hidden_act", "silu".to_string())?;
    config.must_be("use_bias", false)?;
    config.must_be("use_conv_bias", true)?;
    let d_model: usize = config.or("hidden_size", 768)?;
    let expand: usize = config.or("expand", 2)?;
    config.must_be("intermediate_size", expand.saturating_mul(d_model))?;
    let dt_rank = match config.map.get("time_step_rank").and_then(Value::as_str) {
        Some("auto") => d_model.div_ceil(16),
        _ => config.or("time_step_rank", d_model.div_ceil(16))?,
    };
    let mamba = MambaConfig {
        d_model,
        n_layer: config.or("num_hidden_layers", 32)?,
        d_state: config.or("state_size", 16)?,
        d_conv: config.or("conv_kernel", 4)?,
        expand,
        dt_rank,
        rms_norm_eps: config.or("layer_norm_epsilon", 1e-5)?,
    };
    check::mamba(&mamba)?;
    Ok(mamba)
}

fn bert(config: &Fields) -> Result<TextConfig, ModelError> {
    config.must_be("hidden_act", "gelu".to_string())?;
    config.must_be("position_embedding_type", "absolute".to_string())?;
    config.must_be("is_decoder", false)?;
    let text = TextConfig {
        vocab_size: config.or("vocab_size", 30_522)?,
        hidden_size: config.or("hidden_size", 768)?,
        num_hidden_layers: config.or("num_hidden_layers", 12)?,
        num_attention_heads: config.or("num_attention_heads", 12)?,
        intermediate_size: config.or("intermediate_size", 3072)?,
        max_position_embeddings: config.or("max_position_embeddings", 512)?,
        type_vocab_size: config.or("type_vocab_size", 2)?,
        layer_norm_eps: config.or("layer_norm_eps", 1e-12)?,
    };
    check::text(&text)?;
    Ok(text)
}

/// What the configuration classes of the vision models do not have in common.
struct VisionDefaults {
    hidden_act: &'static str,
    patch_size: usize,
    layer_norm_eps: f32,
    image_mean: [f32; 3],
    image_std: [f32; 3],
}

impl VisionDefaults {
    fn of(kind: VisionKind) -> Self {
        let (image_mean, image_std) = match kind {
            VisionKind::Vit | VisionKind::Siglip => ([0.5; 3], [0.5; 3]),
            VisionKind::Clip => ([0.481_454_66, 0.457_827_5, 0.408_210_73], [0.268_629_54, 0.261_302_6, 0.275_777_1]),
            VisionKind::Dinov2 => ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
        };
        let (hidden_act, patch_size, layer_norm_eps) = match kind {
            VisionKind::Vit => ("gelu", 16, 1e-12),
            VisionKind::Clip => ("quick_gelu", 32, 1e-5),
            VisionKind::Siglip => ("gelu_pytorch_tanh", 16, 1e-6),
            VisionKind::Dinov2 => ("gelu", 14, 1e-6),
        };
        Self { hidden_act, patch_size, layer_norm_eps, image_mean, image_std }
    }
}

fn vision(dir: &Path, kind: VisionKind, config: &Fields) -> Result<VisionConfig, ModelError> {
    let default = VisionDefaults::of(kind);
    config.must_be("hidden_act", default.hidden_act.to_string())?;
    config.must_be("qkv_bias", true)?;
    config.must_be("use_swiglu_ffn", false)?;
    config.must_be("num_channels", 3)?;
    let hidden_size: usize = config.or("hidden_size", 768)?;
    let mlp_ratio: usize = config.or("mlp_ratio", 4)?;
    let (image_mean, image_std) = mean_and_std(dir, &default)?;
    let vision = VisionConfig {
        kind,
        image_size: config.or("image_size", 224)?,
        patch_size: config.or("patch_size", default.patch_size)?,
        hidden_size,
        num_hidden_layers: config.or("num_hidden_layers", 12)?,
        num_attention_heads: config.or("num_attention_heads", 12)?,
        intermediate_size: match kind {
            VisionKind::Dinov2 => hidden_size.saturating_mul(mlp_ratio),
            _ => config.or("intermediate_size", 3072)?,
        },
        layer_norm_eps: config.or("layer_norm_eps", default.layer_norm_eps)?,
        image_mean,
        image_std,
    };
    check::vision(&vision)?;
    Ok(vision)
}

fn mean_and_std(dir: &Path, default: &VisionDefaults) -> Result<([f32; 3], [f32; 3]), ModelError> {
    let path = dir.join("preprocessor_config.json");
    let fields = Fields { path: &path, map: read_object(&path)?.unwrap_or_default() };
    Ok((fields.or("image_mean", default.image_mean)?, fields.or("image_std", default.image_std)?))
}

/// The object in the file `path`; nothing if there is no such file.
fn read_object(path: &Path) -> Result<Option<Map<String, Value>>, ModelError> {
    match fs::read(path) {
        Ok(json) => parse(path, &json).map(Some),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(ModelError::Read { path: path.into(), source }),
    }
}

/// The fields of one JSON object. An explicit `null` counts as left out.
struct Fields<'a> {
    path: &'a Path,
    map: Map<String, Value>,
}

impl Fields<'_> {
    fn get<T: DeserializeOwned>(&self, field: &str) -> Result<Option<T>, ModelError> {
        let value = self.map.get(field).cloned().unwrap_or_default();
        serde_json::from_value(value)
            .map_err(|error| ModelError::Json { path: self.path.into(), reason: format!("`{field}`: {error}") })
    }

    fn or<T: DeserializeOwned>(&self, field: &str, default: T) -> Result<T, ModelError> {
        Ok(self.get(field)?.unwrap_or(default))
    }

    fn required<T: DeserializeOwned>(&self, field: &str) -> Result<T, ModelError> {
        self.get(field)?.ok_or_else(|| self.unsupported(field, "there", "no such field".into()))
    }

    fn nested(&self, field: &str) -> Result<Self, ModelError> {
        Ok(Self { path: self.path, map: self.required(field)? })
    }

    /// A field that may be left out but must not have another value: the operations would differ.
    fn must_be<T: DeserializeOwned + PartialEq + std::fmt::Debug>(
        &self,
        field: &str,
        expected: T,
    ) -> Result<(), ModelError> {
        match self.get::<T>(field)? {
            Some(found) if found != expected => {
                Err(self.unsupported(field, &format!("{expected:?}"), format!("{found:?}")))
            }
            _ => Ok(()),
        }
    }

    fn unsupported(&self, field: &str, expected: &str, found: String) -> ModelError {
        ModelError::Unsupported {
            path: self.path.into(),
            field: format!("`{field}`"),
            expected: expected.into(),
            found,
        }
    }
}
