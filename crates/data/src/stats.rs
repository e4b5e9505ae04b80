//! Statistics of features over episodes and over the whole data set (upstream: `compute_stats.py`).
//!
//! An episode has min, max, mean, std (of the population), count, and five quantiles from a histogram of 5000 bins.
//! The data set's statistics combine those of the episodes, weighted by their counts. Its quantiles are weighted means
//! of the episodes' quantiles, as in LeRobot 0.6.1.
//!
//! Two departures from upstream make the values more exact:
//!
//! - Sums run in `f64`. Upstream's run in `f32` and lose the std of nearly constant images.
//! - Images are counted in every frame and pixel. Upstream takes a subsample of at least 100 frames, and skips pixels
//!   of images above 300 pixels.

use std::path::Path;

use robomamba_policy::{Image, NormMode, VectorStats};
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use serde_json::{Map, Value, json};

use crate::atomic::{read_json, write_json};
use crate::{DataError, Result, layout};

/// Names and probabilities of the quantiles.
pub const QUANTILES: [(&str, f64); 5] = [("q01", 0.01), ("q10", 0.1), ("q50", 0.5), ("q90", 0.9), ("q99", 0.99)];

const BINS: usize = 5000;
const EDGE_PADDING: f64 = 1e-10;
const CHANNELS: usize = Image::CHANNELS;

/// How a statistic is nested in files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StatsLayout {
    /// `[dim]`.
    Vector,
    /// `[channels, 1, 1]`, in `[0, 1]`.
    Image,
}

/// Statistics of one feature, each `[dim]` (`[3]` for a camera, values in `[0, 1]`).
#[derive(Clone, Debug, PartialEq)]
pub struct FeatureStats {
    /// How the values are nested in files.
    pub layout: StatsLayout,
    /// Smallest value.
    pub min: Vec<f64>,
    /// Largest value.
    pub max: Vec<f64>,
    /// Mean.
    pub mean: Vec<f64>,
    /// Standard deviation of the population.
    pub std: Vec<f64>,
    /// Number of frames.
    pub count: u64,
    /// One entry per [`QUANTILES`], each `[dim]`; empty when the writer had none.
    pub quantiles: Vec<Vec<f64>>,
}

impl FeatureStats {
    /// Statistics of `[frames, dim]` finite numbers.
    pub fn of_vectors(values: &[f64], dim: usize) -> Self {
        let frames = (values.len() / dim) as u64;
        let dimensions =
            (0..dim).map(|d| Weighted(values.iter().skip(d).step_by(dim).map(|&value| (value, 1)).collect()));
        Self::of_dimensions(dimensions, StatsLayout::Vector, frames)
    }

    fn of_dimensions(dimensions: impl Iterator<Item = Weighted>, layout: StatsLayout, count: u64) -> Self {
        let mut stats = Self { count, quantiles: vec![Vec::new(); QUANTILES.len()], ..Self::empty(layout) };
        for dimension in dimensions {
            let moments = dimension.moments();
            stats.min.push(moments.min);
            stats.max.push(moments.max);
            stats.mean.push(moments.mean);
            stats.std.push(moments.std);
            for (out, value) in stats.quantiles.iter_mut().zip(dimension.quantiles(&moments)) {
                out.push(value);
            }
        }
        stats
    }

    fn empty(layout: StatsLayout) -> Self {
        Self {
            layout,
            min: Vec::new(),
            max: Vec::new(),
            mean: Vec::new(),
            std: Vec::new(),
            count: 0,
            quantiles: Vec::new(),
        }
    }

