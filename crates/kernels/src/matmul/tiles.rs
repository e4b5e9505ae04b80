//! Products of 8-bit integers on the matrix tiles of AMX (Intel's Advanced Matrix Extensions, from Sapphire Rapids on).
//!
//! One `tdpbusd` multiplies 16 rows by 16 columns over a depth of 64. The intrinsics are not stable yet, hence the
//! assembly. (Intel 64 and IA-32 Architectures Optimization Reference Manual, chapter 20.)

use std::arch::asm;
use std::marker::PhantomData;

/// Rows of a tile, and columns of a tile of sums.
pub(super) const TILE: usize = 16;
/// Depth that one instruction takes.
pub(super) const TILE_DEPTH: usize = 64;
/// Rows and columns of a block of sums.
pub(super) const BLOCK: usize = 2 * TILE;

/// `LDTILECFG`'s operand: eight tiles of 16 rows of 64 bytes.
#[repr(C, align(64))]
struct TileConfig {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

static CONFIG: TileConfig = {
    let (mut row_bytes, mut rows) = ([0; 16], [0; 16]);
    let mut tile = 0;
    while tile < 8 {
        (row_bytes[tile], rows[tile]) = (TILE_DEPTH as u16, TILE as u8);
        tile += 1;
    }
    TileConfig { palette: 1, start_row: 0, reserved: [0; 14], row_bytes, rows }
};

/// The tiles of this thread, configured; they are released when it is dropped.
pub(super) struct Tiles {
    /// Of this thread only.
    thread: PhantomData<*const ()>,
}

impl Tiles {
    /// Takes the tiles.
    ///
    /// # Safety
    /// [`amx::is_available`](crate::amx::is_available) must have said yes.
    pub(super) unsafe fn new() -> Self {
        // Safety: the processor has tiles, and the configuration is 64 bytes long and valid for its palette.
        unsafe { asm!("ldtilecfg [{}]", in(reg) &raw const CONFIG, options(nostack, readonly, preserves_flags)) };
        Self { thread: PhantomData }
    }

    /// `sums[r][c] = sum_k x[r][k] w[k][c]` over `steps` times a depth of 64, for 32 rows and 32 columns, or the first
    /// 16 rows where `HALF`; the other sums are left as they are.
    ///
    /// # Safety
    /// `x` must be readable for 32 (16) rows of `steps * 64` unsigned bytes, `stride` apart, and each of `low` and
    /// `high`, 16 columns, for `steps * 1024` signed bytes `[steps * 16, 16, 4]`.
    #[inline(always)]
    pub(super) unsafe fn product<const HALF: bool>(
        &self,
        (x, stride): (*const u8, usize),
        [low, high]: [*const i8; 2],
        steps: usize,
        sums: &mut Sums,
    ) {
        if steps == 0 {
            sums.0 = [[0; BLOCK]; BLOCK];
            return;
        }
        /// Bytes of a row of a tile; one of a block of sums is twice as long.
        const W_STRIDE: usize = TILE_DEPTH;
        const { assert!(BLOCK * size_of::<i32>() == 2 * W_STRIDE) };
        let sums = sums.0.as_mut_ptr();
        if HALF {
            // Safety: `x` and `w` by the caller's promise; 16 rows of `sums` are written; the tiles were configured by
            // `new`.
            unsafe {
                asm!(
                    "tilezero tmm0", "tilezero tmm1",
                    "2:",
                    "tileloadd tmm4, [{x} + {stride}]",
                    "tileloadd tmm6, [{low} + {w_stride}]",
                    "tileloadd tmm7, [{high} + {w_stride}]",
                    "tdpbusd tmm0, tmm4, tmm6", "tdpbusd tmm1, tmm4, tmm7",
                    "add {x}, 64", "add {low}, 1024", "add {high}, 1024", "dec {steps}", "jnz 2b",
                    "tilestored [{sums} + 2 * {w_stride}], tmm0",
                    "tilestored [{sums} + 2 * {w_stride} + 64], tmm1",
                    x = inout(reg) x => _, low = inout(reg) low => _, high = inout(reg) high => _, steps = inout(reg) steps => _,
                    stride = in(reg) stride, w_stride = in(reg) W_STRIDE, sums = in(reg) sums,
                    out("tmm0") _, out("tmm1") _, out("tmm4") _, out("tmm6") _, out("tmm7") _,
                    options(nostack),
                );
            }
            return;
        }
        // Safety: as above, with 32 rows.
        unsafe {
            let (lower, lower_sums) = (x.add(TILE * stride), sums.add(TILE));
            asm!(
                "tilezero tmm0", "tilezero tmm1", "tilezero tmm2", "tilezero tmm3",
                "2:",
                "tileloadd tmm4, [{x} + {stride}]",
                "tileloadd tmm6, [{low} + {w_stride}]",
                "tileloadd tmm7, [{high} + {w_stride}]",
                "tdpbusd tmm0, tmm4, tmm6",
                "tileloadd tmm5, [{lower} + {stride}]",
                "tdpbusd tmm1, tmm4, tmm7", "tdpbusd tmm2, tmm5, tmm6", "tdpbusd tmm3, tmm5, tmm7",
                "add {x}, 64", "add {lower}, 64", "add {low}, 1024", "add {high}, 1024", "dec {steps}", "jnz 2b",
                "tilestored [{sums} + 2 * {w_stride}], tmm0", "tilestored [{sums} + 2 * {w_stride} + 64], tmm1",
                "tilestored [{lower_sums} + 2 * {w_stride}], tmm2", "tilestored [{lower_sums} + 2 * {w_stride} + 64], tmm3",
                x = inout(reg) x => _, lower = inout(reg) lower => _, low = inout(reg) low => _, high = inout(reg) high => _,
                steps = inout(reg) steps => _, stride = in(reg) stride, w_stride = in(reg) W_STRIDE,
                sums = in(reg) sums, lower_sums = in(reg) lower_sums,
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                options(nostack),
            );
        }
    }
}

/// Multiplies tiles from registers, `4 * links` times, and returns the number of multiplications: what the processor
/// can do at best.
///
/// # Safety
/// [`amx::is_available`](crate::amx::is_available) must have said yes.
pub(crate) unsafe fn multiply(links: usize) -> usize {
    // Safety: the caller's promise.
    let _tiles = unsafe { Tiles::new() };
    // Safety: the tiles are configured; nothing else is touched.
    unsafe {
        asm!(
            "tilezero tmm4", "tilezero tmm5", "tilezero tmm6", "tilezero tmm7",
            "2:",
            "tdpbusd tmm0, tmm4, tmm6", "tdpbusd tmm1, tmm4, tmm7", "tdpbusd tmm2, tmm5, tmm6", "tdpbusd tmm3, tmm5, tmm7",
            "dec {links}", "jnz 2b",
            links = inout(reg) links.max(1) => _,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nomem, nostack),
        );
    }
    4 * links.max(1) * TILE * TILE * TILE_DEPTH
}

impl Drop for Tiles {
    fn drop(&mut self) {
        // Safety: `new` has configured the tiles of this thread.
        unsafe { asm!("tilerelease", options(nomem, nostack, preserves_flags)) };
    }
}

/// A block of integer sums.
#[repr(align(64))]
pub(super) struct Sums(pub(super) [[i32; BLOCK]; BLOCK]);
