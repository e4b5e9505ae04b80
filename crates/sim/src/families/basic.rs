//! One goal among distractors: `reach`, `push` and `pick_place`.

use rand::RngExt;

use crate::goal::{Goal, Target};
use crate::language::say;
use crate::layout::Layout;
use crate::task::{Script, Task};

/// `reach`: the hand over a named block, zone or button.
pub(crate) fn reach(layout: &mut Layout) -> Task {
    for _ in 0..layout.rng.random_range(1..=2) {
        layout.zone();
    }
    let button = layout.button();
    let block = layout.block();
    for _ in 0..layout.rng.random_range(1..=3) {
        layout.lookalike(block);
    }
    let target = match layout.rng.random_range(0..10) {
        0..6 => Target::Block(block),
        6..9 => Target::Zone(0),
        _ => Target::Button(button),
    };
    plain(layout, Goal::Reach(target), 120)
}

/// `push`: a named block into a named zone, along the table.
pub(crate) fn push(layout: &mut Layout) -> Task {
    let zone = layout.zone();
    let block = layout.block_to_push(zone);
    add_distractors(layout, block);
    plain(layout, Goal::Push { block, zone }, 300)
}

/// `pick_place`: a named block into a named zone, through the air.
pub(crate) fn pick_place(layout: &mut Layout) -> Task {
    let zone = layout.zone();
    let block = layout.block();
    add_distractors(layout, block);
    plain(layout, Goal::PickPlace { block, zone }, 200)
}

/// Another zone, and one or two blocks that are easily confused with the named one.
fn add_distractors(layout: &mut Layout, block: usize) {
    layout.zone();
    for _ in 0..layout.rng.random_range(1..=2) {
        layout.lookalike(block);
    }
}

fn plain(layout: &mut Layout, goal: Goal, cap_steps: u32) -> Task {
    let instruction = say(&layout.world, goal, &mut layout.rng);
    Task::new(instruction, vec![goal], Script::Plain, cap_steps)
}
