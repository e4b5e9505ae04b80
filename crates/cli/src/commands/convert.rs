//! `convert`: public checkpoints become parts of ours.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use robomamba_model::{Dtype, Preset, Summary, convert};
use robomamba_sim::{Environment, Tabletop};

use crate::output;

/// Options of `convert`.
#[derive(Args)]
pub struct ConvertArgs {
    /// Where the folders come from
    #[arg(long, value_enum)]
    from: Source,
    /// Folders with config.json and model.safetensors: a vision encoder, a text encoder, a Mamba trunk
    #[arg(required = true, value_name = "DIR")]
    dirs: Vec<PathBuf>,
    /// Folder of the new checkpoint
    #[arg(long, value_name = "DIR")]
    to: PathBuf,
    /// Preset of the parts that no folder gives; they start with random weights
    #[arg(long, default_value = "base")]
    preset: Preset,
    /// Seed of the random weights
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Type of the matrices in the file
    #[arg(long, value_enum, default_value_t = Precision::F32)]
    dtype: Precision,
    /// Side of the robot's square pictures in pixels [default: that of the vision encoder]
    #[arg(long, value_name = "PIXELS")]
    image_size: Option<usize>,
}

/// Layout of the given folders.
#[derive(Clone, Copy, ValueEnum)]
enum Source {
    /// Hugging Face transformers
    Hf,
}

#[derive(Clone, Copy, ValueEnum)]
enum Precision {
    F32,
    Bf16,
}

/// Runs `convert`.
pub fn run(args: ConvertArgs) -> Result<()> {
    let parts = match args.from {
        Source::Hf => args.dirs.iter().map(|dir| convert::from_hf(dir).with_context(|| dir.display().to_string())),
    };
    let parts = parts.collect::<Result<Vec<_>>>()?;
    for part in &parts {
        output::print(format!(
            "{}: {}, {} tensors left out",
            part.source.display(),
            part.part.name(),
            part.dropped.len()
        ))?;
    }
    let robot = |side: usize| Ok::<_, anyhow::Error>(Tabletop::new(side, side)?.features().clone());
    let mut base = args.preset.config(robot(args.image_size.unwrap_or(96))?);
    let vision_size = parts.iter().find_map(|part| match &part.part {
        convert::PartConfig::Vision(vision) => Some(vision.image_size),
        _ => None,
    });
    base.features = robot(args.image_size.or(vision_size).unwrap_or(base.vision.image_size))?;
    let dtype = match args.dtype {
        Precision::F32 => Dtype::F32,
        Precision::Bf16 => Dtype::Bf16,
    };
    convert::merge(base, parts, args.seed)?.save(&args.to, dtype)?;
    output::print(format!("{}\n{}", args.to.display(), Summary::load(&args.to)?))?;
    Ok(())
}
