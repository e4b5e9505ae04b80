//! Checkpoint folders: all that inference needs, in one place.
//!
//! | file | holds |
//! |---|---|
//! | `config.json` | [`ModelConfig`], and the features in LeRobot's notation for other readers |
//! | `model.safetensors` | the weights, each f32, bf16, or int8 with a tensor `<name>.scale` beside it |
//! | `policy_preprocessor.json` | how `observation.state` is normalised, with its statistics |
//! | `policy_postprocessor.json` | how `action` is unnormalised, with its statistics |
//! | `tokenizer.json` | the tokenizer in the format of Hugging Face `tokenizers` |
//! | `README.md` | the model card |
//! | `train_config.json` | optional: what it was trained with |
//! | `manifest.json` | length and SHA-256 of each of these |
//!
//! The names are those of LeRobot's `pretrained_model` folder.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    fs,
    path::Path,
    sync::{Mutex, PoisonError},
};

use robomamba_policy::{FeatureSpec, NormStats, VectorSpec, VectorStats};
use serde::{
    Deserialize, Serialize,
    de::{DeserializeOwned, IgnoredAny},
};

use crate::{
    Dtype, ModelConfig, ModelError, Tensors, TextTokenizer, Weights, card, folder, param_specs,
    tensor_file::{TensorFile, write_weights},
    weights::check_shape,
};

/// Version of the folder's layout and of the meaning of the weights.
pub const FORMAT_VERSION: u32 = 1;

pub(crate) const CONFIG: &str = "config.json";
pub(crate) const WEIGHTS: &str = "model.safetensors";
const PREPROCESSOR: &str = "policy_preprocessor.json";
const POSTPROCESSOR: &str = "policy_postprocessor.json";
const TOKENIZER: &str = "tokenizer.json";
const CARD: &str = "README.md";
const TRAIN_CONFIG: &str = "train_config.json";
const REQUIRED: [&str; 6] = [CONFIG, WEIGHTS, PREPROCESSOR, POSTPROCESSOR, TOKENIZER, CARD];

const STATE: &str = FeatureSpec::STATE;
const ACTION: &str = FeatureSpec::ACTION;

/// A model with everything that is needed to run it.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    /// What the model is.
    pub config: ModelConfig,
    /// Its parameters, exactly those of [`param_specs`].
    pub weights: Weights,
    /// Normalisation of state and action.
    pub stats: NormStats,
    /// Turns instructions into tokens.
    pub tokenizer: TextTokenizer,
    /// The model card, Markdown.
    pub card: String,
    /// The training configuration, JSON, if the model was trained here.
    pub train_config: Option<String>,
}

impl Checkpoint {
    /// Reads and verifies the folder `dir`.
    ///
    /// # Errors
    /// Names the file, tensor or field that is missing, damaged or does not fit the configuration.
    pub fn load(dir: &Path) -> Result<Self, ModelError> {
        let StoredCheckpoint { config, stats, tokenizer, weights, files } = StoredCheckpoint::open(dir)?;
        Ok(Self {
            weights: weights.into_inner().unwrap_or_else(PoisonError::into_inner).read_all(&param_specs(&config))?,
            config,
            stats,
            tokenizer,
            card: read_text(&dir.join(CARD))?,
            train_config: match files.iter().any(|file| file == TRAIN_CONFIG) {
                true => Some(read_text(&dir.join(TRAIN_CONFIG))?),
                false => None,
            },
        })
    }

    /// Writes the folder `dir`, or replaces it, as a whole. After an error or a crash `dir` is unchanged.
    ///
    /// # Errors
    /// When the parts do not fit each other or cannot be written.
    pub fn save(&self, dir: &Path, dtype: Dtype) -> Result<(), ModelError> {
        check_parts(&self.config, &self.stats, &self.tokenizer)?;
        self.weights.check(&param_specs(&self.config))?;
        let mut staging = folder::Staging::begin(dir)?;
        let texts: [(&str, Vec<u8>); 5] = [
            (CONFIG, to_json(&ConfigFile::new(&self.config))?),
            (PREPROCESSOR, to_json(&Processor::new(PREPROCESSOR, "normalizer_processor", STATE, &self.stats.state))?),
            (
                POSTPROCESSOR,
                to_json(&Processor::new(POSTPROCESSOR, "unnormalizer_processor", ACTION, &self.stats.action))?,
            ),
            (TOKENIZER, self.tokenizer.to_json()?),
            (CARD, self.card.clone().into_bytes()),
        ];
        for (name, text) in &texts {
            staging.write(name, |out| out.write_all(text))?;
        }
        if let Some(train_config) = &self.train_config {
            staging.write(TRAIN_CONFIG, |out| out.write_all(train_config.as_bytes()))?;
        }
        staging.write(WEIGHTS, |out| write_weights(out, &self.weights, dtype))?;
        staging.publish()
    }

