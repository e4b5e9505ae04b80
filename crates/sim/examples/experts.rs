//! Success of the experts on held-out seeds, and the speed of simulation with pictures, per family.
//!
//! `cargo run --release -p robomamba-sim --example experts -- [--episodes N] [--family NAME] [--noise on]
//! [--subgoals N] [--delay N] [--tasks N]`

use std::{error::Error, time::Instant};

use robomamba_policy::{Outcome, Played};
use robomamba_sim::{
    Difficulty, ExpertRollout, Family, Intent, NoiseConfig, Scenario, SimError, Tabletop, expert_rollout,
};

/// What to play.
struct Options {
    episodes: u64,
    families: Vec<Family>,
    noise: NoiseConfig,
    difficulty: Difficulty,
}

fn main() -> Result<(), Box<dyn Error>> {
    let options = parse(std::env::args().skip(1).collect())?;
    println!("{:<11} {:>9} {:>11} {:>9}   not solved", "family", "success", "mean steps", "steps/s");
    for &family in &options.families {
        report(family, &options)?;
    }
    Ok(())
}

fn parse(arguments: Vec<String>) -> Result<Options, Box<dyn Error>> {
    let mut options = Options {
        episodes: 200,
        families: Family::ALL.to_vec(),
        noise: NoiseConfig::NONE,
        difficulty: Difficulty::default(),
    };
    for pair in arguments.chunks(2) {
        let [name, value] = pair else { return Err(format!("`{}` needs a value", pair[0]).into()) };
        match name.as_str() {
            "--episodes" => options.episodes = value.parse()?,
            "--family" => options.families = vec![value.parse()?],
            "--noise" if value == "on" => options.noise = NoiseConfig::default(),
            "--subgoals" => options.difficulty.subgoals = value.parse()?,
            "--delay" => options.difficulty.delay_steps = value.parse()?,
            "--tasks" => options.difficulty.tasks = value.parse()?,
            _ => return Err(format!("unknown option `{name} {value}`").into()),
        }
    }
    Ok(options)
}

fn report(family: Family, options: &Options) -> Result<(), SimError> {
    let mut environment = Tabletop::new(96, 96)?;
    let start = Instant::now();
    let results = (0..options.episodes)
        .map(|seed| {
            let scenario = Scenario::heldout(family, seed).with_difficulty(options.difficulty);
            let rollout = ExpertRollout { scenario, noise: options.noise, intent: Intent::Solve };
            expert_rollout(&mut environment, &rollout, |_| {})
        })
        .collect::<Result<Vec<Played>, SimError>>()?;
    let steps: usize = results.iter().map(|result| result.steps).sum();
    let solved = results.iter().filter(|result| result.outcome.is_success()).count();
    let unsolved = results.iter().filter(|result| !result.outcome.is_success());
    let failures: Vec<(u64, &Outcome)> =
        unsolved.map(|result| (result.episode.seed, &result.outcome)).take(8).collect();
    println!(
        "{family:<11} {solved:>4}/{:<4} {:>11.1} {:>9.0}   {failures:?}",
        results.len(),
        steps as f64 / results.len() as f64,
        steps as f64 / start.elapsed().as_secs_f64(),
    );
    Ok(())
}
