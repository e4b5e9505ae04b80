//! Tokens of control steps under frozen encoders: encoded once, and cached on disk if the configuration names a folder.

use std::fs;
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use indicatif::ProgressBar;
use rayon::prelude::*;
use robomamba_data::Camera;
use robomamba_model::Checkpoint;
use robomamba_runtime::{Model, RuntimeOptions, Session};
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};
use sha2::{Digest, Sha256};

use crate::config::TokenConfig;
use crate::corpus::{Corpus, DataConfig, Recorded};
use crate::parameters::is_of_encoders;
use crate::snapshot::io;
use crate::{Result, TrainError};

/// Name of the tensor in a file of tokens.
const TOKENS: &str = "tokens";
/// Its SHA-256 in the header of the file.
const CHECKSUM: &str = "sha256";
/// Must change whenever the same data and weights give other tokens.
const VERSION: &str = "robomamba tokens 1";

/// The tokens of every step of every episode of a data set, `[len, d_model]` each.
pub(crate) type Tokens = Arc<Vec<Vec<f32>>>;

/// Frozen encoders and connector in the runtime.
#[derive(Debug)]
pub(crate) struct Encoder<'a> {
    model: Arc<Model>,
    /// Over everything that a token depends on except the data.
    hasher: Sha256,
    dir: Option<&'a Path>,
    /// Request to stop.
    stop: &'a AtomicBool,
    bar: &'a ProgressBar,
}

impl<'a> Encoder<'a> {
    /// The encoders and the connector of `checkpoint`. They stop early when `stop` is set, and show progress on `bar`.
    ///
    /// # Errors
    /// When a weight is missing or has another shape than the configuration says.
    pub(crate) fn new(
        checkpoint: &Checkpoint,
        config: &'a TokenConfig,
        (stop, bar): (&'a AtomicBool, &'a ProgressBar),
    ) -> Result<Self> {
        let model = Arc::new(Model::from_checkpoint(config.format, checkpoint)?);
        let Checkpoint { config: model_config, weights, stats, tokenizer, .. } = checkpoint;
        let settings = (&model_config.features, &model_config.vision, &model_config.text, &model_config.connector);
        let mut hasher = Sha256::new();
        hasher.update(format!("{VERSION} {} {settings:?} {:?}", config.format, stats.state));
        hasher.update(tokenizer.to_json()?);
        for (name, tensor) in weights.iter().filter(|(name, _)| is_of_encoders(name)) {
            hasher.update(name);
            tensor.data.iter().for_each(|value| hasher.update(value.to_le_bytes()));
        }
        Ok(Self { model, hasher, dir: config.dir.as_deref(), stop, bar })
    }

    /// The tokens of every source of `corpus`, which `configs` describe.
    ///
    /// # Errors
    /// When an image is damaged, a file cannot be written, or the run is asked to stop; finished data sets stay on
    /// disk.
    pub(crate) fn encode(&self, configs: &[DataConfig], corpus: &Corpus) -> Result<Vec<Tokens>> {
        let mut all: Vec<Tokens> = Vec::new();
        for (i, (config, source)) in configs.iter().zip(&corpus.sources).enumerate() {
            let same = corpus.sources[..i].iter().position(|earlier| Arc::ptr_eq(&earlier.episodes, &source.episodes));
            let tokens = match same {
                Some(earlier) => Arc::clone(&all[earlier]),
                None => Arc::new(self.data_set(config, &source.episodes)?),
            };
            all.push(tokens);
        }
        Ok(all)
    }

