//! Trains RoboMamba policies on whole episodes with burn.
#![forbid(unsafe_code)]

mod error;
mod gemm;
mod lanes;
mod modules;
mod ops;
mod parameters;

pub use error::{Result, TrainError};
pub use parameters::{Parameter, Parameters};

/// The device that training runs on: burn's CPU backend with its tape.
pub(crate) fn device() -> burn::tensor::Device {
    burn::tensor::Device::flex().autodiff()
}
