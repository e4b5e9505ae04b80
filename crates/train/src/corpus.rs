//! The episodes of all data sets in memory, images still encoded.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use robomamba_data::{DataError, Dataset, Episode, FeatureStats};
use robomamba_model::TextTokenizer;
use robomamba_policy::{FeatureSpec, NormMode, NormStats, VectorStats};

use serde::{Deserialize, Serialize};

use crate::classes::Classes;
use crate::{Result, TrainError};
use robomamba_data::columns::{self, ACTION, ENVIRONMENT_STATE, IS_DEMONSTRATION, STATE};

/// One data set.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataConfig {
    /// Folder of a LeRobotDataset v3.
    pub path: PathBuf,
    /// Share of the encoded frames, relative to the other data sets.
    #[serde(default = "one")]
    pub weight: f64,
    /// Length in steps of random windows that are drawn instead of whole episodes, each from a zero state.
    /// A batch then shows many more scenes for the same frames, which suits tasks without memory.
    #[serde(default)]
    pub window: Option<usize>,
}

impl DataConfig {
    /// Names the data set in an error.
    pub(crate) fn error(&self) -> impl FnOnce(DataError) -> TrainError {
        let path = self.path.clone();
        move |source| TrainError::Dataset { path, source }
    }

    fn refuse(&self, reason: String) -> TrainError {
        TrainError::Data { path: self.path.clone(), reason }
    }
}

fn one() -> f64 {
    1.0
}

/// One episode with everything that a batch is made of.
#[derive(Debug)]
pub(crate) struct Recorded {
    /// Its frames.
    pub episode: Episode,
    /// Steps.
    pub len: usize,
    /// First step of each run of equal frames under one instruction.
    pub runs: Vec<usize>,
    /// Instruction of each step, an index into [`Corpus::instructions`].
    pub instruction: Vec<usize>,
    /// Outcome; `None` if the data set does not tell it.
    pub success: Option<bool>,
    /// Whether the action of each step is a demonstration.
    pub demonstration: Vec<bool>,
    /// Points that the instruction names, for each camera with such labels.
    pub grounding: Vec<Places<2>>,
    /// Things in the picture as x, y, kind and colour, for each camera with such labels.
    pub things: Vec<Places<4>>,
}

/// Labelled places in the pictures of one camera, `N` values each. The first two are x and y as fractions of the
/// picture; they are negative where a place is absent.
#[derive(Debug)]
pub(crate) struct Places<const N: usize> {
    /// Index of the camera.
    pub camera: usize,
    /// Places per step.
    pub n_place: usize,
    /// `[len * n_place]`.
    pub list: Vec<[f32; N]>,
}

impl<const N: usize> Places<N> {
    /// The present places of a step with their indices.
    pub(crate) fn of_step(&self, step: usize) -> impl Iterator<Item = (usize, [f32; N])> {
        let places = self.list[step * self.n_place..][..self.n_place].iter().copied().enumerate();
        places.filter(|(_, place)| place[0] >= 0.0)
    }
}

/// One data set.
#[derive(Debug)]
pub(crate) struct Source {
    /// Share of the encoded frames, relative to the others.
    pub weight: f64,
    /// Length in steps of the windows that are drawn from it; `None` for whole episodes.
    pub window: Option<usize>,
    /// Its episodes; entries of the same folder share them.
    pub episodes: Arc<Vec<Recorded>>,
}

/// All data sets.
#[derive(Debug)]
pub(crate) struct Corpus {
    /// One per entry of the configuration.
    pub sources: Vec<Source>,
    /// Cameras, state and action, which all data sets share.
    pub features: FeatureSpec,
    /// Every instruction that occurs.
    pub instructions: Vec<Arc<str>>,
    /// Statistics over all data sets.
    pub stats: NormStats,
    /// Statistics of the privileged state, if every data set has it.
    pub environment: Option<VectorStats>,
    /// Class counts of the things in the pictures, if some data set has such labels.
    pub classes: Option<Classes>,
}

/// Sizes of the labels that the data sets have for auxiliary objectives.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Knowledge {
    /// Width of the privileged state; 0 without one.
    pub n_environment: usize,
    /// Points of a frame that an instruction can name, over all cameras; 0 without such labels.
    pub n_point: usize,
    /// Class counts of the things in the pictures, if they are labelled.
    pub classes: Option<Classes>,
}

