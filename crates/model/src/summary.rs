//! What a model costs: parameters, bytes, state and operations, part by part.

use std::{collections::BTreeMap, fmt, path::Path};

use serde::Serialize;

use crate::{
    BackboneConfig, Dtype, MambaConfig, ModelConfig, ModelError, ParamSpec, Part, TextConfig, TransformerConfig,
    VisionConfig, checkpoint, param_specs,
};

/// Tokens of the instruction that the operation counts assume.
const N_TEXT: usize = 16;
/// Operations of the selective scan per channel and state: `h = exp(dt A) h + dt x B; y += h C`.
/// The exponential counts as one.
const SCAN_FLOPS: usize = 8;

/// A model in numbers. `{}` prints the table of parts, `{:#}` every tensor as well.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Summary {
    /// The parts, in the order in which data meets them.
    pub parts: Vec<PartSummary>,
    /// Every tensor, in the same order.
    pub tensors: Vec<TensorSummary>,
    /// Parameters of each type, for example `bf16`.
    pub params_by_dtype: BTreeMap<&'static str, usize>,
    /// What a session carries from control step to control step.
    pub state: StateSummary,
}

/// One part of the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct PartSummary {
    /// Which part.
    pub part: Part,
    /// Number of parameters.
    pub params: usize,
    /// Their bytes in the file.
    pub bytes: usize,
    /// Operations per control step; a multiplication and an addition are two.
    /// A Transformer backbone is counted with a full context.
    pub flops_per_step: usize,
    /// Bytes of weights that a control step reads.
    pub weight_bytes_per_step: usize,
    /// Operations once per instruction (of 16 tokens); the result is kept.
    pub flops_per_instruction: usize,
}

/// One tensor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TensorSummary {
    /// Its name.
    pub name: String,
    /// Its shape, outermost dimension first.
    pub shape: Vec<usize>,
    /// Its type in the file.
    pub dtype: Dtype,
}

/// The memory of a session, f32.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum StateSummary {
    /// Of constant size.
    Mamba {
        /// Bytes of the state-space models.
        ssm_bytes: usize,
        /// Bytes of the convolutions' last inputs.
        conv_bytes: usize,
    },
    /// Growing until the context is full.
    Transformer {
        /// Bytes of the KV cache per control step.
        bytes_per_step: usize,
        /// Control steps that are kept at most.
        context_len: usize,
    },
}

impl StateSummary {
    /// Bytes after `n_step` control steps.
    pub fn bytes(self, n_step: usize) -> usize {
        match self {
            Self::Mamba { ssm_bytes, conv_bytes } => ssm_bytes + conv_bytes,
            Self::Transformer { bytes_per_step, context_len } => bytes_per_step * n_step.min(context_len),
        }
    }
}

impl Summary {
    /// What a model of `config` (which must pass [`ModelConfig::check`]) costs when it is stored as `dtype`.
    pub fn of(config: &ModelConfig, dtype: Dtype) -> Self {
        Self::with_dtypes(config, |spec| dtype.of(&spec.name, &spec.shape))
    }

    /// What the checkpoint in the folder `dir` costs, with the types that it has.
    ///
    /// # Errors
    /// As [`Checkpoint::load`](crate::Checkpoint::load), except that the values of the weights are not read.
    pub fn load(dir: &Path) -> Result<Self, ModelError> {
        let (config, dtypes) = checkpoint::read_layout(dir)?;
        Ok(Self::with_dtypes(&config, |spec| dtypes.get(&spec.name).copied().unwrap_or_default()))
    }

    /// Parameters of the whole model.
    pub fn params(&self) -> usize {
        self.parts.iter().map(|part| part.params).sum()
    }

    /// Bytes of all parameters in the file.
    pub fn bytes(&self) -> usize {
        self.parts.iter().map(|part| part.bytes).sum()
    }

    /// Operations of a control step.
    pub fn flops_per_step(&self) -> usize {
        self.parts.iter().map(|part| part.flops_per_step).sum()
    }

    fn with_dtypes(config: &ModelConfig, dtype: impl Fn(&ParamSpec) -> Dtype) -> Self {
        let specs = param_specs(config);
        let mut params_by_dtype = BTreeMap::new();
        for spec in &specs {
            *params_by_dtype.entry(dtype(spec).name()).or_insert(0) += spec.numel();
        }
        let parts = [Part::Vision, Part::Text, Part::Connector, Part::Backbone, Part::Heads];
        Self {
            parts: parts.map(|part| part_summary(part, &specs, config, &dtype)).to_vec(),
            params_by_dtype,
            state: state(&config.backbone),
            tensors: specs
                .into_iter()
                .map(|spec| TensorSummary { dtype: dtype(&spec), name: spec.name, shape: spec.shape })
                .collect(),
        }
    }
}

