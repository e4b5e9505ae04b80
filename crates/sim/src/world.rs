//! The hand and the things on the table, and how one control step changes them.

use crate::geometry::Vec2;
use crate::physics::{PUSHER_RADIUS_M, Physics};
use crate::things::{Block, Button, Colour, Container, Lamp, Lid, Light, Manner, Zone};

/// Control rate in Hz.
pub const FPS: u32 = 20;
/// Length of a control step in seconds.
pub const CONTROL_PERIOD_S: f32 = 1.0 / FPS as f32;
/// The hand moves within this distance of the middle, in x and y.
pub const HAND_RANGE_M: f32 = 0.30;
/// Speed of the hand per axis at an action of 1.
pub const HAND_SPEED_MAX_M_S: f32 = 0.4;
/// Largest acceleration of the hand.
const HAND_ACCELERATION_MAX_M_S2: f32 = 3.0;
/// Change of the opening per control step: four steps from open to closed.
const FINGER_STEP: f32 = 0.25;
/// Opening at which the fingers touch a block, and stay while they hold it.
pub(crate) const OPENING_GRASP: f32 = 0.5;
/// At or below this opening the hand is down: it presses buttons and pushes blocks.
pub(crate) const OPENING_DOWN: f32 = 0.25;
/// From this opening on the hand counts as raised again.
pub(crate) const OPENING_RAISED: f32 = 0.75;
/// A block is grasped when its centre is nearer than this to the hand.
pub(crate) const GRASP_RADIUS_M: f32 = 0.028;

/// A direction whose steering is reversed; a hidden property of `retry`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Steering {
    #[default]
    Normal,
    /// `dx` moves the hand the other way.
    MirroredX,
}

/// A checked action: every value is finite and in `[-1, 1]`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Command {
    pub direction: Vec2,
    pub grip: f32,
}

/// The gripper.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hand {
    pub position: Vec2,
    pub velocity_m_s: Vec2,
    /// 1 open and raised, 0 closed; [`OPENING_GRASP`] around a block.
    pub opening: f32,
    /// Closed at table level: a pusher.
    pub down: bool,
    /// The block that it carries.
    pub held: Option<usize>,
    /// Whether it has struck the table since it was last raised; it strikes once per closing.
    pub struck: bool,
    pub steering: Steering,
}

impl Hand {
    /// The open hand at rest.
    pub fn at(position: Vec2) -> Self {
        Self {
            position,
            velocity_m_s: Vec2::ZERO,
            opening: 1.0,
            down: false,
            held: None,
            struck: false,
            steering: Steering::Normal,
        }
    }

    /// First-order motion towards the wanted velocity, limited in acceleration and range.
    fn drive(&mut self, direction: Vec2) {
        let steered = match self.steering {
            Steering::Normal => direction,
            Steering::MirroredX => Vec2::new(-direction.x, direction.y),
        };
        let change = steered * HAND_SPEED_MAX_M_S - self.velocity_m_s;
        self.velocity_m_s += change.clamp_length_max(HAND_ACCELERATION_MAX_M_S2 * CONTROL_PERIOD_S);
        let free = self.position + self.velocity_m_s * CONTROL_PERIOD_S;
        let limit = Vec2::splat(HAND_RANGE_M);
        let reached = free.clamp(-limit, limit);
        if reached != free {
            self.velocity_m_s = (reached - self.position) / CONTROL_PERIOD_S;
        }
        self.position = reached;
    }
}

/// What happened in one control step.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Events {
    /// Button that was pressed.
    pub pressed: Option<usize>,
    /// Container whose lid was tried.
    pub tried: Option<usize>,
    /// Glued block that the hand tried to lift.
    pub refused: Option<usize>,
    /// Block that was put down.
    pub released: Option<usize>,
}

/// The whole physical state.
#[derive(Clone)]
pub(crate) struct World {
    pub hand: Hand,
    pub blocks: Vec<Block>,
    pub zones: Vec<Zone>,
    pub buttons: Vec<Button>,
    pub containers: Vec<Container>,
    pub lamp: Option<Lamp>,
    /// Varies the tint of the table a little, in `[-1, 1]` per channel.
    pub tint: [f32; 3],
    pub physics: Physics,
}

impl World {
    /// Executes one control step.
    pub fn step(&mut self, command: Command) -> Events {
        let from = self.hand.position;
        self.hand.drive(command.direction);
        let events = self.move_fingers(command.grip);
        self.lower();
        if let Some(block) = self.hand.held {
            // The closing fingers centre the block between them.
            let offset = self.physics.position(block) - from;
            self.physics.carry(block, self.hand.position + offset * 0.5);
        }
        self.physics.step(from, self.hand.position, self.hand.down);
        events
    }

