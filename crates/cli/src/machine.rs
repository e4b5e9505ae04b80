//! The machine with the kernels that this program uses on it.

use robomamba_eval::Machine;
use robomamba_kernels::KernelChoice;

/// The machine that this process runs on.
pub fn this() -> Machine {
    Machine::this(kernels())
}

/// Name of the kernels in use.
pub fn kernels() -> String {
    KernelChoice::current().to_string()
}
