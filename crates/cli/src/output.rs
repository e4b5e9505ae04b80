//! Results on stdout.

use std::fmt::Display;
use std::io::{self, ErrorKind, Write};

use anyhow::{Context, Result};

/// Prints a line of results. A reader that has seen enough (`robomamba ... | head`) is no error.
///
/// # Errors
/// When stdout cannot be written for another reason.
pub fn print(line: impl Display) -> Result<()> {
    match writeln!(io::stdout(), "{line}") {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => written.context("cannot write to stdout"),
    }
}
