//! The ablation of memory: a policy that forgets everything before each step.

use robomamba_policy::{ActionChunk, Episode, FeatureSpec, Observation, Outcome, Policy, PolicyError};
use serde::{Deserialize, Serialize};

/// Whether the recurrent state is carried from step to step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RecurrentState {
    /// It is carried, as intended.
    #[default]
    Carried,
    /// It is reset before each step.
    ResetAtEveryStep,
}

/// A policy whose recurrent state is carried or not.
pub struct Recurrent<P> {
    policy: P,
    state: RecurrentState,
    episode: Option<Episode>,
}

impl<P> Recurrent<P> {
    /// Wraps `policy`; its state is handled as `state` says.
    pub fn new(policy: P, state: RecurrentState) -> Self {
        Self { policy, state, episode: None }
    }
}

impl<P: Policy> Policy for Recurrent<P> {
    fn features(&self) -> &FeatureSpec {
        self.policy.features()
    }

    fn begin(&mut self, episode: &Episode) -> Result<(), PolicyError> {
        self.episode = Some(episode.clone());
        self.policy.begin(episode)
    }

    fn act(&mut self, observation: &Observation, chunk: &mut ActionChunk) -> Result<(), PolicyError> {
        if let (RecurrentState::ResetAtEveryStep, Some(episode)) = (self.state, &self.episode) {
            self.policy.begin(episode)?;
        }
        self.policy.act(observation, chunk)
    }

    fn end(&mut self, outcome: &Outcome, last: &Observation) -> Result<(), PolicyError> {
        self.policy.end(outcome, last)
    }
}
