//! `retry`: a scene with looks of its own and a hidden property that only trying reveals.
//!
//! Looks and property come from the seed alone, so that they are the same at every attempt. The looks do not
//! give the property away: both kinds are equally likely and drawn after everything that is visible.

use rand::RngExt;

use crate::goal::{Goal, Target};
use crate::language::{say, say_bring, say_steer};
use crate::layout::{HOME, Layout};
use crate::task::{Script, Secret, Task};
use crate::things::Manner;
use crate::world::Steering;

const CAP_STEPS: u32 = 300;

/// One attempt at a scene.
pub(crate) fn retry(layout: &mut Layout) -> Task {
    let (instruction, goal, secret) = match layout.rng.random_range(0..3) {
        0 => two_boxes(layout),
        1 => handling(layout),
        _ => steering(layout),
    };
    Task::new(instruction, vec![goal], Script::Attempt(secret), CAP_STEPS)
}

/// Two boxes of equal appearance; only one opens.
fn two_boxes(layout: &mut Layout) -> (String, Goal, Secret) {
    for _ in 0..2 {
        layout.container();
    }
    add_looks(layout);
    let instruction = say(&layout.world, Goal::Open { container: 0 }, &mut layout.rng);
    let container = layout.rng.random_range(0..2);
    (instruction, Goal::Open { container }, Secret::Opens { container })
}

/// A block that must be pushed because it is glued, or lifted because it is fragile.
fn handling(layout: &mut Layout) -> (String, Goal, Secret) {
    let zone = layout.zone();
    let block = layout.block_to_push(zone);
    add_looks(layout);
    let instruction = say_bring(&layout.world, block, zone, &mut layout.rng);
    let (manner, goal) = if layout.rng.random_bool(0.5) {
        (Manner::Glued, Goal::Push { block, zone })
    } else {
        (Manner::Fragile, Goal::PickPlace { block, zone })
    };
    layout.world.blocks[block].manner = manner;
    (instruction, goal, Secret::Handling { block })
}

/// A block well to the left or right of the hand, whose steering may be mirrored.
fn steering(layout: &mut Layout) -> (String, Goal, Secret) {
    let block = layout.block_aside(HOME.x);
    add_looks(layout);
    let instruction = say_steer(&layout.world, block, &mut layout.rng);
    if layout.rng.random_bool(0.5) {
        layout.world.hand.steering = Steering::MirroredX;
    }
    let secret = Secret::Steering { start: layout.world.hand.position, target: layout.world.block_position(block) };
    (instruction, Goal::Reach(Target::Block(block)), secret)
}

/// Things that make the scene recognisable.
fn add_looks(layout: &mut Layout) {
    layout.zone();
    for _ in 0..layout.rng.random_range(1..=3) {
        layout.block();
    }
    layout.button();
}
