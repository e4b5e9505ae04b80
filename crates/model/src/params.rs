//! The name and shape of every parameter of a model.
//!
//! Names are those of public checkpoints under one prefix per part: `vision.` and `transformers.ViTModel`, `text.` and
//! `transformers.BertModel`, `backbone.` and state-spaces/mamba-130m-hf. Matrices have PyTorch's layout
//! `[out_features, in_features]`.

use serde::Serialize;

use crate::config::{
    BackboneConfig, ConnectorConfig, MambaConfig, ModelConfig, TextConfig, TransformerConfig, VisionConfig,
};

/// The part of the model that a parameter belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// The vision encoder.
    Vision,
    /// The text encoder.
    Text,
    /// The connector.
    Connector,
    /// The backbone.
    Backbone,
    /// The action and confidence heads.
    Heads,
}

impl Part {
    /// Its name in lower case.
    pub fn name(self) -> &'static str {
        match self {
            Self::Vision => "vision",
            Self::Text => "text",
            Self::Connector => "connector",
            Self::Backbone => "backbone",
            Self::Heads => "heads",
        }
    }
}

/// One parameter tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParamSpec {
    /// Name in the checkpoint, for example `backbone.layers.0.mixer.in_proj.weight`.
    pub name: String,
    /// Shape, outermost dimension first.
    pub shape: Vec<usize>,
    /// The part that it belongs to.
    pub part: Part,
}

impl ParamSpec {
    /// Number of values.
    pub fn numel(&self) -> usize {
        self.shape.iter().product()
    }
}

/// Every parameter of the model, in the order in which data meets them.
pub fn param_specs(config: &ModelConfig) -> Vec<ParamSpec> {
    let mut specs = Specs::default();
    vision(&mut specs.under(Part::Vision, "vision"), &config.vision);
    text(&mut specs.under(Part::Text, "text"), &config.text);
    connector(&mut specs.under(Part::Connector, "connector"), config);
    match &config.backbone {
        BackboneConfig::Mamba(mamba) => mamba_blocks(&mut specs.under(Part::Backbone, "backbone"), mamba),
        BackboneConfig::Transformer(transformer) => {
            transformer_blocks(&mut specs.under(Part::Backbone, "backbone"), transformer);
        }
    }
    heads(&mut specs.under(Part::Heads, "head"), config);
    specs.list
}

/// The parameters of a vision encoder.
pub(crate) fn vision_specs(config: &VisionConfig) -> Vec<ParamSpec> {
    let mut specs = Specs::default();
    vision(&mut specs.under(Part::Vision, "vision"), config);
    specs.list
}

/// The parameters of a text encoder.
pub(crate) fn text_specs(config: &TextConfig) -> Vec<ParamSpec> {
    let mut specs = Specs::default();
    text(&mut specs.under(Part::Text, "text"), config);
    specs.list
}

/// The parameters of a Mamba backbone.
pub(crate) fn mamba_specs(config: &MambaConfig) -> Vec<ParamSpec> {
    let mut specs = Specs::default();
    mamba_blocks(&mut specs.under(Part::Backbone, "backbone"), config);
    specs.list
}

fn vision(scope: &mut Scope, config: &VisionConfig) {
    let (d, f, kind) = (config.hidden_size, config.intermediate_size, config.kind);
    if kind.has_class_token() {
        scope.add("embeddings.cls_token", &[1, 1, d]);
    }
    scope.add("embeddings.patch_embeddings.projection.weight", &[d, 3, config.patch_size, config.patch_size]);
    if kind.has_patch_bias() {
        scope.add("embeddings.patch_embeddings.projection.bias", &[d]);
    }
    scope.add("embeddings.position_embeddings", &[1, config.n_token(), d]);
    if kind.has_pre_norm() {
        scope.norm("pre_layernorm", d);
    }
    for i in 0..config.num_hidden_layers {
        let layer = format!("encoder.layer.{i}");
        scope.norm(&format!("{layer}.layernorm_before"), d);
        for projection in ["query", "key", "value"] {
            scope.linear(&format!("{layer}.attention.attention.{projection}"), d, d);
        }
        scope.linear(&format!("{layer}.attention.output.dense"), d, d);
        if kind.has_layer_scale() {
            scope.add(&format!("{layer}.layer_scale1.lambda1"), &[d]);
        }
        scope.norm(&format!("{layer}.layernorm_after"), d);
        scope.linear(&format!("{layer}.intermediate.dense"), d, f);
        scope.linear(&format!("{layer}.output.dense"), f, d);
        if kind.has_layer_scale() {
            scope.add(&format!("{layer}.layer_scale2.lambda1"), &[d]);
        }
    }
    if kind.has_final_norm() {
        scope.norm("layernorm", d);
    }
}

fn text(scope: &mut Scope, config: &TextConfig) {
    let (d, f) = (config.hidden_size, config.intermediate_size);
    scope.add("embeddings.word_embeddings.weight", &[config.vocab_size, d]);
    scope.add("embeddings.position_embeddings.weight", &[config.max_position_embeddings, d]);
    scope.add("embeddings.token_type_embeddings.weight", &[config.type_vocab_size, d]);
    scope.norm("embeddings.LayerNorm", d);
    for i in 0..config.num_hidden_layers {
        let layer = format!("encoder.layer.{i}");
        for projection in ["query", "key", "value"] {
            scope.linear(&format!("{layer}.attention.self.{projection}"), d, d);
        }
        scope.linear(&format!("{layer}.attention.output.dense"), d, d);
        scope.norm(&format!("{layer}.attention.output.LayerNorm"), d);
        scope.linear(&format!("{layer}.intermediate.dense"), d, f);
        scope.linear(&format!("{layer}.output.dense"), f, d);
        scope.norm(&format!("{layer}.output.LayerNorm"), d);
    }
}

