//! What glibc does with memory that is given back; alone in its process, whose size it watches.
#![cfg(all(target_arch = "x86_64", target_os = "linux", target_env = "gnu"))]

use std::hint::black_box;

use robomamba_kernels::with_large_blocks_apart;

const LARGE: usize = 4 << 20;
const COUNT: usize = 40;

/// Bytes of this process in memory.
fn resident() -> usize {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    pages.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

/// Allocates large blocks with small ones between them, frees the large ones, and returns by how much the process grew.
fn growth() -> usize {
    let before = resident();
    let blocks: Vec<_> = (0..COUNT).map(|i| (vec![i as u8 + 1; LARGE], vec![i as u8 + 1; 2000])).collect();
    let small: Vec<_> = black_box(blocks).into_iter().map(|(_, small)| small).collect();
    let growth = resident().saturating_sub(before);
    drop(black_box(small));
    growth
}

#[test]
fn holes_between_what_stays_go_back() {
    // From here on glibc takes such blocks from its heap.
    drop(black_box(vec![1u8; 2 * LARGE]));
    let kept = growth();
    assert!(kept > COUNT * LARGE / 2, "glibc kept {kept} bytes: this test no longer shows anything");
    let apart = with_large_blocks_apart(growth);
    assert!(apart < LARGE, "{apart} bytes stayed");
}