fn part_summary(
    part: Part,
    specs: &[ParamSpec],
    config: &ModelConfig,
    dtype: impl Fn(&ParamSpec) -> Dtype,
) -> PartSummary {
    let bytes = |spec: &ParamSpec| dtype(spec).bytes(&spec.shape);
    let of_part = || specs.iter().filter(|spec| spec.part == part);
    let (flops_per_step, flops_per_instruction) = flops(part, config);
    PartSummary {
        part,
        params: of_part().map(ParamSpec::numel).sum(),
        bytes: of_part().map(bytes).sum(),
        flops_per_step,
        weight_bytes_per_step: of_part().filter(|spec| !once_per_instruction(spec)).map(bytes).sum(),
        flops_per_instruction,
    }
}

/// Whether a parameter is used when the instruction changes, not at every step.
fn once_per_instruction(spec: &ParamSpec) -> bool {
    let of_text = ["connector.text_proj.", "connector.query_text.", "connector.query"];
    spec.part == Part::Text || of_text.iter().any(|prefix| spec.name.starts_with(prefix))
}

fn state(config: &BackboneConfig) -> StateSummary {
    const F32: usize = size_of::<f32>();
    match config {
        BackboneConfig::Mamba(mamba) => {
            let channels = mamba.n_layer * mamba.d_inner();
            StateSummary::Mamba {
                ssm_bytes: channels * mamba.d_state * F32,
                conv_bytes: channels * (mamba.d_conv - 1) * F32,
            }
        }
        BackboneConfig::Transformer(transformer) => StateSummary::Transformer {
            bytes_per_step: 2 * transformer.n_layer * transformer.d_model * F32,
            context_len: transformer.context_len,
        },
    }
}

/// Operations per control step and per instruction.
fn flops(part: Part, config: &ModelConfig) -> (usize, usize) {
    match part {
        Part::Vision => (config.features.cameras.len() * vision_flops(&config.vision), 0),
        Part::Text => (0, text_flops(&config.text)),
        Part::Connector => connector_flops(config),
        Part::Backbone => (backbone_flops(&config.backbone), 0),
        Part::Heads => (heads_flops(config), 0),
    }
}

/// Operations of a matrix product `[rows, d_in] x [d_in, d_out]`.
fn matmul(rows: usize, d_in: usize, d_out: usize) -> usize {
    2 * rows * d_in * d_out
}

/// Scores and weighted sums of attention of `n_query` over `n_key` tokens of width `d`.
fn attention(n_query: usize, n_key: usize, d: usize) -> usize {
    2 * matmul(n_query, d, n_key)
}

/// One block of self-attention and MLP.
fn encoder_block(n_token: usize, d: usize, intermediate_size: usize) -> usize {
    4 * matmul(n_token, d, d) + attention(n_token, n_token, d) + 2 * matmul(n_token, d, intermediate_size)
}

fn vision_flops(config: &VisionConfig) -> usize {
    let block = encoder_block(config.n_token(), config.hidden_size, config.intermediate_size);
    matmul(config.n_patch(), config.patch_dim(), config.hidden_size) + config.num_hidden_layers * block
}

fn text_flops(config: &TextConfig) -> usize {
    config.num_hidden_layers * encoder_block(N_TEXT, config.hidden_size, config.intermediate_size)
}

fn connector_flops(config: &ModelConfig) -> (usize, usize) {
    let connector = &config.connector;
    let (d, f, n_query) = (connector.hidden_size, connector.intermediate_size, connector.n_query);
    let n_patch = config.features.cameras.len() * config.vision.n_patch();
    let n_key = n_patch + N_TEXT;
    let block =
        2 * matmul(n_query, d, d) + 2 * matmul(n_key, d, d) + attention(n_query, n_key, d) + 2 * matmul(n_query, d, f);
    let d_model = config.backbone.d_model();
    let state = matmul(1, config.features.state.dim(), f) + matmul(1, f, d_model);
    let per_step = matmul(n_patch, config.vision.hidden_size, d)
        + connector.num_hidden_layers * block
        + matmul(1, n_query * d, d_model)
        + state;
    let d_text = config.text.hidden_size;
    (per_step, matmul(N_TEXT, d_text, d) + matmul(1, d_text, n_query * d))
}

fn backbone_flops(config: &BackboneConfig) -> usize {
    match config {
        BackboneConfig::Mamba(mamba) => mamba.n_layer * mamba_block(mamba),
        BackboneConfig::Transformer(transformer) => transformer.n_layer * transformer_block(transformer),
    }
}

