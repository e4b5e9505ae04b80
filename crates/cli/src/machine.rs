//! The machine that a measurement was made on, and the time.

use std::fmt;
use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use robomamba_kernels::Isa;
use serde::Serialize;

use crate::parallel;

/// What a reader needs to know of the machine to compare figures.
#[derive(Clone, Debug, Serialize)]
pub struct Machine {
    /// Name of the processor.
    pub cpu: String,
    /// Cores that this process may use.
    pub cores: usize,
    /// Instruction set that the kernels use.
    pub isa: &'static str,
    /// Architecture and operating system.
    pub platform: String,
    /// Version of this program.
    pub robomamba: &'static str,
}

impl Machine {
    /// The machine that this process runs on.
    pub fn this() -> Self {
        Self {
            cpu: cpu_name().unwrap_or_else(|| "unknown processor".into()),
            cores: parallel::cores().get(),
            isa: isa_name(),
            platform: format!("{} {}", std::env::consts::ARCH, std::env::consts::OS),
            robomamba: env!("CARGO_PKG_VERSION"),
        }
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {} cores, {}, {}", self.cpu, self.cores, self.isa, self.platform)
    }
}

fn isa_name() -> &'static str {
    match Isa::detect() {
        Isa::Amx => "AVX-512 and AMX",
        Isa::Avx512Bf16 => "AVX-512 with BF16",
        Isa::Avx512 => "AVX-512",
        Isa::AvxVnni => "AVX2 with VNNI",
        Isa::Avx2 => "AVX2",
        Isa::Portable => "portable vectors",
    }
}

fn cpu_name() -> Option<String> {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").ok()?;
    field(&cpuinfo, "model name").map(str::to_string)
}

/// Most memory that this process ever occupied, in MB (10^6 bytes); `None` where `/proc` does not tell.
pub fn peak_rss_mb() -> Option<f64> {
    peak_rss_of(&fs::read_to_string("/proc/self/status").ok()?)
}

/// Memory that this process occupies now, in bytes; `None` where `/proc` does not tell.
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
pub struct Utc {
    date: (i64, u32, u32),
    time: (u32, u32, u32),
    /// Nanoseconds since 1970.
    pub unix_ns: u64,
}

impl Utc {
    /// Now.
    pub fn now() -> Self {
        let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self::from_unix_ns(elapsed.as_nanos() as u64)
    }

    fn from_unix_ns(unix_ns: u64) -> Self {
        let seconds = unix_ns / 1_000_000_000;
        let of_day = (seconds % 86_400) as u32;
        let time = (of_day / 3600, of_day / 60 % 60, of_day % 60);
        Self { date: civil_from_days((seconds / 86_400) as i64), time, unix_ns }
    }

    /// A folder name that sorts by time: `2026-01-31T08-15-00Z`.
    pub fn folder_name(&self) -> String {
        self.to_string().replace(':', "-").replace(' ', "T").replace("TUTC", "Z")
    }
}

impl fmt::Display for Utc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ((year, month, day), (hour, minute, second)) = (self.date, self.time);
        write!(f, "{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC")
    }
}

/// Year, month and day of a day counted from 1970-01-01 (Hinnant, "chrono-compatible low-level date algorithms").
/// Years begin in March, so that the leap day is the last one; an era is 400 years.
fn civil_from_days(days: i64) -> (i64, u32, u32) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = (day_of_year - (153 * month_from_march + 2) / 5 + 1) as u32;
    let month = (if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 }) as u32;
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        let cases = [
            (0, "1970-01-01 00:00:00 UTC", "1970-01-01T00-00-00Z"),
            (951_782_400, "2000-02-29 00:00:00 UTC", "2000-02-29T00-00-00Z"),
            (1_800_000_000, "2027-01-15 08:00:00 UTC", "2027-01-15T08-00-00Z"),
            (4_107_542_399, "2100-02-28 23:59:59 UTC", "2100-02-28T23-59-59Z"),
        ];
        for (seconds, text, folder) in cases {
            let utc = Utc::from_unix_ns(seconds * 1_000_000_000);
            assert_eq!((utc.to_string().as_str(), utc.folder_name().as_str()), (text, folder));
        }
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
