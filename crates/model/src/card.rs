//! The generated model card of a new checkpoint.

use crate::{BackboneConfig, ModelConfig, param_specs};

/// A Hugging Face model card with what the configuration says.
pub(crate) fn card(config: &ModelConfig) -> String {
    let n_param: usize = param_specs(config).iter().map(crate::ParamSpec::numel).sum();
    let backbone = match &config.backbone {
        BackboneConfig::Mamba(_) => "Mamba",
        BackboneConfig::Transformer(_) => "Transformer",
    };
    let cameras = config.features.cameras.iter().map(|camera| {
        format!("- camera `{}`, RGB, {}x{} (height x width)\n", camera.name, camera.height, camera.width)
    });
    format!(
        "---\nlibrary_name: robomamba\npipeline_tag: robotics\ntags: [robotics, state-space-model]\n---\n\n\
         # RoboMamba policy\n\n\
         {:.1} M parameters; {} {backbone} blocks of width {}; at {} Hz it plans {}.\n\n\
         ## Inputs and outputs\n\n{}- state: {}\n- action: {}\n\n\
         Run it with `robomamba demo --checkpoint DIR`, look into it with `robomamba inspect`.\n",
        n_param as f64 / 1e6,
        config.backbone.n_layer(),
        config.backbone.d_model(),
        config.features.fps,
        config.action_head.summary(),
        cameras.collect::<String>(),
        config.features.state.names.join(", "),
        config.features.action.names.join(", "),
    )
}
