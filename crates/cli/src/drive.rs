//! The control loop: a policy plays an episode while somebody watches.

use std::sync::Arc;

use anyhow::Result;
use robomamba_policy::{ActionChunk, FeatureSpec, Observation, Policy, PolicyError};
use robomamba_sim::{EpisodeResult, Environment, RolloutStep, Scenario, SimError, Tabletop};

use crate::interrupt;

/// Lets `policy` play the episode of `scenario`; `watch` sees the policy and every step, and may end the job.
///
/// # Errors
/// When the scenario is out of range, the policy fails, the watcher ends it, or on Ctrl-C.
pub fn play<P: Policy>(
    environment: &mut Tabletop,
    policy: &mut P,
    scenario: &Scenario,
    mut watch: impl FnMut(&P, &RolloutStep) -> Result<()>,
) -> Result<EpisodeResult> {
    environment.reset(scenario)?;
    policy.reset();
    let mut observation = environment.observe().clone();
    let instruction = observation.instruction.to_string();
    let mut chunk = ActionChunk::default();
    while !environment.outcome().done() {
        interrupt::check()?;
        policy.act(&observation, &mut chunk).map_err(SimError::from)?;
        let outcome = environment.step(chunk.action(0).ok_or(SimError::EmptyChunk)?)?;
        watch(policy, &RolloutStep { observation: &observation, chunk: &chunk, outcome })?;
        observation.clone_from(environment.observe());
    }
    Ok(result(environment, instruction))
}

/// How the episode in `environment` went.
pub fn result(environment: &Tabletop, instruction: String) -> EpisodeResult {
    let (subgoals_done, subgoals) = environment.subgoals();
    EpisodeResult {
        family: environment.scenario().family,
        seed: environment.scenario().seed,
        status: environment.outcome().status,
        steps: environment.steps(),
        subgoals_done,
        subgoals,
        instruction,
    }
}

/// Forgets everything before each step: the control that shows what the recurrent state is worth.
pub struct Stateless<P>(pub P);

impl<P: Policy> Policy for Stateless<P> {
    fn features(&self) -> &FeatureSpec {
        self.0.features()
    }

    fn act(&mut self, observation: &Observation, chunk: &mut ActionChunk) -> Result<(), PolicyError> {
        self.0.reset();
        self.0.act(observation, chunk)
    }

    fn reset(&mut self) {
        self.0.reset();
    }
}

/// Tells the policy something else than the environment does.
pub struct Instructed<P> {
    policy: P,
    instruction: Option<Arc<str>>,
    observation: Option<Observation>,
}

impl<P> Instructed<P> {
    /// Replaces every instruction by `instruction`, if there is one.
    pub fn new(policy: P, instruction: Option<Arc<str>>) -> Self {
        Self { policy, instruction, observation: None }
    }

    /// The wrapped policy.
    pub fn inner(&self) -> &P {
        &self.policy
    }
}

impl<P: Policy> Policy for Instructed<P> {
    fn features(&self) -> &FeatureSpec {
        self.policy.features()
    }

    fn act(&mut self, observation: &Observation, chunk: &mut ActionChunk) -> Result<(), PolicyError> {
        let Some(instruction) = &self.instruction else { return self.policy.act(observation, chunk) };
        let told = self.observation.get_or_insert_with(|| observation.clone());
        told.clone_from(observation);
        told.instruction = Arc::clone(instruction);
        self.policy.act(told, chunk)
    }

    fn reset(&mut self) {
        self.policy.reset();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use robomamba_policy::VectorSpec;
    use robomamba_sim::Family;

    /// Acts by the number of steps since the last reset, and remembers what it was told.
    struct Counter {
        features: FeatureSpec,
        steps: usize,
        told: String,
    }

    impl Counter {
        fn new() -> Self {
            let vector = VectorSpec::new(["a", "b", "c"]);
            let features = FeatureSpec { cameras: Vec::new(), state: vector.clone(), action: vector, fps: 20 };
            Self { features, steps: 0, told: String::new() }
        }
    }

    impl Policy for Counter {
        fn features(&self) -> &FeatureSpec {
            &self.features
        }

        fn act(&mut self, observation: &Observation, chunk: &mut ActionChunk) -> Result<(), PolicyError> {
            self.steps += 1;
            self.told = observation.instruction.to_string();
            *chunk = ActionChunk { actions: vec![self.steps as f32 / 100.0, 0.0, -1.0], action_dim: 3, success_probability: None };
            Ok(())
        }

        fn reset(&mut self) {
            self.steps = 0;
        }
    }

    fn actions(policy: &mut impl Policy) -> Vec<f32> {
        let mut environment = Tabletop::new(8, 8).unwrap();
        let mut actions = Vec::new();
        let scenario = Scenario::heldout(Family::Reach, 1);
        let result = play(&mut environment, policy, &scenario, |_, step| {
            actions.push(step.chunk.actions[0]);
            Ok(())
        });
        assert_eq!(result.unwrap().steps, actions.len());
        actions
    }

    #[test]
    fn a_stateless_policy_is_always_at_its_first_step() {
        let counted = actions(&mut Counter::new());
        assert!(counted.windows(2).all(|pair| pair[1] > pair[0]));
        let stateless = actions(&mut Stateless(Counter::new()));
        assert!(stateless.iter().all(|&action| action == 0.01));
    }

    #[test]
    fn an_instruction_replaces_the_scene_s_own() {
        let mut policy = Instructed::new(Counter::new(), Some("wave".into()));
        actions(&mut policy);
        assert_eq!(policy.inner().told, "wave");
        let mut policy = Instructed::new(Counter::new(), None);
        actions(&mut policy);
        assert!(policy.inner().told.len() > 4);
    }
}
