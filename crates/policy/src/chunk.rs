//! Action chunks, and the queue that executes them.

use crate::{Episode, FeatureSpec, Observation, Outcome, Policy, PolicyError};

/// The actions of the next `chunk_size` control steps, `f32 [chunk_size, action_dim]` in robot units.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ActionChunk {
    /// `[chunk_size, action_dim]` row-major.
    pub actions: Vec<f32>,
    /// Length of one row.
    pub action_dim: usize,
    /// Estimated probability that the running episode succeeds, in `[0, 1]`; `None` for policies without an estimate.
    pub success_probability: Option<f32>,
}

impl ActionChunk {
    /// Number of control steps in the chunk.
    pub fn chunk_size(&self) -> usize {
        self.actions.len().checked_div(self.action_dim).unwrap_or(0)
    }

    /// The action `[action_dim]` of control step `step` of the chunk, if it reaches that far.
    pub fn action(&self, step: usize) -> Option<&[f32]> {
        self.actions.chunks_exact(self.action_dim.max(1)).nth(step)
    }

    /// Becomes a chunk of one step, `action` `[action_dim]`, without a success probability.
    pub fn set_action(&mut self, action: &[f32]) {
        self.actions.clear();
        self.actions.extend_from_slice(action);
        self.action_dim = action.len();
        self.success_probability = None;
    }
}

/// Executes chunks: at every step it blends the actions of the last `horizon` chunks for the present step.
///
/// The wrapped policy acts at **every** step, so that its state advances. The weights are `exp(-decay * age)`, where
/// the newest chunk has age 0. This is the temporal ensemble of ACT (Zhao et al. 2023, arXiv 2304.13705, section
/// IV.B), whose `w_0` belongs to the oldest chunk; its sign is therefore reversed. A horizon of 1 executes the first
/// action of the newest chunk. [`ChunkQueue::replanning_every`] executes several steps of a chunk.
pub struct ChunkQueue<P> {
    policy: P,
    decay: f32,
    /// Steps after which a new chunk is adopted.
    period: usize,
    chunks: Vec<ActionChunk>,
    /// The policy's chunks in between.
    unused: ActionChunk,
    /// Index into `chunks` that the next chunk is written to.
    next: usize,
    /// Number of chunks adopted in this episode, at most `chunks.len()`.
    filled: usize,
    /// Steps for which the newest chunk has been executed.
    executed: usize,
}

impl<P: Policy> ChunkQueue<P> {
    /// Wraps `policy`, blending the last `horizon` chunks (at least 1) with weights `exp(-decay * age)`.
    pub fn new(policy: P, horizon: usize, decay: f32) -> Self {
        let chunks = vec![ActionChunk::default(); horizon.max(1)];
        Self { policy, decay, period: 1, chunks, unused: ActionChunk::default(), next: 0, filled: 0, executed: 0 }
    }

    /// Executes `period` steps of a chunk (at least 1, at most all of them) before the next one is adopted, as
    /// `n_action_steps` does in LeRobot. The policy still acts at every step, so that its state advances.
    #[must_use]
    pub fn replanning_every(mut self, period: usize) -> Self {
        self.period = period.max(1);
        self
    }

    /// The wrapped policy.
    pub fn inner(&self) -> &P {
        &self.policy
    }

    /// Index of the chunk after which `newer` others were adopted.
    fn slot(&self, newer: usize) -> usize {
        (self.next + self.chunks.len() - 1 - newer) % self.chunks.len()
    }

    /// Whether a new chunk is due: after the period, or where the chunk ends.
    fn is_due(&self) -> bool {
        let next = self.executed + 1;
        self.filled == 0 || next >= self.period.min(self.chunks[self.slot(0)].chunk_size())
    }

    /// Writes the blend of all chunks for the present step into `action`.
    fn blend(&self, action: &mut [f32]) {
        action.fill(0.0);
        let mut total = 0.0;
        for newer in 0..self.filled {
            let age = self.executed + newer * self.period;
            let Some(row) = self.chunks[self.slot(newer)].action(age) else { continue };
            let weight = (-self.decay * age as f32).exp();
            total += weight;
            for (sum, value) in action.iter_mut().zip(row) {
                *sum += weight * value;
            }
        }
        for value in action {
            *value /= total;
        }
    }
}

impl<P: Policy> Policy for ChunkQueue<P> {
    fn features(&self) -> &FeatureSpec {
        self.policy.features()
    }

    fn begin(&mut self, episode: &Episode) -> Result<(), PolicyError> {
        (self.next, self.filled, self.executed) = (0, 0, 0);
        self.policy.begin(episode)
    }

