//! The machine and the moment of a measurement.

use std::{fmt, fs, thread};

use jiff::Timestamp;
use serde::Serialize;

/// What a reader needs to know of the machine to compare figures.
#[derive(Clone, Debug, Serialize)]
pub struct Machine {
    /// Name of the processor.
    pub cpu: String,
    /// Cores that this process may use.
    pub cores: usize,
    /// Kernels in use: instruction set and choices made by measurement.
    pub kernels: String,
    /// Architecture and operating system.
    pub platform: String,
    /// Version of this program.
    pub robomamba: &'static str,
}

impl Machine {
    /// The machine that this process runs on, with the `kernels` that it uses.
    pub fn this(kernels: impl Into<String>) -> Self {
        Self {
            cpu: cpu_name().unwrap_or_else(|| "unknown processor".into()),
            cores: thread::available_parallelism().map_or(1, usize::from),
            kernels: kernels.into(),
            platform: format!("{} {}", std::env::consts::ARCH, std::env::consts::OS),
            robomamba: env!("CARGO_PKG_VERSION"),
        }
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {} cores, {}, {}", self.cpu, self.cores, self.kernels, self.platform)
    }
}

fn cpu_name() -> Option<String> {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").ok()?;
    field(&cpuinfo, "model name").map(str::to_string)
}

/// Most memory that this process ever occupied, in MB (10^6 bytes); `None` where `/proc` does not report it.
pub fn peak_rss_mb() -> Option<f64> {
    peak_rss_of(&fs::read_to_string("/proc/self/status").ok()?)
}

/// Memory that this process occupies now, in bytes; `None` where `/proc` does not report it.
pub fn rss_bytes() -> Option<i64> {
    rss_of(&fs::read_to_string("/proc/self/status").ok()?)
}

fn rss_of(status: &str) -> Option<i64> {
    let kib: i64 = field(status, "VmRSS")?.strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

fn peak_rss_of(status: &str) -> Option<f64> {
    let kib: f64 = field(status, "VmHWM")?.strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024.0 / 1e6)
}

/// The value of the first line `name: value`.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == name).then_some(value.trim())
    })
}

/// A moment in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Utc(Timestamp);

impl Utc {
    /// Now.
    pub fn now() -> Self {
        Self(Timestamp::now())
    }

    /// Nanoseconds since 1970.
    pub fn unix_ns(self) -> u64 {
        self.0.as_nanosecond() as u64
    }

    /// A folder name that sorts by time: `2026-01-31T08-15-00Z`.
    pub fn folder_name(self) -> String {
        self.0.strftime("%Y-%m-%dT%H-%M-%SZ").to_string()
    }
}

impl fmt::Display for Utc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.strftime("%Y-%m-%d %H:%M:%S UTC"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_written_in_utc() {
        let utc = Utc(Timestamp::from_second(951_782_400).unwrap());
        assert_eq!(
            (utc.to_string().as_str(), utc.folder_name().as_str()),
            ("2000-02-29 00:00:00 UTC", "2000-02-29T00-00-00Z")
        );
        assert_eq!(utc.unix_ns(), 951_782_400_000_000_000);
    }

    #[test]
    fn peak_memory_is_read_from_the_kernel() {
        assert_eq!(peak_rss_of("Name:\tx\nVmHWM:\t  1000 kB\n"), Some(1.024));
        assert_eq!(peak_rss_of("Name:\tx\n"), None);
        assert_eq!(rss_of("VmHWM:\t  1000 kB\nVmRSS:\t  10 kB\n"), Some(10_240));
        if cfg!(target_os = "linux") {
            assert!(peak_rss_mb().unwrap() > 0.5);
            assert!(rss_bytes().unwrap() as f64 / 1e6 <= peak_rss_mb().unwrap());
        }
    }
}
