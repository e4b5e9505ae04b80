//! `convert`: public checkpoints become parts of ours, and ours change the type of their matrices or become their mean.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use robomamba_model::{Checkpoint, Dtype, Preset, Summary, convert};
use robomamba_policy::Environment;
use robomamba_sim::Tabletop;

use crate::loaded;
use crate::output;

/// Options of `convert`.
#[derive(Args)]
pub struct ConvertArgs {
    /// Where the folders come from
    #[arg(long, value_enum)]
    from: Source,
    /// Folders with config.json and model.safetensors: a vision encoder, a text encoder, a Mamba backbone;
    /// or one checkpoint, several with --average
    #[arg(required = true, value_name = "DIR")]
    dirs: Vec<PathBuf>,
    /// Folder of the new checkpoint
    #[arg(long, value_name = "DIR")]
    to: PathBuf,
    /// With --from robomamba: the mean of the weights of several checkpoints, such as the last two stages of a training
    #[arg(long)]
    average: bool,
    /// Preset of the parts that no folder gives; they start with random weights
    #[arg(long, default_value = "base")]
    preset: Preset,
    /// Seed of the random weights
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Type of the matrices in the file
    #[arg(long, visible_alias = "quantize", value_enum, default_value_t = Storage::F32)]
    dtype: Storage,
    /// Side of the robot's square images in pixels [default: that of the vision encoder]
    #[arg(long, value_name = "PIXELS")]
    image_size: Option<usize>,
}

/// Layout of the given folders.
#[derive(Clone, Copy, ValueEnum)]
enum Source {
    /// Hugging Face transformers
    Hf,
    /// A checkpoint of ours, to store its matrices as another type, or several, to average them
    Robomamba,
}

/// Type of the matrices in the file.
#[derive(Clone, Copy, ValueEnum)]
enum Storage {
    F32,
    Bf16,
    Int8,
}

impl Storage {
    fn dtype(self) -> Dtype {
        match self {
            Self::F32 => Dtype::F32,
            Self::Bf16 => Dtype::Bf16,
            Self::Int8 => Dtype::Int8,
        }
    }
}

/// Runs `convert`.
pub fn run(args: ConvertArgs) -> Result<()> {
    let checkpoint = match args.from {
        Source::Hf => from_hf(&args)?,
        Source::Robomamba => own(&args)?,
    };
    checkpoint.save(&args.to, args.dtype.dtype())?;
    output::print(format!("{}\n{}", args.to.display(), Summary::load(&args.to)?))?;
    Ok(())
}

fn own(args: &ConvertArgs) -> Result<Checkpoint> {
    let load = |dir: &PathBuf| {
        let dir = loaded::resolve(dir);
        Checkpoint::load(&dir).with_context(|| format!("cannot load the checkpoint {}", dir.display()))
    };
    match args.dirs.as_slice() {
        dirs if args.average => Ok(Checkpoint::average(&dirs.iter().map(load).collect::<Result<Vec<_>>>()?)?),
        [dir] => load(dir),
        dirs => bail!(
            "--from robomamba takes one checkpoint folder, found {}; convert them one by one, or add --average for the mean of their weights",
            dirs.len()
        ),
    }
}

fn from_hf(args: &ConvertArgs) -> Result<Checkpoint> {
    if args.average {
        bail!("--average takes checkpoints of ours, found --from hf; convert the folders first");
    }
    let parts = args.dirs.iter().map(|dir| convert::from_hf(dir).with_context(|| dir.display().to_string()));
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
    Ok(convert::merge(base, parts, args.seed)?)
}
