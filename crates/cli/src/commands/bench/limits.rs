//! Peak rates of the machine.

use anyhow::Result;
use robomamba_kernels::{Kernels, Threads, limits};
use serde::Serialize;

use robomamba_eval::Table;

/// Bytes that are read to measure main memory: many times any cache.
const MEMORY_BYTES: usize = 512 << 20;
/// Bytes that are read to measure the last-level cache: more than the second level has.
const CACHE_BYTES: usize = 12 << 20;

/// Rates at one number of threads.
#[derive(Clone, Debug, Serialize)]
pub struct Limits {
    pub threads: usize,
    /// Multiplications and additions in f32, in 10^9 per second.
    pub f32_gflops: f64,
    /// The same of bf16, summed in f32.
    pub bf16_gflops: f64,
    /// The same in 8 bits.
    pub int8_gops: f64,
    /// Reading from main memory and from the last-level cache, in 10^9 bytes per second.
    pub memory_gb_s: f64,
    pub cache_gb_s: f64,
    /// From one thread to another and back, in 10^-9 seconds; none on a single thread.
    pub round_trip_ns: Option<f64>,
}

/// The limits on one thread and on `threads`.
pub fn measure(threads: usize) -> Result<Vec<Limits>> {
    let data = vec![1.0; MEMORY_BYTES / size_of::<f32>()];
    let mut counts = vec![1, threads];
    counts.dedup();
    let at = |threads: usize| -> Result<Limits> {
        let kernels = Kernels::detect().with_threads(if threads == 1 { Threads::One } else { Threads::Rayon });
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build()?;
        Ok(pool.install(|| Limits {
            threads,
            f32_gflops: limits::float_ops(kernels) / 1e9,
            bf16_gflops: limits::bf16_ops(kernels) / 1e9,
            int8_gops: limits::int8_ops(kernels) / 1e9,
            memory_gb_s: limits::read_bytes(kernels, &data) / 1e9,
            cache_gb_s: limits::read_bytes(kernels, &data[..CACHE_BYTES / size_of::<f32>()]) / 1e9,
            round_trip_ns: limits::round_trip(kernels).map(|seconds| seconds * 1e9),
        }))
    };
    counts.into_iter().map(at).collect()
}

pub fn table(limits: &[Limits]) -> Table {
    let mut table = Table::new(["limits", "f32", "bf16", "int8", "memory", "cache", "to another core and back"]);
    for limit in limits {
        table.row([
            format!("{} threads", limit.threads),
            format!("{:.0} GFLOP/s", limit.f32_gflops),
            format!("{:.0} GFLOP/s", limit.bf16_gflops),
            format!("{:.0} GOP/s", limit.int8_gops),
            format!("{:.1} GB/s", limit.memory_gb_s),
            format!("{:.1} GB/s", limit.cache_gb_s),
            limit.round_trip_ns.map_or(String::new(), |ns| format!("{ns:.0} ns")),
        ]);
    }
    table
}
