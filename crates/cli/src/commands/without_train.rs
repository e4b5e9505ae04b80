//! `train` in a binary that was built without it.

use anyhow::{Result, bail};
use clap::Args;

/// Whatever options `train` has.
#[derive(Args)]
#[command(disable_help_flag = true)]
pub struct TrainArgs {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
    _options: Vec<String>,
}

/// Says how to get the real one.
pub fn run(_: TrainArgs) -> Result<()> {
    bail!(
        "this binary was built without training, which takes longer to compile; \
         use `cargo run --release --features train -- train ...`"
    )
}
