//! Checkpoints on disk become policies for `tabletop`.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use robomamba_model::{BackboneConfig, ModelConfig, param_specs};
use robomamba_policy::Environment;
use robomamba_runtime::{Format, LoadOptions, Model, RuntimeOptions, Session};
use robomamba_sim::Tabletop;

use crate::machine;

/// The shipped checkpoint, relative to the project's root.
const SHIPPED: &str = "checkpoints/tabletop";

/// The checkpoint that the user names, or else the shipped one.
///
/// The shipped one is looked for in the current directory, then where this binary was built.
///
/// # Errors
/// When the user names none and the shipped one is not there.
pub fn find(chosen: Option<&Path>) -> Result<PathBuf> {
    if let Some(path) = chosen {
        return Ok(path.into());
    }
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(SHIPPED);
    let candidates = [PathBuf::from(SHIPPED), source];
    let found = candidates.into_iter().find(|path| path.join("config.json").is_file());
    found.with_context(|| {
        format!("{SHIPPED} was not found here; run from the project's root, or name a checkpoint with --checkpoint DIR")
    })
}

/// The folder itself, or `pretrained_model` in it for a checkpoint of a training run.
pub fn resolve(path: &Path) -> PathBuf {
    let of_run = path.join("pretrained_model");
    if !path.join("config.json").exists() && of_run.is_dir() { of_run } else { path.into() }
}

/// A checkpoint that can drive `tabletop`.
pub struct Loaded {
    path: PathBuf,
    model: Arc<Model>,
    format: Format,
}

impl Loaded {
    /// Loads the checkpoint folder `path`, see [`resolve`], as `options` say.
    ///
    /// # Errors
    /// When it is incomplete or damaged, or was made for another robot.
    pub fn open(path: &Path, options: LoadOptions) -> Result<Self> {
        let path = &resolve(path);
        let context = || format!("cannot load the checkpoint {}", path.display());
        let model =
            robomamba_kernels::with_large_blocks_apart(|| Model::load_with(path, &options)).with_context(context)?;
        let model = Arc::new(model);
        let (checkpoint, precision) = (path.display(), options.format);
        tracing::info!(%checkpoint, %precision, kernels = machine::kernels(), "checkpoint loaded");
        let loaded = Self { path: path.into(), model, format: options.format };
        loaded.check_robot().with_context(context)?;
        Ok(loaded)
    }

    /// How its matrices are stored in memory.
    pub fn format(&self) -> Format {
        self.format
    }

    /// Its folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Height and width in pixels of the images that it expects.
    pub fn image_size(&self) -> (usize, usize) {
        self.model.features().cameras.first().map_or((0, 0), |camera| (camera.height, camera.width))
    }

    /// A session that uses as many threads as pay off.
    ///
    /// # Errors
    /// When threads cannot be started.
    pub fn session(&self) -> Result<Session> {
        let session = Session::new(Arc::clone(&self.model), &RuntimeOptions::default())?;
        tracing::info!(threads = session.threads(), "session started");
        Ok(session)
    }

    /// A session of one thread, for running many at the same time.
    ///
    /// # Errors
    /// When the thread pool cannot be created.
    pub fn worker_session(&self) -> Result<Session> {
        let options = RuntimeOptions { threads: Some(NonZeroUsize::MIN), ..RuntimeOptions::default() };
        Ok(Session::new(Arc::clone(&self.model), &options)?)
    }

    /// What it is, for the report.
    pub fn description(&self) -> Vec<(&'static str, String)> {
        let config = self.model.config();
        let ModelConfig { vision, text, .. } = config;
        let parameters: usize = param_specs(config).iter().map(|spec| spec.shape.iter().product::<usize>()).sum();
        let (height, width) = self.image_size();
        vec![
            ("Parameters", format!("{:.2} million", parameters as f64 / 1e6)),
            (
                "Vision",
                format!(
                    "{height}x{width} pixels, patches of {}, {} layers of {}",
                    vision.patch_size, vision.num_hidden_layers, vision.hidden_size
                ),
            ),
            (
                "Text",
                format!(
                    "{} layers of {}, {} words and pieces",
                    text.num_hidden_layers, text.hidden_size, text.vocab_size
                ),
            ),
            ("Backbone", backbone(&config.backbone)),
            ("Precision", self.format.to_string()),
            ("Action chunk", format!("{}, recomputed at every step", config.action_head.summary())),
        ]
    }

    fn check_robot(&self) -> Result<()> {
        let (height, width) = self.image_size();
        let robot = Tabletop::new(height.max(1), width.max(1))?.features().clone();
        let features = self.model.features();
        if *features != robot {
            bail!("it was made for another robot: expected {}, found {}", text(&robot), text(features));
        }
        Ok(())
    }
}

fn text(features: &robomamba_policy::FeatureSpec) -> String {
    let cameras: Vec<_> = features.cameras.iter().map(|camera| camera.name.as_str()).collect();
    let list = |names: &[String]| names.join(", ");
    format!(
        "cameras [{}], state [{}], action [{}] at {} Hz",
        cameras.join(", "),
        list(&features.state.names),
        list(&features.action.names),
        features.fps
    )
}

fn backbone(backbone: &BackboneConfig) -> String {
    let kind = match backbone {
        BackboneConfig::Mamba(mamba) => format!("Mamba with {} states per channel", mamba.d_state),
        BackboneConfig::Transformer(transformer) => {
            format!("Transformer with a context of {} steps", transformer.context_len)
        }
    };
    format!("{kind}, {} layers of {}", backbone.n_layer(), backbone.d_model())
}
