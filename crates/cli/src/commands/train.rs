//! `train`: a policy learns from recorded episodes.

use std::path::PathBuf;
use std::str::FromStr;

use anyhow::{Result, anyhow};
use clap::Args;
use robomamba_train::{Progress, RunOptions, TrainConfig, run as train};
use toml::{Table, Value};

use crate::interrupt;
use crate::output;

/// Options of `train`.
#[derive(Args)]
pub struct TrainArgs {
    /// Configuration of the run; the same command continues an interrupted run
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Folder of the run instead of the one in the configuration
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Stop after this number of minutes, with a checkpoint from which the same command continues
    #[arg(long, value_name = "M")]
    max_minutes: Option<f64>,
    /// Change a value of the configuration, for example schedule.minutes=5; repeatable
    #[arg(long = "set", value_name = "KEY=VALUE")]
    changes: Vec<Change>,
    /// Show no progress
    #[arg(long)]
    quiet: bool,
}

/// Runs `train`.
///
/// # Errors
/// Also [`interrupt::Interrupted`] when Ctrl-C stopped it before its end, in good order; not when `--max-minutes` did.
pub fn run(args: TrainArgs) -> Result<()> {
    robomamba_kernels::keep_freed_memory();
    let config = config(&args)?;
    let progress = if args.quiet { Progress::Silent } else { Progress::Live };
    let options = RunOptions { max_minutes: args.max_minutes, stop: interrupt::flag(), progress };
    let summary = train(&config, &options)?;
    let state = if summary.finished { "finished" } else { "stopped; the same command continues" };
    output::print(format!("{state} at step {}: {}", summary.step, summary.checkpoint.display()))?;
    // A script must not take the run for complete.
    if summary.finished { Ok(()) } else { interrupt::check() }
}

/// The configuration with the changes of the command line.
fn config(args: &TrainArgs) -> Result<TrainConfig> {
    let mut config = TrainConfig::load_changed(&args.config, |table| {
        args.changes.iter().try_for_each(|change| change.apply(table))
    })?;
    if let Some(out) = &args.out {
        config.out.clone_from(out);
    }
    Ok(config)
}

/// One `KEY=VALUE`; the key is a path with dots.
#[derive(Clone, Debug, PartialEq)]
struct Change {
    path: Vec<String>,
    value: Value,
}

impl FromStr for Change {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (key, value) = text.split_once('=').ok_or_else(|| format!("expected KEY=VALUE, found `{text}`"))?;
        let path: Vec<String> = key.trim().split('.').map(str::to_string).collect();
        if path.iter().any(String::is_empty) {
            return Err(format!("expected a key such as schedule.minutes, found `{key}`"));
        }
        let parsed: Option<Value> =
            format!("value = {value}").parse::<Table>().ok().and_then(|mut table| table.remove("value"));
        Ok(Self { path, value: parsed.unwrap_or_else(|| Value::String(value.into())) })
    }
}

impl Change {
    fn apply(&self, table: &mut Table) -> Result<()> {
        let Some((last, groups)) = self.path.split_last() else { return Ok(()) };
        let mut table = table;
        for group in groups {
            let entry = table.entry(group.clone()).or_insert_with(|| Table::new().into());
            table = entry
                .as_table_mut()
                .ok_or_else(|| anyhow!("--set {}: `{group}` is not a table", self.path.join(".")))?;
        }
        table.insert(last.clone(), self.value.clone());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_toml_and_words_are_strings() {
        let mut table: Table = "seed = 1\n[schedule]\nminutes = 90".parse().unwrap();
        for change in ["schedule.minutes=5.5", "seed=7", "backbone=transformer", "augment.shift_px = 2"] {
            change.parse::<Change>().unwrap().apply(&mut table).unwrap();
        }
        let expected = "seed = 7\nbackbone = 'transformer'\n[schedule]\nminutes = 5.5\n[augment]\nshift_px = 2";
        assert_eq!(table, expected.parse().unwrap());
        assert!("seed.x=1".parse::<Change>().unwrap().apply(&mut table).is_err());
        assert!("seed".parse::<Change>().is_err() && ".a=1".parse::<Change>().is_err());
    }
}