    /// Combines the statistics of several episodes (upstream: `aggregate_feature_stats` of 0.6.1).
    /// `None` without episodes, or when their dimensions differ.
    pub fn aggregate(parts: &[&Self]) -> Option<Self> {
        let first = parts.first()?;
        let dim = first.min.len();
        if parts.iter().any(|part| part.min.len() != dim) {
            return None;
        }
        let count: u64 = parts.iter().map(|part| part.count).sum();
        let fold = |get: fn(&Self) -> &Vec<f64>, pick: fn(f64, f64) -> f64| -> Vec<f64> {
            (0..dim).map(|d| parts.iter().map(|part| get(part)[d]).reduce(pick).unwrap_or_default()).collect()
        };
        let weighted = |get: &dyn Fn(&Self, usize) -> f64| -> Vec<f64> {
            let total = |d| parts.iter().map(|part| get(part, d) * part.count as f64).sum::<f64>();
            (0..dim).map(|d| total(d) / count as f64).collect()
        };
        let mean = weighted(&|part, d| part.mean[d]);
        let variance = weighted(&|part, d| part.std[d].powi(2) + (part.mean[d] - mean[d]).powi(2));
        let has_quantiles = parts.iter().all(|part| part.quantiles.len() == QUANTILES.len());
        let quantiles = 0..if has_quantiles { QUANTILES.len() } else { 0 };
        Some(Self {
            layout: first.layout,
            min: fold(|part| &part.min, f64::min),
            max: fold(|part| &part.max, f64::max),
            quantiles: quantiles.map(|q| weighted(&|part, d| part.quantiles[q][d])).collect(),
            std: variance.into_iter().map(f64::sqrt).collect(),
            mean,
            count,
        })
    }

    /// Names and values, without the count.
    pub fn entries(&self) -> impl Iterator<Item = (&'static str, &[f64])> {
        let moments = [("min", &self.min), ("max", &self.max), ("mean", &self.mean), ("std", &self.std)];
        let quantiles = QUANTILES.iter().zip(&self.quantiles).map(|((name, _), values)| (*name, values));
        moments.into_iter().chain(quantiles).map(|(name, values)| (name, values.as_slice()))
    }

    /// The part that normalisation needs.
    pub fn normalisation(&self, mode: NormMode) -> VectorStats {
        let narrow = |values: &[f64]| values.iter().map(|&value| value as f32).collect();
        VectorStats {
            mode,
            min: narrow(&self.min),
            max: narrow(&self.max),
            mean: narrow(&self.mean),
            std: narrow(&self.std),
        }
    }

    pub(crate) fn to_json(&self) -> Value {
        let nest = |values: &[f64]| match self.layout {
            StatsLayout::Vector => json!(values),
            StatsLayout::Image => values.iter().map(|value| json!([[value]])).collect(),
        };
        let mut map: Map<String, Value> = self.entries().map(|(name, values)| (name.into(), nest(values))).collect();
        map.insert("count".into(), json!([self.count]));
        map.into()
    }

    /// Reads what [`FeatureStats::to_json`] or upstream wrote. The error says what is expected.
    pub(crate) fn from_json(value: &Value) -> Result<Self, String> {
        let get = |name: &str| -> Result<Vec<f64>, String> {
            let mut values = Vec::new();
            flatten(&value[name], &mut values).ok_or_else(|| format!("`{name}` as numbers in nested lists"))?;
            Ok(values)
        };
        let is_nested = value["min"].get(0).is_some_and(Value::is_array);
        let count = get("count")?.first().copied().ok_or("`count` with one value")?;
        let has_quantiles = QUANTILES.iter().all(|(name, _)| value.get(name).is_some());
        let quantiles = QUANTILES.iter().filter(|_| has_quantiles).map(|(name, _)| get(name));
        let stats = Self {
            layout: if is_nested { StatsLayout::Image } else { StatsLayout::Vector },
            min: get("min")?,
            max: get("max")?,
            mean: get("mean")?,
            std: get("std")?,
            count: count as u64,
            quantiles: quantiles.collect::<Result<_, _>>()?,
        };
        let dim = stats.min.len();
        let odd = stats.entries().find(|(_, values)| values.len() != dim).map(|(name, _)| name);
        match odd {
            None => Ok(stats),
            Some(name) => Err(format!("`{name}` with {dim} values, as `min` has")),
        }
    }
}

fn flatten(value: &Value, out: &mut Vec<f64>) -> Option<()> {
    match value {
        Value::Array(items) => items.iter().try_for_each(|item| flatten(item, out)),
        number => number.as_f64().map(|number| out.push(number)),
    }
}

/// Values of one dimension with how often each occurs.
struct Weighted(Vec<(f64, u64)>);

struct Moments {
    min: f64,
    max: f64,
    mean: f64,
    std: f64,
    count: u64,
}

