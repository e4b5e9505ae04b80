//! What training and the runtime share about the RoboMamba model: its configuration ([`ModelConfig`]),
//! the name and shape of every parameter ([`param_specs`]), checkpoint folders, and the transforms that
//! turn an observation into numbers.
#![forbid(unsafe_code)]

mod config;
mod params;
mod presets;

pub use config::{
    ActionHeadConfig, Activation, BackboneConfig, ConfidenceHeadConfig, ConnectorConfig, MambaConfig, ModelConfig, TextConfig,
    TransformerConfig, VisionConfig, VisionKind,
};
pub use params::{ParamSpec, Part, param_specs};
pub use presets::Preset;
