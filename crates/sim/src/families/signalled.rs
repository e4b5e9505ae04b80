//! Tasks that begin with a signal of a lamp: `remember` and `count`.

use rand::RngExt;
use rand::seq::{IndexedRandom, SliceRandom};

use crate::goal::{Goal, Target};
use crate::language::{say, say_count};
use crate::layout::Layout;
use crate::task::{Script, Signal, Task};
use crate::things::Colour;

/// Steps after the go signal until the episode times out.
const ANSWER_STEPS: u32 = 150;

/// `remember`: the lamp shows the colour of one of four buttons, goes dark for `delay_steps`, and turns white.
pub(crate) fn remember(layout: &mut Layout, delay_steps: u32) -> Task {
    layout.lamp();
    let mut colours = layout.colours(4);
    for &colour in &colours {
        layout.button_of(colour);
    }
    colours.shuffle(&mut layout.rng);
    let cue = colours[0];
    let button = layout.world.buttons.iter().position(|button| button.colour == cue).unwrap_or(0);
    let from = layout.rng.random_range(2..=5);
    let to = from + layout.rng.random_range(10..=20);
    let signal = Signal { flashes: vec![(from, to, cue)], go_step: to + delay_steps };
    let instruction = say(&layout.world, Goal::Wait, &mut layout.rng);
    let cap_steps = signal.go_step + ANSWER_STEPS;
    Task::new(instruction, vec![Goal::Wait, Goal::Press { button }], Script::Signalled(signal), cap_steps)
}

/// `count`: the lamp flashes one to five times and turns white; press as often, then go to the zone.
pub(crate) fn count(layout: &mut Layout) -> Task {
    layout.lamp();
    let button = layout.button();
    let zone = layout.zone();
    layout.zone();
    let n_flash = layout.rng.random_range(1..=5);
    let signal = flashes(layout, n_flash);
    let mut goals = vec![Goal::Wait];
    goals.extend((0..n_flash).map(|_| Goal::Press { button }));
    goals.push(Goal::Reach(Target::Zone(zone)));
    let instruction = say_count(&layout.world, button, zone, &mut layout.rng);
    let cap_steps = signal.go_step + ANSWER_STEPS + 20 * n_flash;
    Task::new(instruction, goals, Script::Signalled(signal), cap_steps)
}

fn flashes(layout: &mut Layout, n_flash: u32) -> Signal {
    let colour = Colour::ALL.choose(&mut layout.rng).copied().unwrap_or(Colour::Yellow);
    let mut step = layout.rng.random_range(3..=8);
    let mut flashes = Vec::new();
    for _ in 0..n_flash {
        let lit = layout.rng.random_range(3..=6);
        flashes.push((step, step + lit, colour));
        step += lit + layout.rng.random_range(3..=6);
    }
    Signal { flashes, go_step: step + layout.rng.random_range(4..=12) }
}
