//! Success rates with their uncertainty.

use std::fmt;

use serde::{Deserialize, Serialize};

/// `k` successes in `n` episodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rate {
    /// Episodes.
    pub n: usize,
    /// Successes among them.
    pub k: usize,
}

/// 97.5th percentile of the standard normal distribution: 95 % lie within as many standard deviations.
const Z: f64 = 1.959_963_984_540_054;

impl Rate {
    /// Counts one more episode.
    pub fn add(&mut self, success: bool) {
        self.n += 1;
        self.k += usize::from(success);
    }

    /// The observed fraction; 0 without episodes.
    pub fn fraction(self) -> f64 {
        if self.n == 0 { 0.0 } else { self.k as f64 / self.n as f64 }
    }

    /// The 95 % interval of Wilson (1927) of the true success probability; `(0, 1)` without episodes.
    ///
    /// `(p + z^2/2n -+ z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n)`. It stays within `[0, 1]` and is not empty at
    /// 0 or `n` successes, where the textbook interval is.
    pub fn wilson(self) -> (f64, f64) {
        if self.n == 0 {
            return (0.0, 1.0);
        }
        let (n, p) = (self.n as f64, self.fraction());
        let centre = p + Z * Z / (2.0 * n);
        let half = Z * (p * (1.0 - p) / n + Z * Z / (4.0 * n * n)).sqrt();
        let scale = 1.0 + Z * Z / n;
        (((centre - half) / scale).max(0.0), ((centre + half) / scale).min(1.0))
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (low, high) = self.wilson();
        write!(f, "{:.1} % [{:.1}, {:.1}]", 100.0 * self.fraction(), 100.0 * low, 100.0 * high)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wilson_agrees_with_published_values() {
        // Newcombe 1998 (Statistics in Medicine 17:857), table I, method 3, and R's `prop.test(correct = FALSE)`.
        let cases = [
            (81, 263, 0.2553, 0.3662),
            (15, 148, 0.0624, 0.1605),
            (0, 20, 0.0, 0.1611),
            (1, 29, 0.0061, 0.1718),
            (100, 100, 0.9630, 1.0),
            (10, 10, 0.7225, 1.0),
        ];
        for (k, n, low, high) in cases {
            let interval = Rate { n, k }.wilson();
            assert!((interval.0 - low).abs() < 5e-5 && (interval.1 - high).abs() < 5e-5, "{k}/{n}: {interval:?}");
        }
        assert_eq!(Rate::default().wilson(), (0.0, 1.0));
        assert_eq!(Rate { n: 20, k: 19 }.to_string(), "95.0 % [76.4, 99.1]");
    }
}
