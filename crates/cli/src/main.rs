//! The binary `robomamba`; see the library.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    robomamba_cli::main()
}
