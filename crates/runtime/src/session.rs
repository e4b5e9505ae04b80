//! One robot's run of a model: the state, and everything that is kept from step to step.

use std::sync::Arc;

use robomamba_kernels::KernelChoice;
use robomamba_model::{ImageScratch, ImageTransform};
use robomamba_policy::{ActionChunk, CameraSpec, Episode, FeatureSpec, Observation, Outcome, Policy, PolicyError};

use crate::connector::ConnectorContext;
use crate::error::{RuntimeError, check_len};
use crate::model::Model;
use crate::options::{Executor, FrameReuse, RuntimeOptions};
use crate::state::State;
use crate::timings::{StepTimings, Stopwatch};
use crate::workspace::Workspace;

/// A policy that runs a model and owns everything that changes.
///
/// A control step has three phases: [`perceive`](Session::perceive) fuses an observation into a token,
/// [`advance`](Session::advance) takes the recurrent state one token further, and [`plan`](Session::plan) decodes the
/// backbone's output into actions. [`Policy::act`] is their composition.
///
/// After the first step with an instruction, [`Policy::act`] allocates nothing on one thread. On several, the thread
/// pool's queue takes a new block of memory about every sixty steps.
#[derive(Clone, Debug)]
pub struct Session {
    model: Arc<Model>,
    executor: Executor,
    frame_reuse: FrameReuse,
    state: State,
    cameras: Vec<Camera>,
    /// The instruction that `context` holds.
    instruction: Option<Arc<str>>,
    context: ConnectorContext,
    buffers: Buffers,
    workspace: Workspace,
    timings: StepTimings,
}

/// What is kept of a camera.
#[derive(Clone, Debug)]
struct Camera {
    transform: ImageTransform,
    scratch: ImageScratch,
    /// The image whose encoding the context holds; empty when there is none.
    last: Vec<u8>,
}

/// Intermediate results of a control step.
#[derive(Clone, Debug)]
struct Buffers {
    /// `[n_patch, 3 * patch_size^2]`.
    patches: Vec<f32>,
    /// `[n_token, d_vision]`.
    vision_tokens: Vec<f32>,
    /// `[n_text, d_text]`.
    text_tokens: Vec<f32>,
    /// Normalised, `[state_dim]`.
    robot_state: Vec<f32>,
    /// `[d_model]`.
    token: Vec<f32>,
    /// `[d_model]`.
    hidden: Vec<f32>,
}

impl Session {
    /// A session at the start of an episode.
    ///
    /// # Errors
    /// When this processor has not the instruction set that `options` ask for, or threads cannot be started.
    pub fn new(model: Arc<Model>, options: &RuntimeOptions) -> Result<Self, RuntimeError> {
        let executor = Executor::new(options, auto_threads(&model))?;
        let cameras = model.features().cameras.iter().map(|camera| Camera::new(&model, camera));
        Ok(Self {
            cameras: cameras.collect::<Result<_, _>>()?,
            frame_reuse: options.frame_reuse,
            state: model.backbone.zeros(),
            instruction: None,
            context: model.connector.context(),
            buffers: Buffers::new(&model),
            workspace: Workspace::new(executor.kernels),
            timings: StepTimings::default(),
            executor,
            model,
        })
    }

    /// The model that runs.
    pub fn model(&self) -> &Arc<Model> {
        &self.model
    }

    /// The recurrent state.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Continues from `state`, to inject experience or to go back to a fork, and returns the state before.
    ///
    /// # Errors
    /// When `state` belongs to another model; nothing changes then.
    pub fn set_state(&mut self, state: State) -> Result<State, RuntimeError> {
        self.state.check_same_layout(&state)?;
        Ok(std::mem::replace(&mut self.state, state))
    }

    /// A session that continues from here on its own. It shares the weights and the threads.
    #[must_use]
    pub fn fork(&self) -> Self {
        self.clone()
    }

    /// Sets the recurrent state to that of the start of an episode.
    pub fn reset(&mut self) {
        self.state.reset();
    }

