//! Latencies of control steps in a histogram of fixed size.

use std::time::Duration;

use hdrhistogram::Histogram;

/// Latencies counted with a relative error of at most 0.1 %, from 1 ns to 1,000 s.
///
/// The histogram has its full size from the beginning, so counting allocates nothing. Longer latencies count as
/// 1,000 s. The maximum is exact.
#[derive(Clone, Debug)]
pub struct LatencyHistogram {
    counts: Histogram<u64>,
    max: Duration,
    total: Duration,
}

/// Longest latency that is distinguished, in nanoseconds.
const HIGHEST_NS: u64 = 1_000_000_000_000;
/// Decimal digits that are kept of a latency.
const SIGNIFICANT_DIGITS: u8 = 3;

impl Default for LatencyHistogram {
    fn default() -> Self {
        let counts =
            Histogram::new_with_max(HIGHEST_NS, SIGNIFICANT_DIGITS).expect("the bounds are constants in range");
        Self { counts, max: Duration::ZERO, total: Duration::ZERO }
    }
}

impl LatencyHistogram {
    /// Counts one control step.
    pub fn record(&mut self, latency: Duration) {
        self.counts.saturating_record(latency.as_nanos().clamp(1, u128::from(HIGHEST_NS)) as u64);
        self.max = self.max.max(latency);
        self.total += latency;
    }

    /// Number of control steps.
    pub fn len(&self) -> u64 {
        self.counts.len()
    }

    /// Whether no step was counted.
    pub fn is_empty(&self) -> bool {
        self.counts.is_empty()
    }

    /// The `p`-th percentile (0 to 100, nearest rank) in milliseconds; 0 before the first step.
    pub fn percentile_ms(&self, p: f64) -> f64 {
        if self.is_empty() {
            return 0.0;
        }
        (self.counts.value_at_percentile(p) as f64 / 1e6).min(self.max_ms())
    }

    /// The longest latency in milliseconds; 0 before the first step.
    pub fn max_ms(&self) -> f64 {
        self.max.as_secs_f64() * 1e3
    }

    /// The mean latency in milliseconds; 0 before the first step.
    pub fn mean_ms(&self) -> f64 {
        if self.is_empty() { 0.0 } else { self.total.as_secs_f64() * 1e3 / self.len() as f64 }
    }

    /// Control steps per second that the policy alone sustains in Hz: the inverse of the mean; 0 before the first step.
    pub fn rate_hz(&self) -> f64 {
        if self.total.is_zero() { 0.0 } else { self.len() as f64 / self.total.as_secs_f64() }
    }

    /// Latencies in milliseconds with their number of steps, in ascending order. Equal ones within the precision are
    /// merged.
    pub fn counts_ms(&self) -> impl Iterator<Item = (f64, u64)> + '_ {
        self.counts.iter_recorded().map(|bin| (bin.value_iterated_to() as f64 / 1e6, bin.count_at_value()))
    }

    /// Adds the steps of `other`.
    pub fn merge(&mut self, other: &Self) {
        self.counts += &other.counts;
        self.max = self.max.max(other.max);
        self.total += other.total;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_those_of_a_sorted_list() {
        let mut histogram = LatencyHistogram::default();
        // Latencies from 0.1 to 600 ms whose steps grow.
        let mut sorted: Vec<f64> = (0..20_000).map(|i| 0.1 * 1.000_435_f64.powi(i)).collect();
        for ms in sorted.iter().rev() {
            histogram.record(Duration::from_secs_f64(ms / 1e3));
        }
        sorted.sort_by(f64::total_cmp);
        for p in [0.1, 1.0, 50.0, 95.0, 99.0, 99.9, 100.0] {
            let exact = sorted[((p / 100.0 * sorted.len() as f64).ceil() as usize).max(1) - 1];
            let found = histogram.percentile_ms(p);
            assert!((found / exact - 1.0).abs() < 1e-2, "p{p}: expected {exact} ms within 1 %, found {found} ms");
        }
        let mean = sorted.iter().sum::<f64>() / sorted.len() as f64;
        assert!((histogram.mean_ms() / mean - 1.0).abs() < 1e-6);
        assert!((histogram.rate_hz() * mean / 1e3 - 1.0).abs() < 1e-6);
        assert_eq!(histogram.counts_ms().map(|(_, count)| count).sum::<u64>(), 20_000);
    }

    #[test]
    fn extremes_are_kept() {
        let mut histogram = LatencyHistogram::default();
        assert_eq!((histogram.percentile_ms(99.0), histogram.mean_ms(), histogram.rate_hz()), (0.0, 0.0, 0.0));
        histogram.record(Duration::ZERO);
        histogram.record(Duration::from_secs(5000));
        assert_eq!((histogram.len(), histogram.max_ms()), (2, 5e6));
        let mut both = histogram.clone();
        both.merge(&histogram);
        assert_eq!((both.len(), both.max_ms()), (4, 5e6));
    }
}