    /// A model of these parts, which must fit each other, with a generated card.
    pub fn new(weights: Weights, config: ModelConfig, stats: NormStats, tokenizer: TextTokenizer) -> Self {
        Self { card: card::card(&config), weights, config, stats, tokenizer, train_config: None }
    }

    /// A model with random weights ([`Weights::random`]) that does not normalise state and action.
    ///
    /// # Errors
    /// When the configuration makes no model or has a smaller vocabulary than the tokenizer.
    pub fn random(config: ModelConfig, tokenizer: TextTokenizer, seed: u64) -> Result<Self, ModelError> {
        config.check()?;
        let features = &config.features;
        let stats = NormStats {
            state: VectorStats::identity(features.state.dim()),
            action: VectorStats::identity(features.action.dim()),
        };
        let checkpoint = Self::new(Weights::random(&config, seed), config, stats, tokenizer);
        check_parts(&checkpoint.config, &checkpoint.stats, &checkpoint.tokenizer)?;
        Ok(checkpoint)
    }
}

/// A checkpoint folder whose weights stay in their file until they are read, one tensor at a time.
///
/// A model can be packed from it without being held in memory twice.
#[derive(Debug)]
pub struct StoredCheckpoint {
    /// What the model is.
    pub config: ModelConfig,
    /// Normalisation of state and action.
    pub stats: NormStats,
    /// Turns instructions into tokens.
    pub tokenizer: TextTokenizer,
    weights: Mutex<TensorFile>,
    files: Vec<String>,
}

impl StoredCheckpoint {
    /// Verifies the folder `dir` and reads all but the weights. Names, shapes and types of the weights are checked.
    ///
    /// # Errors
    /// As [`Checkpoint::load`], except for weights that are not finite: reading them finds those.
    pub fn open(dir: &Path) -> Result<Self, ModelError> {
        let files = folder::verify(dir, &REQUIRED)?;
        Self::read(dir, files)
    }

    /// Reads the folder without its manifest.
    fn read(dir: &Path, files: Vec<String>) -> Result<Self, ModelError> {
        let config = ConfigFile::read(dir)?;
        let weights = TensorFile::open(&dir.join(WEIGHTS))?;
        weights.check(&param_specs(&config))?;
        let stats = NormStats {
            state: Processor::read(&dir.join(PREPROCESSOR), STATE)?,
            action: Processor::read(&dir.join(POSTPROCESSOR), ACTION)?,
        };
        let tokenizer = TextTokenizer::from_json(&read(&dir.join(TOKENIZER))?)?;
        check_parts(&config, &stats, &tokenizer)?;
        Ok(Self { config, stats, tokenizer, weights: Mutex::new(weights), files })
    }
}

/// Checks the checkpoint folder `dir` and returns every finding; nothing when the checkpoint is sound.
///
/// Files are compared with the manifest. Each file that can be read is then checked against the configuration, and
/// every weight for being finite.
pub fn verify(dir: &Path) -> Vec<ModelError> {
    let mut findings = match folder::findings(dir, &REQUIRED) {
        Ok((_, findings)) => findings,
        Err(error) => vec![error],
    };
    findings.extend(content_findings(dir));
    findings
}

/// Rewrites the manifest of the checkpoint folder `dir` after files were edited on purpose.
///
/// Returns the names of the files that were changed, added or removed.
///
/// # Errors
/// When the folder as it is makes no sound checkpoint, or has another format version; the manifest is untouched then.
pub fn seal(dir: &Path) -> Result<Vec<String>, ModelError> {
    if let Some(name) = REQUIRED.iter().find(|name| !dir.join(name).is_file()) {
        return Err(ModelError::MissingFile { path: dir.join(name), expected: REQUIRED.join(", ") });
    }
    if let Some(finding) = content_findings(dir).into_iter().next() {
        return Err(finding);
    }
    let optional = [TRAIN_CONFIG].into_iter().filter(|name| dir.join(name).is_file());
    folder::seal(dir, &REQUIRED.into_iter().chain(optional).collect::<Vec<_>>())
}

