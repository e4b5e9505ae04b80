//! `tabletop`, the embedded simulated robot: physics, image, task families, experts and roll-outs.
//!
//! A gripper moves over a table seen from above. Blocks are rigid bodies (rapier2d, no gravity, friction as damping).
//! The image is drawn in software (tiny-skia) at any size. An episode is a pure function of the [`Scenario`] and the
//! actions: the same seed and the same actions give the same bytes.
//!
//! Units: metres, seconds, radians. The frame of the table has its origin in the middle, x to the right and
//! y up in the image. One control step is [`CONTROL_PERIOD_S`] long.
//!
//! | action | range | meaning |
//! |---|---|---|
//! | `dx`, `dy` | `[-1, 1]`, clamped | wanted velocity of the hand as a fraction of [`HAND_SPEED_MAX_M_S`] |
//! | `grip` | sign | above 0 closes the hand, below 0 opens it, 0 leaves it |
//!
//! The open hand is raised and passes over everything. Closing lowers it. Over a block it grasps and lifts the block,
//! and over a button it presses. Elsewhere it stops at table level and pushes blocks.
//!
//! | family | task | what it asks of a policy |
//! |---|---|---|
//! | `reach` | hover over the named thing | language and sight |
//! | `push` | bring the named block to the named zone along the table | contact |
//! | `pick_place` | the same through the air | grasping |
//! | `sequence` | 3 to 8 sub-goals in order; presses and reaches leave no trace | progress kept in a state |
//! | `remember` | press the button of the colour that a lamp showed before a delay | memory |
//! | `count` | press as often as the lamp flashed | counting |
//! | `retry` | one attempt at a scene with a hidden property | experience of earlier attempts |
//! | `endurance` | a stream of tasks in one episode | stability over 10,000 steps |
#![forbid(unsafe_code)]

mod corpus;
mod error;
mod expert;
mod failure;
mod families;
mod geometry;
mod goal;
mod language;
mod layout;
mod physics;
mod render;
mod rollout;
mod scenario;
mod stream;
mod tabletop;
mod task;
mod things;
mod world;

pub use corpus::{Corpus, instruction_corpus};
pub use error::SimError;
pub use failure::Failure;
pub use rollout::{Expert, ExpertRollout, Intent, LabelledStep, Labels, NoiseConfig, expert_rollout};
pub use scenario::{Difficulty, Family, Scenario, Split};
pub use tabletop::{
    CAMERA, ENVIRONMENT_STATE_DIM, GROUNDING_ABSENT, GROUNDING_DIM, GROUNDING_POINTS, Instructed, SUITE, THING_ABSENT,
    THINGS, THINGS_DIM, Tabletop, environment_state_spec, grounding_spec, things_spec,
};
pub use world::{CONTROL_PERIOD_S, FPS, HAND_RANGE_M, HAND_SPEED_MAX_M_S};
