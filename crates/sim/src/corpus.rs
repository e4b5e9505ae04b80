//! All words of the instruction grammar, and a sample of its sentences.

use std::collections::BTreeSet;

use crate::families::build;
use crate::language::{JOIN, TEMPLATES};
use crate::scenario::{Difficulty, Family, Scenario};
use crate::things::{Colour, Shape};

/// The language of all task families.
#[derive(Clone, Debug)]
pub struct Corpus {
    /// Every word that an instruction can hold, sorted.
    pub words: Vec<String>,
    /// Instructions of training episodes of every family.
    pub sentences: Vec<String>,
}

/// Every word and a sample of sentences, for building a tokenizer.
pub fn instruction_corpus() -> Corpus {
    let mut text: Vec<&str> = TEMPLATES.iter().copied().flatten().copied().collect();
    text.extend(JOIN.as_flattened());
    text.extend(Colour::ALL.map(Colour::word));
    text.extend(Shape::ALL.map(Shape::word));
    let words = text.iter().flat_map(|text| template_words(text)).collect::<BTreeSet<_>>();
    let sentences = Family::ALL.iter().flat_map(|&family| (0..96).map(move |seed| sample(family, seed)));
    Corpus { words: words.into_iter().collect(), sentences: sentences.collect() }
}

fn sample(family: Family, seed: u64) -> String {
    let difficulty = Difficulty { subgoals: 3 + seed as usize % 6, ..Difficulty::default() };
    let (_, task) = build(&Scenario::train(family, seed).with_difficulty(difficulty));
    task.instruction.to_string()
}

/// The words of a template, without the placeholders.
fn template_words(template: &str) -> Vec<String> {
    let mut plain = String::new();
    let mut inside = false;
    for c in template.chars() {
        inside = (inside || c == '{') && c != '}';
        plain.push(if inside || !c.is_alphabetic() { ' ' } else { c });
    }
    plain.split_whitespace().map(str::to_string).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::language::understand;

    #[test]
    fn every_plain_instruction_is_understood() {
        for family in [Family::Reach, Family::Push, Family::PickPlace, Family::Sequence] {
            for seed in 0..200 {
                let difficulty = Difficulty { subgoals: 3 + seed as usize % 6, ..Difficulty::default() };
                let (world, task) = build(&Scenario::train(family, seed).with_difficulty(difficulty));
                assert_eq!(understand(&world, &task.instruction), Some(task.goals), "{}", task.instruction);
            }
        }
    }

    #[test]
    fn nonsense_and_absent_things_are_not_understood() {
        let (world, _) = build(&Scenario::train(Family::PickPlace, 0));
        for text in ["", "dance", "move to the pink disc", "press", "put the into the", "then then ,"] {
            assert_eq!(understand(&world, text), None, "{text}");
        }
    }
}
