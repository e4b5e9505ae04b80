//! `endurance`: a stream of tasks in one episode, each with an instruction of its own.

use crate::goal::Goal;
use crate::layout::Layout;
use crate::stream::next_in_stream;
use crate::task::{Script, Task};

/// Steps that the cap allows for each task.
const CAP_STEPS: u32 = 100;

/// A scene with two blocks, three zones and two buttons, and the first of `total` tasks.
pub(crate) fn endurance(layout: &mut Layout, total: usize) -> Task {
    for _ in 0..3 {
        layout.zone();
    }
    for _ in 0..2 {
        layout.block();
        layout.button();
    }
    let mut rng = Box::new(layout.rng.clone());
    let (goal, instruction) = next_in_stream(&layout.world, Goal::Wait, &mut rng);
    Task::new(instruction, vec![goal], Script::Stream { total, rng }, CAP_STEPS * total as u32)
}
