//! Which episode to play: task family, seed, split and difficulty.

use std::{fmt, str::FromStr};

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::SimError;

/// The kinds of tasks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Family {
    /// Move the hand over the named object.
    Reach,
    /// Push the named block into the named zone.
    Push,
    /// Lift the named block and put it into the named zone.
    PickPlace,
    /// Several named sub-goals, in order.
    Sequence,
    /// Press the button whose colour a lamp showed some time ago.
    Remember,
    /// Press a button as often as a lamp flashed.
    Count,
    /// One attempt at a scene with a hidden property.
    Retry,
    /// A long stream of tasks in one episode.
    Endurance,
}

impl Family {
    /// All families.
    pub const ALL: [Family; 8] = [
        Family::Reach,
        Family::Push,
        Family::PickPlace,
        Family::Sequence,
        Family::Remember,
        Family::Count,
        Family::Retry,
        Family::Endurance,
    ];

    /// The name in configurations, tables and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Family::Reach => "reach",
            Family::Push => "push",
            Family::PickPlace => "pick_place",
            Family::Sequence => "sequence",
            Family::Remember => "remember",
            Family::Count => "count",
            Family::Retry => "retry",
            Family::Endurance => "endurance",
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Family {
    type Err = SimError;

    fn from_str(name: &str) -> Result<Self, SimError> {
        Family::ALL
            .into_iter()
            .find(|family| family.name() == name)
            .ok_or_else(|| SimError::Family { expected: Family::ALL.map(Family::name).join(", "), found: name.into() })
    }
}

/// Which of two disjoint families of random streams a seed selects from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Split {
    /// Scenes to learn from.
    Train,
    /// Scenes to be judged on: no seed gives a scene of the other split.
    #[default]
    Heldout,
}

impl fmt::Display for Split {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Split::Train => "train",
            Split::Heldout => "heldout",
        })
    }
}

/// How hard the episode is. Options of other families are ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Difficulty {
    /// `sequence`: number of sub-goals, 3 to 8.
    pub subgoals: usize,
    /// `remember`: control steps between the end of the cue and the go signal, at most 100,000.
    pub delay_steps: usize,
    /// `endurance`: number of tasks, 1 to 100,000.
    pub tasks: usize,
}

impl Default for Difficulty {
    fn default() -> Self {
        Self { subgoals: 3, delay_steps: 200, tasks: 100 }
    }
}

impl Difficulty {
    /// Checks every option, whatever the family.
    pub(crate) fn check(&self) -> Result<(), SimError> {
        let cases = [
            ("subgoals", 3..=8, "3 to 8", self.subgoals),
            ("delay_steps", 0..=100_000, "0 to 100000", self.delay_steps),
            ("tasks", 1..=100_000, "1 to 100000", self.tasks),
        ];
        for (option, range, expected, found) in cases {
            if !range.contains(&found) {
                return Err(SimError::Option { option, expected, found });
            }
        }
        Ok(())
    }
}

/// Everything that determines an episode before the first action.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// Kind of task.
    pub family: Family,
    /// Selects the scene, the task and its wording. For `retry` it is the scene seed: look and hidden property.
    pub seed: u64,
    /// Train or held out.
    #[serde(default)]
    pub split: Split,
    /// How hard it is.
    #[serde(default)]
    pub difficulty: Difficulty,
    /// Varies the start pose of the hand and nothing else; the number of the attempt at the same scene.
    #[serde(default)]
    pub attempt: u64,
}

impl Scenario {
    /// The held-out episode number `seed` of `family`, at its default difficulty.
    pub fn heldout(family: Family, seed: u64) -> Self {
        Self { family, seed, split: Split::Heldout, difficulty: Difficulty::default(), attempt: 0 }
    }

    /// The training episode number `seed` of `family`, at its default difficulty.
    pub fn train(family: Family, seed: u64) -> Self {
        Self { split: Split::Train, ..Self::heldout(family, seed) }
    }

    /// The same scene at another difficulty.
    pub fn with_difficulty(self, difficulty: Difficulty) -> Self {
        Self { difficulty, ..self }
    }

    /// The same scene, tried once more.
    pub fn with_attempt(self, attempt: u64) -> Self {
        Self { attempt, ..self }
    }

    /// Identifies the scene: equal for all attempts at it, different for any other, for example
    /// `heldout/sequence-3/17`. Its parts are split, family with the difficulty that matters to it, and seed.
    pub fn scene(&self) -> String {
        let Self { family, seed, split, difficulty, .. } = self;
        let level = match family {
            Family::Sequence => format!("-{}", difficulty.subgoals),
            Family::Remember => format!("-{}", difficulty.delay_steps),
            Family::Endurance => format!("-{}", difficulty.tasks),
            _ => String::new(),
        };
        format!("{split}/{family}{level}/{seed}")
    }

    /// The random numbers of one `purpose` in this episode. Family, split and purpose are streams of ChaCha,
    /// the seed is its key, so that no two of them share a sequence.
    pub(crate) fn rng(&self, purpose: Purpose) -> ChaCha8Rng {
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        let stream = match purpose {
            Purpose::Scene => 0,
            Purpose::Noise => 1,
            Purpose::Attempt => 2 + self.attempt,
        };
        rng.set_stream((stream << 8) | ((self.family as u64) << 1) | self.split as u64);
        rng
    }
}

/// What random numbers are drawn for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Purpose {
    /// Layout, colours, task and wording.
    Scene,
    /// Perturbations of a roll-out.
    Noise,
    /// Start pose of the hand.
    Attempt,
}
