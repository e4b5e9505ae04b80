//! Whether a configuration describes a model that can be built.

use std::collections::BTreeSet;

use robomamba_policy::{FeatureSpec, VectorSpec};

use crate::{
    BackboneConfig, ConnectorConfig, MambaConfig, ModelConfig, ModelError, TextConfig, TransformerConfig, VisionConfig,
};

/// Largest size, far above that of any real model; up to it, the number of values of a tensor cannot overflow.
const SIZE_MAX: usize = 1 << 20;

impl ModelConfig {
    /// Checks every field, so that a model of this configuration can be built and run.
    ///
    /// # Errors
    /// [`ModelError::Config`] names the first field that does not fit, its value and what it may be.
    pub fn check(&self) -> Result<(), ModelError> {
        features(&self.features)?;
        vision(&self.vision)?;
        text(&self.text)?;
        connector(&self.connector)?;
        match &self.backbone {
            BackboneConfig::Mamba(config) => mamba(config)?,
            BackboneConfig::Transformer(config) => transformer(config)?,
        }
        size("action_head.hidden_size", self.action_head.hidden_size)?;
        size("action_head.chunk_size", self.action_head.chunk_size)?;
        size("action_head.n_mode", self.action_head.n_mode)?;
        size("confidence_head.hidden_size", self.confidence_head.hidden_size)
    }
}

fn features(config: &FeatureSpec) -> Result<(), ModelError> {
    if config.cameras.is_empty() {
        return Err(ModelError::config("features.cameras", "at least one camera", "none"));
    }
    unique("features.cameras", config.cameras.iter().map(|camera| camera.name.as_str()))?;
    for camera in &config.cameras {
        size(&format!("features.cameras[{}].height", camera.name), camera.height)?;
        size(&format!("features.cameras[{}].width", camera.name), camera.width)?;
    }
    vector("features.state.names", &config.state)?;
    vector("features.action.names", &config.action)?;
    size("features.fps", config.fps as usize)
}

fn vector(field: &str, spec: &VectorSpec) -> Result<(), ModelError> {
    if spec.names.is_empty() {
        return Err(ModelError::config(field, "at least one dimension", "none"));
    }
    unique(field, spec.names.iter().map(String::as_str))
}

fn unique<'a>(field: &str, names: impl Iterator<Item = &'a str>) -> Result<(), ModelError> {
    let mut seen = BTreeSet::new();
    for name in names {
        if name.is_empty() || !seen.insert(name) {
            return Err(ModelError::config(field, "different names, none of them empty", format!("`{name}`")));
        }
    }
    Ok(())
}

pub(crate) fn vision(config: &VisionConfig) -> Result<(), ModelError> {
    size("vision.image_size", config.image_size)?;
    size("vision.patch_size", config.patch_size)?;
    multiple("vision.image_size", config.image_size, ("vision.patch_size", config.patch_size))?;
    size("vision.hidden_size", config.hidden_size)?;
    size("vision.num_hidden_layers", config.num_hidden_layers)?;
    heads("vision", config.hidden_size, config.num_attention_heads)?;
    size("vision.intermediate_size", config.intermediate_size)?;
    positive("vision.layer_norm_eps", config.layer_norm_eps)?;
    config.image_std.iter().try_for_each(|&std| positive("vision.image_std", std))?;
    match config.image_mean.iter().find(|mean| !mean.is_finite()) {
        Some(mean) => Err(ModelError::config("vision.image_mean", "finite", mean)),
        None => Ok(()),
    }
}

pub(crate) fn text(config: &TextConfig) -> Result<(), ModelError> {
    size("text.vocab_size", config.vocab_size)?;
    size("text.hidden_size", config.hidden_size)?;
    size("text.num_hidden_layers", config.num_hidden_layers)?;
    heads("text", config.hidden_size, config.num_attention_heads)?;
    size("text.intermediate_size", config.intermediate_size)?;
    size("text.max_position_embeddings", config.max_position_embeddings)?;
    if config.max_position_embeddings < 3 {
        let expected = "at least 3, for [CLS], one token and [SEP]";
        return Err(ModelError::config("text.max_position_embeddings", expected, config.max_position_embeddings));
    }
    size("text.type_vocab_size", config.type_vocab_size)?;
    positive("text.layer_norm_eps", config.layer_norm_eps)
}

fn connector(config: &ConnectorConfig) -> Result<(), ModelError> {
    size("connector.hidden_size", config.hidden_size)?;
    size("connector.n_query", config.n_query)?;
    size("connector.num_hidden_layers", config.num_hidden_layers)?;
    heads("connector", config.hidden_size, config.num_attention_heads)?;
    size("connector.intermediate_size", config.intermediate_size)?;
    positive("connector.layer_norm_eps", config.layer_norm_eps)
}

pub(crate) fn mamba(config: &MambaConfig) -> Result<(), ModelError> {
    size("backbone.d_model", config.d_model)?;
    size("backbone.n_layer", config.n_layer)?;
    size("backbone.d_state", config.d_state)?;
    size("backbone.d_conv", config.d_conv)?;
    size("backbone.expand", config.expand)?;
    size("backbone.expand * backbone.d_model", config.expand.saturating_mul(config.d_model))?;
    size("backbone.dt_rank", config.dt_rank)?;
    positive("backbone.rms_norm_eps", config.rms_norm_eps)
}

fn transformer(config: &TransformerConfig) -> Result<(), ModelError> {
    size("backbone.d_model", config.d_model)?;
    size("backbone.n_layer", config.n_layer)?;
    size("backbone.num_attention_heads", config.num_attention_heads)?;
    // Rotary positions turn pairs of values.
    let pairs = 2 * config.num_attention_heads;
    multiple("backbone.d_model", config.d_model, ("2 * backbone.num_attention_heads", pairs))?;
    size("backbone.intermediate_size", config.intermediate_size)?;
    size("backbone.context_len", config.context_len)?;
    positive("backbone.rope_theta", config.rope_theta)?;
    positive("backbone.rms_norm_eps", config.rms_norm_eps)
}

fn size(field: &str, value: usize) -> Result<(), ModelError> {
    if (1..=SIZE_MAX).contains(&value) {
        return Ok(());
    }
    Err(ModelError::config(field, format!("between 1 and {SIZE_MAX}"), value))
}

fn positive(field: &str, value: f32) -> Result<(), ModelError> {
    if value.is_finite() && value > 0.0 {
        return Ok(());
    }
    Err(ModelError::config(field, "finite and above 0", value))
}

fn heads(part: &str, hidden_size: usize, n_head: usize) -> Result<(), ModelError> {
    let field = format!("{part}.num_attention_heads");
    size(&field, n_head)?;
    multiple(&format!("{part}.hidden_size"), hidden_size, (&field, n_head))
}

fn multiple(field: &str, value: usize, (by, divisor): (&str, usize)) -> Result<(), ModelError> {
    if value.is_multiple_of(divisor) {
        return Ok(());
    }
    Err(ModelError::config(field, format!("a multiple of {by} = {divisor}"), value))
}
