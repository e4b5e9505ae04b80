//! `data record`: episodes of `tabletop` become LeRobot data sets, one folder per task family.
//!
//! Episode `i` is a pure function of the family, the options and the seed `S + i`. Neither the number of threads nor an
//! interruption changes a byte of the data set.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, anyhow};
use clap::{Arg, Args};
use robomamba_data::{
    DType, DataError, Dataset, DatasetWriter, EpisodeWriter, Feature, Features, Frame, Value, WriterConfig, columns,
};
use robomamba_eval::{Recurrent, RecurrentState};
use robomamba_policy::{
    ActionChunk, ChunkQueue, Driver, Environment, Episode, Observation, Outcome, Policy, PolicyError, Step, play,
};
use robomamba_runtime::Session;
use robomamba_sim::{
    CAMERA, Difficulty, ExpertRollout, FPS, Family, Intent, LabelledStep, Labels, NoiseConfig, Scenario, Split,
    Tabletop, environment_state_spec, expert_rollout, grounding_spec, things_spec,
};
use serde::Serialize;

use crate::args::{Execution, Families, Jobs, Loading, Span, parse_fraction, parse_split};
use crate::loaded::{self, Loaded};
use crate::output;
use crate::parallel;
use crate::progress::Progress;
use crate::summary::Summary;

/// Options of `data record`.
#[derive(Args)]
#[command(mut_args(of_policy))]
pub struct RecordArgs {
    #[command(flatten)]
    families: Families,
    /// Episodes per family
    #[arg(long, value_name = "N")]
    episodes: usize,
    /// Folder that gets one data set per family
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Seed of the first episode; each further one has the next seed
    #[arg(long, value_name = "S", default_value_t = 0)]
    seed: u64,
    /// Scenes to learn from (train) or to be judged on (heldout)
    #[arg(long, default_value = "train", value_parser = parse_split)]
    split: Split,
    /// Side of the square image in pixels
    #[arg(long, value_name = "PIXELS", default_value_t = 96)]
    image_size: usize,
    /// Probability per control step that a burst of noise disturbs the expert; 0 for none at all
    #[arg(long, value_name = "P", default_value_t = 0.03, value_parser = parse_fraction)]
    noise: f64,
    /// Probability per control step of a detour of 5 to 30 steps, after which motion no longer reveals the goal
    #[arg(long, value_name = "P", default_value_t = 0.0, value_parser = parse_fraction, conflicts_with = "policy")]
    detours: f64,
    /// Fraction of the episodes that the expert spoils on purpose; they are marked as no demonstrations
    #[arg(long, value_name = "FRACTION", default_value_t = 0.0, value_parser = parse_fraction)]
    blunders: f64,
    /// Sub-goals of `sequence`: a number from 3 to 8, or a span such as 3..5
    #[arg(long, value_name = "SPAN", default_value = "3")]
    subgoals: Span,
    /// Shortest delay of `remember` in control steps
    #[arg(long, value_name = "STEPS", default_value_t = 200)]
    delay_min: usize,
    /// Longest delay of `remember` in control steps [default: the shortest]
    #[arg(long, value_name = "STEPS")]
    delay_max: Option<usize>,
    /// Tasks of an episode of `endurance`
    #[arg(long, value_name = "N", default_value_t = 100)]
    tasks: usize,
    /// Let this checkpoint drive while the expert labels every state that it gets into (DAgger)
    #[arg(long, value_name = "DIR")]
    policy: Option<PathBuf>,
    /// Share of the stretches of an episode that the policy drives; the expert drives the others
    #[arg(long, value_name = "SHARE", default_value_t = 1.0, value_parser = parse_fraction, requires = "policy")]
    policy_share: f64,
    /// Reset the policy's recurrent state before every step
    #[arg(long, requires = "policy")]
    stateless: bool,
    #[command(flatten)]
    loading: Loading,
    #[command(flatten)]
    execution: Execution,
    #[command(flatten)]
    jobs: Jobs,
    /// Print the summary as JSON on stdout
    #[arg(long)]
    json: bool,
}

