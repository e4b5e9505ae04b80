//! `data check`: verifies a data set to the last pixel.

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::Args;
use robomamba_data::{Dataset, check};

use crate::output;
use crate::progress::Progress;

/// Options of `data check`.
#[derive(Args)]
pub struct CheckArgs {
    /// Folder of the data set
    dir: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Runs `data check`.
pub fn run(args: CheckArgs) -> Result<()> {
    let episodes = Dataset::open(&args.dir).map_or(0, |dataset| dataset.len());
    let progress = Progress::start("check", episodes, "episodes");
    let report = check(&args.dir, &|| progress.advance(""));
    progress.finish();
    if args.json {
        output::print(serde_json::to_string_pretty(&report)?)?;
    } else {
        output::print(format!("{}: {report}", args.dir.display()))?;
    }
    if !report.is_ok() {
        bail!("{} is damaged; see the findings above", args.dir.display());
    }
    Ok(())
}
