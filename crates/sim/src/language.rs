//! Instructions: a small template grammar, what it says of a goal, and what a free instruction asks for.
//!
//! `[a|b]` stands for one of its alternatives, `{x}` for a phrase that is filled in.

use rand::RngExt;
use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;

use crate::goal::{Goal, Target};
use crate::things::{Block, Colour};
use crate::world::World;

const REACH: &[&str] =
    &["[move|go] to {object}", "reach {object}", "move the [hand|gripper] [to|over] {object}", "hover over {object}"];
const PRESS: &[&str] = &["press {object}", "press down {object}", "tap {object}", "hit {object}"];
const PICK_PLACE: &[&str] = &[
    "put {object} [in|into|on] {zone}",
    "place {object} [in|on] {zone}",
    "pick up {object} and [put|place] it [in|on] {zone}",
    "lift {object} and put it down in {zone}",
];
const PUSH: &[&str] =
    &["push {object} [into|to|onto] {zone}", "slide {object} [into|to] {zone}", "shove {object} into {zone}"];
const BRING: &[&str] = &["bring {object} to {zone}", "get {object} [to|into] {zone}", "deliver {object} to {zone}"];
const OPEN: &[&str] =
    &["open the box that is not jammed", "find the box that opens and open it", "[only|just] one box opens, open it"];
const STEER: &[&str] = &["steer straight to {object}", "go straight to {object}"];
const REMEMBER: &[&str] = &[
    "[remember|keep in mind] the colour of the [lamp|light], and press the button of [that|the same] colour when it turns white",
    "when the [lamp|light] turns white, press the button of the colour [that it showed|it had] before",
    "wait for the white [lamp|light], then press the button that has the colour you saw [first|before]",
];
const COUNT: &[&str] = &[
    "count the flashes of the [lamp|light], press {object} as often, then go to {zone}",
    "press {object} as many times as the [lamp|light] flashes, then move to {zone}",
    "when the [lamp|light] turns white, press {object} once for each flash and then go to {zone}",
];
const BLOCK: &[&str] = &["the {colour} {shape}", "the {colour} {shape} block"];
const ZONE: &[&str] = &["the {colour} [zone|area|field]"];
const BUTTON: &[&str] = &["the {colour} button"];
/// What stands before the first, between, and before the last of several clauses.
pub(crate) const JOIN: &[[&str; 3]] =
    &[["", ", then ", ", then "], ["first ", ", then ", ", and then "], ["", ", after that ", ", and finally "]];

/// All templates of clauses and phrases.
pub(crate) const TEMPLATES: [&[&str]; 12] =
    [REACH, PRESS, PICK_PLACE, PUSH, BRING, OPEN, STEER, REMEMBER, COUNT, BLOCK, ZONE, BUTTON];

/// The goals that `text` asks for among the things of `world`; `None` when it is not understood.
pub(crate) fn understand(world: &World, text: &str) -> Option<Vec<Goal>> {
    let mut text = text.to_lowercase().replace(',', " , ");
    text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    for boundary in [", and finally ", ", and then ", ", after that ", ", then ", " and then ", " then ", "; ", ". "] {
        text = text.replace(boundary, "|").replace(&format!(" {}", boundary.trim_start()), "|");
    }
    text.split('|').map(|clause| understand_clause(world, clause)).collect()
}

fn understand_clause(world: &World, clause: &str) -> Option<Goal> {
    let words: Vec<&str> = clause.split(|c: char| !c.is_alphabetic()).filter(|word| !word.is_empty()).collect();
    let verb = words.iter().copied().find(|word| !["first", "please", "then", "and", "now"].contains(word))?;
    let things: Vec<Target> = words.windows(2).filter_map(|pair| find_thing(world, pair[0], pair[1])).collect();
    match (verb, things.as_slice()) {
        ("press" | "tap" | "hit" | "push", &[Target::Button(button)]) => Some(Goal::Press { button }),
        ("push" | "slide" | "shove", &[Target::Block(block), Target::Zone(zone)]) => Some(Goal::Push { block, zone }),
        (
            "put" | "place" | "pick" | "lift" | "bring" | "get" | "deliver" | "move" | "carry",
            &[Target::Block(block), Target::Zone(zone)],
        ) => Some(Goal::PickPlace { block, zone }),
        ("move" | "go" | "reach" | "hover" | "steer", &[target]) => Some(Goal::Reach(target)),
        _ => None,
    }
}

/// The thing that a colour and a noun name.
fn find_thing(world: &World, colour: &str, noun: &str) -> Option<Target> {
    let colour = Colour::ALL.into_iter().find(|it| it.word() == colour)?;
    match noun {
        "zone" | "area" | "field" => world.zones.iter().position(|it| it.colour == colour).map(Target::Zone),
        "button" => world.buttons.iter().position(|it| it.colour == colour).map(Target::Button),
        _ => {
            let is_named = |it: &Block| it.colour == colour && it.shape.word() == noun;
            world.blocks.iter().position(is_named).map(Target::Block)
        }
    }
}

