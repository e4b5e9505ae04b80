//! Whether the matrix tiles of AMX can be used.

use std::arch::x86_64::__cpuid_count;
use std::sync::LazyLock;

/// Whether the processor has tiles of bytes and the system lets this process use them.
pub(crate) fn is_available() -> bool {
    static AVAILABLE: LazyLock<bool> = LazyLock::new(|| has_tiles() && may_use_tiles());
    *AVAILABLE
}

/// CPUID leaf 7: AMX-TILE and AMX-INT8.
fn has_tiles() -> bool {
    const TILE_AND_INT8: u32 = 1 << 24 | 1 << 25;
    is_x86_feature_detected!("xsave") && __cpuid_count(7, 0).edx & TILE_AND_INT8 == TILE_AND_INT8
}

/// Asks Linux for the 8 KB that a thread's tiles take (`Documentation/arch/x86/xstate.rst`).
#[cfg(target_os = "linux")]
fn may_use_tiles() -> bool {
    const ARCH_REQ_XCOMP_PERM: libc::c_int = 0x1023;
    const XFEATURE_XTILEDATA: libc::c_ulong = 18;
    // Safety: the call reads nothing but its arguments and changes only what this process may use.
    unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0 }
}

#[cfg(not(target_os = "linux"))]
fn may_use_tiles() -> bool {
    false
}
