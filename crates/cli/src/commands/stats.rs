//! `data stats`: what a data set holds.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use robomamba_data::{Dataset, FeatureStats};
use robomamba_eval::Table;
use serde_json::json;

use crate::output;
use crate::summary::Summary;

/// Options of `data stats`.
#[derive(Args)]
pub struct StatsArgs {
    /// Folder of the data set
    dir: PathBuf,
    /// Print JSON instead of tables
    #[arg(long)]
    json: bool,
}

/// Runs `data stats`.
pub fn run(args: StatsArgs) -> Result<()> {
    let dataset = Dataset::open(&args.dir)?;
    let summary = Summary::of(&dataset)?;
    if args.json {
        let features: serde_json::Map<_, _> =
            dataset.stats().iter().map(|(name, stats)| (name.into(), json(stats))).collect();
        output::print(serde_json::to_string_pretty(&json!({ "summary": summary, "features": features }))?)?;
        return Ok(());
    }
    output::print(format!("{}: {summary}, {} Hz\n\n{}", args.dir.display(), dataset.fps(), table(&dataset)))?;
    Ok(())
}

fn json(stats: &FeatureStats) -> serde_json::Value {
    let entries = stats.entries().map(|(name, values)| (name.to_string(), json!(values)));
    entries.chain([("count".into(), json!(stats.count))]).collect::<serde_json::Map<_, _>>().into()
}

/// One row per dimension of every feature.
fn table(dataset: &Dataset) -> Table {
    let mut table = Table::new(["feature", "min", "mean", "max", "std", "q01", "q99"]);
    for (name, feature) in dataset.features().iter() {
        let Some(stats) = dataset.stats().get(name) else { continue };
        let channels = feature.is_camera().then(|| ["r", "g", "b"].map(String::from).to_vec());
        let names = channels.or_else(|| feature.dimension_names());
        let quantile =
            |wanted: &str| stats.entries().find(|(entry, _)| *entry == wanted).map_or(&[][..], |(_, values)| values);
        for i in 0..stats.mean.len() {
            let label = names.as_ref().and_then(|names| names.get(i)).map_or(String::new(), |dim| format!(" {dim}"));
            let columns: [&[f64]; 6] =
                [&stats.min, &stats.mean, &stats.max, &stats.std, quantile("q01"), quantile("q99")];
            let cells = columns.map(|values| values.get(i).map_or("-".into(), |value| format!("{value:.4}")));
            table.row([format!("{name}{label}")].into_iter().chain(cells));
        }
    }
    table
}
