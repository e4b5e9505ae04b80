//! Public checkpoints become parts of ours.
//!
//! [`from_hf`] reads a folder as `transformers` saves it and returns one part, its configuration and its
//! weights under our names. [`merge`] puts parts into a model; what no part covers starts with
//! [`Weights::random`].
//!
//! | `model_type` | part | architecture |
//! |---|---|---|
//! | `mamba` | backbone | `MambaModel`, `MambaForCausalLM` (state-spaces/mamba-130m-hf; its embedding is dropped) |
//! | `bert` | text | `BertModel` and models around it (the pooler is dropped) |
//! | `vit` | vision | `ViTModel`, `ViTForImageClassification` |
//! | `clip`, `clip_vision_model` | vision | the vision tower of `CLIPModel`, `CLIPVisionModel` |
//! | `siglip`, `siglip_vision_model` | vision | the vision tower of `SiglipModel`, `SiglipVisionModel` |
//! | `dinov2` | vision | `Dinov2Model` |

mod hf_config;
mod names;
mod source;

use std::path::{Path, PathBuf};

pub use hf_config::PartConfig;

use crate::{
    BackboneConfig, Checkpoint, ModelConfig, ModelError, ParamSpec, TextTokenizer, Weights, params, weights::Tensor,
};
use names::Naming;
use source::Source;

/// One part of a model, read from a public checkpoint.
#[derive(Clone, Debug)]
pub struct Converted {
    /// The folder that it came from.
    pub source: PathBuf,
    /// Its configuration.
    pub part: PartConfig,
    /// Its weights, named as in a [`Checkpoint`] (`vision.*`, `text.*` or `backbone.*`).
    pub weights: Weights,
    /// The tokenizer of a text encoder.
    pub tokenizer: Option<TextTokenizer>,
    /// Tensors of the folder that the part does not use, for example a pooler or a language-model head.
    pub dropped: Vec<String>,
}

/// Reads the Hugging Face folder `dir`: `config.json` with `model.safetensors` (or its shards), for a vision
/// model `preprocessor_config.json` if there is one, for a text model `tokenizer.json`.
///
/// # Errors
/// When the folder is incomplete or malformed, or when the model has other operations than those of the table above.
/// The message names the field or tensor.
pub fn from_hf(dir: &Path) -> Result<Converted, ModelError> {
    let (part, naming) = hf_config::read(dir)?;
    let specs = part.specs();
    let mut source = Source::open(dir)?;
    let prefix = naming.find_prefix(&specs, &source);
    let weights = specs.iter().map(|spec| rename(spec, naming, prefix, &mut source)).collect::<Result<_, _>>()?;
    let dropped = source.unread();
    if let Some(name) = dropped.iter().find(|name| naming.is_in_block(name, prefix)) {
        return Err(ModelError::Unsupported {
            path: dir.into(),
            field: format!("tensor `{name}`"),
            expected: "a parameter of the model".into(),
            found: "one that no operation of it uses".into(),
        });
    }
    let tokenizer = match part {
        PartConfig::Text(_) => Some(source::tokenizer(dir)?),
        _ => None,
    };
    Ok(Converted { source: dir.into(), part, weights, tokenizer, dropped })
}

/// Puts `parts` into a model that is `base` otherwise.
///
/// Parameters outside the parts are initialised with `seed`. Without a text part the tokenizer is
/// [`TextTokenizer::characters`].
///
/// # Errors
/// When two parts are of the same kind or the result is no model.
pub fn merge(base: ModelConfig, parts: Vec<Converted>, seed: u64) -> Result<Checkpoint, ModelError> {
    let mut config = base;
    for (i, part) in parts.iter().enumerate() {
        if let Some(earlier) = parts[..i].iter().find(|earlier| earlier.part.name() == part.part.name()) {
            let expected =
                format!("the only {} of the model; `{}` is one too", part.part.name(), earlier.source.display());
            return Err(ModelError::config("--from", expected, format!("`{}`", part.source.display())));
        }
        match part.part.clone() {
            PartConfig::Vision(vision) => config.vision = vision,
            PartConfig::Text(text) => config.text = text,
            PartConfig::Backbone(mamba) => config.backbone = BackboneConfig::Mamba(mamba),
        }
    }
    let tokenizer = match parts.iter().find_map(|part| part.tokenizer.clone()) {
        Some(tokenizer) => tokenizer,
        None => TextTokenizer::characters()?,
    };
    let mut checkpoint = Checkpoint::random(config, tokenizer, seed)?;
    for part in parts {
        checkpoint.card += &format!("\nIts {} comes from `{}`.\n", part.part.name(), folder_name(&part.source));
        checkpoint.weights.extend(part.weights);
    }
    checkpoint.weights.check(&params::param_specs(&checkpoint.config))?;
    Ok(checkpoint)
}

/// The last component: a model card must not reveal paths of this machine.
fn folder_name(path: &Path) -> String {
    path.file_name().map_or_else(|| "a folder".into(), |name| name.to_string_lossy().into_owned())
}

fn rename(spec: &ParamSpec, naming: Naming, prefix: &str, source: &mut Source) -> Result<(String, Tensor), ModelError> {
    let upstream = naming.upstream(&spec.name);
    let name = source.resolve(&format!("{prefix}{upstream}"), &spec.shape)?;
    let tensor = source.read(&name)?;
    // Upstream shapes differ from ours in dimensions of size 1 only, which change no value's place.
    let without_ones = |shape: &[usize]| shape.iter().copied().filter(|&n| n != 1).collect::<Vec<_>>();
    if without_ones(&tensor.shape) != without_ones(&spec.shape) {
        return Err(ModelError::Shape { name, expected: spec.shape.clone(), found: tensor.shape });
    }
    Ok((spec.name.clone(), Tensor { shape: spec.shape.clone(), data: tensor.data }))
}
