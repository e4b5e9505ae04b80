//! Episodes of the expert, for learning from it.

use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use robomamba_policy::{ActionChunk, Driver, Episode, Observation, Outcome, Played, PolicyError, StepOutcome, play};
use serde::{Deserialize, Serialize};

use crate::error::SimError;
use crate::scenario::{Purpose, Scenario};
use crate::tabletop::{ENVIRONMENT_STATE_DIM, GROUNDING_DIM, THINGS_DIM, Tabletop};
use crate::task::Spoil;

/// Purpose of an expert's episode.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Intent {
    /// Solve the task: the labels are to be imitated.
    #[default]
    Solve,
    /// Spoil the task on purpose, at a random sub-goal: wrong object, wrong order, too early.
    /// Such episodes show failures; nothing in them is to be imitated.
    Blunder,
}

/// Perturbations of the expert's actions, after DART (Laskey et al. 2017, arXiv 1703.09327).
///
/// The noisy action is executed; the label stays the expert's correction.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NoiseConfig {
    /// Probability per control step that a burst begins.
    pub burst_probability: f32,
    /// Longest burst in control steps; lengths are uniform from 2.
    pub burst_steps_max: u32,
    /// Size of a burst's constant offset of `dx` and `dy`, uniform in `[-size, size]`.
    pub burst_size: f32,
    /// Size of the independent noise of every step, uniform in `[-size, size]`.
    pub jitter_size: f32,
    /// Probability that a burst also holds the gripper's command reversed.
    pub grip_flip_probability: f32,
    /// Probability per control step that a detour of 5 to 30 steps begins.
    ///
    /// The hand then moves in a random direction, open unless it carries something. Motion alone no longer reveals the
    /// expert's intention. A learner would otherwise copy it from the motion instead of remembering it (Wen et al.
    /// 2020, arXiv 2010.14876).
    pub detour_probability: f32,
}

impl Default for NoiseConfig {
    fn default() -> Self {
        Self {
            burst_probability: 0.03,
            burst_steps_max: 6,
            burst_size: 1.0,
            jitter_size: 0.15,
            grip_flip_probability: 0.1,
            detour_probability: 0.0,
        }
    }
}

impl NoiseConfig {
    /// No perturbation at all.
    pub const NONE: Self = Self {
        burst_probability: 0.0,
        burst_steps_max: 0,
        burst_size: 0.0,
        jitter_size: 0.0,
        grip_flip_probability: 0.0,
        detour_probability: 0.0,
    };
}

/// A running burst.
#[derive(Clone, Copy, Debug, Default)]
struct Burst {
    steps_left: u32,
    push: [f32; 2],
    flips_grip: bool,
}

/// Length of a detour in control steps.
const DETOUR_STEPS: std::ops::RangeInclusive<u32> = 5..=30;

/// A running detour.
#[derive(Clone, Copy, Debug, Default)]
struct Detour {
    steps_left: u32,
    direction: [f32; 2],
}

/// Draws the perturbation of each step.
struct Noise {
    config: NoiseConfig,
    burst: Burst,
    detour: Detour,
    rng: ChaCha8Rng,
}

impl Noise {
    fn perturb(&mut self, action: [f32; 3], holds: bool) -> [f32; 3] {
        let config = self.config;
        if config == NoiseConfig::NONE {
            return action;
        }
        if self.goes_astray() {
            let [dx, dy] = self.detour.direction;
            return [dx, dy, if holds { 1.0 } else { -1.0 }];
        }
        if self.burst.steps_left == 0 && self.rng.random_bool(f64::from(config.burst_probability.clamp(0.0, 1.0))) {
            self.burst = self.begin_burst();
        }
        let mut executed = action;
        for (i, value) in executed[..2].iter_mut().enumerate() {
            *value += symmetric(&mut self.rng, config.jitter_size);
            if self.burst.steps_left > 0 {
                *value += self.burst.push[i];
            }
        }
        if self.burst.steps_left > 0 {
            self.burst.steps_left -= 1;
            executed[2] *= if self.burst.flips_grip { -1.0 } else { 1.0 };
        }
        executed.map(|value| value.clamp(-1.0, 1.0))
    }

    /// Whether this step belongs to a detour. Without detours no random number is drawn, which keeps other episodes
    /// equal.
    fn goes_astray(&mut self) -> bool {
        let probability = f64::from(self.config.detour_probability.clamp(0.0, 1.0));
        if self.detour.steps_left == 0 && probability > 0.0 && self.rng.random_bool(probability) {
            let angle = self.rng.random_range(0.0..std::f32::consts::TAU);
            let speed = self.rng.random_range(0.3..=1.0);
            let steps_left = self.rng.random_range(DETOUR_STEPS);
            self.detour = Detour { steps_left, direction: [angle.cos() * speed, angle.sin() * speed] };
        }
        let astray = self.detour.steps_left > 0;
        self.detour.steps_left = self.detour.steps_left.saturating_sub(1);
        astray
    }

    fn begin_burst(&mut self) -> Burst {
        let size = self.config.burst_size;
        Burst {
            steps_left: self.rng.random_range(2..=self.config.burst_steps_max.max(2)),
            push: [symmetric(&mut self.rng, size), symmetric(&mut self.rng, size)],
            flips_grip: self.rng.random_bool(f64::from(self.config.grip_flip_probability.clamp(0.0, 1.0))),
        }
    }
}

