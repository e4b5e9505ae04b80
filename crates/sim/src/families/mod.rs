//! The task families: each builds a scene and the task in it.

mod basic;
mod endurance;
mod retry;
mod sequence;
mod signalled;

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geometry::Vec2;
    use crate::scenario::Difficulty;
    use crate::task::{Script, Secret};
    use crate::things::{Container, Manner, Zone};
    use crate::world::{Command, Steering};

    /// Centre and radius of everything on the table; zones by the circle inside.
    fn things(world: &World) -> Vec<(Vec2, f32)> {
        let blocks = world.blocks.iter().enumerate().map(|(i, it)| (world.block_position(i), it.shape.radius_m()));
        let zones = world.zones.iter().map(|it| (it.centre, Zone::HALF_M));
        let buttons = world.buttons.iter().map(|it| (it.centre, 0.036));
        let containers = world.containers.iter().map(|it| (it.centre, Container::HALF_M));
        blocks.chain(zones).chain(buttons).chain(containers).collect()
    }

    #[test]
    fn scenes_have_room_between_things() {
        for family in Family::ALL {
            for seed in 0..300 {
                let (world, _) = build(&Scenario::train(family, seed));
                let things = things(&world);
                for (i, &(a, radius_a)) in things.iter().enumerate() {
                    for &(b, radius_b) in &things[..i] {
                        assert!(a.distance(b) > radius_a + radius_b, "{family} {seed}: {a} and {b} overlap");
                    }
                }
            }
        }
    }

    #[test]
    fn nothing_is_decided_at_the_start() {
        let idle = Command { direction: Vec2::ZERO, grip: -1.0 };
        for family in Family::ALL {
            for seed in 0..300 {
                let difficulty = Difficulty { subgoals: 3 + seed as usize % 6, ..Difficulty::default() };
                let (mut world, mut task) = build(&Scenario::train(family, seed).with_difficulty(difficulty));
                for _ in 0..3 {
                    let events = world.step(idle);
                    task.update(&mut world, &events);
                }
                assert_eq!((&task.outcome, task.done), (&None, 0), "{family} {seed}");
            }
        }
    }

    #[test]
    fn hidden_properties_are_balanced() {
        let mut kinds = [0; 6];
        for seed in 0..900 {
            let (world, task) = build(&Scenario::heldout(Family::Retry, seed));
            let Script::Attempt(secret) = task.script else { panic!("retry is an attempt") };
            kinds[match secret {
                Secret::Opens { container } => container,
                Secret::Handling { block } => 2 + usize::from(world.blocks[block].manner == Manner::Glued),
                Secret::Steering { .. } => 4 + usize::from(world.hand.steering == Steering::MirroredX),
            }] += 1;
        }
        assert!(kinds.iter().all(|count| (110..190).contains(count)), "{kinds:?}, about 150 each expected");
    }

    #[test]
    fn tasks_are_varied() {
        let instruction = |family, seed| build(&Scenario::train(family, seed)).1.instruction;
        for family in [Family::Reach, Family::Push, Family::PickPlace, Family::Sequence, Family::Endurance] {
            let all: std::collections::BTreeSet<_> = (0..200).map(|seed| instruction(family, seed)).collect();
            assert!(all.len() > 60, "{family}: only {} different instructions in 200", all.len());
        }
    }
}
