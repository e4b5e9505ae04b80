//! `report`: any files of episode records as a table and a page.

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::Args;
use robomamba_eval::{RecordFile, read_records, records_page, records_table};

use crate::output;
use crate::run_folder::write_atomically;

/// Options of `report`.
#[derive(Args)]
pub struct ReportArgs {
    /// Files of episode records, one JSON object per line, from `eval --records` or another simulator
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// The page to write
    #[arg(long, value_name = "FILE", default_value = "report.html")]
    html: PathBuf,
}

/// Runs `report`.
pub fn run(args: ReportArgs) -> Result<()> {
    let files = args.files.iter().map(|path| open(path)).collect::<Result<Vec<_>>>()?;
    output::print(records_table(&files))?;
    write_atomically(&args.html, records_page(&files).as_bytes())?;
    output::print(format!("report: {}", args.html.display()))
}

fn open(path: &Path) -> Result<RecordFile> {
    Ok(RecordFile { name: path.display().to_string(), records: read_records(path)? })
}