    /// Output of the backbone at the last [`advance`](Session::advance), `[d_model]`.
    pub fn hidden(&self) -> &[f32] {
        &self.buffers.hidden
    }

    /// Token of the last [`perceive`](Session::perceive), `[d_model]`.
    pub fn token(&self) -> &[f32] {
        &self.buffers.token
    }

    /// Where the time of the last step went.
    pub fn timings(&self) -> StepTimings {
        self.timings
    }

    /// The kernels in use.
    pub fn kernels(&self) -> KernelChoice {
        self.executor.kernels.choice()
    }

    /// Threads of one control step.
    pub fn threads(&self) -> usize {
        self.executor.threads()
    }

    /// Fuses `observation` into the token `[d_model]` of its control step. The recurrent state stays as it is.
    ///
    /// # Errors
    /// When the observation does not fit the model's features.
    pub fn perceive(&mut self, observation: &Observation) -> Result<&[f32], PolicyError> {
        let executor = self.executor.clone();
        executor.run(|| self.sense(observation))?;
        Ok(&self.buffers.token)
    }

    /// Takes the recurrent state one `token` `[d_model]` further and returns the backbone's output, `[d_model]`.
    ///
    /// # Errors
    /// When the token has another length; the state is unchanged then.
    pub fn advance(&mut self, token: &[f32]) -> Result<&[f32], PolicyError> {
        check_len("token", token.len(), self.buffers.token.len())?;
        self.buffers.token.copy_from_slice(token);
        let executor = self.executor.clone();
        executor.run(|| self.step())?;
        Ok(&self.buffers.hidden)
    }

    /// Decodes the backbone's last output into `chunk`, `[chunk_size, action_dim]` in robot units, whose buffer is
    /// reused.
    ///
    /// # Errors
    /// When the heads fail.
    pub fn plan(&mut self, chunk: &mut ActionChunk) -> Result<(), PolicyError> {
        let executor = self.executor.clone();
        executor.run(|| self.decode(chunk))
    }

    /// Advances the state by the perceived token.
    fn step(&mut self) -> Result<(), PolicyError> {
        let Self { model, state, buffers, workspace, timings, .. } = self;
        let mut watch = Stopwatch::start();
        model.backbone.step(&buffers.token, state, &mut buffers.hidden, workspace)?;
        timings.backbone_ns = watch.lap();
        Ok(())
    }

    fn decode(&mut self, chunk: &mut ActionChunk) -> Result<(), PolicyError> {
        let Self { model, buffers, workspace, timings, .. } = self;
        let mut watch = Stopwatch::start();
        let mut success = [0.0];
        chunk.action_dim = model.features().action.dim();
        chunk.actions.resize(model.heads.chunk_len(), 0.0);
        model.heads.forward(&buffers.hidden, &mut chunk.actions, &mut success, workspace)?;
        model.stats.action.unnormalise(&mut chunk.actions);
        chunk.success_probability = Some(success[0]);
        timings.heads_ns = watch.lap();
        Ok(())
    }

    /// Fuses the observation into one token; everything that may be wrong with it is found here.
    fn sense(&mut self, observation: &Observation) -> Result<(), PolicyError> {
        let mut watch = Stopwatch::start();
        self.timings = StepTimings::default();
        self.model.features().check(observation)?;
        self.timings.preprocess_ns = watch.lap();

        self.read(&observation.instruction)?;
        self.timings.text_ns = watch.lap();

        for camera in 0..self.cameras.len() {
            self.see(camera, observation, &mut watch)?;
        }
        let Self { model, context, buffers, workspace, timings, .. } = self;
        buffers.robot_state.copy_from_slice(&observation.state);
        model.stats.state.normalise(&mut buffers.robot_state);
        timings.preprocess_ns += watch.lap();

        model.connector.fuse(&buffers.robot_state, context, &mut buffers.token, workspace)?;
        timings.connector_ns += watch.lap();
        Ok(())
    }