/// How a policy drives is only asked where one does.
fn of_policy(arg: Arg) -> Arg {
    let belongs = ["format", "blend", "blend_decay", "replan_every"].contains(&arg.get_id().as_str());
    if belongs { arg.requires("policy") } else { arg }
}

/// Everything that decides the content of one data set; stored in it as its recipe.
#[derive(Clone, Debug, Serialize)]
struct Plan {
    family: Family,
    first_seed: u64,
    episodes: usize,
    split: Split,
    image_size: usize,
    noise: f64,
    detours: f64,
    blunders: f64,
    subgoals: (usize, usize),
    delay_steps: (usize, usize),
    tasks: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    policy: Option<PolicyPlan>,
}

/// The policy that drives instead of the expert.
#[derive(Clone, Debug, Serialize)]
struct PolicyPlan {
    /// Lengths and checksums of the checkpoint's files.
    manifest: serde_json::Value,
    share: f64,
    recurrent_state: RecurrentState,
    precision: String,
    execution: Execution,
}

/// Runs `data record`.
pub fn run(args: RecordArgs) -> Result<()> {
    let learner = args.policy.as_deref().map(|path| Loaded::open(path, args.loading.options())).transpose()?;
    let plans = plans(&args)?;
    let mut summaries = Vec::new();
    for plan in &plans {
        let folder = args.out.join(plan.family.name());
        let started = Instant::now();
        record(plan, learner.as_ref(), &folder, &args.jobs).with_context(|| format!("recording `{}`", plan.family))?;
        let summary = Summary::of(&Dataset::open(&folder)?)?;
        eprintln!("{}: {summary}, {:.1} s", folder.display(), started.elapsed().as_secs_f64());
        summaries.push(summary);
    }
    if args.json {
        output::print(serde_json::to_string_pretty(&summaries)?)?;
    }
    Ok(())
}

fn plans(args: &RecordArgs) -> Result<Vec<Plan>> {
    let delay = Span { min: args.delay_min, max: args.delay_max.unwrap_or(args.delay_min) };
    if delay.min > delay.max {
        return Err(anyhow!("--delay-max must be at least --delay-min ({}), found {}", delay.min, delay.max));
    }
    args.seed.checked_add(args.episodes as u64).with_context(|| format!("--seed {} leaves no room", args.seed))?;
    let policy = args.policy.as_deref().map(|path| PolicyPlan::new(path, args)).transpose()?;
    let plan = |family| Plan {
        family,
        first_seed: args.seed,
        episodes: args.episodes,
        split: args.split,
        image_size: args.image_size,
        noise: args.noise,
        detours: args.detours,
        blunders: args.blunders,
        subgoals: (args.subgoals.min, args.subgoals.max),
        delay_steps: (delay.min, delay.max),
        tasks: args.tasks,
        policy: policy.clone(),
    };
    Ok(args.families.list().into_iter().map(plan).collect())
}

impl PolicyPlan {
    fn new(path: &Path, args: &RecordArgs) -> Result<Self> {
        let file = loaded::resolve(path).join("manifest.json");
        let text = std::fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        let manifest = serde_json::from_str(&text).with_context(|| file.display().to_string())?;
        Ok(Self {
            manifest,
            share: args.policy_share,
            recurrent_state: if args.stateless { RecurrentState::ResetAtEveryStep } else { RecurrentState::Carried },
            precision: args.loading.format.to_string(),
            execution: args.execution,
        })
    }
}

/// Records what is missing of the data set in `folder`; one that is complete stays as it is.
fn record(plan: &Plan, learner: Option<&Loaded>, folder: &Path, jobs: &Jobs) -> Result<()> {
    let writer = match DatasetWriter::create(folder, plan.writer_config()?) {
        Err(DataError::AlreadyComplete { .. }) => return Ok(()),
        writer => writer?,
    };
    let pending = writer.pending();
    let progress = Progress::start(plan.family.name(), pending.len(), "episodes");
    let work = |worker: &mut Worker, i: usize| {
        let steps = worker.record(plan, writer.episode(pending[i])?)?;
        progress.advance(format!("{steps} steps"));
        Ok(())
    };
    parallel::map(jobs.count(), pending.len(), || Worker::new(plan, learner), work)?;
    progress.finish();
    Ok(writer.finalize()?)
}

