//! The binary `robomamba`; see the library.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use robomamba_kernels::LineAllocator;

#[global_allocator]
static ALLOCATOR: LineAllocator = LineAllocator;

fn main() -> ExitCode {
    robomamba_cli::main()
}
