//! The roll-out loop: a policy controls an environment until the episode ends.

use std::time::Instant;

use crate::{
    ActionChunk, Environment, Episode, LatencyHistogram, Observation, Outcome, Policy, PolicyError, StepOutcome,
};

/// Whatever controls an environment and may look at it: an expert with privileged knowledge, or a teacher.
///
/// Every [`Policy`] is a driver that looks at the observation only.
pub trait Driver<E: ?Sized> {
    /// Starts `episode` and forgets everything that happened before.
    ///
    /// # Errors
    /// When the driver cannot start; the episode is then not played.
    fn begin(&mut self, environment: &E, episode: &Episode) -> Result<(), PolicyError>;

    /// Consumes `observation` and writes the next actions into `chunk`, whose buffer is reused.
    ///
    /// # Errors
    /// When the observation does not fit, or the driver fails.
    fn act(&mut self, environment: &E, observation: &Observation, chunk: &mut ActionChunk) -> Result<(), PolicyError>;

    /// Learns how the episode ended, and what was observed after its last step.
    ///
    /// # Errors
    /// When what was learned cannot be kept.
    fn end(&mut self, outcome: &Outcome, last: &Observation) -> Result<(), PolicyError>;
}

impl<E: ?Sized, P: Policy + ?Sized> Driver<E> for P {
    fn begin(&mut self, _: &E, episode: &Episode) -> Result<(), PolicyError> {
        Policy::begin(self, episode)
    }

    fn act(&mut self, _: &E, observation: &Observation, chunk: &mut ActionChunk) -> Result<(), PolicyError> {
        Policy::act(self, observation, chunk)
    }

    fn end(&mut self, outcome: &Outcome, last: &Observation) -> Result<(), PolicyError> {
        Policy::end(self, outcome, last)
    }
}

/// One control step of a running episode.
#[derive(Clone, Copy, Debug)]
pub struct Step<'a> {
    /// What was observed before the action.
    pub observation: &'a Observation,
    /// The chunk that the driver answered with; its first action was executed.
    pub chunk: &'a ActionChunk,
    /// How the episode stands after the action.
    pub outcome: &'a StepOutcome,
}

impl<'a> Step<'a> {
    /// The executed action, `[action_dim]` in robot units.
    pub fn action(&self) -> &'a [f32] {
        self.chunk.action(0).unwrap_or(&[])
    }
}

/// How an episode went.
#[derive(Clone, Debug)]
pub struct Played {
    /// What identifies the episode.
    pub episode: Episode,
    /// How it ended.
    pub outcome: Outcome,
    /// Number of control steps.
    pub steps: usize,
    /// Fraction of the task that was done at the end, in `[0, 1]`.
    pub progress: f32,
    /// Time of every step from observation to actions.
    pub latency: LatencyHistogram,
}

/// Lets `driver`, usually a [`Policy`], control `environment` from its present state to the end of the episode.
///
/// It calls `begin` once, `act` at every control step, and `end` once after every successful `begin`. The first action
/// of each chunk is executed; a [`ChunkQueue`](crate::ChunkQueue) around the policy executes chunks in other ways.
/// `watch` sees the driver and every step; an error of it aborts the episode.
///
/// # Errors
/// When the environment or the driver fails, when an action is unusable, and those of `watch`. The driver's `end` gets
/// [`Outcome::Aborted`] then.
pub fn play<E, D, Error>(
    environment: &mut E,
    driver: &mut D,
    watch: impl FnMut(&D, Step<'_>) -> Result<(), Error>,
) -> Result<Played, Error>
where
    E: Environment + ?Sized,
    D: Driver<E> + ?Sized,
    Error: From<PolicyError>,
{
    let episode = environment.episode();
    let mut observation = environment.observe()?.clone();
    driver.begin(environment, &episode)?;
    let mut standing = Standing { steps: 0, progress: 0.0, latency: LatencyHistogram::default() };
    match standing.run(environment, driver, &mut observation, watch) {
        Ok(outcome) => {
            driver.end(&outcome, &observation)?;
            let Standing { steps, progress, latency } = standing;
            Ok(Played { episode, outcome, steps, progress, latency })
        }
        Err(error) => {
            // The first error is the one that matters.
            let _ = driver.end(&Outcome::Aborted, &observation);
            Err(error)
        }
    }
}

/// How far the episode has come.
struct Standing {
    steps: usize,
    progress: f32,
    latency: LatencyHistogram,
}

impl Standing {
    /// Plays on until the episode is over; `observation` is then the last one.
    fn run<E, D, Error>(
        &mut self,
        environment: &mut E,
        driver: &mut D,
        observation: &mut Observation,
        mut watch: impl FnMut(&D, Step<'_>) -> Result<(), Error>,
    ) -> Result<Outcome, Error>
    where
        E: Environment + ?Sized,
        D: Driver<E> + ?Sized,
        Error: From<PolicyError>,
    {
        let mut chunk = ActionChunk::default();
        loop {
            let start = Instant::now();
            driver.act(environment, observation, &mut chunk)?;
            self.latency.record(start.elapsed());
            let outcome = environment.step(chunk.action(0).ok_or(PolicyError::EmptyChunk)?)?;
            self.steps += 1;
            self.progress = outcome.progress;
            let watched = watch(driver, Step { observation, chunk: &chunk, outcome: &outcome });
            observation.clone_from(environment.observe()?);
            watched?;
            if let Some(outcome) = outcome.outcome {
                return Ok(outcome);
            }
        }
    }
}
