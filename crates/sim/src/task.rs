//! Progress of an episode: which sub-goal is next, what counts as a mistake, when it is over.

use std::sync::Arc;

use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;
use robomamba_policy::Outcome;

use crate::failure::Failure;
use crate::geometry::Vec2;
use crate::goal::{Goal, Target, is_over};
use crate::stream::next_in_stream;
use crate::things::{Colour, Lid, Light, Manner};
use crate::world::{Events, World};

/// Hovering this long over a thing that was not named counts as having chosen it.
const STRAY_STEPS: u32 = 12;

/// Control steps for which the expert stays at a target that it has reached, before the next sub-goal.
///
/// A reach leaves no trace but the hand's motion. A learner with a centimetre of error that left at once could not know
/// whether it had succeeded.
const LINGER_STEPS: u32 = 8;

/// The lamp's light over time.
#[derive(Clone, Debug)]
pub(crate) struct Signal {
    /// First step, step after the last, and colour of every flash.
    pub flashes: Vec<(u32, u32, Colour)>,
    /// Step from which the lamp is white.
    pub go_step: u32,
}

impl Signal {
    fn light(&self, step: u32) -> Light {
        let lit = self.flashes.iter().find(|(from, to, _)| (*from..*to).contains(&step));
        match lit {
            _ if step >= self.go_step => Light::Go,
            Some(&(_, _, colour)) => Light::Lit(colour),
            None => Light::Dark,
        }
    }
}

/// The hidden property of a scene in `retry`.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Secret {
    /// Only this container opens.
    Opens { container: usize },
    /// This block can only be pushed, or only be lifted, as its manner says.
    Handling { block: usize },
    /// The steering may be mirrored; the hand must leave `start` towards `target`.
    Steering { start: Vec2, target: Vec2 },
}

/// A deliberate mistake.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Spoil {
    /// Pursue this goal instead.
    Goal(Goal),
    /// Steer to the other side.
    Mirrored,
}

/// What makes a family different from a plain list of goals.
#[derive(Clone, Debug)]
pub(crate) enum Script {
    /// Goals in order; acting on other things is a failure.
    Plain,
    /// A lamp signals when to act, and how.
    Signalled(Signal),
    /// One attempt at a hidden property.
    Attempt(Secret),
    /// Goals follow each other until `total` are done; mistakes only cost time.
    Stream { total: usize, rng: Box<ChaCha8Rng> },
}

/// A running task.
#[derive(Clone, Debug)]
pub(crate) struct Task {
    pub instruction: Arc<str>,
    /// All sub-goals; in a stream only the present one.
    pub goals: Vec<Goal>,
    /// Sub-goals done.
    pub done: usize,
    pub script: Script,
    /// Steps after which the episode times out.
    pub cap_steps: u32,
    /// How the episode ended; `None` while it runs.
    pub outcome: Option<Outcome>,
    step: u32,
    /// Steps for which the present goal's condition has held.
    dwell: u32,
    /// Steps for which the hand has hovered over a wrong thing.
    stray: u32,
    /// Target that was reached last, and steps for which the expert stays there.
    linger: Option<(Target, u32)>,
}

impl Task {
    /// A task at its beginning.
    pub fn new(instruction: String, goals: Vec<Goal>, script: Script, cap_steps: u32) -> Self {
        Self {
            instruction: instruction.into(),
            goals,
            done: 0,
            script,
            cap_steps,
            outcome: None,
            step: 0,
            dwell: 0,
            stray: 0,
            linger: None,
        }
    }

    /// The present sub-goal; after the last one, the last one.
    pub fn goal(&self) -> Goal {
        self.goals[self.index().min(self.goals.len() - 1)]
    }

    /// The sub-goal that the expert is at: the present one, or the last one while it lingers there.
    pub fn goal_of_expert(&self, world: &World) -> Goal {
        match self.linger {
            Some((target, _)) if is_over(world, target) => Goal::Reach(target),
            _ => self.goal(),
        }
    }

    /// The sub-goals that are not done yet, the present one first.
    pub fn remaining(&self) -> &[Goal] {
        &self.goals[self.index().min(self.goals.len())..]
    }

    /// Sub-goals done as a fraction of all.
    pub fn progress(&self) -> f32 {
        self.done as f32 / self.total() as f32
    }

