//! Verifies a data set to the last pixel.

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;

use rayon::prelude::*;
use serde::Serialize;

use crate::columns::{SUCCESS, TIMESTAMP};
use crate::dataset::Dataset;
use crate::episode::{Camera, Episode};
use crate::layout;
use crate::recording::{FileDigest, Recording, files_below};
use crate::shard::column_stats;
use crate::stats::{FeatureStats, PixelCounts, Stats, StatsLayout};
use crate::{DataError, Result};

/// How far a timestamp may be from its frame's time, in seconds (upstream: `tolerance_s`).
const TOLERANCE_S: f64 = 1e-4;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// The data can be used, but something is odd.
    Warning,
    /// The data is damaged or contradicts itself.
    Error,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// What is wrong, and where.
    pub message: String,
}

/// Result of [`check`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Episodes that were read.
    pub episodes: usize,
    /// Frames that were read.
    pub frames: usize,
    /// Images that were decoded, including those equal to the one before.
    pub images: usize,
    /// Files whose checksums were compared; 0 when the data set has none (it was not recorded by this crate).
    pub checksums: usize,
    /// What is wrong, in the order of the episodes.
    pub findings: Vec<Finding>,
}

impl Report {
    /// Whether there is no error; warnings are allowed.
    pub fn is_ok(&self) -> bool {
        self.findings.iter().all(|finding| finding.severity < Severity::Error)
    }

    fn error(&mut self, message: impl ToString) {
        self.findings.push(Finding { severity: Severity::Error, message: message.to_string() });
    }

    fn warn(&mut self, message: impl ToString) {
        self.findings.push(Finding { severity: Severity::Warning, message: message.to_string() });
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { episodes, frames, images, checksums, .. } = self;
        writeln!(f, "{episodes} episodes, {frames} frames, {images} images, {checksums} checksums")?;
        for finding in &self.findings {
            let severity = if finding.severity == Severity::Error { "error" } else { "warning" };
            writeln!(f, "{severity}: {}", finding.message)?;
        }
        write!(f, "{}", if self.is_ok() { "the data set is sound" } else { "the data set is damaged" })
    }
}

/// Verifies the data set in the folder `root`. `progress` is called after each episode, from several threads.
///
/// - All files exist and agree with each other and with their checksums.
/// - Every index, time and instruction is consistent.
/// - Every number is finite, and every image decodes to its declared size.
/// - The statistics are those of the data.
pub fn check(root: impl AsRef<Path>, progress: &(dyn Fn() + Sync)) -> Report {
    let root = root.as_ref();
    let mut report = Report::default();
    check_files(root, &mut report);
    match Dataset::open(root) {
        Ok(dataset) => check_episodes(&dataset, progress, &mut report),
        Err(error) => report.error(error),
    }
    report
}

/// Recomputes the statistics of the whole data set from its frames. `progress` is called after each episode.
///
/// # Errors
/// When an episode or image cannot be read.
pub fn compute_stats(dataset: &Dataset, progress: &(dyn Fn() + Sync)) -> Result<Stats> {
    let stats = (0..dataset.len()).into_par_iter().map(|index| {
        let scan = Scan::of(&dataset.episode(index)?)?;
        progress();
        Ok(scan.stats)
    });
    Ok(Stats::aggregate(&stats.collect::<Result<Vec<_>>>()?))
}

fn check_files(root: &Path, report: &mut Report) {
    let recording = match Recording::load(root, layout::RECORDING) {
        Ok(recording) => recording,
        Err(DataError::Missing { .. }) => return,
        Err(error) => return report.error(error),
    };
    let compared: Vec<_> = recording.files.par_iter().map(|file| (file, FileDigest::of(root, &file.path))).collect();
    for (expected, found) in compared {
        report.checksums += 1;
        match found {
            Ok(found) if found == *expected => {}
            Ok(found) => report.error(format!(
                "{}: {} bytes with another checksum than when it was recorded ({} bytes); restore it from a copy",
                expected.path, found.bytes, expected.bytes
            )),
            Err(error) => report.error(error),
        }
    }
    let known: BTreeSet<&str> =
        recording.files.iter().map(|file| file.path.as_str()).chain([layout::RECORDING]).collect();
    for path in files_below(root).unwrap_or_default().iter().filter(|path| !known.contains(path.as_str())) {
        report.warn(format!("{path} does not belong to the recording"));
    }
}

fn check_episodes(dataset: &Dataset, progress: &(dyn Fn() + Sync), report: &mut Report) {
    let declared = dataset.episode_stats().unwrap_or_default();
    let scans: Vec<Result<Scan>> = (0..dataset.len())
        .into_par_iter()
        .map(|index| {
            let episode = dataset.episode(index)?;
            let mut scan = Scan::of(&episode)?;
            scan.check(&episode, dataset);
            if let Some(declared) = declared.get(index) {
                compare(&format!("episode {index}"), declared, &scan.stats, &mut scan.findings);
            }
            progress();
            Ok(scan)
        })
        .collect();
    let mut stats = Vec::new();
    for scan in scans {
        match scan {
            Ok(scan) => {
                report.episodes += 1;
                report.frames += scan.frames;
                report.images += scan.images;
                report.findings.extend(scan.findings);
                stats.push(scan.stats);
            }
            Err(error) => report.error(error),
        }
    }
    if stats.len() == dataset.len() {
        compare(layout::STATS, dataset.stats(), &Stats::aggregate(&stats), &mut report.findings);
    }
}

