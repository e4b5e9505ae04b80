//! Values that several subcommands share, parsed at the edge into types that cannot be wrong.

use std::num::NonZeroUsize;
use std::str::FromStr;

use clap::Args;
use robomamba_policy::{ChunkQueue, Policy};
use robomamba_runtime::{Format, LoadOptions, TextWeights};
use robomamba_sim::{Family, Split};
use serde::Serialize;

use crate::parallel;

/// `--family NAME` as often as wanted, or `--family all`.
#[derive(Args)]
pub struct Families {
    /// Task family: reach, push, pick_place, sequence, remember, count, retry, endurance, or all; repeatable
    #[arg(long = "family", value_name = "FAMILY", required = true, value_parser = parse_family)]
    choices: Vec<FamilyChoice>,
}

impl Families {
    /// Each chosen family once, in the order of the command line.
    pub fn list(&self) -> Vec<Family> {
        let mut families: Vec<Family> = Vec::new();
        for choice in &self.choices {
            let chosen = match choice {
                FamilyChoice::All => &Family::ALL[..],
                FamilyChoice::One(family) => std::slice::from_ref(family),
            };
            for &family in chosen {
                if !families.contains(&family) {
                    families.push(family);
                }
            }
        }
        families
    }
}

/// One value of `--family`.
#[derive(Clone, Copy)]
pub enum FamilyChoice {
    /// Every family.
    All,
    /// This one.
    One(Family),
}

fn parse_family(name: &str) -> Result<FamilyChoice, String> {
    match name {
        "all" => Ok(FamilyChoice::All),
        name => name.parse().map(FamilyChoice::One).map_err(|error: robomamba_sim::SimError| error.to_string()),
    }
}

/// `--jobs N`.
#[derive(Args)]
pub struct Jobs {
    /// Threads [default: number of cores]
    #[arg(long, value_name = "N")]
    jobs: Option<NonZeroUsize>,
}

impl Jobs {
    /// The chosen number of threads.
    pub fn count(&self) -> NonZeroUsize {
        self.jobs.unwrap_or_else(parallel::cores)
    }
}

/// How a checkpoint is loaded.
#[derive(Args, Clone, Copy)]
pub struct Loading {
    /// Numbers in which the matrices are stored and multiplied: f32, bf16 or int8
    #[arg(long = "precision", value_name = "FORMAT", default_value_t = Format::F32)]
    pub format: Format,
    /// Keep the text encoder in the checkpoint and read it when the instruction changes: less memory, slower changes
    #[arg(long)]
    stream_text: bool,
}

impl Loading {
    /// The same for the runtime.
    pub fn options(&self) -> LoadOptions {
        let text = if self.stream_text { TextWeights::Stored } else { TextWeights::Resident };
        LoadOptions { format: self.format, text }
    }
}

/// How chunks of actions are executed.
#[derive(Args, Clone, Copy, Debug, Serialize)]
pub struct Execution {
    /// Blend the actions of the last N chunks for the present step; 1 executes the newest chunk only
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = parse_steps)]
    blend: usize,
    /// A chunk that is one step older weighs exp(-DECAY) as much
    #[arg(long, value_name = "DECAY", default_value_t = 0.2)]
    blend_decay: f32,
    /// Execute N steps of a chunk before the next one is adopted (LeRobot's n_action_steps)
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = parse_steps)]
    replan_every: usize,
}

impl Execution {
    /// Executes the chunks of `policy` in the chosen way.
    pub fn queue<P: Policy>(self, policy: P) -> ChunkQueue<P> {
        ChunkQueue::new(policy, self.blend, self.blend_decay).replanning_every(self.replan_every)
    }
}

fn parse_steps(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(steps @ 1..=1000) => Ok(steps),
        _ => Err(format!("expected a number from 1 to 1000, found `{text}`")),
    }
}

/// Parses `train` or `heldout`.
pub fn parse_split(name: &str) -> Result<Split, String> {
    match name {
        "train" => Ok(Split::Train),
        "heldout" => Ok(Split::Heldout),
        other => Err(format!("expected train or heldout, found `{other}`")),
    }
}

/// Parses a number from 0 to 1.
pub fn parse_fraction(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(fraction) if (0.0..=1.0).contains(&fraction) => Ok(fraction),
        _ => Err(format!("expected a number from 0 to 1, found `{text}`")),
    }
}

/// Whole numbers from `min` to `max`, both included, written `3` or `3..5`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Smallest number.
    pub min: usize,
    /// Largest number.
    pub max: usize,
}

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (min, max) = text.split_once("..").unwrap_or((text, text));
        match (min.parse(), max.parse()) {
            (Ok(min), Ok(max)) if min <= max => Ok(Self { min, max }),
            _ => Err(format!("expected a number or a span such as 3..5 (both ends included), found `{text}`")),
        }
    }
}

impl Span {
    /// The number of this span that `random` (any 64 bits) selects.
    pub fn pick(self, random: u64) -> usize {
        self.min + (random % (self.max - self.min + 1) as u64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans() {
        assert_eq!("3".parse(), Ok(Span { min: 3, max: 3 }));
        assert_eq!("3..5".parse(), Ok(Span { min: 3, max: 5 }));
        for bad in ["", "5..3", "a", "3..", "-1"] {
            assert!(bad.parse::<Span>().unwrap_err().contains(&format!("`{bad}`")), "{bad}");
        }
        let picked: std::collections::BTreeSet<_> = (0..9).map(|random| Span { min: 3, max: 5 }.pick(random)).collect();
        assert_eq!(picked.into_iter().collect::<Vec<_>>(), [3, 4, 5]);
    }
}
