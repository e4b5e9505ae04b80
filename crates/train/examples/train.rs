//! Trains from a configuration file: `cargo run --release -p robomamba-train --example train -- CONFIG [MINUTES]`.

use std::path::Path;

use robomamba_train::{RunOptions, TrainConfig, run};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let path = args.next().ok_or("name a configuration file, such as configs/tabletop/1-frames.toml")?;
    let max_minutes = args.next().map(|minutes| minutes.parse()).transpose()?;
    let config = TrainConfig::load(Path::new(&path))?;
    let summary = run(&config, &RunOptions { max_minutes, ..RunOptions::default() })?;
    println!("step {} in {}: {:?}", summary.step, summary.checkpoint.display(), summary.metrics);
    Ok(())
}
