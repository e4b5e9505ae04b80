//! The machine with the kernels that this program uses on it.

use robomamba_eval::Machine;
use robomamba_kernels::Isa;

/// The machine that this process runs on.
pub fn this() -> Machine {
    Machine::this(kernels())
}

/// Name of the kernels in use.
pub fn kernels() -> &'static str {
    match Isa::detect() {
        Isa::Amx => "AVX-512 and AMX",
        Isa::Avx512Bf16 => "AVX-512 with BF16",
        Isa::Avx512 => "AVX-512",
        Isa::AvxVnni => "AVX2 with VNNI",
        Isa::Avx2 => "AVX2",
        Isa::Portable => "portable vectors",
    }
}
