//! The robot on its table, as an [`Environment`].

use std::sync::Arc;

use rand_chacha::ChaCha8Rng;
use robomamba_policy::{
    CameraSpec, Environment, Episode, FeatureSpec, Image, Observation, PolicyError, StepOutcome, VectorSpec,
};

use crate::error::SimError;
use crate::expert::expert_action;
use crate::families::build;
use crate::geometry::Vec2;
use crate::goal::Goal;
use crate::language::{describe, understand};
use crate::render::Renderer;
use crate::scenario::{Family, Scenario};
use crate::task::{Script, Spoil, Task};
use crate::things::Colour;
use crate::world::{Command, FPS, HAND_RANGE_M, World};

/// Name of the suite and of its robot in an [`Episode`].
pub const SUITE: &str = "tabletop";
/// Name of the only camera.
pub const CAMERA: &str = "observation.images.top";
/// Dimensions of `observation.environment_state`.
pub const ENVIRONMENT_STATE_DIM: usize = 20;
/// Names of the action's dimensions.
const ACTION: [&str; 3] = ["dx", "dy", "grip"];
/// Goals of the same kind differ by their place in this list.
const GOAL_KINDS: usize = 6;

/// The names of `observation.environment_state`, the simulator's knowledge of the present sub-goal.
///
/// It is a target of auxiliary losses, never an input of a policy.
///
/// | dimension | meaning |
/// |---|---|
/// | `object_x`, `object_y` | the thing to handle, as a fraction of [`HAND_RANGE_M`] |
/// | `target_x`, `target_y` | where to bring it; its own place when it is not to be moved |
/// | `goal_reach` .. `goal_wait` | 1 for the kind of the present sub-goal |
/// | `holding` | 1 while the hand carries a block |
/// | `progress` | sub-goals done, as a fraction of all |
/// | `presses_left` | presses among the sub-goals that remain, divided by 5 |
/// | `may_act` | 0 before the go signal |
/// | `cue_red` .. `cue_orange` | 1 for the colour that the lamp showed at the beginning |
pub fn environment_state_spec() -> VectorSpec {
    let cues = Colour::ALL.map(|colour| format!("cue_{}", colour.word()));
    let fixed = [
        "object_x",
        "object_y",
        "target_x",
        "target_y",
        "goal_reach",
        "goal_press",
        "goal_pick_place",
        "goal_push",
        "goal_open",
        "goal_wait",
        "holding",
        "progress",
        "presses_left",
        "may_act",
    ];
    VectorSpec::new(fixed.map(String::from).into_iter().chain(cues))
}

/// Points of `observation.grounding`.
pub const GROUNDING_POINTS: usize = 8;
/// Dimensions of `observation.grounding`: x and y of every point.
pub const GROUNDING_DIM: usize = 2 * GROUNDING_POINTS;
/// Coordinate of an absent point.
pub const GROUNDING_ABSENT: f32 = -1.0;

/// The names of the grounding: positions in the image of the things that the instruction names.
///
/// `x` and `y` are fractions of the image's width (from the left) and height (from the top), [`GROUNDING_ABSENT`] for
/// an absent thing. Like [`environment_state_spec`] it is a target of auxiliary losses, never an input of a policy.
///
/// Point `2 i` is the thing to handle in sub-goal `i`, point `2 i + 1` the place to bring it to. In `remember` point 0
/// is the lamp and point `2 + c` the button of the `c`-th colour.
pub fn grounding_spec() -> VectorSpec {
    let names = (0..GROUNDING_POINTS).flat_map(|i| ["x", "y"].map(|axis| format!("point{i}_{axis}")));
    VectorSpec::new(names)
}

/// Things of `observation.things`, the most on one table.
pub const THINGS: usize = 12;
/// Dimensions of `observation.things`: x, y, kind and colour of every thing.
pub const THINGS_DIM: usize = 4 * THINGS;
/// Every value of an absent thing.
pub const THING_ABSENT: f32 = -1.0;

/// The names of `observation.things`: position, kind and colour of all things in the image.
///
/// Like [`environment_state_spec`] it is a target of auxiliary losses, never an input of a policy.
///
/// - `x` and `y` are fractions as in [`grounding_spec`].
/// - `kind` is 0 to 3 for blocks (square, disc, triangle, cross).
///   It is 4 for a zone, 5 for a button, 6 for a container, and 7 for the lamp.
/// - `colour` is 0 to 5 in the order of `cue_*` in [`environment_state_spec`], 6 for things without a colour, and 7
///   for the white light.
pub fn things_spec() -> VectorSpec {
    let names = (0..THINGS).flat_map(|i| ["x", "y", "kind", "colour"].map(|value| format!("thing{i}_{value}")));
    VectorSpec::new(names)
}