/// All parts of a folder that cannot be read or contradict the configuration. The manifest is not read, and absent
/// files are skipped.
fn content_findings(dir: &Path) -> Vec<ModelError> {
    let mut findings = Findings { dir, list: Vec::new() };
    let config = findings.part(CONFIG, |_| ConfigFile::read(dir));
    let weights = findings.part(WEIGHTS, TensorFile::open);
    let state = findings.part(PREPROCESSOR, |path| Processor::read(path, STATE));
    let action = findings.part(POSTPROCESSOR, |path| Processor::read(path, ACTION));
    let tokenizer = findings.part(TOKENIZER, |path| TextTokenizer::from_json(&read(path)?));
    findings.part(CARD, read_text);
    findings.part(TRAIN_CONFIG, |path| parse::<IgnoredAny>(path, &read(path)?));
    let mut list = findings.list;
    let Some(config) = config else { return list };
    list.extend(weights.map(|weights| weight_findings(weights, &config)).unwrap_or_default());
    list.extend(state.and_then(|stats| check_stats(STATE, &stats, &config.features.state).err()));
    list.extend(action.and_then(|stats| check_stats(ACTION, &stats, &config.features.action).err()));
    list.extend(tokenizer.and_then(|tokenizer| check_vocabulary(&config, &tokenizer).err()));
    list
}

/// Reads the parts of a folder and collects what is wrong with them.
struct Findings<'a> {
    dir: &'a Path,
    list: Vec<ModelError>,
}

impl Findings<'_> {
    /// What `read` makes of the file `name`; `None` when it is absent or has an error, which is collected.
    fn part<T>(&mut self, name: &str, read: impl FnOnce(&Path) -> Result<T, ModelError>) -> Option<T> {
        let path = self.dir.join(name);
        if !path.is_file() {
            return None;
        }
        read(&path).map_err(|error| self.list.push(error)).ok()
    }
}

/// The first error of the layout, or else every tensor that is not finite.
fn weight_findings(mut weights: TensorFile, config: &ModelConfig) -> Vec<ModelError> {
    let specs = param_specs(config);
    match weights.check(&specs) {
        Ok(_) => specs.iter().filter_map(|spec| weights.read(&spec.name).err()).collect(),
        Err(error) => vec![error],
    }
}

impl Tensors for StoredCheckpoint {
    fn values(&self, name: &str, shape: &[usize]) -> Result<Cow<'_, [f32]>, ModelError> {
        let tensor = self.weights.lock().unwrap_or_else(PoisonError::into_inner).read(name)?;
        check_shape(name, shape, &tensor.shape)?;
        Ok(Cow::Owned(tensor.data))
    }
}

/// Checks configuration, statistics and tokenizer against each other.
fn check_parts(config: &ModelConfig, stats: &NormStats, tokenizer: &TextTokenizer) -> Result<(), ModelError> {
    config.check()?;
    check_stats(STATE, &stats.state, &config.features.state)?;
    check_stats(ACTION, &stats.action, &config.features.action)?;
    check_vocabulary(config, tokenizer)
}

fn check_stats(feature: &str, stats: &VectorStats, spec: &VectorSpec) -> Result<(), ModelError> {
    Ok(stats.check(feature, spec.dim())?)
}

fn check_vocabulary(config: &ModelConfig, tokenizer: &TextTokenizer) -> Result<(), ModelError> {
    let (vocab_size, n_piece) = (config.text.vocab_size, tokenizer.vocab_size());
    if n_piece > vocab_size {
        let expected = format!("at least {n_piece}, the pieces of the tokenizer");
        return Err(ModelError::config("text.vocab_size", expected, vocab_size));
    }
    Ok(())
}

/// Configuration and types of the weights of the folder `dir`, verified, without reading the weights.
pub(crate) fn read_layout(dir: &Path) -> Result<(ModelConfig, BTreeMap<String, Dtype>), ModelError> {
    folder::verify(dir, &REQUIRED)?;
    let config = ConfigFile::read(dir)?;
    let dtypes = TensorFile::open(&dir.join(WEIGHTS))?.check(&param_specs(&config))?;
    Ok((config, dtypes))
}

/// `config.json`.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ConfigFile {
    r#type: String,
    format_version: u32,
    /// The features in LeRobot's notation; the model reads `model.features`.
    input_features: BTreeMap<String, Feature>,
    output_features: BTreeMap<String, Feature>,
    model: ModelConfig,
}