/// What one thread needs to record episodes.
struct Worker {
    environment: Tabletop,
    learner: Option<ChunkQueue<Recurrent<Session>>>,
}

impl Worker {
    fn new(plan: &Plan, learner: Option<&Loaded>) -> Result<Self> {
        let queue = |(loaded, policy): (&Loaded, &PolicyPlan)| -> Result<_> {
            Ok(policy.execution.queue(Recurrent::new(loaded.worker_session()?, policy.recurrent_state)))
        };
        let learner = learner.zip(plan.policy.as_ref()).map(queue).transpose()?;
        Ok(Self { environment: plan.environment()?, learner })
    }

    /// Records one episode and returns its number of control steps.
    fn record(&mut self, plan: &Plan, mut episode: EpisodeWriter) -> Result<usize> {
        let rollout = plan.rollout(episode.index());
        let seed = rollout.scenario.seed;
        match (&mut self.learner, &plan.policy) {
            (Some(learner), Some(policy)) => {
                self.environment.reset(&rollout.scenario)?;
                let mut teacher = Teacher { learner, share: policy.share, seed, labels: Labels::of(&self.environment) };
                play(&mut self.environment, &mut teacher, |teacher, step| {
                    add_frame(&mut episode, &teacher.labelled(step), seed)
                })?;
            }
            _ => {
                let mut written = Ok(());
                let sink = |step: LabelledStep| {
                    if written.is_ok() {
                        written = add_frame(&mut episode, &step, seed);
                    }
                };
                expert_rollout(&mut self.environment, &rollout, sink)?;
                written?;
            }
        }
        episode.save()?;
        Ok(self.environment.steps())
    }
}

/// Control steps between two choices of the driver.
const STRETCH_STEPS: usize = 20;

/// DAgger (Ross et al. 2011, arXiv 1011.0686): a learner drives in a share of the stretches, the expert in the others.
///
/// The expert labels every state. The learner acts at every step, so that its recurrent state stays current.
struct Teacher<'a, P> {
    learner: &'a mut P,
    share: f64,
    seed: u64,
    /// Labels of the last state that was acted in.
    labels: Labels,
}

impl<P> Teacher<'_, P> {
    fn learner_drives(&self, step: usize) -> bool {
        let stretch = (step / STRETCH_STEPS) as u64;
        unit(draw(self.seed ^ stretch << 40, Draw::Driver)) < self.share
    }

    fn labelled<'a>(&'a self, step: Step<'a>) -> LabelledStep<'a> {
        LabelledStep {
            observation: step.observation,
            labels: &self.labels,
            executed: step.action(),
            outcome: step.outcome,
            is_demonstration: true,
        }
    }
}

impl<P: Policy> Driver<Tabletop> for Teacher<'_, P> {
    fn begin(&mut self, _: &Tabletop, episode: &Episode) -> Result<(), PolicyError> {
        self.learner.begin(episode)
    }

    fn act(
        &mut self,
        environment: &Tabletop,
        observation: &Observation,
        chunk: &mut ActionChunk,
    ) -> Result<(), PolicyError> {
        self.labels = Labels::of(environment);
        self.learner.act(observation, chunk)?;
        let executed = match chunk.action(0) {
            Some(&[dx, dy, grip]) if self.learner_drives(environment.steps()) => {
                [dx, dy, grip].map(|value| value.clamp(-1.0, 1.0))
            }
            _ => self.labels.action,
        };
        chunk.set_action(&executed);
        Ok(())
    }

    fn end(&mut self, outcome: &Outcome, last: &Observation) -> Result<(), PolicyError> {
        self.learner.end(outcome, last)
    }
}

