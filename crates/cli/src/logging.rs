//! Logs on stderr: warnings always, what is loaded and used with `-v`, details with `-vv`.

use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;

/// Starts logging. `RUST_LOG` overrides the level that `verbose` asks for.
pub fn install(verbose: u8) {
    let level = match verbose {
        0 => "warn",
        1 => "info",
        _ => "debug",
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    // A program that installed a subscriber before keeps it.
    let _ = subscriber.with_ansi(io::stderr().is_terminal()).without_time().with_target(false).try_init();
}