/// Steps that the cap allows for each sub-goal of a free instruction, and once.
const FREE_CAP_STEPS: u32 = 150;

/// Whether a free instruction can be judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Instructed {
    /// It is clear what is to be done.
    Understood {
        /// Number of sub-goals.
        subgoals: usize,
    },
    /// The policy sees the words, but its success cannot be judged.
    NotUnderstood,
}

/// One episode of `tabletop`. A clone continues exactly as the original.
#[derive(Clone)]
pub struct Tabletop {
    features: FeatureSpec,
    scenario: Scenario,
    world: World,
    task: Task,
    renderer: Renderer,
    observation: Observation,
}

impl Tabletop {
    /// A robot whose camera makes images of `height` x `width` pixels, at the beginning of an episode of `reach`.
    ///
    /// # Errors
    /// When the image has no pixels or a side of more than 4096.
    pub fn new(height: usize, width: usize) -> Result<Self, SimError> {
        let renderer = Renderer::new(height, width)?;
        let features = FeatureSpec {
            cameras: vec![CameraSpec { name: CAMERA.into(), height, width }],
            state: VectorSpec::new(["x_m", "y_m", "gripper_opening"]),
            action: VectorSpec::new(ACTION),
            fps: FPS,
        };
        let scenario = Scenario::train(Family::Reach, 0);
        let (world, task) = build(&scenario);
        let observation = Observation {
            images: vec![(CAMERA.into(), Image::black(height, width))],
            state: vec![0.0; features.state.dim()],
            instruction: Arc::clone(&task.instruction),
            timestamp_ns: 0,
        };
        Ok(Self { features, scenario, world, task, renderer, observation })
    }

    /// Starts the episode that `scenario` describes.
    ///
    /// # Errors
    /// When an option of the scenario is out of range; the running episode then stays as it is.
    pub fn reset(&mut self, scenario: &Scenario) -> Result<(), SimError> {
        scenario.difficulty.check()?;
        self.scenario = *scenario;
        (self.world, self.task) = build(scenario);
        self.renderer.reset();
        Ok(())
    }

    /// What the robot sees now; [`Environment::observe`] that cannot fail.
    pub fn look(&mut self) -> &Observation {
        let hand = self.hand_state();
        let observation = &mut self.observation;
        self.renderer.draw(&self.world, &mut observation.images[0].1);
        observation.state.copy_from_slice(&hand);
        observation.instruction = Arc::clone(&self.task.instruction);
        observation.timestamp_ns = u64::from(self.task.step()) * (1_000_000_000 / u64::from(FPS));
        observation
    }

    /// The scenario of the running episode.
    pub fn scenario(&self) -> &Scenario {
        &self.scenario
    }

    /// Names everything on the table that an instruction can refer to.
    pub fn description(&self) -> String {
        describe(&self.world)
    }

    /// Gives the robot another task in the same scene, in free words.
    ///
    /// Success is judged if the words name things on the table and what to do with them.
    pub fn instruct(&mut self, text: &str) -> Instructed {
        let goals = understand(&self.world, text);
        let understood = match &goals {
            Some(goals) => Instructed::Understood { subgoals: goals.len() },
            None => Instructed::NotUnderstood,
        };
        // Success of an unknown task cannot be judged: the step limit ends it.
        let goals = goals.unwrap_or_else(|| vec![Goal::Wait]);
        let cap_steps = FREE_CAP_STEPS * (1 + goals.len() as u32);
        self.task = Task::new(text.into(), goals, Script::Plain, cap_steps);
        understood
    }

    /// How the episode stands.
    pub fn outcome(&self) -> StepOutcome {
        StepOutcome { outcome: self.task.outcome.clone(), progress: self.task.progress() }
    }

    /// Control steps so far.
    pub fn steps(&self) -> usize {
        self.task.step() as usize
    }

    /// Steps after which the episode times out.
    pub fn step_cap(&self) -> usize {
        self.task.cap_steps as usize
    }

    /// Sub-goals done and in all.
    pub fn subgoals(&self) -> (usize, usize) {
        (self.task.done, self.task.total())
    }

    /// The expert's action in this state: a pure function of the world and the task's progress.
    pub fn expert_action(&self) -> [f32; 3] {
        expert_action(&self.world, self.task.goal_of_expert(&self.world))
    }

