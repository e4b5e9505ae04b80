//! Trains RoboMamba policies on whole episodes with burn.
//!
//! [`run`] reads LeRobotDatasets and packs whole episodes into batches without padding. Each batch passes through a
//! graph with the parameters of [`robomamba_model::param_specs`]. Every distinct frame and instruction is encoded
//! once; then the episodes run through the scan in parallel. Frozen encoders encode the data once before the run, in
//! the runtime. Burn keeps the tape; the operations are fused ones on `robomamba_kernels` with their own gradients.
//!
//! A run is a function of its configuration: the order of the data follows from the seed and the number of the step. A
//! killed run continues from its last checkpoint on the same curve, bit for bit.
#![forbid(unsafe_code)]

mod assemble;
mod augment;
mod classes;
mod config;
mod corpus;
mod encoding;
mod error;
mod extends;
mod gemm;
mod lanes;
mod learner;
mod losses;
mod metrics;
mod modules;
mod objectives;
mod ops;
mod optimiser;
mod parameters;
mod run;
mod sampler;
mod snapshot;
mod start;
#[cfg(test)]
mod tests;
mod throughput;

pub use augment::AugmentConfig;
pub use config::{Backbone, BatchConfig, OutputConfig, ScheduleConfig, TokenConfig, TrainConfig};
pub use corpus::DataConfig;
pub use error::{Result, TrainError};
pub use gemm::Precision;
pub use losses::{LossConfig, Losses};
pub use metrics::Metrics;
pub use optimiser::OptimiserConfig;
pub use parameters::{Parameter, Parameters, TrainingHead};
pub use run::{Progress, RunOptions, RunSummary, run};
pub use start::RunStart;
pub use throughput::{ThroughputConfig, measure_throughput};