fn connector(scope: &mut Scope, config: &ModelConfig) {
    let ConnectorConfig { hidden_size: d, n_query, intermediate_size: f, .. } = config.connector;
    let d_model = config.backbone.d_model();
    scope.linear("vision_proj", config.vision.hidden_size, d);
    scope.add("camera_embedding", &[config.features.cameras.len(), d]);
    scope.linear("text_proj", config.text.hidden_size, d);
    scope.add("query", &[n_query, d]);
    scope.linear("query_text", config.text.hidden_size, n_query * d);
    scope.norm("norm_kv", d);
    for i in 0..config.connector.num_hidden_layers {
        let layer = format!("layers.{i}");
        scope.norm(&format!("{layer}.norm_q"), d);
        for projection in ["q_proj", "k_proj", "v_proj", "out_proj"] {
            scope.linear(&format!("{layer}.attn.{projection}"), d, d);
        }
        scope.norm(&format!("{layer}.norm_mlp"), d);
        scope.linear(&format!("{layer}.mlp.fc1"), d, f);
        scope.linear(&format!("{layer}.mlp.fc2"), f, d);
    }
    scope.norm("norm_out", d);
    scope.linear("out_proj", n_query * d, d_model);
    scope.linear("state_proj.fc1", config.features.state.dim(), f);
    scope.linear("state_proj.fc2", f, d_model);
}

fn mamba_blocks(scope: &mut Scope, config: &MambaConfig) {
    let (d, d_inner) = (config.d_model, config.d_inner());
    for i in 0..config.n_layer {
        let layer = format!("layers.{i}");
        scope.add(&format!("{layer}.norm.weight"), &[d]);
        let mixer = format!("{layer}.mixer");
        scope.add(&format!("{mixer}.in_proj.weight"), &[2 * d_inner, d]);
        scope.add(&format!("{mixer}.conv1d.weight"), &[d_inner, 1, config.d_conv]);
        scope.add(&format!("{mixer}.conv1d.bias"), &[d_inner]);
        scope.add(&format!("{mixer}.x_proj.weight"), &[config.dt_rank + 2 * config.d_state, d_inner]);
        scope.linear(&format!("{mixer}.dt_proj"), config.dt_rank, d_inner);
        scope.add(&format!("{mixer}.A_log"), &[d_inner, config.d_state]);
        scope.add(&format!("{mixer}.D"), &[d_inner]);
        scope.add(&format!("{mixer}.out_proj.weight"), &[d, d_inner]);
    }
    scope.add("norm_f.weight", &[d]);
}

fn transformer_blocks(scope: &mut Scope, config: &TransformerConfig) {
    let (d, f) = (config.d_model, config.intermediate_size);
    for i in 0..config.n_layer {
        let layer = format!("layers.{i}");
        scope.add(&format!("{layer}.input_layernorm.weight"), &[d]);
        for projection in ["q_proj", "k_proj", "v_proj", "o_proj"] {
            scope.add(&format!("{layer}.self_attn.{projection}.weight"), &[d, d]);
        }
        scope.add(&format!("{layer}.post_attention_layernorm.weight"), &[d]);
        scope.add(&format!("{layer}.mlp.gate_proj.weight"), &[f, d]);
        scope.add(&format!("{layer}.mlp.up_proj.weight"), &[f, d]);
        scope.add(&format!("{layer}.mlp.down_proj.weight"), &[d, f]);
    }
    scope.add("norm_f.weight", &[d]);
}

fn heads(scope: &mut Scope, config: &ModelConfig) {
    let (d, action, confidence) = (config.backbone.d_model(), &config.action_head, &config.confidence_head);
    scope.linear("action.fc1", d, action.hidden_size);
    scope.linear("action.fc2", action.hidden_size, action.hidden_size);
    scope.linear("action.fc3", action.hidden_size, action.n_mode * action.chunk_size * config.features.action.dim());
    if action.n_mode > 1 {
        scope.linear("action.mode", action.hidden_size, action.n_mode);
    }
    scope.linear("confidence.fc1", d, confidence.hidden_size);
    scope.linear("confidence.fc2", confidence.hidden_size, 1);
}

#[derive(Default)]
struct Specs {
    list: Vec<ParamSpec>,
}

impl Specs {
    fn under(&mut self, part: Part, prefix: &'static str) -> Scope<'_> {
        Scope { list: &mut self.list, part, prefix }
    }
}

/// Adds parameters under one prefix.
struct Scope<'a> {
    list: &'a mut Vec<ParamSpec>,
    part: Part,
    prefix: &'static str,
}

impl Scope<'_> {
    fn add(&mut self, name: &str, shape: &[usize]) {
        self.list.push(ParamSpec { name: format!("{}.{name}", self.prefix), shape: shape.to_vec(), part: self.part });
    }

    fn linear(&mut self, name: &str, d_in: usize, d_out: usize) {
        self.add(&format!("{name}.weight"), &[d_out, d_in]);
        self.add(&format!("{name}.bias"), &[d_out]);
    }

    fn norm(&mut self, name: &str, d: usize) {
        self.add(&format!("{name}.weight"), &[d]);
        self.add(&format!("{name}.bias"), &[d]);
    }
}
