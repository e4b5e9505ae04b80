//! The control loop: a policy plays an episode while somebody watches.

use anyhow::Result;
use robomamba_policy::{ActionChunk, FeatureSpec, Observation, Policy, PolicyError};
use robomamba_sim::{EpisodeResult, RolloutStep, Tabletop};
use serde::Serialize;

use crate::interrupt;

/// [`robomamba_sim::play`] that Ctrl-C ends.
///
/// # Errors
/// When the policy fails, the watcher ends it, or on Ctrl-C.
pub fn play<P: Policy>(
    environment: &mut Tabletop,
    policy: &mut P,
    mut watch: impl FnMut(&P, RolloutStep) -> Result<()>,
) -> Result<EpisodeResult> {
    robomamba_sim::play(environment, policy, |policy, step| {
        interrupt::check()?;
        watch(policy, step)
    })
}

/// Whether the state is carried from step to step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RecurrentState {
    /// As it is meant.
    Carried,
    /// Everything is forgotten before each step: the control that shows what memory is worth.
    ResetAtEveryStep,
}

impl RecurrentState {
    /// What `--stateless` asks for.
    pub fn of_flag(stateless: bool) -> Self {
        if stateless { Self::ResetAtEveryStep } else { Self::Carried }
    }

    /// `policy` with its state handled in this way.
    pub fn of<P>(self, policy: P) -> Recurrent<P> {
        Recurrent { policy, state: self }
    }
}

/// A policy whose state is carried or not.
pub struct Recurrent<P> {
    policy: P,
    state: RecurrentState,
}

impl<P: Policy> Policy for Recurrent<P> {
    fn features(&self) -> &FeatureSpec {
        self.policy.features()
    }

    fn act(&mut self, observation: &Observation, chunk: &mut ActionChunk) -> Result<(), PolicyError> {
        if self.state == RecurrentState::ResetAtEveryStep {
            self.policy.reset();
        }
        self.policy.act(observation, chunk)
    }

    fn reset(&mut self) {
        self.policy.reset();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use robomamba_policy::VectorSpec;
    use robomamba_sim::{Environment, Family, Scenario};

    /// Acts by the number of steps since the last reset.
    struct Counter {
        features: FeatureSpec,
        steps: usize,
    }

    impl Counter {
        fn new() -> Self {
            let vector = VectorSpec::new(["a", "b", "c"]);
            let features = FeatureSpec { cameras: Vec::new(), state: vector.clone(), action: vector, fps: 20 };
            Self { features, steps: 0 }
        }
    }

    impl Policy for Counter {
        fn features(&self) -> &FeatureSpec {
            &self.features
        }

        fn act(&mut self, _: &Observation, chunk: &mut ActionChunk) -> Result<(), PolicyError> {
            self.steps += 1;
            let actions = vec![self.steps as f32 / 1000.0, 0.0, -1.0];
            *chunk = ActionChunk { actions, action_dim: 3, success_probability: None };
            Ok(())
        }

        fn reset(&mut self) {
            self.steps = 0;
        }
    }

    fn actions(policy: &mut impl Policy) -> Vec<f32> {
        let mut environment = Tabletop::new(8, 8).unwrap();
        environment.reset(&Scenario::heldout(Family::Reach, 1)).unwrap();
        let mut actions = Vec::new();
        let result = play(&mut environment, policy, |_, step| {
            actions.push(step.chunk.actions[0]);
            Ok(())
        });
        assert_eq!(result.unwrap().steps, actions.len());
        actions
    }

    #[test]
    fn a_stateless_policy_is_always_at_its_first_step() {
        let counted = actions(&mut RecurrentState::Carried.of(Counter::new()));
        assert!(counted.windows(2).all(|pair| pair[1] > pair[0]));
        let stateless = actions(&mut RecurrentState::ResetAtEveryStep.of(Counter::new()));
        assert!(stateless.iter().all(|&action| action == 0.001));
    }
}