/// Names everything that an instruction can refer to.
pub(crate) fn describe(world: &World) -> String {
    let blocks = world.blocks.iter().map(|it| format!("{} {}", it.colour.word(), it.shape.word()));
    let zones = world.zones.iter().map(|it| format!("{} zone", it.colour.word()));
    let buttons = world.buttons.iter().map(|it| format!("{} button", it.colour.word()));
    blocks.chain(zones).chain(buttons).collect::<Vec<_>>().join(", ")
}

/// Says a goal.
pub(crate) fn say(world: &World, goal: Goal, rng: &mut ChaCha8Rng) -> String {
    match goal {
        Goal::Reach(target) => fill(REACH, &[("object", target_phrase(world, target, rng))], rng),
        Goal::Press { button } => fill(PRESS, &[("object", button_phrase(world, button, rng))], rng),
        Goal::PickPlace { block, zone } => fill(PICK_PLACE, &delivery_phrases(world, block, zone, rng), rng),
        Goal::Push { block, zone } => fill(PUSH, &delivery_phrases(world, block, zone, rng), rng),
        Goal::Open { .. } => fill(OPEN, &[], rng),
        Goal::Wait => fill(REMEMBER, &[], rng),
    }
}

/// Says several goals in order.
pub(crate) fn say_all(world: &World, goals: &[Goal], rng: &mut ChaCha8Rng) -> String {
    let [first, then, last] = JOIN[rng.random_range(0..JOIN.len())];
    let mut text = String::from(first);
    for (i, &goal) in goals.iter().enumerate() {
        if i > 0 {
            text += if i + 1 == goals.len() { last } else { then };
        }
        text += &say(world, goal, rng);
    }
    text
}

/// Asks for a delivery without saying how to handle the block.
pub(crate) fn say_bring(world: &World, block: usize, zone: usize, rng: &mut ChaCha8Rng) -> String {
    fill(BRING, &delivery_phrases(world, block, zone, rng), rng)
}

/// Asks to steer to a block.
pub(crate) fn say_steer(world: &World, block: usize, rng: &mut ChaCha8Rng) -> String {
    fill(STEER, &[("object", block_phrase(world, block, rng))], rng)
}

/// Asks to press `button` as often as the lamp flashed.
pub(crate) fn say_count(world: &World, button: usize, zone: usize, rng: &mut ChaCha8Rng) -> String {
    fill(COUNT, &[("object", button_phrase(world, button, rng)), ("zone", zone_phrase(world, zone, rng))], rng)
}

fn delivery_phrases(world: &World, block: usize, zone: usize, rng: &mut ChaCha8Rng) -> [(&'static str, String); 2] {
    [("object", block_phrase(world, block, rng)), ("zone", zone_phrase(world, zone, rng))]
}

fn target_phrase(world: &World, target: Target, rng: &mut ChaCha8Rng) -> String {
    match target {
        Target::Block(block) => block_phrase(world, block, rng),
        Target::Zone(zone) => zone_phrase(world, zone, rng),
        Target::Button(button) => button_phrase(world, button, rng),
    }
}

fn block_phrase(world: &World, block: usize, rng: &mut ChaCha8Rng) -> String {
    let block = world.blocks[block];
    fill(BLOCK, &[("colour", block.colour.word().into()), ("shape", block.shape.word().into())], rng)
}

fn zone_phrase(world: &World, zone: usize, rng: &mut ChaCha8Rng) -> String {
    fill(ZONE, &[("colour", world.zones[zone].colour.word().into())], rng)
}

fn button_phrase(world: &World, button: usize, rng: &mut ChaCha8Rng) -> String {
    fill(BUTTON, &[("colour", world.buttons[button].colour.word().into())], rng)
}

/// One of the templates, with its alternatives chosen and its placeholders filled.
fn fill(templates: &[&str], phrases: &[(&str, String)], rng: &mut ChaCha8Rng) -> String {
    let mut text = choose_alternatives(templates[rng.random_range(0..templates.len())], rng);
    for (name, phrase) in phrases {
        text = text.replace(&format!("{{{name}}}"), phrase);
    }
    text
}

fn choose_alternatives(template: &str, rng: &mut ChaCha8Rng) -> String {
    let mut text = String::new();
    let mut rest = template;
    while let Some((before, from)) = rest.split_once('[') {
        let (alternatives, after) = from.split_once(']').unwrap_or((from, ""));
        let alternatives: Vec<&str> = alternatives.split('|').collect();
        text += before;
        text += alternatives.choose(rng).copied().unwrap_or_default();
        rest = after;
    }
    text + rest
}
