//! What is kept of an episode for a report: images, actions and confidence.

use robomamba_policy::{Image, Step};

use crate::film::{Film, Still};
use crate::{EpisodeRecord, EvalError};

/// One episode of a demonstration.
#[derive(Clone, Debug)]
pub struct Trace {
    /// How it went.
    pub record: EpisodeRecord,
    /// Whether it counts: `false` where success cannot be judged.
    pub is_scored: bool,
    /// Names of the action's dimensions.
    pub action_names: Vec<String>,
    /// Executed actions, `[steps, action_dim]`.
    pub actions: Vec<f32>,
    /// Estimated success probability of every step; empty for policies that do not estimate it.
    pub success_probability: Vec<f32>,
    /// A few images, the last one after the last step.
    pub film: Vec<Still>,
}

/// Follows a running episode.
#[derive(Clone, Debug, Default)]
pub struct Tracer {
    film: Film,
    steps: usize,
    actions: Vec<f32>,
    success_probability: Vec<f32>,
}

impl Tracer {
    /// Whether the film strip takes an image before the coming step.
    pub fn wants_image(&self) -> bool {
        self.film.wants(self.steps)
    }

    /// Adds the image before the coming step.
    ///
    /// # Errors
    /// When it cannot be encoded.
    pub fn image(&mut self, image: &Image) -> Result<(), EvalError> {
        self.film.add(self.steps, image)
    }

    /// Follows one control step.
    pub fn step(&mut self, step: &Step) {
        self.actions.extend_from_slice(step.action());
        self.success_probability.extend(step.chunk.success_probability);
        self.steps += 1;
    }

    /// The whole episode, with the image `last` after its last step.
    ///
    /// # Errors
    /// When the image cannot be encoded.
    pub fn finish(self, record: EpisodeRecord, action_names: &[String], last: &Image) -> Result<Trace, EvalError> {
        let film = self.film.finish(record.steps, last)?;
        Ok(Trace {
            record,
            is_scored: true,
            action_names: action_names.to_vec(),
            actions: self.actions,
            success_probability: self.success_probability,
            film,
        })
    }
}
