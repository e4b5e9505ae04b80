//! What is kept of an episode for the report.

use anyhow::Result;
use robomamba_policy::Image;
use robomamba_sim::{Environment, EpisodeResult, Failure, RolloutStep, Scenario, Status, Tabletop};

use crate::film::{Film, Still};

/// Side of the report's pictures in pixels.
const STILL_SIZE: usize = 192;

/// One episode of a demonstration.
#[derive(Clone, Debug)]
pub struct Trace {
    /// How it went.
    pub result: EpisodeResult,
    /// Whether it counts: success can be judged.
    pub is_scored: bool,
    /// Names of the action's dimensions.
    pub action_names: Vec<String>,
    /// Executed actions, `[steps, action_dim]`.
    pub actions: Vec<f32>,
    /// Estimated success probability of every step; empty for policies that do not know.
    pub success_probability: Vec<f32>,
    /// A few pictures, the last one after the last step.
    pub film: Vec<Still>,
}

/// Follows a running episode.
///
/// The pictures come from a second, larger rendering of the same world, which is a pure function of scenario and
/// actions.
pub struct Tracer {
    stage: Tabletop,
    film: Film,
    actions: Vec<f32>,
    success_probability: Vec<f32>,
}

impl Tracer {
    /// Is ready for the episode of `scenario`, with another task if there is an `instruction`.
    ///
    /// # Errors
    /// When the scenario is out of range.
    pub fn new(scenario: &Scenario, instruction: Option<&str>) -> Result<Self> {
        let mut stage = Tabletop::new(STILL_SIZE, STILL_SIZE)?;
        stage.reset(scenario)?;
        instruction.map(|text| stage.instruct(text));
        Ok(Self { stage, film: Film::new(), actions: Vec::new(), success_probability: Vec::new() })
    }

    /// Follows one control step.
    ///
    /// # Errors
    /// When a picture cannot be encoded.
    pub fn step(&mut self, step: &RolloutStep) -> Result<()> {
        let number = self.stage.steps();
        if self.film.wants(number) {
            self.film.add(number, picture(&mut self.stage))?;
        }
        let action = step.chunk.action(0).unwrap_or(&[]);
        self.actions.extend_from_slice(action);
        self.success_probability.extend(step.chunk.success_probability);
        self.stage.step(action)?;
        Ok(())
    }

    /// The whole episode.
    ///
    /// # Errors
    /// When a picture cannot be encoded.
    pub fn finish(mut self, result: EpisodeResult) -> Result<Trace> {
        let film = self.film.finish(result.steps, picture(&mut self.stage))?;
        Ok(Trace {
            result,
            is_scored: true,
            action_names: self.stage.features().action.names.clone(),
            actions: self.actions,
            success_probability: self.success_probability,
            film,
        })
    }
}

fn picture(stage: &mut Tabletop) -> &Image {
    &stage.observe().images[0].1
}

/// How an episode ended, in two words.
pub fn outcome_text(status: Status) -> &'static str {
    match status {
        Status::Running => "not finished",
        Status::Succeeded => "solved",
        Status::TimedOut => "out of time",
        Status::Failed(failure) => match failure {
            Failure::WrongObject => "wrong object",
            Failure::WrongButton => "wrong button",
            Failure::WrongOrder => "wrong order",
            Failure::TooEarly => "too early",
            Failure::WrongCount => "wrong count",
            Failure::WrongContainer => "wrong container",
            Failure::WrongManner => "wrong manner",
            Failure::WrongDirection => "wrong direction",
        },
    }
}