/// `lerobot.configs.types.PolicyFeature`.
#[derive(Serialize, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
struct Feature {
    r#type: String,
    shape: Vec<usize>,
}

impl ConfigFile {
    const TYPE: &str = "robomamba";

    fn new(config: &ModelConfig) -> Self {
        let (input_features, output_features) = lerobot_features(&config.features);
        let r#type = Self::TYPE.into();
        Self { r#type, format_version: FORMAT_VERSION, input_features, output_features, model: config.clone() }
    }

    fn read(dir: &Path) -> Result<ModelConfig, ModelError> {
        let path = dir.join(CONFIG);
        let json = read(&path)?;
        let header: ConfigHeader = parse(&path, &json)?;
        if header.r#type != Self::TYPE {
            return Err(ModelError::config("type", format!("`{}`", Self::TYPE), format!("`{}`", header.r#type)));
        }
        if header.format_version != FORMAT_VERSION {
            return Err(ModelError::FormatVersion { path, expected: FORMAT_VERSION, found: header.format_version });
        }
        let file: Self = parse(&path, &json)?;
        file.model.check()?;
        let (input, output) = lerobot_features(&file.model.features);
        if file.input_features != input || file.output_features != output {
            let field = if file.input_features == input { "output_features" } else { "input_features" };
            return Err(ModelError::config(field, "the same as `model.features`", "other names or shapes"));
        }
        Ok(file.model)
    }
}

/// Read first, so that another version is reported as such and not by its first new key.
#[derive(Deserialize)]
struct ConfigHeader {
    r#type: String,
    format_version: u32,
}

type Features = BTreeMap<String, Feature>;

/// Input and output features as LeRobot writes them; images are `[channel, height, width]`.
fn lerobot_features(spec: &FeatureSpec) -> (Features, Features) {
    let feature = |r#type: &str, shape: Vec<usize>| Feature { r#type: r#type.into(), shape };
    let mut input: Features = spec
        .cameras
        .iter()
        .map(|camera| (camera.name.clone(), feature("VISUAL", vec![3, camera.height, camera.width])))
        .collect();
    input.insert(STATE.into(), feature("STATE", vec![spec.state.dim()]));
    (input, [(ACTION.to_string(), feature("ACTION", vec![spec.action.dim()]))].into())
}

/// `policy_preprocessor.json` and `policy_postprocessor.json`: LeRobot's list of steps with one step of ours.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Processor {
    name: String,
    steps: [ProcessorStep; 1],
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ProcessorStep {
    registry_name: String,
    config: ProcessorConfig,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ProcessorConfig {
    stats: BTreeMap<String, VectorStats>,
}

impl Processor {
    fn new(file: &str, registry_name: &str, feature: &str, stats: &VectorStats) -> Self {
        let config = ProcessorConfig { stats: [(feature.to_string(), stats.clone())].into() };
        let name = file.trim_end_matches(".json").into();
        Self { name, steps: [ProcessorStep { registry_name: registry_name.into(), config }] }
    }

    fn read(path: &Path, feature: &str) -> Result<VectorStats, ModelError> {
        let Self { steps: [mut step], .. } = parse(path, &read(path)?)?;
        step.config.stats.remove(feature).ok_or_else(|| ModelError::Json {
            path: path.into(),
            reason: format!("it must have `steps[0].config.stats.{feature}`; compute the statistics again"),
        })
    }
}

fn read(path: &Path) -> Result<Vec<u8>, ModelError> {
    fs::read(path).map_err(|source| ModelError::Read { path: path.into(), source })
}

fn read_text(path: &Path) -> Result<String, ModelError> {
    fs::read_to_string(path).map_err(|source| ModelError::Read { path: path.into(), source })
}

pub(crate) fn parse<T: DeserializeOwned>(path: &Path, json: &[u8]) -> Result<T, ModelError> {
    serde_json::from_slice(json).map_err(|error| ModelError::Json { path: path.into(), reason: error.to_string() })
}

fn to_json<T: Serialize>(value: &T) -> Result<Vec<u8>, ModelError> {
    let mut json = serde_json::to_vec_pretty(value)
        .map_err(|error| ModelError::Json { path: "checkpoint".into(), reason: error.to_string() })?;
    json.push(b'\n');
    Ok(json)
}
