//! The `robomamba` command.
fn main() {}
