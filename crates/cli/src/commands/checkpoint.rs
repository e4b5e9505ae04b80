//! `checkpoint`: verifies a checkpoint folder, or seals one whose files were edited on purpose.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::loaded;
use crate::output;

/// Options of `checkpoint verify` and `checkpoint seal`.
#[derive(Args)]
pub struct CheckpointArgs {
    /// Folder of the checkpoint, or of one of a training run
    #[arg(value_name = "DIR")]
    dir: PathBuf,
}

const REMEDY: &str = "For files edited on purpose: robomamba checkpoint seal DIR";

/// Runs `checkpoint verify`.
pub fn verify(args: CheckpointArgs) -> Result<()> {
    let dir = loaded::resolve(&args.dir);
    let findings = robomamba_model::verify(&dir);
    for finding in &findings {
        output::print(finding)?;
    }
    match findings.len() {
        0 => output::print(format!("{}: the checkpoint is sound", dir.display())),
        1 => bail!("{} has 1 finding; see above. {REMEDY}", dir.display()),
        n => bail!("{} has {n} findings; see above. {REMEDY}", dir.display()),
    }
}

/// Runs `checkpoint seal`.
pub fn seal(args: CheckpointArgs) -> Result<()> {
    let dir = loaded::resolve(&args.dir);
    let changed = robomamba_model::seal(&dir).with_context(|| format!("{} cannot be sealed", dir.display()))?;
    output::print(match changed.as_slice() {
        [] => format!("{}: nothing had changed", dir.display()),
        names => format!("{}: sealed; changed: {}", dir.display(), names.join(", ")),
    })
}