impl Weighted {
    fn moments(&self) -> Moments {
        let count: u64 = self.0.iter().map(|(_, weight)| weight).sum();
        let average = |f: &dyn Fn(f64) -> f64| {
            self.0.iter().map(|&(value, weight)| f(value) * weight as f64).sum::<f64>() / count as f64
        };
        let mean = average(&|value| value);
        Moments {
            min: self.0.iter().map(|(value, _)| *value).fold(f64::INFINITY, f64::min),
            max: self.0.iter().map(|(value, _)| *value).fold(f64::NEG_INFINITY, f64::max),
            mean,
            std: average(&|value| (value - mean).powi(2)).sqrt(),
            count,
        }
    }

    /// Upstream's `RunningQuantileStats` after one update.
    fn quantiles(&self, moments: &Moments) -> [f64; QUANTILES.len()] {
        if moments.count < 2 || moments.min >= moments.max {
            return [moments.mean; QUANTILES.len()];
        }
        let (low, high) = (moments.min - EDGE_PADDING, moments.max + EDGE_PADDING);
        let step = (high - low) / BINS as f64;
        let edges: Vec<f64> = (0..=BINS).map(|i| if i == BINS { high } else { low + i as f64 * step }).collect();
        let mut cumulative = vec![0.0; BINS];
        for &(value, weight) in &self.0 {
            let bin = edges.partition_point(|edge| *edge <= value).saturating_sub(1).min(BINS - 1);
            cumulative[bin] += weight as f64;
        }
        let mut total = 0.0;
        for bin in &mut cumulative {
            total += *bin;
            *bin = total;
        }
        QUANTILES.map(|(_, probability)| quantile(&cumulative, &edges, probability * moments.count as f64))
    }
}

/// Linear interpolation within the first bin whose cumulative count reaches `target`.
fn quantile(cumulative: &[f64], edges: &[f64], target: f64) -> f64 {
    let bin = cumulative.partition_point(|count| *count < target);
    match bin {
        0 => edges[0],
        bin if bin >= cumulative.len() => edges[edges.len() - 1],
        bin => {
            let before = cumulative[bin - 1];
            let fraction = (target - before) / (cumulative[bin] - before);
            edges[bin] + fraction * (edges[bin + 1] - edges[bin])
        }
    }
}

/// How often every value occurs in every channel of a camera's images.
#[derive(Clone, Debug)]
pub(crate) struct PixelCounts {
    counts: Vec<[u64; 256]>,
    frames: u64,
}

impl Default for PixelCounts {
    fn default() -> Self {
        Self { counts: vec![[0; 256]; CHANNELS], frames: 0 }
    }
}

impl PixelCounts {
    pub(crate) fn of(image: &Image) -> Self {
        // Alternating counters: neighbouring pixels are mostly equal, and each update of one counter waits for the
        // last.
        let mut lanes = vec![[[0u32; 256]; CHANNELS]; 4];
        for (i, pixel) in image.data().chunks_exact(CHANNELS).enumerate() {
            let lane = &mut lanes[i % 4];
            for (channel, &value) in pixel.iter().enumerate() {
                lane[channel][usize::from(value)] += 1;
            }
        }
        let mut counts = Self { frames: 1, ..Self::default() };
        for lane in &lanes {
            for (total, part) in counts.counts.as_flattened_mut().iter_mut().zip(lane.as_flattened()) {
                *total += u64::from(*part);
            }
        }
        counts
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.frames += other.frames;
        for (total, part) in self.counts.as_flattened_mut().iter_mut().zip(other.counts.as_flattened()) {
            *total += part;
        }
    }

    pub(crate) fn stats(&self) -> FeatureStats {
        let weighted = self.counts.iter().map(|counts| {
            let used = (0..256).filter(|&value| counts[value] > 0);
            Weighted(used.map(|value| (value as f64, counts[value])).collect())
        });
        let mut stats = FeatureStats::of_dimensions(weighted, StatsLayout::Image, self.frames);
        let moments = [&mut stats.min, &mut stats.max, &mut stats.mean, &mut stats.std];
        for value in moments.into_iter().chain(&mut stats.quantiles).flatten() {
            *value /= 255.0;
        }
        stats
    }
}

