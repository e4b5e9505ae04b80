//! Action chunks, and the queue that executes them.

use crate::{FeatureSpec, Observation, Policy, PolicyError};

/// The actions of the next `chunk_size` control steps, `f32 [chunk_size, action_dim]` in robot units.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ActionChunk {
    /// `[chunk_size, action_dim]` row-major.
    pub actions: Vec<f32>,
    /// Length of one row.
    pub action_dim: usize,
    /// Estimated probability that the running episode succeeds, in `[0, 1]`; `None` for policies that do not know.
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
}

/// Executes chunks: it asks the wrapped policy at **every** step, so that its state advances, and
/// blends what the last `horizon` chunks planned for the present step.
///
/// The weights are `exp(-decay * age)` with the newest plan at age 0, the temporal ensemble of ACT
/// (Zhao et al. 2023, arXiv 2304.13705, section IV.B, whose `w_0` is the oldest plan and whose sign is
/// therefore the other way round). A horizon of 1 executes the first action of the newest chunk.
pub struct ChunkQueue<P> {
    policy: P,
    decay: f32,
    plans: Vec<ActionChunk>,
    /// Index into `plans` that the next chunk is written to.
    next: usize,
    /// Number of plans made in this episode, at most `plans.len()`.
    filled: usize,
}

impl<P: Policy> ChunkQueue<P> {
    /// Wraps `policy`, blending the last `horizon` plans (at least 1) with weights `exp(-decay * age)`.
    pub fn new(policy: P, horizon: usize, decay: f32) -> Self {
        Self { policy, decay, plans: vec![ActionChunk::default(); horizon.max(1)], next: 0, filled: 0 }
    }

    /// The wrapped policy.
    pub fn inner(&self) -> &P {
        &self.policy
    }

    /// Writes the blend of all plans for the present step into `action`.
    fn blend(&self, action: &mut [f32]) {
        action.fill(0.0);
        let mut total = 0.0;
        for age in 0..self.filled {
            let slot = (self.next + self.plans.len() - 1 - age) % self.plans.len();
            let Some(planned) = self.plans[slot].action(age) else { continue };
            let weight = (-self.decay * age as f32).exp();
            total += weight;
            for (sum, value) in action.iter_mut().zip(planned) {
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

    /// Writes a chunk of one step: the action to execute now.
    fn act(&mut self, observation: &Observation, chunk: &mut ActionChunk) -> Result<(), PolicyError> {
        let slot = self.next;
        self.policy.act(observation, &mut self.plans[slot])?;
        self.next = (slot + 1) % self.plans.len();
        self.filled = (self.filled + 1).min(self.plans.len());
        chunk.action_dim = self.plans[slot].action_dim;
        chunk.success_probability = self.plans[slot].success_probability;
        chunk.actions.resize(chunk.action_dim, 0.0);
        self.blend(&mut chunk.actions);
        Ok(())
    }

    fn reset(&mut self) {
        self.policy.reset();
        (self.next, self.filled) = (0, 0);
    }
}
