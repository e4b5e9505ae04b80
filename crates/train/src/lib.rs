//! Trains RoboMamba policies on whole episodes with burn.
#![forbid(unsafe_code)]

mod assemble;
mod config;
mod corpus;
mod error;
mod gemm;
#[cfg(test)]
mod gradcheck;
mod lanes;
mod learner;
mod metrics;
mod modules;
mod ops;
mod optimiser;
mod parameters;
#[cfg(test)]
mod parity;
mod plan;
mod run;
mod snapshot;
mod throughput;

pub use config::{AugmentConfig, Backbone, BatchConfig, DataConfig, OutputConfig, ScheduleConfig, TrainConfig};
pub use error::{Result, TrainError};
pub use learner::{LossConfig, Losses};
pub use metrics::Metrics;
pub use optimiser::OptimiserConfig;
pub use parameters::{Parameter, Parameters};
pub use run::{Progress, RunOptions, RunSummary, run};
pub use throughput::{ThroughputConfig, measure_throughput};

/// The device that training runs on: burn's CPU backend with its tape.
pub(crate) fn device() -> burn::tensor::Device {
    burn::tensor::Device::flex().autodiff()
}