impl Corpus {
    /// Reads all data sets.
    ///
    /// # Errors
    /// When one cannot be read, is empty, has another robot than the first, or has labels that make no sense.
    pub(crate) fn load(configs: &[DataConfig], mode: NormMode) -> Result<Self> {
        let mut instructions = Interner::default();
        let (mut sources, mut datasets): (Vec<Source>, _) = (Vec::new(), Vec::new());
        for (i, config) in configs.iter().enumerate() {
            let dataset = open(config)?;
            let episodes = match configs[..i].iter().position(|earlier| earlier.path == config.path) {
                Some(earlier) => Arc::clone(&sources[earlier].episodes),
                None => Arc::new(load(config, &dataset, &mut instructions)?),
            };
            sources.push(Source { weight: config.weight, window: config.window, episodes });
            datasets.push(dataset);
        }
        let features = same_robot(configs, &datasets)?;
        let stats = NormStats {
            state: statistics(configs, &datasets, STATE, mode)?,
            action: statistics(configs, &datasets, ACTION, mode)?,
        };
        let classes = classes(configs, &datasets, &sources)?;
        let environment = datasets
            .iter()
            .all(|dataset| dataset.features().get(ENVIRONMENT_STATE).is_some())
            .then(|| statistics(configs, &datasets, ENVIRONMENT_STATE, NormMode::MeanStd))
            .transpose()?;
        Ok(Self { sources, features, instructions: instructions.list, stats, environment, classes })
    }

    /// Sizes of the labels for auxiliary objectives.
    pub(crate) fn knowledge(&self) -> Knowledge {
        let episodes = self.sources.iter().flat_map(|source| source.episodes.iter());
        let points = |episode: &Recorded| episode.grounding.iter().map(|places| places.n_place).sum();
        Knowledge {
            n_environment: self.environment.as_ref().map_or(0, |stats| stats.mean.len()),
            n_point: episodes.map(points).max().unwrap_or(0),
            classes: self.classes,
        }
    }

    /// Number of episodes and of frames.
    pub(crate) fn size(&self) -> (usize, usize) {
        let distinct = self.sources.iter().enumerate().filter(|(i, source)| {
            self.sources[..*i].iter().all(|earlier| !Arc::ptr_eq(&earlier.episodes, &source.episodes))
        });
        let episodes = distinct.flat_map(|(_, source)| source.episodes.iter());
        episodes.fold((0, 0), |(n, frames), episode| (n + 1, frames + episode.len))
    }

    /// Token ids of every instruction.
    ///
    /// # Errors
    /// When one is empty or longer than `max_len`.
    pub(crate) fn tokenise(&self, tokenizer: &TextTokenizer, max_len: usize) -> Result<Vec<Vec<u32>>> {
        self.instructions.iter().map(|text| Ok(tokenizer.encode(text, max_len)?)).collect()
    }
}

impl Recorded {
    /// Index of the run of equal frames that contains `step`.
    pub(crate) fn run(&self, step: usize) -> usize {
        self.runs.partition_point(|&start| start <= step) - 1
    }

    /// Whether a run of equal frames begins at `step`.
    pub(crate) fn starts_run(&self, step: usize) -> bool {
        self.runs.binary_search(&step).is_ok()
    }

    /// Privileged state of every step, `[len, n]`.
    pub(crate) fn environment(&self) -> &[f32] {
        self.episode.f32(ENVIRONMENT_STATE).unwrap_or_default()
    }
}

fn open(config: &DataConfig) -> Result<Dataset> {
    let dataset = Dataset::open(&config.path).map_err(config.error())?;
    if dataset.is_empty() {
        return Err(config.refuse("it holds no episode; record some first".into()));
    }
    Ok(dataset)
}

fn load(config: &DataConfig, dataset: &Dataset, instructions: &mut Interner) -> Result<Vec<Recorded>> {
    let episodes = dataset.load().map_err(config.error())?;
    episodes.into_iter().map(|episode| record(config, episode, instructions)).collect()
}

fn record(config: &DataConfig, episode: Episode, instructions: &mut Interner) -> Result<Recorded> {
    let len = episode.len();
    let instruction: Vec<usize> = episode.tasks().iter().map(|text| instructions.index(text)).collect();
    let starts_run = |step: usize| {
        step == 0
            || instruction[step] != instruction[step - 1]
            || !episode.cameras().iter().all(|camera| camera.repeats_previous(step))
    };
    let runs = (0..len).filter(|&step| starts_run(step)).collect();
    episode.state().and(episode.action()).map_err(config.error())?;
    let demonstration = match episode.column(IS_DEMONSTRATION) {
        Ok(_) => episode.bool(IS_DEMONSTRATION).map_err(config.error())?.to_vec(),
        Err(_) => vec![true; len],
    };
    let grounding = places(config, &episode, columns::grounding)?;
    let things = places(config, &episode, columns::things)?;
    let success = episode.success();
    Ok(Recorded { len, runs, instruction, success, demonstration, grounding, things, episode })
}

