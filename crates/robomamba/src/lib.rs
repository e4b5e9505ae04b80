//! Robot policies that see, read and remember, in real time, on an ordinary CPU.
//!
//! This crate gathers what a program needs under one name. The modules are the crates of the project: [`policy`] is the
//! contract between robots and policies, [`runtime`] runs a checkpoint, [`model`] describes and stores one, [`data`]
//! reads and writes data sets, [`eval`] keeps and draws results. With the feature `sim` there is `sim`, the simulated
//! robot *tabletop*; with the feature `train`, `train`.
//!
//! ```no_run
//! use std::sync::Arc;
//!
//! use robomamba::prelude::*;
//!
//! fn main() -> anyhow::Result<()> {
//!     let model = Model::load("checkpoints/tabletop")?;
//!     let mut policy = Session::new(Arc::new(model), &RuntimeOptions::default())?;
//!     let mut robot = Tabletop::new(96, 96)?;
//!     let played = play(&mut robot, &mut policy, |_, step| {
//!         println!("{:?}", step.action());
//!         anyhow::Ok(())
//!     })?;
//!     println!("{} after {} steps", played.outcome, played.steps);
//!     Ok(())
//! }
//! ```
#![forbid(unsafe_code)]

pub use robomamba_data as data;
pub use robomamba_eval as eval;
pub use robomamba_model as model;
pub use robomamba_policy as policy;
pub use robomamba_runtime as runtime;
#[cfg(feature = "sim")]
pub use robomamba_sim as sim;
#[cfg(feature = "train")]
pub use robomamba_train as train;

/// What most programs use.
pub mod prelude {
    pub use crate::eval::EpisodeRecord;
    pub use crate::policy::{
        ActionChunk, ChunkQueue, DeadlineGuard, Environment, Episode, FeatureSpec, Image, Observation, Outcome, Policy,
        PolicyError, StepOutcome, play,
    };
    pub use crate::runtime::{Format, LoadOptions, Model, RuntimeOptions, Session, State};
    #[cfg(feature = "sim")]
    pub use crate::sim::{Family, Scenario, Tabletop};
}

/// The Rust blocks of the project's documents are compiled as tests.
#[cfg(all(doctest, feature = "sim"))]
mod documents {
    #[doc = include_str!("../../../README.md")]
    mod readme {}
}
