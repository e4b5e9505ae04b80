//! Trains RoboMamba policies on whole episodes with burn.
//!
//! [`run`] reads LeRobotDatasets, packs whole episodes into batches without padding, and sends them through
//! a graph whose parameters are those of [`robomamba_model::param_specs`]: every distinct frame and
//! instruction of a batch is encoded once (frozen encoders see every step once, in the runtime), then the episodes run in parallel
//! through the scan. Burn keeps
//! the tape; the operations on it are fused ones on `robomamba_kernels` with gradients of their own.
//!
//! A run is a function of its configuration: the order of the data follows from the seed and the number of
//! the step, and a run that was killed continues from its last checkpoint on the same curve, bit for bit.
#![forbid(unsafe_code)]

mod assemble;
mod config;
mod corpus;
mod encoding;
mod error;
mod gemm;
mod lanes;
mod learner;
mod metrics;
mod modules;
mod ops;
mod optimiser;
mod parameters;
mod plan;
mod run;
mod snapshot;
#[cfg(test)]
mod tests;
mod throughput;

pub use config::{
    AugmentConfig, Backbone, BatchConfig, DataConfig, OutputConfig, ScheduleConfig, TokenConfig, TrainConfig,
};
pub use error::{Result, TrainError};
pub use gemm::Precision;
pub use learner::{LossConfig, Losses};
pub use metrics::Metrics;
pub use optimiser::OptimiserConfig;
pub use parameters::{Parameter, Parameters, TrainingHeads};
pub use run::{Progress, RunOptions, RunSummary, run};
pub use throughput::{ThroughputConfig, measure_throughput};

/// The device that training runs on: burn's CPU backend with its tape.
pub(crate) fn device() -> burn::tensor::Device {
    burn::tensor::Device::flex().autodiff()
}
