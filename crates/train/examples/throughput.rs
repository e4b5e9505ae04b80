//! Frames per second of whole optimiser steps on random data:
//!
//! ```sh
//! cargo run --release -p robomamba-train --example throughput -- \
//!     [PRESET] [EPISODES] [STEPS] [f32|bf16] [pictures|tokens]
//! ```

use robomamba_model::Preset;
use robomamba_policy::{CameraSpec, FeatureSpec, VectorSpec};
use robomamba_train::{Precision, ThroughputConfig, measure_throughput};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    robomamba_kernels::keep_freed_memory();
    let mut args = std::env::args().skip(1);
    let preset: Preset = args.next().unwrap_or_else(|| "tabletop".into()).parse()?;
    let n_episode = args.next().map_or(Ok(8), |n| n.parse())?;
    let n_step = args.next().map_or(Ok(64), |n| n.parse())?;
    let precision = match args.next().as_deref() {
        None | Some("f32") => Precision::F32,
        Some("bf16") => Precision::Bf16,
        Some(other) => return Err(format!("the precision is f32 or bf16, found `{other}`").into()),
    };
    let known_tokens = match args.next().as_deref() {
        None | Some("pictures") => false,
        Some("tokens") => true,
        Some(other) => return Err(format!("it learns from pictures or tokens, found `{other}`").into()),
    };
    let features = FeatureSpec {
        cameras: vec![CameraSpec { name: "observation.images.top".into(), height: 96, width: 96 }],
        state: VectorSpec::new(["x_m", "y_m", "gripper_opening"]),
        action: VectorSpec::new(["dx", "dy", "grip"]),
        fps: 20,
    };
    let size = ThroughputConfig { n_episode, n_step, n_repeat: 3, lanes: 2, precision, known_tokens };
    for (i, rate) in measure_throughput(&preset.config(features), size)?.iter().enumerate() {
        println!("{preset} step {i}: {rate:.1} frames/s");
    }
    Ok(())
}