    /// Encodes the instruction, if it is another than before.
    fn read(&mut self, instruction: &Arc<str>) -> Result<(), PolicyError> {
        if self.instruction.as_ref() == Some(instruction) {
            return Ok(());
        }
        let Self { model, context, buffers, workspace, .. } = self;
        let ids = model.tokenizer.encode(instruction, model.config.text.max_position_embeddings)?;
        self.instruction = None;
        model.text.forward(&ids, &mut buffers.text_tokens, workspace)?;
        model.connector.read(&buffers.text_tokens, context, workspace)?;
        self.instruction = Some(instruction.clone());
        Ok(())
    }

    /// Encodes the image of one camera, unless its last encoding can be used again.
    fn see(&mut self, index: usize, observation: &Observation, watch: &mut Stopwatch) -> Result<(), PolicyError> {
        let Self { model, cameras, context, buffers, workspace, timings, frame_reuse, .. } = self;
        let (spec, camera) = (&model.features().cameras[index], &mut cameras[index]);
        let Some(image) = observation.image(&spec.name) else { return Ok(()) };
        if *frame_reuse == FrameReuse::Exact && camera.last == image.data() {
            return Ok(());
        }
        camera.last.clear();
        camera.transform.apply(image.data(), &mut camera.scratch, &mut buffers.patches)?;
        timings.preprocess_ns += watch.lap();

        model.vision.forward(&buffers.patches, &mut buffers.vision_tokens, workspace)?;
        timings.vision_ns += watch.lap();

        let patch_tokens = model.vision.patch_tokens(&buffers.vision_tokens);
        model.connector.see(index, patch_tokens, context, workspace)?;
        camera.last.extend_from_slice(image.data());
        timings.connector_ns += watch.lap();
        Ok(())
    }
}

impl Policy for Session {
    fn features(&self) -> &FeatureSpec {
        self.model.features()
    }

    fn begin(&mut self, _: &Episode) -> Result<(), PolicyError> {
        self.reset();
        Ok(())
    }

    fn act(&mut self, observation: &Observation, chunk: &mut ActionChunk) -> Result<(), PolicyError> {
        let executor = self.executor.clone();
        executor.run(|| {
            self.sense(observation)?;
            self.step()?;
            self.decode(chunk)
        })
    }

    fn end(&mut self, _: &Outcome, _: &Observation) -> Result<(), PolicyError> {
        Ok(())
    }
}

impl Camera {
    fn new(model: &Model, camera: &CameraSpec) -> Result<Self, RuntimeError> {
        let CameraSpec { height, width, .. } = *camera;
        let transform = ImageTransform::new(&model.config.vision, height, width)?;
        Ok(Self { scratch: transform.scratch(), transform, last: Vec::with_capacity(height * width * 3) })
    }
}

impl Buffers {
    fn new(model: &Model) -> Self {
        let (vision, d_model) = (&model.config.vision, model.backbone.d_model());
        Self {
            patches: vec![0.0; vision.n_patch() * vision.patch_dim()],
            vision_tokens: vec![0.0; vision.n_token() * vision.hidden_size],
            text_tokens: Vec::new(),
            robot_state: vec![0.0; model.features().state.dim()],
            token: vec![0.0; d_model],
            hidden: vec![0.0; d_model],
        }
    }
}

/// Multiplications per control step below which one thread is used: waking others for each of a step's many
/// small products then costs about what it saves, and the robot has better use for them.
const ONE_THREAD_MAX: usize = 100_000_000;

/// Threads that pay off. Almost all of the work is the vision encoder's.
fn auto_threads(model: &Model) -> usize {
    let vision = &model.config.vision;
    let block = 4 * vision.hidden_size.pow(2) + 2 * vision.hidden_size * vision.intermediate_size;
    let products = vision.n_token() * vision.num_hidden_layers * block * model.features().cameras.len();
    if products < ONE_THREAD_MAX { 1 } else { std::thread::available_parallelism().map_or(1, usize::from) }
}