fn symmetric(rng: &mut ChaCha8Rng, size: f32) -> f32 {
    size * rng.random_range(-1.0..=1.0)
}

/// What only the simulator knows of a state: the labels of imitation and of auxiliary losses.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Labels {
    /// The expert's action.
    pub action: [f32; 3],
    /// Privileged state; see [`environment_state_spec`](crate::environment_state_spec).
    pub environment_state: [f32; ENVIRONMENT_STATE_DIM],
    /// Positions in the image of the things that the instruction names; see [`grounding_spec`](crate::grounding_spec).
    pub grounding: [f32; GROUNDING_DIM],
    /// Position, kind and colour of all things in the image; see [`things_spec`](crate::things_spec).
    pub things: [f32; THINGS_DIM],
}

impl Labels {
    /// The labels of the present state.
    pub fn of(environment: &Tabletop) -> Self {
        Self {
            action: environment.expert_action(),
            environment_state: environment.environment_state(),
            grounding: environment.grounding(),
            things: environment.things(),
        }
    }
}

/// One labelled control step.
#[derive(Clone, Copy, Debug)]
pub struct LabelledStep<'a> {
    /// What the robot saw before the action.
    pub observation: &'a Observation,
    /// Labels of the state before the action.
    pub labels: &'a Labels,
    /// The executed action, `[action_dim]`: the label, that of a mistake, or a learner's, perhaps with noise.
    pub executed: &'a [f32],
    /// How the episode stood after the step.
    pub outcome: &'a StepOutcome,
    /// Whether the label is to be imitated: `false` in episodes that are spoiled on purpose.
    pub is_demonstration: bool,
}

/// How to play an expert's episode.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ExpertRollout {
    /// Which episode.
    pub scenario: Scenario,
    /// Perturbations of the executed actions.
    pub noise: NoiseConfig,
    /// Solve or spoil.
    pub intent: Intent,
}

/// A deliberate mistake, and when it begins.
struct Blunder {
    /// Number of sub-goals done at which it begins.
    at_subgoal: usize,
    spoil: Option<Spoil>,
    rng: ChaCha8Rng,
}

impl Blunder {
    fn new(environment: &Tabletop, mut rng: ChaCha8Rng) -> Self {
        let (_, subgoals) = environment.subgoals();
        Self { at_subgoal: rng.random_range(0..subgoals), spoil: None, rng }
    }

    /// The expert's action until the blunder begins, then that of the mistake.
    fn action(&mut self, environment: &Tabletop) -> [f32; 3] {
        if self.spoil.is_none() && environment.subgoals().0 >= self.at_subgoal {
            self.spoil = environment.spoil(&mut self.rng);
        }
        self.spoil.map_or_else(|| environment.expert_action(), |spoil| environment.spoiled_action(spoil))
    }
}

/// The scripted expert as a driver: it acts by its labels, which it computes at every step.
pub struct Expert {
    blunder: Option<Blunder>,
    noise: Noise,
    labels: Labels,
}

impl Expert {
    /// The expert of the episode that `environment` has just begun, which must be that of `rollout`.
    pub fn new(environment: &Tabletop, rollout: &ExpertRollout) -> Self {
        let mut rng = rollout.scenario.rng(Purpose::Noise);
        let blunder = match rollout.intent {
            Intent::Solve => None,
            Intent::Blunder => Some(Blunder::new(environment, rng.clone())),
        };
        let _: u64 = rng.random();
        let noise = Noise { config: rollout.noise, burst: Burst::default(), detour: Detour::default(), rng };
        Self { blunder, noise, labels: Labels::of(environment) }
    }

    /// Labels of the last state in which it acted.
    pub fn labels(&self) -> &Labels {
        &self.labels
    }
}

impl Driver<Tabletop> for Expert {
    fn begin(&mut self, _: &Tabletop, _: &Episode) -> Result<(), PolicyError> {
        Ok(())
    }

    fn act(&mut self, environment: &Tabletop, _: &Observation, chunk: &mut ActionChunk) -> Result<(), PolicyError> {
        self.labels = Labels::of(environment);
        let label = self.labels.action;
        let intended = self.blunder.as_mut().map_or(label, |blunder| blunder.action(environment));
        chunk.set_action(&self.noise.perturb(intended, environment.is_holding()));
        Ok(())
    }

    fn end(&mut self, _: &Outcome, _: &Observation) -> Result<(), PolicyError> {
        Ok(())
    }
}

/// Lets the expert play an episode and hands every step to `sink`. The episode depends on nothing but `rollout`.
///
/// # Errors
/// When the scenario is out of range.
pub fn expert_rollout(
    environment: &mut Tabletop,
    rollout: &ExpertRollout,
    mut sink: impl FnMut(LabelledStep<'_>),
) -> Result<Played, SimError> {
    environment.reset(&rollout.scenario)?;
    let mut expert = Expert::new(environment, rollout);
    let is_demonstration = rollout.intent == Intent::Solve;
    play(environment, &mut expert, |expert, step| {
        sink(LabelledStep {
            observation: step.observation,
            labels: expert.labels(),
            executed: step.action(),
            outcome: step.outcome,
            is_demonstration,
        });
        Ok(())
    })
}
