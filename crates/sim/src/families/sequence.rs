//! `sequence`: several named sub-goals in one instruction, to be done in order.

use rand::RngExt;
use rand::seq::{IndexedRandom, SliceRandom};

use crate::goal::{Goal, Target};
use crate::language::say_all;
use crate::layout::Layout;
use crate::task::{Script, Task};

/// Steps that the cap allows, for each sub-goal and once.
const CAP_STEPS: (u32, u32) = (150, 150);

/// A scene with `count` sub-goals: up to three deliveries, one of them perhaps by pushing, and presses and reaches.
///
/// Completed presses and reaches leave no trace in the image.
pub(crate) fn sequence(layout: &mut Layout, count: usize) -> Task {
    let n_delivery = layout.rng.random_range(1..=(count / 2).min(3));
    let mut goals: Vec<Goal> = (0..n_delivery).map(|i| delivery(layout, i)).collect();
    for _ in 0..2 {
        layout.button();
    }
    let spare = layout.block();
    let targets = targets(layout, spare);
    while goals.len() < count {
        let goal = trace_free(layout, &targets);
        goals.push(goal);
    }
    order(layout, &mut goals);
    let instruction = say_all(&layout.world, &goals, &mut layout.rng);
    let cap_steps = CAP_STEPS.0 * count as u32 + CAP_STEPS.1;
    Task::new(instruction, goals, Script::Plain, cap_steps)
}

/// A block and a zone of its own; only the first delivery may be a push, for which the lane must stay free.
fn delivery(layout: &mut Layout, index: usize) -> Goal {
    let zone = layout.zone();
    if index == 0 && layout.rng.random_bool(0.5) {
        Goal::Push { block: layout.block_to_push(zone), zone }
    } else {
        Goal::PickPlace { block: layout.block(), zone }
    }
}

/// Everything that a reach may name: buttons, zones and a block that stays where it is.
fn targets(layout: &Layout, spare: usize) -> Vec<Target> {
    let zones = (0..layout.world.zones.len()).map(Target::Zone);
    let buttons = (0..layout.world.buttons.len()).map(Target::Button);
    zones.chain(buttons).chain([Target::Block(spare)]).collect()
}

fn trace_free(layout: &mut Layout, targets: &[Target]) -> Goal {
    if layout.rng.random_bool(0.6) {
        Goal::Press { button: layout.rng.random_range(0..layout.world.buttons.len()) }
    } else {
        Goal::Reach(targets.choose(&mut layout.rng).copied().unwrap_or(targets[0]))
    }
}

/// Shuffles until no two neighbours are alike, so that every boundary needs a movement.
fn order(layout: &mut Layout, goals: &mut [Goal]) {
    for _ in 0..50 {
        goals.shuffle(&mut layout.rng);
        if goals.windows(2).all(|pair| pair[0] != pair[1]) {
            return;
        }
    }
}
