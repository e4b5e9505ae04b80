//! What training and the runtime share of the RoboMamba model.
//!
//! These are its configuration ([`ModelConfig`]), the name and shape of every parameter ([`param_specs`]), checkpoint
//! folders ([`Checkpoint`]), and the transforms of images and text into numbers.
#![forbid(unsafe_code)]

mod average;
mod card;
mod check;
mod checkpoint;
mod config;
pub mod convert;
mod error;
mod folder;
mod image;
mod init;
mod overrides;
mod params;
mod presets;
mod summary;
mod tensor_file;
mod text;
mod weights;

pub use checkpoint::{Checkpoint, FORMAT_VERSION, StoredCheckpoint, seal, verify};
pub use config::{
    ActionHeadConfig, Activation, BackboneConfig, ConfidenceHeadConfig, ConnectorConfig, MambaConfig, ModelConfig,
    TextConfig, TransformerConfig, VisionConfig, VisionKind,
};
pub use error::ModelError;
pub use image::{ImageScratch, ImageTransform};
pub use params::{ParamSpec, Part, param_specs};
pub use presets::Preset;
pub use summary::{PartSummary, StateSummary, Summary, TensorSummary};
pub use tensor_file::Dtype;
pub use text::TextTokenizer;
pub use weights::{Tensor, Tensors, Weights};
