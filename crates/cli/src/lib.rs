//! `robomamba`: records, trains, evaluates, shows, inspects and converts robot policies.
//!
//! This crate is thin: it turns arguments into typed requests, calls the other crates and prints their answers. Each
//! subcommand is one file under `commands`. It is a library so that its tests can require the feature `train`, which is
//! optional in the binary.
#![forbid(unsafe_code)]

mod args;
mod commands;
mod interrupt;
mod loaded;
mod logging;
mod machine;
mod output;
mod parallel;
mod progress;
mod run_folder;
mod summary;

use std::process::ExitCode;

use clap::{ArgAction, Parser};
use robomamba_kernels::KernelChoice;

/// A recurrent robot policy that sees, reads, remembers and acts in real time on a CPU.
#[derive(Parser)]
#[command(name = "robomamba", version, arg_required_else_help = true)]
struct Cli {
    /// Log more: once for what is loaded and used, twice for every detail; RUST_LOG chooses by module
    #[arg(short, long, global = true, action = ArgAction::Count)]
    verbose: u8,
    /// Pin the kernels, so that a run can be repeated to the bit: ISA or ISA/bf16=f32, as reports and logs name them
    /// [default: chosen by a short measurement]
    #[arg(long, value_name = "CHOICE", global = true)]
    kernels: Option<KernelChoice>,
    #[command(subcommand)]
    command: commands::Command,
}

/// The command line: parses the arguments of the process and runs the subcommand.
///
/// The exit code is 0 when the command completed, 1 on an error, and 2 for arguments that cannot be parsed. It is 130
/// when Ctrl-C ended the command early, even if it has written partial results.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    logging::install(cli.verbose);
    let pinned = cli.kernels.map_or(Ok(()), KernelChoice::pin).map_err(anyhow::Error::from);
    match pinned.and_then(|()| interrupt::install()).and_then(|()| cli.command.run()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", one_line(&error));
            ExitCode::from(if error.is::<interrupt::Interrupted>() { 130 } else { 1 })
        }
    }
}

/// Parses a command line without running it, so that documents can be checked: `arguments` begin after the program.
///
/// # Errors
/// What the parser says of it.
pub fn check_arguments<'a>(arguments: impl IntoIterator<Item = &'a str>) -> Result<(), String> {
    let arguments = ["robomamba"].into_iter().chain(arguments);
    Cli::try_parse_from(arguments).map(drop).map_err(|error| error.to_string())
}

/// The chain of causes, outermost first, without those that the message before already quotes.
fn one_line(error: &anyhow::Error) -> String {
    let mut line = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if line.is_empty() {
            line = cause;
        } else if !line.contains(&cause) {
            line = format!("{line}: {cause}");
        }
    }
    line.replace('\n', " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quoted_cause_is_not_repeated() {
        let error = anyhow::anyhow!("disk full").context("cannot write a: disk full").context("recording");
        assert_eq!(one_line(&error), "recording: cannot write a: disk full");
    }
}
