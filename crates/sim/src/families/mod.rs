//! The task families: each builds a scene and the task in it.

mod basic;
mod endurance;
mod retry;
mod sequence;
mod signalled;

pub(crate) use endurance::next_in_stream;

use crate::layout::Layout;
use crate::scenario::{Family, Scenario};
use crate::task::Task;
use crate::world::World;

/// The scene and task of a scenario, whose options must have been checked.
pub(crate) fn build(scenario: &Scenario) -> (World, Task) {
    let mut layout = Layout::new(scenario);
    let task = match scenario.family {
        Family::Reach => basic::reach(&mut layout),
        Family::Push => basic::push(&mut layout),
        Family::PickPlace => basic::pick_place(&mut layout),
        Family::Sequence => sequence::sequence(&mut layout, scenario.difficulty.subgoals),
        Family::Remember => signalled::remember(&mut layout, scenario.difficulty.delay_steps as u32),
        Family::Count => signalled::count(&mut layout),
        Family::Retry => retry::retry(&mut layout),
        Family::Endurance => endurance::endurance(&mut layout, scenario.difficulty.tasks),
    };
    let mut world = layout.world;
    task.begin(&mut world);
    (world, task)
}