    /// Writes a chunk of one step: the action to execute now.
    fn act(&mut self, observation: &Observation, chunk: &mut ActionChunk) -> Result<(), PolicyError> {
        let success_probability = if self.is_due() {
            let newest = &mut self.chunks[self.next];
            self.policy.act(observation, newest)?;
            self.next = (self.next + 1) % self.chunks.len();
            self.filled = (self.filled + 1).min(self.chunks.len());
            self.executed = 0;
            self.chunks[self.slot(0)].success_probability
        } else {
            self.policy.act(observation, &mut self.unused)?;
            self.executed += 1;
            self.unused.success_probability
        };
        chunk.action_dim = self.chunks[self.slot(0)].action_dim;
        chunk.success_probability = success_probability;
        chunk.actions.resize(chunk.action_dim, 0.0);
        self.blend(&mut chunk.actions);
        Ok(())
    }

    fn end(&mut self, outcome: &Outcome, last: &Observation) -> Result<(), PolicyError> {
        self.policy.end(outcome, last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::VectorSpec;

    /// Answers step `t` with a chunk of three rows `10 t + k`.
    struct Counter {
        features: FeatureSpec,
        step: usize,
    }

    impl Policy for Counter {
        fn features(&self) -> &FeatureSpec {
            &self.features
        }

        fn act(&mut self, _: &Observation, chunk: &mut ActionChunk) -> Result<(), PolicyError> {
            let actions = (0..3).map(|ahead| (10 * self.step + ahead) as f32).collect();
            *chunk = ActionChunk { actions, action_dim: 1, success_probability: Some(self.step as f32 / 100.0) };
            self.step += 1;
            Ok(())
        }

        fn begin(&mut self, _: &Episode) -> Result<(), PolicyError> {
            self.step = 0;
            Ok(())
        }

        fn end(&mut self, _: &Outcome, _: &Observation) -> Result<(), PolicyError> {
            Ok(())
        }
    }

    fn observation() -> Observation {
        Observation { images: Vec::new(), state: Vec::new(), instruction: "wait".into(), timestamp_ns: 0 }
    }

    fn episode() -> Episode {
        let name = || "test".into();
        Episode {
            suite: name(),
            task: name(),
            robot: name(),
            scene: name(),
            seed: 0,
            attempt: 0,
            instruction: "wait".into(),
        }
    }

    /// The actions of six steps and what is thought of success after the last.
    fn executed(horizon: usize, decay: f32, period: usize) -> (Vec<f32>, Option<f32>) {
        let nothing = VectorSpec::new([""; 0]);
        let features = FeatureSpec { cameras: Vec::new(), state: nothing, action: VectorSpec::new(["dx"]), fps: 20 };
        let mut queue = ChunkQueue::new(Counter { features, step: 0 }, horizon, decay).replanning_every(period);
        let mut chunk = ActionChunk::default();
        let mut run = |queue: &mut ChunkQueue<Counter>| -> Vec<f32> {
            queue.begin(&episode()).expect("it always begins");
            let mut act = || {
                queue.act(&observation(), &mut chunk).expect("it always answers");
                chunk.action(0).expect("one step")[0]
            };
            (0..6).map(|_| act()).collect()
        };
        let first = run(&mut queue);
        assert_eq!(run(&mut queue), first, "a new episode forgets all chunks");
        (first, chunk.success_probability)
    }

    #[test]
    fn the_newest_chunk_is_executed() {
        assert_eq!(executed(1, 0.0, 1), (vec![0.0, 10.0, 20.0, 30.0, 40.0, 50.0], Some(0.05)));
    }

    #[test]
    fn a_chunk_is_kept_for_the_period_or_to_its_end() {
        assert_eq!(executed(1, 0.0, 2), (vec![0.0, 1.0, 20.0, 21.0, 40.0, 41.0], Some(0.05)));
        for period in [3, 100] {
            assert_eq!(executed(1, 0.0, period).0, [0.0, 1.0, 2.0, 30.0, 31.0, 32.0]);
        }
    }

    #[test]
    fn chunks_are_blended_at_the_step_they_are_for() {
        // Of the newest chunk, of the one before where it is long enough, and of the one before that.
        assert_eq!(executed(2, 0.0, 1).0, [0.0, 5.5, 15.5, 25.5, 35.5, 45.5]);
        assert_eq!(executed(3, 0.0, 2).0, [0.0, 1.0, 11.0, 21.0, 31.0, 41.0]);
        let weight = 0.5_f32;
        let blend = (10.0 + weight * 1.0) / (1.0 + weight);
        assert!((executed(2, -weight.ln(), 1).0[1] - blend).abs() < 1e-6);
    }
}