/// The labelled places of every camera that has such a `column`.
fn places<const N: usize>(
    config: &DataConfig,
    episode: &Episode,
    column: fn(&str) -> String,
) -> Result<Vec<Places<N>>> {
    let mut places = Vec::new();
    for (camera, images) in episode.cameras().iter().enumerate() {
        let name = column(images.name());
        if episode.column(&name).is_err() {
            continue;
        }
        let values = episode.f32(&name).map_err(config.error())?;
        let (list, rest) = values.as_chunks();
        let width = values.len() / episode.len();
        if !rest.is_empty() || !width.is_multiple_of(N) {
            let reason = format!("`{name}` must have {N} values per place, found {width} in all; record the data anew");
            return Err(config.refuse(reason));
        }
        places.push(Places { camera, n_place: width / N, list: list.to_vec() });
    }
    Ok(places)
}

/// Class counts over all data sets that label things.
fn classes(configs: &[DataConfig], datasets: &[Dataset], sources: &[Source]) -> Result<Option<Classes>> {
    let mut all: Option<Classes> = None;
    for (i, (config, dataset)) in configs.iter().zip(datasets).enumerate() {
        let episodes = &sources[i].episodes;
        let is_known = sources[..i].iter().any(|earlier| Arc::ptr_eq(&earlier.episodes, episodes));
        if is_known || episodes.iter().all(|episode| episode.things.is_empty()) {
            continue;
        }
        let largest = labelled(episodes).fold([0.0; 2], |a: [f32; 2], b| [a[0].max(b[0]), a[1].max(b[1])]);
        let classes = Classes::of(dataset.features(), largest);
        check_classes(config, episodes, classes)?;
        all = Some(all.map_or(classes, |all| all.max(classes)));
    }
    Ok(all)
}

/// Kind and colour of every present thing.
fn labelled(episodes: &[Recorded]) -> impl Iterator<Item = [f32; 2]> {
    let places = episodes.iter().flat_map(|episode| &episode.things).flat_map(|places| &places.list);
    places.filter(|place| place[0] >= 0.0).map(|&[_, _, kind, colour]| [kind, colour])
}

fn check_classes(config: &DataConfig, episodes: &[Recorded], classes: Classes) -> Result<()> {
    for [kind, colour] in labelled(episodes) {
        for (attribute, class, count) in [("kinds", kind, classes.kinds), ("colours", colour, classes.colours)] {
            if !(0.0..count as f32).contains(&class) || class.fract() != 0.0 {
                let reason = format!(
                    "{attribute} of things must be whole numbers from 0 to {}, found {class}",
                    count.saturating_sub(1)
                );
                return Err(config.refuse(reason));
            }
        }
    }
    Ok(())
}

fn same_robot(configs: &[DataConfig], datasets: &[Dataset]) -> Result<FeatureSpec> {
    let robot = |i: usize| datasets[i].robot().map_err(configs[i].error());
    let first = robot(0)?;
    for (i, config) in configs.iter().enumerate().skip(1) {
        let other = robot(i)?;
        if other != first {
            let reason = format!(
                "its robot differs from that of {}: expected {first:?}, found {other:?}; train on data of one robot",
                configs[0].path.display()
            );
            return Err(config.refuse(reason));
        }
    }
    Ok(first)
}

/// Statistics of `feature` over all data sets.
fn statistics(configs: &[DataConfig], datasets: &[Dataset], feature: &str, mode: NormMode) -> Result<VectorStats> {
    let missing = |i: usize| {
        configs[i].refuse(format!("`meta/stats.json` has no usable statistics of `{feature}`; compute them again"))
    };
    let of = |(i, dataset): (usize, &'_ Dataset)| dataset.stats().get(feature).cloned().ok_or_else(|| missing(i));
    let is_first = |i: usize| configs[..i].iter().all(|earlier| earlier.path != configs[i].path);
    let distinct = datasets.iter().enumerate().filter(|(i, _)| is_first(*i));
    let parts: Vec<FeatureStats> = distinct.map(of).collect::<Result<_>>()?;
    let all = FeatureStats::aggregate(&parts.iter().collect::<Vec<_>>()).ok_or_else(|| missing(0))?;
    let stats = all.normalisation(mode);
    stats.check(feature, stats.mean.len())?;
    Ok(stats)
}

/// Indices of the distinct instructions in the order of their first use.
#[derive(Default)]
struct Interner {
    known: HashMap<Arc<str>, usize>,
    list: Vec<Arc<str>>,
}

impl Interner {
    fn index(&mut self, text: &Arc<str>) -> usize {
        *self.known.entry(Arc::clone(text)).or_insert_with(|| {
            self.list.push(Arc::clone(text));
            self.list.len() - 1
        })
    }
}
