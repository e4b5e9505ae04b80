//! `eval`: success per task family, for one checkpoint or several in one table.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Mutex;

use anyhow::{Context, Result};
use clap::Args;
use robomamba_policy::ChunkQueue;
use robomamba_runtime::Session;
use robomamba_sim::{Difficulty, Environment, EpisodeResult, Family, Scenario, Split, Tabletop};
use serde::Serialize;

use crate::args::{Execution, Families, Jobs, Loading, parse_split};
use crate::drive::{self, Recurrent, RecurrentState};
use crate::figures::{self, overall};
use crate::interval::Rate;
use crate::loaded::{self, Loaded};
use crate::machine::Machine;
use crate::output;
use crate::parallel;
use crate::progress::Progress;
use crate::run_folder::write_atomically;
use crate::table::Table;

/// Options of `eval`.
#[derive(Args)]
pub struct EvalArgs {
    /// Folder of a checkpoint; repeatable [default: checkpoints/tabletop]
    #[arg(long = "checkpoint", value_name = "DIR")]
    checkpoints: Vec<PathBuf>,
    #[command(flatten)]
    loading: Loading,
    #[command(flatten)]
    families: Families,
    /// Episodes per family and checkpoint
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    episodes: u32,
    /// Seed of the first episode; each further one has the next seed
    #[arg(long, value_name = "S", default_value_t = 0)]
    seed: u64,
    /// Scenes that never occur in training (heldout) or those that do (train)
    #[arg(long, default_value = "heldout", value_parser = parse_split)]
    split: Split,
    /// Sub-goals of `sequence`
    #[arg(long, value_name = "N", default_value_t = 3)]
    subgoals: usize,
    /// Delay of `remember` in control steps
    #[arg(long, value_name = "STEPS", default_value_t = 200)]
    delay: usize,
    /// Tasks of an episode of `endurance`
    #[arg(long, value_name = "N", default_value_t = 100)]
    tasks: usize,
    /// Reset the recurrent state before every step: the control that shows what memory is worth
    #[arg(long)]
    stateless: bool,
    #[command(flatten)]
    execution: Execution,
    #[command(flatten)]
    jobs: Jobs,
    /// Write every result with its seed to this file as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// The content of the JSON file.
#[derive(Serialize)]
struct Evaluation {
    split: Split,
    first_seed: u64,
    episodes_per_family: u32,
    difficulty: Difficulty,
    recurrent_state: RecurrentState,
    precision: String,
    machine: Machine,
    checkpoints: Vec<Scores>,
}

/// What one checkpoint reached.
#[derive(Serialize)]
struct Scores {
    checkpoint: PathBuf,
    success: BTreeMap<Family, Rate>,
    success_interval: BTreeMap<Family, (f64, f64)>,
    mean_steps: BTreeMap<Family, f64>,
    episodes: Vec<EpisodeResult>,
}

/// Runs `eval`.
pub fn run(args: EvalArgs) -> Result<()> {
    let scenarios = scenarios(&args)?;
    let paths = if args.checkpoints.is_empty() { vec![loaded::find(None)?] } else { args.checkpoints.clone() };
    let checkpoints =
        paths.iter().map(|path| Loaded::open(path, args.loading.options())).collect::<Result<Vec<_>>>()?;
    let scores = checkpoints.iter().map(|loaded| score(loaded, &scenarios, &args)).collect::<Result<Vec<_>>>()?;
    output::print(table(&scores))?;
    if let Some(path) = &args.json {
        let evaluation = Evaluation {
            split: args.split,
            first_seed: args.seed,
            episodes_per_family: args.episodes,
            difficulty: args.difficulty(),
            recurrent_state: args.recurrent_state(),
            precision: args.loading.format.to_string(),
            machine: Machine::this(),
            checkpoints: scores,
        };
        write_atomically(path, (serde_json::to_string_pretty(&evaluation)? + "\n").as_bytes())?;
    }
    Ok(())
}

impl EvalArgs {
    fn difficulty(&self) -> Difficulty {
        Difficulty { subgoals: self.subgoals, delay_steps: self.delay, tasks: self.tasks }
    }

