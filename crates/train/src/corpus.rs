//! The episodes of all data sets in memory, images still encoded.

use std::collections::HashMap;
use std::sync::Arc;

use robomamba_data::{Dataset, Episode, FeatureStats};
use robomamba_model::TextTokenizer;
use robomamba_policy::{FeatureSpec, NormMode, NormStats, VectorStats};

use crate::config::DataConfig;
use crate::ops::recognition::CLASSES;
use crate::{Result, TrainError};

/// Privileged state that the auxiliary head predicts, if the data sets have it.
const ENVIRONMENT_STATE: &str = "observation.environment_state";
/// What the data may know of the camera `observation.images.NAME`: where the things are that the instruction speaks of,
/// `observation.grounding.NAME` with x and y of every point.
const GROUNDING: &str = ".grounding.";
/// And all that lies there, `observation.things.NAME` with x, y, kind and colour of every thing.
const THINGS: &str = ".things.";
/// Whether a frame's action may be imitated; true everywhere when the data set does not say.
const IS_DEMONSTRATION: &str = "is_demonstration";

/// One episode with what training needs to know of it at once.
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
    /// Whether it ended well; `None` when nobody knows.
    pub success: Option<bool>,
    /// Whether the action of each step may be imitated.
    pub demonstration: Vec<bool>,
    /// Where the things are that the instruction speaks of, for each camera of which the data knows it.
    pub grounding: Vec<Places<2>>,
    /// What lies where, for each camera of which the data knows it.
    pub things: Vec<Places<4>>,
}

/// Places in the pictures of one camera, `N` values each, of which the first two are x and y as fractions of the
/// picture, negative where there is none.
#[derive(Debug)]
pub(crate) struct Places<const N: usize> {
    /// Its number.
    pub camera: usize,
    /// Places of a step.
    pub n_place: usize,
    /// `[len * n_place]`.
    pub list: Vec<[f32; N]>,
}

impl<const N: usize> Places<N> {
    /// The places of a step, with their numbers.
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
    /// Steps of the windows that are drawn from it; `None` for whole episodes.
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
}

impl Corpus {
    /// Reads all data sets.
    ///
    /// # Errors
    /// When one cannot be read, is empty, or has another robot than the first.
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
            state: statistics(configs, &datasets, robomamba_data::STATE, mode)?,
            action: statistics(configs, &datasets, robomamba_data::ACTION, mode)?,
        };
        let environment = datasets
            .iter()
            .all(|dataset| dataset.features().get(ENVIRONMENT_STATE).is_some())
            .then(|| statistics(configs, &datasets, ENVIRONMENT_STATE, NormMode::MeanStd))
            .transpose()?;
        Ok(Self { sources, features, instructions: instructions.list, stats, environment })
    }

    /// Whether some data set knows where things are.
    pub(crate) fn is_grounded(&self) -> bool {
        self.sources.iter().any(|source| source.episodes.iter().any(|episode| !episode.grounding.is_empty()))
    }

    /// Coordinates that the data sets know of the places in a frame that an instruction speaks of: x and y of every
    /// point of every camera.
    pub(crate) fn n_pointing(&self) -> usize {
        let episodes = self.sources.iter().flat_map(|source| source.episodes.iter());
        let points = |episode: &Recorded| episode.grounding.iter().map(|places| 2 * places.n_place).sum();
        episodes.map(points).max().unwrap_or(0)
    }

    /// Whether some data set knows what lies where.
    pub(crate) fn knows_things(&self) -> bool {
        self.sources.iter().any(|source| source.episodes.iter().any(|episode| !episode.things.is_empty()))
    }

    /// Number of episodes and of frames.
    pub(crate) fn size(&self) -> (usize, usize) {
        let distinct = self.sources.iter().enumerate().filter(|(i, source)| {
            self.sources[..*i].iter().all(|earlier| !Arc::ptr_eq(&earlier.episodes, &source.episodes))
        });
        let episodes = distinct.flat_map(|(_, source)| source.episodes.iter());
        episodes.fold((0, 0), |(n, frames), episode| (n + 1, frames + episode.len))
    }

    /// Width of the privileged state, 0 without one.
    pub(crate) fn n_environment(&self) -> usize {
        self.environment.as_ref().map_or(0, |stats| stats.mean.len())
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
    /// Number of the run of equal frames that `step` belongs to.
    pub(crate) fn run(&self, step: usize) -> usize {
        self.runs.partition_point(|&start| start <= step) - 1
    }

    /// Privileged state of every step, `[len, n]`.
    pub(crate) fn environment(&self) -> &[f32] {
        self.episode.f32(ENVIRONMENT_STATE).unwrap_or_default()
    }
}

fn open(config: &DataConfig) -> Result<Dataset> {
    let dataset = Dataset::open(&config.path).map_err(config.error())?;
    if dataset.is_empty() {
        let reason = "it holds no episode; record some first".into();
        return Err(TrainError::Data { path: config.path.clone(), reason });
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
    let grounding = places(config, &episode, GROUNDING)?;
    let things = places(config, &episode, THINGS)?;
    check_classes(config, &things)?;
    let success = episode.success();
    Ok(Recorded { len, runs, instruction, success, demonstration, grounding, things, episode })
}

/// The places that the data knows of each camera under a name with `knowledge` in the place of `.images.`.
fn places<const N: usize>(config: &DataConfig, episode: &Episode, knowledge: &str) -> Result<Vec<Places<N>>> {
    let mut places = Vec::new();
    for (camera, images) in episode.cameras().iter().enumerate() {
        let name = images.name().replace(".images.", knowledge);
        if episode.column(&name).is_err() {
            continue;
        }
        let values = episode.f32(&name).map_err(config.error())?;
        let (list, rest) = values.as_chunks();
        let width = values.len() / episode.len();
        if !rest.is_empty() || !width.is_multiple_of(N) {
            let reason = format!("`{name}` must have {N} values per place, found {width} in all; record the data anew");
            return Err(TrainError::Data { path: config.path.clone(), reason });
        }
        places.push(Places { camera, n_place: width / N, list: list.to_vec() });
    }
    Ok(places)
}

fn check_classes(config: &DataConfig, things: &[Places<4>]) -> Result<()> {
    let usable = |class: f32| class >= 0.0 && class < CLASSES as f32 && class.fract() == 0.0;
    let present = things.iter().flat_map(|places| &places.list).filter(|place| place[0] >= 0.0);
    match present.flat_map(|place| &place[2..]).find(|&&class| !usable(class)) {
        None => Ok(()),
        Some(class) => {
            let reason =
                format!("kinds and colours of things must be whole numbers from 0 to {}, found {class}", CLASSES - 1);
            Err(TrainError::Data { path: config.path.clone(), reason })
        }
    }
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
            return Err(TrainError::Data { path: config.path.clone(), reason });
        }
    }
    Ok(first)
}

/// Statistics of `feature` over all data sets.
fn statistics(configs: &[DataConfig], datasets: &[Dataset], feature: &str, mode: NormMode) -> Result<VectorStats> {
    let missing = |i: usize| TrainError::Data {
        path: configs[i].path.clone(),
        reason: format!("`meta/stats.json` has no usable statistics of `{feature}`; compute them again"),
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

/// Numbers the distinct instructions in the order in which they occur.
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