fn add_frame(episode: &mut EpisodeWriter, step: &LabelledStep, seed: u64) -> Result<()> {
    let LabelledStep { observation, labels, .. } = step;
    let values = [
        (CAMERA, Value::Image(&observation.images[0].1)),
        (columns::STATE, Value::F32(&observation.state)),
        (columns::ACTION, Value::F32(&labels.action)),
        (columns::ACTION_EXECUTED, Value::F32(step.executed)),
        (columns::ENVIRONMENT_STATE, Value::F32(&labels.environment_state)),
        (&columns::grounding(CAMERA), Value::F32(&labels.grounding)),
        (&columns::things(CAMERA), Value::F32(&labels.things)),
        (columns::SUCCESS, Value::Bool(step.outcome.is_success())),
        (columns::IS_DEMONSTRATION, Value::Bool(step.is_demonstration)),
        (columns::SEED, Value::Int(&[seed as i64])),
    ];
    Ok(episode.add_frame(&Frame { task: &observation.instruction, values: &values })?)
}

impl Plan {
    fn environment(&self) -> Result<Tabletop> {
        Ok(Tabletop::new(self.image_size, self.image_size)?)
    }

    fn writer_config(&self) -> Result<WriterConfig> {
        let environment = self.environment()?;
        let robot = environment.features();
        let features = Features::of_robot(robot)
            .with(columns::ACTION_EXECUTED, Feature::vector(robot.action.names.clone()))
            .with(columns::ENVIRONMENT_STATE, Feature::vector(environment_state_spec().names))
            .with(columns::grounding(CAMERA), Feature::vector(grounding_spec().names))
            .with(columns::things(CAMERA), Feature::vector(things_spec().names))
            .with(columns::SUCCESS, Feature::scalar(DType::Bool))
            .with(columns::IS_DEMONSTRATION, Feature::scalar(DType::Bool))
            .with(columns::SEED, Feature::scalar(DType::Int64));
        Ok(WriterConfig {
            features,
            fps: FPS,
            robot_type: "tabletop".into(),
            episodes: self.episodes,
            recipe: serde_json::to_value(self)?,
        })
    }

    fn rollout(&self, index: usize) -> ExpertRollout {
        let seed = self.first_seed + index as u64;
        let is_blunder = unit(draw(seed, Draw::Blunder)) < self.blunders;
        let bursts = match self.noise {
            0.0 => NoiseConfig::NONE,
            p => NoiseConfig { burst_probability: p as f32, ..NoiseConfig::default() },
        };
        ExpertRollout {
            scenario: self.scenario(seed),
            noise: NoiseConfig { detour_probability: self.detours as f32, ..bursts },
            intent: if is_blunder { Intent::Blunder } else { Intent::Solve },
        }
    }

    fn scenario(&self, seed: u64) -> Scenario {
        let pick = |(min, max), purpose| Span { min, max }.pick(draw(seed, purpose));
        let difficulty = Difficulty {
            subgoals: pick(self.subgoals, Draw::Subgoals),
            delay_steps: pick(self.delay_steps, Draw::Delay),
            tasks: self.tasks,
        };
        Scenario { family: self.family, seed, split: self.split, difficulty, attempt: 0 }
    }
}

/// What a random number of an episode is for.
#[derive(Clone, Copy)]
enum Draw {
    Blunder = 1,
    Subgoals,
    Delay,
    Driver,
}

/// 64 random bits that depend on the episode's seed and the purpose only (SplitMix64, Steele et al. 2014).
fn draw(seed: u64, purpose: Draw) -> u64 {
    let mut z =
        seed.wrapping_mul(0xD134_2543_DE82_EF95).wrapping_add((purpose as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// A number in `[0, 1)` from 64 random bits.
fn unit(bits: u64) -> f64 {
    (bits >> 11) as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_are_uniform_and_independent_of_each_other() {
        let n = 10_000;
        let share = |threshold: f64| (0..n).filter(|&seed| unit(draw(seed, Draw::Blunder)) < threshold).count();
        assert!((900..1100).contains(&share(0.1)), "{}", share(0.1));
        let both = (0..n).filter(|&seed| unit(draw(seed, Draw::Blunder)) < 0.5 && unit(draw(seed, Draw::Delay)) < 0.5);
        let both = both.count();
        assert!((2300..2700).contains(&both), "{both}");
    }
}
