//! Success of the experts on held-out seeds, and the speed of simulation with pictures, per family.
//!
//! `cargo run --release -p robomamba-sim --example experts -- --episodes 200 [--noise] [--family NAME]`

use std::time::Instant;

use robomamba_sim::{
    EpisodeResult, ExpertRollout, Family, Intent, NoiseConfig, Scenario, SimError, Status, Tabletop, expert_rollout,
};

fn main() -> Result<(), SimError> {
    let arguments: Vec<String> = std::env::args().collect();
    let value_of = |name: &str| arguments.iter().position(|it| it == name).and_then(|i| arguments.get(i + 1));
    let episodes = value_of("--episodes").and_then(|text| text.parse().ok()).unwrap_or(200);
    let families = match value_of("--family") {
        Some(name) => vec![name.parse()?],
        None => Family::ALL.to_vec(),
    };
    let noise = if arguments.iter().any(|it| it == "--noise") { NoiseConfig::default() } else { NoiseConfig::NONE };
    println!("{:<11} {:>9} {:>11} {:>9}   not solved", "family", "success", "mean steps", "steps/s");
    for family in families {
        report(family, episodes, noise)?;
    }
    Ok(())
}

fn report(family: Family, episodes: u64, noise: NoiseConfig) -> Result<(), SimError> {
    let mut environment = Tabletop::new(96, 96)?;
    let episodes = if family == Family::Endurance { episodes.div_ceil(10) } else { episodes };
    let start = Instant::now();
    let results = (0..episodes)
        .map(|seed| {
            let scenario = Scenario::heldout(family, seed);
            expert_rollout(&mut environment, &ExpertRollout { scenario, noise, intent: Intent::Solve }, |_| {})
        })
        .collect::<Result<Vec<EpisodeResult>, SimError>>()?;
    let steps: usize = results.iter().map(|result| result.steps).sum();
    let solved = results.iter().filter(|result| result.success()).count();
    let failures: Vec<(u64, Status)> =
        results.iter().filter(|result| !result.success()).map(|result| (result.seed, result.status)).take(8).collect();
    println!(
        "{family:<11} {solved:>4}/{:<4} {:>11.1} {:>9.0}   {failures:?}",
        results.len(),
        steps as f64 / results.len() as f64,
        steps as f64 / start.elapsed().as_secs_f64(),
    );
    Ok(())
}
