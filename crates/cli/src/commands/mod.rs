//! The subcommands, one file each.

mod bench;
mod check;
mod checkpoint;
mod convert;
mod demo;
mod eval;
mod init;
mod inspect;
mod record;
mod report;
mod stats;
#[cfg(feature = "train")]
mod train;
#[cfg(not(feature = "train"))]
#[path = "without_train.rs"]
mod train;

use anyhow::Result;
use clap::Subcommand;

/// What the binary can do.
#[derive(Subcommand)]
pub enum Command {
    /// Watch a trained policy work on held-out scenes, and get a report
    Demo(demo::DemoArgs),
    /// Measure success per task family, for one checkpoint or several side by side
    Eval(eval::EvalArgs),
    /// Draw files of episode records, from any simulator, as a table and a page
    Report(report::ReportArgs),
    /// Train a policy on recorded episodes, or continue an interrupted run
    Train(train::TrainArgs),
    /// Record, summarise and verify data sets (LeRobotDataset v3.0)
    #[command(subcommand)]
    Data(DataCommand),
    /// Verify a checkpoint folder, or seal one that was edited on purpose
    #[command(subcommand)]
    Checkpoint(CheckpointCommand),
    /// Print what a checkpoint holds and costs
    Inspect(inspect::InspectArgs),
    /// Measure control steps, and the machine's limits beside them
    Bench(bench::BenchArgs),
    /// Make a checkpoint with random weights
    Init(init::InitArgs),
    /// Turn public checkpoints into parts of one of ours, or store one of ours as another type
    Convert(convert::ConvertArgs),
}

/// What can be done with checkpoint folders.
#[derive(Subcommand)]
pub enum CheckpointCommand {
    /// Compare every file with the manifest, and all parts with each other
    Verify(checkpoint::CheckpointArgs),
    /// Rewrite the manifest after an edit, if the folder makes a sound checkpoint
    Seal(checkpoint::CheckpointArgs),
}

/// What can be done with data sets.
#[derive(Subcommand)]
pub enum DataCommand {
    /// Record episodes of the scripted expert, or of a policy that the expert corrects
    Record(record::RecordArgs),
    /// Summarise a data set: episodes, outcomes, and the range of every feature
    Stats(stats::StatsArgs),
    /// Verify a data set to the last pixel
    Check(check::CheckArgs),
}

impl Command {
    /// Runs the subcommand to its end.
    pub fn run(self) -> Result<()> {
        match self {
            Self::Demo(args) => demo::run(args),
            Self::Eval(args) => eval::run(args),
            Self::Report(args) => report::run(args),
            Self::Train(args) => train::run(args),
            Self::Data(DataCommand::Record(args)) => record::run(args),
            Self::Data(DataCommand::Stats(args)) => stats::run(args),
            Self::Data(DataCommand::Check(args)) => check::run(args),
            Self::Checkpoint(CheckpointCommand::Verify(args)) => checkpoint::verify(args),
            Self::Checkpoint(CheckpointCommand::Seal(args)) => checkpoint::seal(args),
            Self::Inspect(args) => inspect::run(args),
            Self::Bench(args) => bench::run(args),
            Self::Init(args) => init::run(args),
            Self::Convert(args) => convert::run(args),
        }
    }
}
