//! A stream of goals in one world: each is drawn when the one before it is done.

use rand::RngExt;
use rand::seq::IteratorRandom;
use rand_chacha::ChaCha8Rng;

use crate::goal::{Goal, Target};
use crate::language::say;
use crate::layout::{LANE_HALF_M, Lane};
use crate::world::World;

/// The task that follows `last`: possible in the world as it is now, and not the same again.
pub(crate) fn next_in_stream(world: &World, last: Goal, rng: &mut ChaCha8Rng) -> (Goal, String) {
    let goal = loop {
        let goal = draw(world, rng);
        if goal != last {
            break goal;
        }
    };
    let instruction = say(world, goal, rng);
    (goal, instruction)
}

fn draw(world: &World, rng: &mut ChaCha8Rng) -> Goal {
    match rng.random_range(0..4) {
        0 => Goal::Press { button: rng.random_range(0..world.buttons.len()) },
        1 => Goal::Reach(match rng.random_range(0..3) {
            0 => Target::Block(rng.random_range(0..world.blocks.len())),
            1 => Target::Zone(rng.random_range(0..world.zones.len())),
            _ => Target::Button(rng.random_range(0..world.buttons.len())),
        }),
        _ => deliver(world, rng),
    }
}

/// A block to a zone without a block; pushed, when its lane is free and the coin says so.
fn deliver(world: &World, rng: &mut ChaCha8Rng) -> Goal {
    let block = rng.random_range(0..world.blocks.len());
    let is_free = |&zone: &usize| {
        (0..world.blocks.len()).all(|block| world.block_position(block).distance(world.zones[zone].centre) > 0.09)
    };
    let Some(zone) = (0..world.zones.len()).filter(is_free).choose(rng) else {
        return Goal::Reach(Target::Block(block));
    };
    let lane = Lane::new(world.block_position(block), world.zones[zone].centre);
    let is_clear = |other: usize| other == block || lane.distance(world.block_position(other)) > LANE_HALF_M;
    let may_push = lane.reachable() && (0..world.blocks.len()).all(is_clear);
    if may_push && rng.random_bool(0.5) { Goal::Push { block, zone } } else { Goal::PickPlace { block, zone } }
}