    /// Number of sub-goals of the whole episode.
    pub fn total(&self) -> usize {
        match self.script {
            Script::Stream { total, .. } => total,
            _ => self.goals.len(),
        }
    }

    /// Control steps so far.
    pub fn step(&self) -> u32 {
        self.step
    }

    /// The colour that the lamp showed first.
    pub fn cue(&self) -> Option<Colour> {
        match &self.script {
            Script::Signalled(signal) => signal.flashes.first().map(|flash| flash.2),
            _ => None,
        }
    }

    /// Whether the go signal has been given, or none is needed.
    pub fn may_act(&self) -> bool {
        self.goal() != Goal::Wait
    }

    /// Sets the lamp for the first observation.
    pub fn begin(&self, world: &mut World) {
        self.set_lamp(world);
    }

    /// Judges what happened in one control step.
    pub fn update(&mut self, world: &mut World, events: &Events) {
        self.step += 1;
        self.set_lamp(world);
        self.reveal(world, events);
        if self.outcome.is_some() {
            return;
        }
        self.count_stray(world);
        if let Some(failure) = self.mistake(world, events) {
            self.outcome = Some(Outcome::Failed { reason: failure.reason().into(), step: self.step as usize });
            return;
        }
        self.advance(world, events);
        if self.outcome.is_none() && self.step >= self.cap_steps {
            self.outcome = Some(Outcome::TimedOut);
        }
    }

    fn index(&self) -> usize {
        match self.script {
            Script::Stream { .. } => 0,
            _ => self.done,
        }
    }

    fn set_lamp(&self, world: &mut World) {
        if let (Script::Signalled(signal), Some(lamp)) = (&self.script, &mut world.lamp) {
            lamp.light = signal.light(self.step);
        }
    }

    /// Makes the consequence of a choice visible.
    fn reveal(&self, world: &mut World, events: &Events) {
        match self.script {
            Script::Attempt(Secret::Opens { container }) => {
                if let Some(tried) = events.tried {
                    world.containers[tried].lid = if tried == container { Lid::Open } else { Lid::Jammed };
                }
            }
            Script::Attempt(Secret::Handling { block }) if self.mishandled(world, events) => {
                world.blocks[block].spoiled = true;
            }
            _ => {}
        }
    }

    fn mishandled(&self, world: &World, events: &Events) -> bool {
        let Script::Attempt(Secret::Handling { block }) = self.script else { return false };
        match world.blocks[block].manner {
            Manner::Any => false,
            Manner::Glued => events.refused == Some(block),
            Manner::Fragile => world.hand.down && world.physics.speed_m_s(block) > 0.03,
        }
    }

    fn count_stray(&mut self, world: &World) {
        let near = |target: Target| is_over(world, target);
        let wrong = match (&self.script, self.goal()) {
            (Script::Plain, Goal::Reach(named)) if self.goals.len() == 1 => {
                let blocks = (0..world.blocks.len()).map(Target::Block);
                let zones = (0..world.zones.len()).map(Target::Zone);
                let buttons = (0..world.buttons.len()).map(Target::Button);
                !near(named) && blocks.chain(zones).chain(buttons).any(near)
            }
            // Going to the end zone says that the pressing is finished.
            (Script::Signalled(_), Goal::Press { .. }) => {
                self.goals.iter().any(|&goal| matches!(goal, Goal::Reach(target) if near(target)))
            }
            _ => false,
        };
        self.stray = if wrong { self.stray + 1 } else { 0 };
    }

    fn mistake(&self, world: &World, events: &Events) -> Option<Failure> {
        match &self.script {
            Script::Stream { .. } => None,
            Script::Attempt(secret) => self.wrong_attempt(*secret, world, events),
            Script::Plain | Script::Signalled(_) => self.wrong_press(events).or_else(|| self.wrong_choice(world)),
        }
    }

    fn wrong_attempt(&self, secret: Secret, world: &World, events: &Events) -> Option<Failure> {
        match secret {
            Secret::Opens { container } => {
                events.tried.filter(|&tried| tried != container).map(|_| Failure::WrongContainer)
            }
            Secret::Handling { block } => world.blocks[block].spoiled.then_some(Failure::WrongManner),
            Secret::Steering { start, target } => {
                let moved = world.hand.position.x - start.x;
                let wanted = target.x - start.x;
                (moved * wanted.signum() < -0.01).then_some(Failure::WrongDirection)
            }
        }
    }

