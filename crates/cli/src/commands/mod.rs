//! The subcommands, one file each.

mod record;
mod stats;

use anyhow::Result;
use clap::Subcommand;

pub use record::IS_DEMONSTRATION;

/// What the binary can do.
#[derive(Subcommand)]
pub enum Command {
    /// Record, summarise and verify data sets (LeRobotDataset v3.0)
    #[command(subcommand)]
    Data(DataCommand),
}

/// What can be done with data sets.
#[derive(Subcommand)]
pub enum DataCommand {
    /// Record episodes of the scripted expert, or of a policy that the expert corrects
    Record(record::RecordArgs),
    /// Summarise a data set: episodes, outcomes, and the range of every feature
    Stats(stats::StatsArgs),
}

impl Command {
    /// Runs the subcommand to its end.
    pub fn run(self) -> Result<()> {
        match self {
            Self::Data(DataCommand::Record(args)) => record::run(args),
            Self::Data(DataCommand::Stats(args)) => stats::run(args),
        }
    }
}