    /// What the simulator knows of the present sub-goal; see [`environment_state_spec`].
    pub fn environment_state(&self) -> [f32; ENVIRONMENT_STATE_DIM] {
        let goal = self.task.goal();
        let object = goal.object_position(&self.world) / HAND_RANGE_M;
        let target = goal.target_position(&self.world) / HAND_RANGE_M;
        let mut state = [0.0; ENVIRONMENT_STATE_DIM];
        state[..4].copy_from_slice(&[object.x, object.y, target.x, target.y]);
        state[4 + goal_kind(goal)] = 1.0;
        let rest = &mut state[4 + GOAL_KINDS..];
        let presses = self.task.remaining().iter().filter(|goal| matches!(goal, Goal::Press { .. })).count();
        rest[0] = f32::from(self.is_holding());
        rest[1] = self.task.progress();
        rest[2] = presses as f32 / 5.0;
        rest[3] = f32::from(self.task.may_act());
        if let Some(cue) = self.task.cue() {
            rest[4 + cue as usize] = 1.0;
        }
        state
    }

    /// Positions in the image of the things that the instruction names; see [`grounding_spec`].
    pub fn grounding(&self) -> [f32; GROUNDING_DIM] {
        let mut points = [GROUNDING_ABSENT; GROUNDING_DIM];
        for (i, at) in self.mentioned() {
            if let Some(point) = points.chunks_exact_mut(2).nth(i) {
                point.copy_from_slice(&self.renderer.fractions(at));
            }
        }
        points
    }

    /// Position, kind and colour of all things in the image; see [`things_spec`].
    pub fn things(&self) -> [f32; THINGS_DIM] {
        let mut things = [THING_ABSENT; THINGS_DIM];
        for (values, (at, [kind, colour])) in things.chunks_exact_mut(4).zip(self.world.things()) {
            let [x, y] = self.renderer.fractions(at);
            values.copy_from_slice(&[x, y, kind as f32, colour as f32]);
        }
        things
    }

    /// Number and place on the table of every point of the grounding.
    fn mentioned(&self) -> Vec<(usize, Vec2)> {
        let world = &self.world;
        if let (Family::Remember, Some(lamp)) = (self.scenario.family, world.lamp) {
            let buttons = world.buttons.iter().map(|button| (2 + button.colour as usize, button.centre));
            return std::iter::once((0, lamp.centre)).chain(buttons).collect();
        }
        let mut points = Vec::new();
        for (i, goal) in self.task.goals.iter().enumerate().filter(|(_, goal)| **goal != Goal::Wait) {
            points.push((2 * i, goal.object_position(world)));
            points.extend(goal.delivery().map(|_| (2 * i + 1, goal.target_position(world))));
        }
        points
    }

    /// `[x_m, y_m, gripper_opening]` of the hand.
    pub fn hand_state(&self) -> [f32; 3] {
        let hand = &self.world.hand;
        [hand.position.x, hand.position.y, hand.opening]
    }

    /// Whether the hand carries a block.
    pub(crate) fn is_holding(&self) -> bool {
        self.world.hand.held.is_some()
    }

    /// A way to spoil the present sub-goal on purpose.
    pub(crate) fn spoil(&self, rng: &mut ChaCha8Rng) -> Option<Spoil> {
        self.task.spoil(&self.world, rng)
    }

    /// What the expert would do to make that mistake.
    pub(crate) fn spoiled_action(&self, spoil: Spoil) -> [f32; 3] {
        match spoil {
            Spoil::Goal(goal) => expert_action(&self.world, goal),
            Spoil::Mirrored => {
                let [dx, dy, grip] = self.expert_action();
                [-dx, dy, grip]
            }
        }
    }

    fn command(&self, action: &[f32]) -> Result<Command, PolicyError> {
        self.features.check_action(action)?;
        Ok(Command { direction: Vec2::new(action[0].clamp(-1.0, 1.0), action[1].clamp(-1.0, 1.0)), grip: action[2] })
    }
}

impl Environment for Tabletop {
    fn features(&self) -> &FeatureSpec {
        &self.features
    }

    fn episode(&self) -> Episode {
        let Scenario { family, seed, attempt, .. } = self.scenario;
        Episode {
            suite: SUITE.into(),
            task: family.name().into(),
            robot: SUITE.into(),
            scene: self.scenario.scene().into(),
            seed,
            attempt,
            instruction: Arc::clone(&self.task.instruction),
        }
    }

    fn observe(&mut self) -> Result<&Observation, PolicyError> {
        Ok(self.look())
    }

    /// After the end of the episode the world goes on, but its outcome stays.
    fn step(&mut self, action: &[f32]) -> Result<StepOutcome, PolicyError> {
        let command = self.command(action)?;
        let events = self.world.step(command);
        self.task.update(&mut self.world, &events);
        Ok(self.outcome())
    }
}

fn goal_kind(goal: Goal) -> usize {
    match goal {
        Goal::Reach(_) => 0,
        Goal::Press { .. } => 1,
        Goal::PickPlace { .. } => 2,
        Goal::Push { .. } => 3,
        Goal::Open { .. } => 4,
        Goal::Wait => 5,
    }
}
