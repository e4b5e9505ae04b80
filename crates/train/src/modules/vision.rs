//! The vision encoder: see [`crate::ops::encoder`].

use burn::tensor::Tensor;
use robomamba_model::{ModelConfig, ParamSpec, Part, param_specs};

use crate::ops::encoder::VisionEncoder;
use crate::ops::{self, Compute, Input};
use crate::parameters::Scope;

/// The encoder of `config`.
pub(crate) fn encoder(config: &ModelConfig, compute: Compute) -> VisionEncoder {
    let below = |spec: ParamSpec| {
        let name = spec.name.strip_prefix("vision.")?.to_string();
        (spec.part == Part::Vision).then_some(ParamSpec { name, ..spec })
    };
    let specs: Vec<_> = param_specs(config).into_iter().filter_map(below).collect();
    VisionEncoder::new(&config.vision, &specs, compute)
}

/// Patch tokens `[n_image * n_patch, hidden_size]` of `patches` `[n_image * n_patch, patch_dim]`.
pub(crate) fn forward(encoder: &VisionEncoder, scope: &Scope, patches: Input) -> Tensor<2> {
    let parameters: Vec<_> = encoder.parameter_names().iter().map(|name| scope.tensor(name)).collect();
    encoder.forward(patches, ops::input(&Tensor::cat(parameters, 0)))
}