    fn data_set(&self, config: &DataConfig, episodes: &[Recorded]) -> Result<Vec<Vec<f32>>> {
        let Some(dir) = self.dir else { return self.episodes(config, episodes) };
        let digest = robomamba_data::digest(&config.path).map_err(config.error())?;
        let key = hex::encode(self.hasher.clone().chain_update(digest).finalize());
        let path = dir.join(format!("{key}.safetensors"));
        // A damaged file is replaced.
        if let Some(tokens) = fs::read(&path).ok().and_then(|bytes| self.parse(&bytes, episodes)) {
            return Ok(tokens);
        }
        let tokens = self.episodes(config, episodes)?;
        fs::create_dir_all(dir).map_err(io(dir))?;
        self.save(&path, &tokens)?;
        Ok(tokens)
    }

    fn episodes(&self, config: &DataConfig, episodes: &[Recorded]) -> Result<Vec<Vec<f32>>> {
        self.bar.reset();
        self.bar.set_length(episodes.len() as u64);
        self.bar.set_message(config.path.display().to_string());
        let options = RuntimeOptions { threads: Some(NonZeroUsize::MIN), ..RuntimeOptions::default() };
        let session = Session::new(Arc::clone(&self.model), &options)?;
        let encoded = episodes.par_iter().map_init(
            || session.clone(),
            |session, recorded| {
                if self.stop.load(Ordering::Relaxed) {
                    return Err(TrainError::Stopped { path: config.path.clone() });
                }
                self.bar.inc(1);
                self.episode(config, session, recorded)
            },
        );
        encoded.collect()
    }

    /// Encodes every step as the running policy does.
    fn episode(&self, config: &DataConfig, session: &mut Session, recorded: &Recorded) -> Result<Vec<f32>> {
        let Recorded { episode, len, .. } = recorded;
        let mut cameras: Vec<_> = episode.cameras().iter().map(Camera::images_or_repeats).collect();
        let state = episode.state().map_err(config.error())?;
        let mut observation = episode.observation(0).map_err(config.error())?;
        let state_dim = observation.state.len();
        let mut tokens = Vec::with_capacity(len * self.model.backbone().d_model());
        for step in 0..*len {
            for ((_, image), frames) in observation.images.iter_mut().zip(&mut cameras) {
                if let Some(new) = frames.next().transpose().map_err(config.error())?.flatten() {
                    *image = new;
                }
            }
            observation.state.copy_from_slice(&state[step * state_dim..][..state_dim]);
            observation.instruction.clone_from(&episode.tasks()[step]);
            tokens.extend_from_slice(session.perceive(&observation)?);
        }
        Ok(tokens)
    }

    fn parse(&self, bytes: &[u8], episodes: &[Recorded]) -> Option<Vec<Vec<f32>>> {
        let (file, d_model) = (SafeTensors::deserialize(bytes).ok()?, self.model.backbone().d_model());
        let (_, header) = SafeTensors::read_metadata(bytes).ok()?;
        let tensor = file.tensor(TOKENS).ok()?;
        if header.metadata().as_ref()?.get(CHECKSUM)? != &sha256(tensor.data()) {
            return None;
        }
        let n_step = episodes.iter().map(|recorded| recorded.len).sum::<usize>();
        if tensor.dtype() != Dtype::F32 || tensor.shape() != [n_step, d_model] {
            return None;
        }
        let mut values = tensor.data().as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes));
        Some(episodes.iter().map(|recorded| values.by_ref().take(recorded.len * d_model).collect()).collect())
    }

    fn save(&self, path: &Path, tokens: &[Vec<f32>]) -> Result<()> {
        let bytes: Vec<u8> = tokens.iter().flatten().flat_map(|value| value.to_le_bytes()).collect();
        let d_model = self.model.backbone().d_model();
        let view = TensorView::new(Dtype::F32, vec![bytes.len() / 4 / d_model, d_model], &bytes);
        let view = view.expect("the bytes fill the shape");
        let checksum = [(CHECKSUM.to_string(), sha256(&bytes))].into();
        let file = safetensors::serialize([(TOKENS, view)], Some(checksum)).expect("there is one name");
        robomamba_files::write(path, &file).map_err(io(path))
    }
}

fn sha256(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}
