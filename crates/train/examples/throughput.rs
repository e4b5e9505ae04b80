//! Frames per second of whole optimiser steps on random data:
//! `cargo run --release -p robomamba-train --example throughput -- [PRESET] [EPISODES] [STEPS]`.

use robomamba_model::Preset;
use robomamba_policy::{CameraSpec, FeatureSpec, VectorSpec};
use robomamba_train::{ThroughputConfig, measure_throughput};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let preset: Preset = args.next().unwrap_or_else(|| "tabletop".into()).parse()?;
    let n_episode = args.next().map_or(Ok(8), |n| n.parse())?;
    let n_step = args.next().map_or(Ok(64), |n| n.parse())?;
    let features = FeatureSpec {
        cameras: vec![CameraSpec { name: "observation.images.top".into(), height: 96, width: 96 }],
        state: VectorSpec::new(["x_m", "y_m", "gripper_opening"]),
        action: VectorSpec::new(["dx", "dy", "grip"]),
        fps: 20,
    };
    let size = ThroughputConfig { n_episode, n_step, n_repeat: 3, lanes: 2, known_tokens: false };
    for (i, rate) in measure_throughput(&preset.config(features), size)?.iter().enumerate() {
        println!("{preset} step {i}: {rate:.1} frames/s");
    }
    Ok(())
}