    fn wrong_press(&self, events: &Events) -> Option<Failure> {
        let button = events.pressed?;
        let pressed = Goal::Press { button };
        match self.goal() {
            goal if goal == pressed => None,
            Goal::Wait => Some(Failure::TooEarly),
            _ if matches!(self.script, Script::Signalled(_)) && self.goals.contains(&pressed) => {
                Some(Failure::WrongCount)
            }
            _ if self.remaining().contains(&pressed) => Some(Failure::WrongOrder),
            _ => Some(Failure::WrongButton),
        }
    }

    fn wrong_choice(&self, world: &World) -> Option<Failure> {
        if self.stray >= STRAY_STEPS {
            let counting = matches!(self.script, Script::Signalled(_));
            return Some(if counting { Failure::WrongCount } else { Failure::WrongObject });
        }
        for (ahead, goal) in self.remaining().iter().enumerate() {
            let Some((named, zone)) = goal.delivery() else { continue };
            if (0..world.blocks.len()).any(|block| block != named && world.block_in_zone(block, zone)) {
                return Some(Failure::WrongObject);
            }
            if ahead > 0 && world.block_in_zone(named, zone) {
                return Some(Failure::WrongOrder);
            }
        }
        None
    }

    fn advance(&mut self, world: &World, events: &Events) {
        let goal = self.goal();
        let holds = match &self.script {
            Script::Signalled(signal) if goal == Goal::Wait => self.step >= signal.go_step,
            _ => goal.holds(world, events),
        };
        self.linger = self.linger.filter(|(_, left)| *left > 1).map(|(target, left)| (target, left - 1));
        self.dwell = if holds { self.dwell + 1 } else { 0 };
        if self.dwell < goal.dwell_steps() {
            return;
        }
        self.dwell = 0;
        self.done += 1;
        self.linger = match (&self.script, goal) {
            (Script::Plain, Goal::Reach(target)) => Some((target, LINGER_STEPS)),
            _ => None,
        };
        if self.done == self.total() {
            self.outcome = Some(Outcome::Succeeded);
        } else if let Script::Stream { rng, .. } = &mut self.script {
            let (next, instruction) = next_in_stream(world, goal, rng);
            self.goals = vec![next];
            self.instruction = instruction.into();
        }
    }

    /// A mistake at the present goal that ends the episode: another object, another order, too early, too often.
    /// `None` when no possible action is a mistake.
    pub fn spoil(&self, world: &World, rng: &mut ChaCha8Rng) -> Option<Spoil> {
        if let Script::Attempt(Secret::Steering { .. }) = self.script {
            return Some(Spoil::Mirrored);
        }
        let goals: Vec<Goal> = self.wrong_goals(world).into_iter().filter(|&goal| goal != self.goal()).collect();
        goals.choose(rng).copied().map(Spoil::Goal)
    }

    fn wrong_goals(&self, world: &World) -> Vec<Goal> {
        let blocks = 0..world.blocks.len();
        let presses = (0..world.buttons.len()).map(|button| Goal::Press { button });
        match (&self.script, self.goal()) {
            (Script::Stream { .. }, _) => Vec::new(),
            (Script::Attempt(Secret::Handling { block }), Goal::PickPlace { zone, .. }) => {
                vec![Goal::Push { block: *block, zone }]
            }
            (Script::Attempt(Secret::Handling { block }), Goal::Push { zone, .. }) => {
                vec![Goal::PickPlace { block: *block, zone }]
            }
            (_, Goal::PickPlace { block: named, zone } | Goal::Push { block: named, zone }) => {
                blocks.filter(|&block| block != named).map(|block| Goal::PickPlace { block, zone }).collect()
            }
            (_, Goal::Reach(_)) if self.goals.len() == 1 => blocks.map(|it| Goal::Reach(Target::Block(it))).collect(),
            // Stopping too early: the end zone instead of the next press.
            (Script::Signalled(_), Goal::Press { .. }) => presses.chain(self.goals.last().copied()).collect(),
            (_, Goal::Reach(_) | Goal::Press { .. } | Goal::Wait) => presses.collect(),
            (_, Goal::Open { .. }) => (0..world.containers.len()).map(|container| Goal::Open { container }).collect(),
        }
    }
}
