//! The initialisation of a model that is trained from scratch.
#![doc = include_str!("init.md")]
//!
//! ViT and BERT were published with std 0.02 at width 768; the factor keeps the size of the activations at other
//! widths. Mamba follows `mamba_ssm/modules/mamba_simple.py` and `_init_weights` of state-spaces/mamba.
//!
//! A seed gives the same bits on every machine. Each tensor has its own random stream, selected by its name, and all
//! functions are computed in software.

use std::f64::consts::PI;

use rand_chacha::{
    ChaCha8Rng,
    rand_core::{Rng, SeedableRng},
};
use rayon::prelude::*;

use crate::{BackboneConfig, ModelConfig, ParamSpec, Part, VisionConfig, Weights, param_specs, weights::Tensor};

const STD: f64 = 0.02;
/// The width for which [`STD`] was published.
const STD_WIDTH: f64 = 768.0;
const DT_MIN: f64 = 1e-3;
const DT_MAX: f64 = 1e-1;
const POSITION_SCALE: f64 = 0.5;

impl Weights {
    /// Every parameter of `config` as training starts with it; `config` must pass [`ModelConfig::check`].
    ///
    /// A seed gives the same bits on every machine.
    ///
    #[doc = include_str!("init.md")]
    pub fn random(config: &ModelConfig, seed: u64) -> Self {
        let filled = param_specs(config).into_par_iter().map(|spec| {
            let data = Init::of(&spec, config).values(&spec, config, Stream::new(seed, &spec.name));
            (spec.name, Tensor { shape: spec.shape, data })
        });
        filled.collect::<Vec<_>>().into_iter().collect()
    }
}

/// How one tensor is filled.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Init {
    Zeros,
    Ones,
    Normal { std: f64 },
    Uniform { bound: f64 },
    Positions,
    ALog,
    DtBias,
}

impl Init {
    fn of(spec: &ParamSpec, config: &ModelConfig) -> Self {
        let name = spec.name.as_str();
        if let (Part::Backbone, BackboneConfig::Mamba(_)) = (spec.part, &config.backbone)
            && let Some(init) = Self::of_mamba(spec, config)
        {
            return init;
        }
        match name {
            "vision.embeddings.position_embeddings" => Self::Positions,
            "vision.embeddings.cls_token" | "connector.query" | "connector.camera_embedding" => {
                Self::Normal { std: STD }
            }
            _ if name.ends_with(".bias") => Self::Zeros,
            _ if is_norm(name) || name.ends_with(".lambda1") => Self::Ones,
            _ if name.contains("_embeddings.weight") => Self::Normal { std: STD },
            _ => Self::Normal { std: STD * (STD_WIDTH / fan_in(spec) as f64).sqrt() / residual_divisor(name, config) },
        }
    }

    fn of_mamba(spec: &ParamSpec, config: &ModelConfig) -> Option<Self> {
        let default_bound = (fan_in(spec) as f64).sqrt().recip();
        let (_, parameter) = spec.name.split_once(".mixer.")?;
        Some(match parameter {
            "A_log" => Self::ALog,
            "D" => Self::Ones,
            "dt_proj.bias" => Self::DtBias,
            "conv1d.bias" => Self::Uniform { bound: conv_bound(config) },
            "out_proj.weight" => Self::Uniform { bound: default_bound / (config.backbone.n_layer() as f64).sqrt() },
            _ => Self::Uniform { bound: default_bound },
        })
    }

    fn values(self, spec: &ParamSpec, config: &ModelConfig, mut stream: Stream) -> Vec<f32> {
        let n = spec.numel();
        match self {
            Self::Zeros => vec![0.0; n],
            Self::Ones => vec![1.0; n],
            Self::Normal { std } => (0..n).map(|_| (std * stream.truncated_normal()) as f32).collect(),
            Self::Uniform { bound } => (0..n).map(|_| (bound * (2.0 * stream.uniform() - 1.0)) as f32).collect(),
            Self::Positions => positions(&config.vision),
            Self::ALog => {
                let d_state = spec.shape[1];
                (0..n).map(|i| libm::log((i % d_state + 1) as f64) as f32).collect()
            }
            Self::DtBias => (0..n).map(|_| stream.dt_bias() as f32).collect(),
        }
    }
}

fn is_norm(name: &str) -> bool {
    name.ends_with(".weight") && name.rsplit('.').nth(1).is_some_and(|module| module.to_lowercase().contains("norm"))
}

/// Inputs of one output: the product of all dimensions but the first.
fn fan_in(spec: &ParamSpec) -> usize {
    spec.shape[1..].iter().product::<usize>().max(1)
}

fn conv_bound(config: &ModelConfig) -> f64 {
    match &config.backbone {
        BackboneConfig::Mamba(mamba) => (mamba.d_conv as f64).sqrt().recip(),
        BackboneConfig::Transformer(_) => 0.0,
    }
}

/// The divisor of a branch's last weights: the branches of a pre-norm backbone add up, so more branches start smaller.
fn residual_divisor(name: &str, config: &ModelConfig) -> f64 {
    let ends_branch = name.ends_with("self_attn.o_proj.weight") || name.ends_with("mlp.down_proj.weight");
    if ends_branch { (2.0 * config.backbone.n_layer() as f64).sqrt() } else { 1.0 }
}

/// `[n_token, hidden_size]`: a row per token; the class token's is zero.
///
/// The four quarters of the width hold sin and cos of the column, then sin and cos of the row. Wavelengths run from 2
/// pi to 2 pi * 10,000 patches.
fn positions(config: &VisionConfig) -> Vec<f32> {
    let (d, grid) = (config.hidden_size, config.grid());
    let quarter = d / 4;
    let mut table = vec![0.0; config.n_token() * d];
    let first_patch = (config.n_token() - config.n_patch()) * d;
    for (patch, row) in table[first_patch..].chunks_exact_mut(d).enumerate() {
        for j in 0..quarter {
            let frequency = libm::pow(10_000.0, -(j as f64) / quarter as f64);
            let (x, y) = ((patch % grid) as f64 * frequency, (patch / grid) as f64 * frequency);
            let values = [libm::sin(x), libm::cos(x), libm::sin(y), libm::cos(y)];
            for (k, value) in values.into_iter().enumerate() {
                row[k * quarter + j] = (POSITION_SCALE * value) as f32;
            }
        }
    }
    table
}

/// Random numbers for one tensor.
struct Stream {
    rng: ChaCha8Rng,
}

impl Stream {
    fn new(seed: u64, name: &str) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(fnv1a(name));
        Self { rng }
    }

    /// Uniform in [0, 1).
    fn uniform(&mut self) -> f64 {
        (self.rng.next_u64() >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
    }

    /// Standard normal by Box and Muller, redrawn when beyond two standard deviations.
    fn truncated_normal(&mut self) -> f64 {
        loop {
            let radius = (-2.0 * libm::log(1.0 - self.uniform())).sqrt();
            let value = radius * libm::cos(2.0 * PI * self.uniform());
            if value.abs() <= 2.0 {
                return value;
            }
        }
    }

    /// The bias whose softplus is log-uniform in [`DT_MIN`, `DT_MAX`]: `dt + ln(1 - exp(-dt))`.
    fn dt_bias(&mut self) -> f64 {
        let (low, high) = (libm::log(DT_MIN), libm::log(DT_MAX));
        let dt = libm::exp(low + (high - low) * self.uniform());
        dt + libm::log(-libm::expm1(-dt))
    }
}

/// The Fowler-Noll-Vo hash: stable over versions and machines, which `std`'s is not.
fn fnv1a(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}