    /// Place, kind and colour of everything on the table; see [`things_spec`](crate::things_spec).
    pub fn things(&self) -> impl Iterator<Item = (Vec2, [usize; 2])> {
        const COLOURLESS: usize = Colour::ALL.len();
        let blocks = self.blocks.iter().enumerate();
        let blocks = blocks.map(|(i, it)| (self.block_position(i), [it.shape as usize, it.colour as usize]));
        let zones = self.zones.iter().map(|it| (it.centre, [4, it.colour as usize]));
        let buttons = self.buttons.iter().map(|it| (it.centre, [5, it.colour as usize]));
        let containers = self.containers.iter().map(|it| (it.centre, [6, COLOURLESS]));
        let lamp = self.lamp.iter().map(|it| {
            let colour = match it.light {
                Light::Dark => COLOURLESS,
                Light::Lit(colour) => colour as usize,
                Light::Go => COLOURLESS + 1,
            };
            (it.centre, [7, colour])
        });
        blocks.chain(zones).chain(buttons).chain(containers).chain(lamp)
    }

    /// Centre of a block.
    pub fn block_position(&self, block: usize) -> Vec2 {
        self.physics.position(block)
    }

    /// Whether a block is in a zone, put down and at rest.
    pub fn block_in_zone(&self, block: usize, zone: usize) -> bool {
        self.hand.held != Some(block)
            && self.physics.position(block).distance(self.zones[zone].centre) < Zone::RADIUS_M
            && self.physics.speed_m_s(block) < 0.05
    }

    fn move_fingers(&mut self, grip: f32) -> Events {
        let mut events = Events::default();
        if grip > 0.0 && self.hand.held.is_none() {
            self.close(&mut events);
        } else if grip < 0.0 {
            events.released = self.open();
        }
        events
    }

    fn close(&mut self, events: &mut Events) {
        let before = self.hand.opening;
        self.hand.opening = (before - FINGER_STEP).max(0.0);
        if before > OPENING_GRASP && self.hand.opening <= OPENING_GRASP {
            self.grasp(events);
        }
        if self.hand.held.is_none() && self.hand.opening <= OPENING_DOWN && !self.hand.struck {
            self.strike(events);
        }
    }

    /// Takes the block between the fingers, if there is one that can be lifted.
    fn grasp(&mut self, events: &mut Events) {
        let at = self.hand.position;
        let distance = |&block: &usize| self.physics.position(block).distance(at);
        let nearest = (0..self.blocks.len()).min_by(|a, b| distance(a).total_cmp(&distance(b)));
        let Some(block) = nearest.filter(|block| distance(block) < GRASP_RADIUS_M) else { return };
        if self.blocks[block].manner == Manner::Glued {
            events.refused = Some(block);
        } else {
            self.hand.held = Some(block);
            self.hand.opening = OPENING_GRASP;
            self.physics.lift(block);
        }
    }

    /// Hits the table: presses the button or tries the lid below.
    fn strike(&mut self, events: &mut Events) {
        let at = self.hand.position;
        self.hand.struck = true;
        events.pressed = self.buttons.iter().position(|button| button.centre.distance(at) < Button::RADIUS_M);
        if let Some(button) = events.pressed {
            self.buttons[button].down = true;
        }
        events.tried =
            self.containers.iter().position(|it| it.lid == Lid::Closed && it.centre.distance(at) < Container::RADIUS_M);
    }

    /// Raises the hand a little, which puts down what it holds.
    fn open(&mut self) -> Option<usize> {
        let released = self.hand.held.take();
        if let Some(block) = released {
            self.physics.put_down(block);
        }
        self.hand.opening = (self.hand.opening + FINGER_STEP).min(1.0);
        if self.hand.opening > OPENING_DOWN {
            self.buttons.iter_mut().for_each(|button| button.down = false);
        }
        if self.hand.opening >= OPENING_RAISED {
            self.hand.struck = false;
        }
        released
    }

    /// The closed hand comes down to table level as soon as there is no block below it.
    fn lower(&mut self) {
        let closed = self.hand.held.is_none() && self.hand.opening <= OPENING_DOWN;
        let at = self.hand.position;
        let free = |block: usize| {
            let reach = self.blocks[block].shape.radius_m() + PUSHER_RADIUS_M;
            self.physics.position(block).distance(at) > reach
        };
        self.hand.down = closed && (self.hand.down || (0..self.blocks.len()).all(free));
    }
}