fn mamba_block(config: &MambaConfig) -> usize {
    let (d, d_inner, dt_rank) = (config.d_model, config.d_inner(), config.dt_rank);
    matmul(1, d, 2 * d_inner)
        + 2 * d_inner * config.d_conv
        + matmul(1, d_inner, dt_rank + 2 * config.d_state)
        + matmul(1, dt_rank, d_inner)
        + SCAN_FLOPS * d_inner * config.d_state
        + matmul(1, d_inner, d)
}

fn transformer_block(config: &TransformerConfig) -> usize {
    let d = config.d_model;
    4 * matmul(1, d, d) + attention(1, config.context_len, d) + 3 * matmul(1, d, config.intermediate_size)
}

fn heads_flops(config: &ModelConfig) -> usize {
    let (d, action, confidence) = (config.backbone.d_model(), &config.action_head, &config.confidence_head);
    let hidden = action.hidden_size;
    matmul(1, d, hidden)
        + matmul(1, hidden, hidden)
        + matmul(1, hidden, action.n_mode * action.chunk_size * config.features.action.dim())
        + if action.n_mode > 1 { matmul(1, hidden, action.n_mode) } else { 0 }
        + matmul(1, d, confidence.hidden_size)
        + matmul(1, confidence.hidden_size, 1)
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if f.alternate() {
            for tensor in &self.tensors {
                writeln!(f, "{:<5} {:<18} {}", tensor.dtype.name(), format!("{:?}", tensor.shape), tensor.name)?;
            }
            writeln!(f)?;
        }
        writeln!(
            f,
            "{:<10} {:>13} {:>10} {:>14} {:>16} {:>18}",
            "part", "parameters", "bytes", "FLOP per step", "weights per step", "FLOP per instr."
        )?;
        self.parts.iter().try_for_each(|part| part.row(f, part.part.name()))?;
        self.total().row(f, "total")?;
        let types = self.params_by_dtype.iter().map(|(dtype, n)| format!("{n} {dtype}"));
        writeln!(f, "\ntypes      {}", types.collect::<Vec<_>>().join(", "))?;
        writeln!(f, "state      {}", self.state)
    }
}

impl Summary {
    fn total(&self) -> PartSummary {
        let sum = |field: fn(&PartSummary) -> usize| self.parts.iter().map(field).sum();
        PartSummary {
            part: Part::Heads,
            params: sum(|part| part.params),
            bytes: sum(|part| part.bytes),
            flops_per_step: sum(|part| part.flops_per_step),
            weight_bytes_per_step: sum(|part| part.weight_bytes_per_step),
            flops_per_instruction: sum(|part| part.flops_per_instruction),
        }
    }
}

impl PartSummary {
    fn row(&self, f: &mut fmt::Formatter<'_>, name: &str) -> fmt::Result {
        writeln!(
            f,
            "{name:<10} {:>13} {:>10} {:>14} {:>16} {:>18}",
            self.params,
            Bytes(self.bytes).to_string(),
            count(self.flops_per_step),
            Bytes(self.weight_bytes_per_step).to_string(),
            count(self.flops_per_instruction)
        )
    }
}

impl fmt::Display for StateSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Mamba { ssm_bytes, conv_bytes } => {
                let total = Bytes(ssm_bytes + conv_bytes);
                let (ssm, conv) = (Bytes(ssm_bytes), Bytes(conv_bytes));
                write!(f, "{total} per session, constant ({ssm} state-space models, {conv} convolutions)")
            }
            Self::Transformer { bytes_per_step, context_len } => {
                let (step, full) = (Bytes(bytes_per_step), Bytes(bytes_per_step * context_len));
                write!(f, "{step} per control step, {full} at the full context of {context_len} steps (KV cache)")
            }
        }
    }
}

/// A number of bytes in binary units.
struct Bytes(usize);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.0 as f64;
        match self.0 {
            0..1024 => write!(f, "{} B", self.0),
            1024..0x10_0000 => write!(f, "{:.1} KiB", value / 1024.0),
            0x10_0000..0x4000_0000 => write!(f, "{:.1} MiB", value / f64::from(1 << 20)),
            _ => write!(f, "{:.2} GiB", value / f64::from(1 << 30)),
        }
    }
}

/// A count with a decimal prefix.
fn count(n: usize) -> String {
    let value = n as f64;
    match n {
        0..1_000 => n.to_string(),
        1_000..1_000_000 => format!("{:.1} k", value / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} M", value / 1e6),
        _ => format!("{:.2} G", value / 1e9),
    }
}
