//! Comparisons with other engines, which `benchmarks/peers/compare.py` makes.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use robomamba_eval::Table;

/// The same work, done by us and by a peer in turn.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Comparison {
    /// Name of the other engine, with its version and number format.
    pub name: String,
    /// What was done, with the number of threads.
    pub work: String,
    /// Medians over the rounds, in milliseconds.
    pub ours_ms: f64,
    pub peer_ms: f64,
    /// Median of the rounds' ratios `peer / ours`: above 1 we are faster.
    pub ratio: f64,
    /// How often the two took turns.
    pub rounds: usize,
    /// The ratio that was aimed at, if one was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub goal: Option<f64>,
}

/// What `compare.py` writes.
#[derive(Deserialize)]
struct Comparisons {
    peers: Vec<Comparison>,
}

/// Reads the comparisons.
///
/// # Errors
/// When the file cannot be read or is not what `compare.py` writes.
pub fn read(path: &Path) -> Result<Vec<Comparison>> {
    let text = fs::read(path).with_context(|| {
        format!("cannot read {}; `benchmarks/peers/compare.py --json FILE` writes it", path.display())
    })?;
    let found: Comparisons = serde_json::from_slice(&text).with_context(|| {
        format!("{}: expected what `benchmarks/peers/compare.py --json FILE` writes", path.display())
    })?;
    Ok(found.peers)
}

pub fn table(comparisons: &[Comparison]) -> Table {
    let mut table = Table::new(["in turn with", "work", "ours ms", "peer ms", "ratio", "goal"]);
    for comparison in comparisons {
        table.row([
            comparison.name.clone(),
            comparison.work.clone(),
            format!("{:.2}", comparison.ours_ms),
            format!("{:.2}", comparison.peer_ms),
            format!("{:.2}", comparison.ratio),
            comparison.goal.map_or_else(String::new, |goal| format!("{goal:.2}")),
        ]);
    }
    table
}
