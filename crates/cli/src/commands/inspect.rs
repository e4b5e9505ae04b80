//! `inspect`: what a checkpoint, or a preset, costs.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;
use robomamba_model::{Dtype, Preset, Summary};
use robomamba_policy::Environment;
use robomamba_sim::Tabletop;

use crate::loaded;
use crate::output;

/// Options of `inspect`.
#[derive(Args)]
pub struct InspectArgs {
    /// Folder of a checkpoint
    #[arg(required_unless_present = "preset", conflicts_with = "preset")]
    path: Option<PathBuf>,
    /// A preset instead of a checkpoint: nano, tabletop, small or base
    #[arg(long)]
    preset: Option<Preset>,
    /// List every tensor with its shape and type
    #[arg(long)]
    tensors: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Runs `inspect`.
pub fn run(args: InspectArgs) -> Result<()> {
    let summary = summary(&args)?;
    if args.json {
        output::print(serde_json::to_string_pretty(&summary)?)?;
    } else if args.tensors {
        output::print(format!("{summary:#}"))?;
    } else {
        output::print(&summary)?;
    }
    Ok(())
}

fn summary(args: &InspectArgs) -> Result<Summary> {
    match (&args.path, args.preset) {
        (Some(path), _) => {
            Summary::load(&loaded::resolve(path)).with_context(|| format!("cannot inspect {}", path.display()))
        }
        (None, Some(preset)) => {
            let robot = Tabletop::new(96, 96)?.features().clone();
            Ok(Summary::of(&preset.config(robot), Dtype::F32))
        }
        (None, None) => anyhow::bail!("name the folder of a checkpoint, or a preset with --preset"),
    }
}
