//! Runs a RoboMamba checkpoint on the CPU, one control step at a time.
//!
//! A [`Model`] is a checkpoint packed for the kernels: immutable, shared in an `Arc`. A [`Session`] is one
//! robot's run of it and owns all that changes, above all the [`State`], which can be cloned (forked), compared,
//! saved and restored. It implements [`Policy`](robomamba_policy::Policy):
//!
//! ```no_run
//! use std::sync::Arc;
//! use robomamba_policy::{ActionChunk, Observation, Policy};
//! use robomamba_runtime::{Model, RuntimeOptions, Session};
//!
//! # fn observations() -> Vec<Observation> { Vec::new() }
//! let model = Arc::new(Model::load("checkpoints/tabletop")?);
//! let mut session = Session::new(model, &RuntimeOptions::default())?;
//! let mut chunk = ActionChunk::default();
//! for observation in observations() {
//!     session.act(&observation, &mut chunk)?;
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! The parts can be used apart from each other, as the parity tests against other implementations do:
//! [`VisionEncoder`], [`TextEncoder`], [`Connector`], [`Mamba`], [`Transformer`] and [`Heads`] are made from a
//! configuration, [`Tensors`](robomamba_model::Tensors) and a name prefix, and work in a [`Workspace`].
#![forbid(unsafe_code)]

mod backbone;
mod blocks;
mod connector;
mod error;
mod heads;
mod mamba;
mod model;
mod options;
mod params;
mod saved;
mod session;
mod state;
mod text;
mod timings;
mod transformer;
mod vision;
mod workspace;

pub use robomamba_kernels::matmul::Format;
pub use robomamba_kernels::{Bf16Products, Isa, KernelChoice};

pub use backbone::Backbone;
pub use connector::{Connector, ConnectorContext};
pub use error::RuntimeError;
pub use heads::Heads;
pub use mamba::Mamba;
pub use model::{LoadOptions, Model, TextWeights, Trajectory};
pub use options::{FrameReuse, RuntimeOptions};
pub use session::Session;
pub use state::{KvCache, MambaState, State};
pub use text::TextEncoder;
pub use timings::StepTimings;
pub use transformer::Transformer;
pub use vision::VisionEncoder;
pub use workspace::Workspace;