    fn recurrent_state(&self) -> RecurrentState {
        RecurrentState::of_flag(self.stateless)
    }
}

/// The scenes of all families; the longest families first, so that no thread is left with them at the end.
fn scenarios(args: &EvalArgs) -> Result<Vec<Scenario>> {
    args.seed.checked_add(args.episodes.into()).with_context(|| format!("--seed {} leaves no room", args.seed))?;
    let scenario =
        |family, seed| Scenario { family, seed, split: args.split, difficulty: args.difficulty(), attempt: 0 };
    let mut families = args.families.list();
    families.sort_by_key(|&family| std::cmp::Reverse(family));
    let seeds = || args.seed..args.seed + u64::from(args.episodes);
    Ok(families.into_iter().flat_map(|family| seeds().map(move |seed| scenario(family, seed))).collect())
}

fn score(loaded: &Loaded, scenarios: &[Scenario], args: &EvalArgs) -> Result<Scores> {
    let progress = Progress::start("eval", scenarios.len(), "episodes");
    let standing = Mutex::new(Rate::default());
    let work = |worker: &mut Worker, index: usize| {
        let result = worker.play(&scenarios[index])?;
        let mut standing = standing.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        standing.add(result.success());
        progress.advance(format!("{}  {} of {} solved", loaded.path().display(), standing.k, standing.n));
        Ok(result)
    };
    let mut episodes = parallel::map(args.jobs.count(), scenarios.len(), || Worker::new(loaded, args), work)?;
    progress.finish();
    episodes.sort_by_key(|episode| (episode.family, episode.seed));
    let success = figures::success(&episodes);
    Ok(Scores {
        checkpoint: loaded.path().into(),
        success_interval: success.iter().map(|(&family, rate)| (family, rate.wilson())).collect(),
        success,
        mean_steps: figures::mean_steps(&episodes),
        episodes,
    })
}

/// An environment and a session for one thread.
struct Worker {
    environment: Tabletop,
    policy: ChunkQueue<Recurrent<Session>>,
}

impl Worker {
    fn new(loaded: &Loaded, args: &EvalArgs) -> Result<Self> {
        let (height, width) = loaded.image_size();
        let policy = args.recurrent_state().of(loaded.worker_session()?);
        Ok(Self { environment: Tabletop::new(height, width)?, policy: args.execution.queue(policy) })
    }

    fn play(&mut self, scenario: &Scenario) -> Result<EpisodeResult> {
        self.environment.reset(scenario)?;
        let result = drive::play(&mut self.environment, &mut self.policy, |_, _| Ok(()));
        result.with_context(|| format!("{} {}", scenario.family, scenario.seed))
    }
}

/// One row per family; with several checkpoints, a group of columns for each.
fn table(scores: &[Scores]) -> Table {
    let several = scores.len() > 1;
    let heading = |i: usize, name: &str| if several { format!("{name} ({})", i + 1) } else { name.to_string() };
    let columns = |i: usize| ["n", "k", "rate [95 % interval]", "mean steps"].map(|name| heading(i, name));
    let mut table = Table::new(["family".to_string()].into_iter().chain((0..scores.len()).flat_map(columns)));
    let families: Vec<Family> = scores.first().map(|first| first.success.keys().copied().collect()).unwrap_or_default();
    for family in families {
        let cells = scores.iter().flat_map(|of| cells(of.success[&family], of.mean_steps.get(&family).copied()));
        table.row([family.to_string()].into_iter().chain(cells));
    }
    table.row(["all".to_string()].into_iter().chain(scores.iter().flat_map(|of| cells(overall(&of.success), None))));
    for (i, of) in scores.iter().enumerate().filter(|_| several) {
        table.row([format!("({}) {}", i + 1, of.checkpoint.display())]);
    }
    table
}

fn cells(rate: Rate, mean_steps: Option<f64>) -> [String; 4] {
    let steps = mean_steps.map_or(String::new(), |steps| format!("{steps:.0}"));
    [rate.n.to_string(), rate.k.to_string(), rate.to_string(), steps]
}