/// What reading one episode to the last pixel gives.
struct Scan {
    frames: usize,
    images: usize,
    stats: Stats,
    findings: Vec<Finding>,
}

impl Scan {
    fn of(episode: &Episode) -> Result<Self> {
        let mut stats = Vec::new();
        let mut findings = Vec::new();
        for camera in episode.cameras() {
            stats.push((camera.name().to_string(), pixel_stats(camera)?));
        }
        for name in episode.names() {
            let column = episode.column(name)?;
            let Some(values) = column.to_f64() else { continue };
            match values.iter().position(|value| !value.is_finite()) {
                None => stats.extend(column_stats(column).map(|stats| (name.to_string(), stats))),
                Some(position) => {
                    let (frame, dimension) = (position / column.dim(), position % column.dim());
                    let message = format!(
                        "episode {}, frame {frame}: `{name}[{dimension}]` must be finite, found {}",
                        episode.index(),
                        values[position]
                    );
                    findings.push(Finding { severity: Severity::Error, message });
                }
            }
        }
        let images = episode.cameras().iter().map(Camera::len).sum();
        Ok(Self { frames: episode.len(), images, stats: stats.into_iter().collect(), findings })
    }

    fn check(&mut self, episode: &Episode, dataset: &Dataset) {
        let index = episode.index();
        let mut find = |severity, text: String| {
            self.findings.push(Finding { severity, message: format!("episode {index}{text}") });
        };
        let seconds = episode.column(TIMESTAMP).ok().and_then(|column| column.to_f64()).unwrap_or_default();
        let wrong = seconds.iter().enumerate().find(|(frame, seconds)| {
            let expected = *frame as f64 / f64::from(dataset.fps());
            // Seconds in float32 are coarser than the tolerance after half an hour.
            (*seconds - expected).abs() > TOLERANCE_S.max(expected * f64::from(f32::EPSILON))
        });
        if let Some((frame, found)) = wrong {
            let expected = frame as f64 / f64::from(dataset.fps());
            find(
                Severity::Error,
                format!(
                    ", frame {frame}: `{TIMESTAMP}` must be {expected} s at {} fps, found {found} s",
                    dataset.fps()
                ),
            );
        }
        let in_frames: BTreeSet<&str> = episode.tasks().iter().map(|task| &**task).collect();
        let in_metadata: BTreeSet<&str> = dataset.episodes()[index].tasks.iter().map(String::as_str).collect();
        if in_frames != in_metadata {
            find(
                Severity::Error,
                format!(": its frames have the instructions {in_frames:?}, meta/episodes has {in_metadata:?}"),
            );
        }
        let early = episode.bool(SUCCESS).ok().and_then(|flags| flags.iter().position(|flag| *flag));
        if let Some(frame) = early.filter(|frame| frame + 1 < episode.len()) {
            find(Severity::Warning, format!(", frame {frame}: `{SUCCESS}` is true before the last frame"));
        }
    }
}

fn pixel_stats(camera: &Camera) -> Result<FeatureStats> {
    let mut total = PixelCounts::default();
    let mut last = PixelCounts::default();
    for image in camera.images_or_repeats() {
        if let Some(image) = image? {
            last = PixelCounts::of(&image);
        }
        total.add(&last);
    }
    Ok(total.stats())
}

/// Compares declared statistics with recomputed ones.
///
/// For cameras, only large differences are reported, as warnings. Their declared values may come from a subsample, from
/// images before lossy compression, or from sums in `float32`.
fn compare(place: &str, declared: &Stats, computed: &Stats, findings: &mut Vec<Finding>) {
    for (name, computed) in computed.iter() {
        let Some(declared) = declared.get(name) else {
            let message = format!("{place}: there are no statistics of `{name}`");
            findings.push(Finding { severity: Severity::Warning, message });
            continue;
        };
        let severity = if computed.layout == StatsLayout::Image { Severity::Warning } else { Severity::Error };
        if let Some(difference) = first_difference(declared, computed) {
            findings.push(Finding {
                severity,
                message: format!("{place}: `{name}` {difference}; recompute the statistics"),
            });
        }
    }
}

fn first_difference(declared: &FeatureStats, computed: &FeatureStats) -> Option<String> {
    let is_image = computed.layout == StatsLayout::Image;
    if declared.min.len() != computed.min.len() {
        return Some(format!("has {} dimensions, the data has {}", declared.min.len(), computed.min.len()));
    }
    if declared.count != computed.count && !is_image {
        return Some(format!("counts {} frames, the data has {}", declared.count, computed.count));
    }
    for ((stat, declared), (_, found)) in declared.entries().zip(computed.entries()).take(4) {
        let relative = match (is_image, stat) {
            (true, _) => 0.15,
            (false, "std") => 1e-3,
            (false, _) => 1e-4,
        };
        for (d, (declared, found)) in declared.iter().zip(found).enumerate() {
            let scale = computed.min[d].abs().max(computed.max[d].abs()).max(if is_image { 1.0 } else { 1e-3 });
            let is_close = (declared - found).abs() <= relative * scale;
            if !is_close {
                return Some(format!("has {stat}[{d}] {declared}, the data has {found}"));
            }
        }
    }
    None
}