/// Statistics by feature name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Stats(Vec<(String, FeatureStats)>);

impl Stats {
    /// Statistics of the feature called `name`.
    pub fn get(&self, name: &str) -> Option<&FeatureStats> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, stats)| stats)
    }

    /// Names and statistics.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &FeatureStats)> {
        self.0.iter().map(|(name, stats)| (name.as_str(), stats))
    }

    /// Combines those of episodes, feature by feature, in the order of the first.
    pub(crate) fn aggregate(episodes: &[Self]) -> Self {
        let Some(first) = episodes.first() else { return Self::default() };
        let combined = first.iter().filter_map(|(name, _)| {
            let parts: Vec<_> = episodes.iter().filter_map(|episode| episode.get(name)).collect();
            Some((name.to_string(), FeatureStats::aggregate(&parts)?))
        });
        Self(combined.collect())
    }

    pub(crate) fn load(root: &Path) -> Result<Self> {
        let path = root.join(layout::STATS);
        let json: Map<String, Value> = read_json(&path, "statistics of the features")?;
        let stats = json.iter().map(|(name, value)| match FeatureStats::from_json(value) {
            Ok(stats) => Ok((name.clone(), stats)),
            Err(expected) => Err(DataError::invalid(&path, format!("for `{name}`: {expected}"), value.to_string())),
        });
        Ok(Self(stats.collect::<Result<_>>()?))
    }

    pub(crate) fn save(&self, root: &Path) -> Result<()> {
        write_json(&root.join(layout::STATS), self)
    }
}

impl FromIterator<(String, FeatureStats)> for Stats {
    fn from_iter<I: IntoIterator<Item = (String, FeatureStats)>>(items: I) -> Self {
        Self(items.into_iter().collect())
    }
}

impl Serialize for Stats {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, stats) in &self.0 {
            map.serialize_entry(name, &stats.to_json())?;
        }
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_and_quantiles_of_a_ramp() {
        let values: Vec<f64> = (0..1000).flat_map(|i| [f64::from(i), -3.0]).collect();
        let stats = FeatureStats::of_vectors(&values, 2);
        assert_eq!((stats.count, stats.min[0], stats.max[0], stats.mean[0]), (1000, 0.0, 999.0, 499.5));
        assert!((stats.std[0] - (999_999.0f64 / 12.0).sqrt()).abs() < 1e-9);
        for ((name, probability), quantile) in QUANTILES.iter().zip(&stats.quantiles) {
            assert!((quantile[0] - probability * 1000.0).abs() < 1.5, "{name} {quantile:?}");
            assert_eq!(quantile[1], -3.0);
        }
    }

    #[test]
    fn aggregate_equals_the_whole_where_that_is_possible() {
        let values: Vec<f64> = (0..90).map(|i| f64::from(i * i % 37)).collect();
        let parts = [&values[..20], &values[20..21], &values[21..]].map(|part| FeatureStats::of_vectors(part, 1));
        let (whole, joined) =
            (FeatureStats::of_vectors(&values, 1), FeatureStats::aggregate(&parts.each_ref()).unwrap());
        assert_eq!((joined.count, &joined.min, &joined.max), (90, &whole.min, &whole.max));
        assert!((joined.mean[0] - whole.mean[0]).abs() < 1e-12 && (joined.std[0] - whole.std[0]).abs() < 1e-12);
    }

    #[test]
    fn images_count_every_pixel() {
        let image = Image::from_rgb(1, 2, vec![0, 51, 255, 0, 255, 255]).unwrap();
        let mut counts = PixelCounts::of(&image);
        counts.add(&PixelCounts::of(&image));
        let stats = counts.stats();
        assert_eq!((stats.count, &stats.min, &stats.max), (2, &vec![0.0, 0.2, 1.0], &vec![0.0, 1.0, 1.0]));
        assert!((stats.mean[1] - 0.6).abs() < 1e-12 && (stats.std[1] - 0.4).abs() < 1e-12);
        assert_eq!(FeatureStats::from_json(&stats.to_json()).unwrap(), stats);
    }
}
