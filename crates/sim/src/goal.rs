//! Sub-goals and the conditions that complete them.

use crate::geometry::Vec2;
use crate::layout::HOME;
use crate::world::{Events, World};

/// A thing that can be the target of a movement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    Block(usize),
    Zone(usize),
    Button(usize),
}

impl Target {
    pub fn position(self, world: &World) -> Vec2 {
        match self {
            Target::Block(block) => world.block_position(block),
            Target::Zone(zone) => world.zones[zone].centre,
            Target::Button(button) => world.buttons[button].centre,
        }
    }
}

/// One sub-goal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Goal {
    /// Hover over the target.
    Reach(Target),
    /// Press the button.
    Press { button: usize },
    /// Lift the block and put it into the zone.
    PickPlace { block: usize, zone: usize },
    /// Push the block into the zone and raise the hand.
    Push { block: usize, zone: usize },
    /// Try the lid of the container.
    Open { container: usize },
    /// Hold still until the go signal.
    Wait,
}

/// The hand is over a target when it is nearer than this.
const REACH_RADIUS_M: f32 = 0.025;

/// Whether the hand is over `target`.
pub(crate) fn is_over(world: &World, target: Target) -> bool {
    target.position(world).distance(world.hand.position) < REACH_RADIUS_M
}

impl Goal {
    /// Control steps for which the condition must hold.
    pub fn dwell_steps(self) -> u32 {
        match self {
            Goal::Reach(_) => 4,
            Goal::PickPlace { .. } | Goal::Push { .. } => 2,
            Goal::Press { .. } | Goal::Open { .. } | Goal::Wait => 1,
        }
    }

    /// Whether the condition holds after a control step. Waiting ends from outside.
    pub fn holds(self, world: &World, events: &Events) -> bool {
        match self {
            Goal::Reach(target) => is_over(world, target),
            Goal::Press { button } => events.pressed == Some(button),
            Goal::PickPlace { block, zone } => world.block_in_zone(block, zone),
            // Released, as a block that was carried.
            Goal::Push { block, zone } => world.block_in_zone(block, zone) && !world.hand.down,
            Goal::Open { container } => events.tried == Some(container),
            Goal::Wait => false,
        }
    }

    /// The block and zone of a goal that brings one to the other.
    pub fn delivery(self) -> Option<(usize, usize)> {
        match self {
            Goal::PickPlace { block, zone } | Goal::Push { block, zone } => Some((block, zone)),
            _ => None,
        }
    }

    /// Where the thing to handle is.
    pub fn object_position(self, world: &World) -> Vec2 {
        match self {
            Goal::Reach(target) => target.position(world),
            Goal::Press { button } => world.buttons[button].centre,
            Goal::PickPlace { block, .. } | Goal::Push { block, .. } => world.block_position(block),
            Goal::Open { container } => world.containers[container].centre,
            Goal::Wait => HOME,
        }
    }

    /// Where it is to be brought; the thing's own place when it is not to be moved.
    pub fn target_position(self, world: &World) -> Vec2 {
        match self.delivery() {
            Some((_, zone)) => world.zones[zone].centre,
            None => self.object_position(world),
        }
    }
}
