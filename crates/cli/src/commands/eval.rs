//! `eval`: success per task family, for one checkpoint or several in one table.

use std::path::PathBuf;
use std::sync::Mutex;

use anyhow::{Context, Result, bail};
use clap::Args;
use robomamba_eval::{
    EpisodeRecord, Machine, Rate, RecordFile, Recurrent, RecurrentState, TaskScore, records_table, scores,
    to_json_lines,
};
use robomamba_policy::{ChunkQueue, Step, play};
use robomamba_runtime::Session;
use robomamba_sim::{Difficulty, Scenario, Split, Tabletop};
use serde::Serialize;

use crate::args::{Execution, Families, Jobs, Loading, parse_split};
use crate::interrupt;
use crate::loaded::{self, Loaded};
use crate::machine;
use crate::output;
use crate::parallel;
use crate::progress::Progress;
use crate::run_folder::write_atomically;

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
    /// Write the episode records of the checkpoint to this file, one JSON object per line, for `report`
    #[arg(long, value_name = "FILE")]
    records: Option<PathBuf>,
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
    tasks: Vec<TaskScore>,
    episodes: Vec<EpisodeRecord>,
}

/// Runs `eval`.
pub fn run(args: EvalArgs) -> Result<()> {
    let scenarios = scenarios(&args)?;
    if args.records.is_some() && args.checkpoints.len() > 1 {
        bail!("--records takes the records of one checkpoint, found {} checkpoints", args.checkpoints.len());
    }
    let paths = if args.checkpoints.is_empty() { vec![loaded::find(None)?] } else { args.checkpoints.clone() };
    let checkpoints =
        paths.iter().map(|path| Loaded::open(path, args.loading.options())).collect::<Result<Vec<_>>>()?;
    let scores = checkpoints.iter().map(|loaded| score(loaded, &scenarios, &args)).collect::<Result<Vec<_>>>()?;
    let files: Vec<RecordFile> = scores.iter().map(Scores::file).collect();
    output::print(records_table(&files))?;
    if let (Some(path), Some(file)) = (&args.records, files.first()) {
        write_atomically(path, to_json_lines(&file.records).as_bytes())?;
    }
    if let Some(path) = &args.json {
        let evaluation = Evaluation {
            split: args.split,
            first_seed: args.seed,
            episodes_per_family: args.episodes,
            difficulty: args.difficulty(),
            recurrent_state: args.recurrent_state(),
            precision: args.loading.format.to_string(),
            machine: machine::this(),
            checkpoints: scores,
        };
        write_atomically(path, (serde_json::to_string_pretty(&evaluation)? + "\n").as_bytes())?;
    }
    Ok(())
}

impl Scores {
    fn file(&self) -> RecordFile {
        RecordFile { name: self.checkpoint.display().to_string(), records: self.episodes.clone() }
    }
}

impl EvalArgs {
    fn difficulty(&self) -> Difficulty {
        Difficulty { subgoals: self.subgoals, delay_steps: self.delay, tasks: self.tasks }
    }

    fn recurrent_state(&self) -> RecurrentState {
        if self.stateless { RecurrentState::ResetAtEveryStep } else { RecurrentState::Carried }
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
        let record = worker.play(&scenarios[index])?;
        let mut standing = standing.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        standing.add(record.is_success());
        progress.advance(format!("{}  {} of {} solved", loaded.path().display(), standing.k, standing.n));
        Ok(record)
    };
    tracing::info!(jobs = args.jobs.count(), "one session per job, each on one thread");
    let episodes = parallel::map(args.jobs.count(), scenarios.len(), || Worker::new(loaded, args), work)?;
    progress.finish();
    let mut order: Vec<usize> = (0..episodes.len()).collect();
    order.sort_by_key(|&i| (scenarios[i].family, scenarios[i].seed));
    let episodes: Vec<EpisodeRecord> = order.into_iter().map(|i| episodes[i].clone()).collect();
    Ok(Scores { checkpoint: loaded.path().into(), tasks: scores(&episodes), episodes })
}

/// An environment and a session for one thread.
struct Worker {
    environment: Tabletop,
    policy: ChunkQueue<Recurrent<Session>>,
}

impl Worker {
    fn new(loaded: &Loaded, args: &EvalArgs) -> Result<Self> {
        let (height, width) = loaded.image_size();
        let policy = Recurrent::new(loaded.worker_session()?, args.recurrent_state());
        Ok(Self { environment: Tabletop::new(height, width)?, policy: args.execution.queue(policy) })
    }

    fn play(&mut self, scenario: &Scenario) -> Result<EpisodeRecord> {
        self.environment.reset(scenario)?;
        let watch = |_: &_, _: Step| interrupt::check();
        let played = play(&mut self.environment, &mut self.policy, watch);
        let played = played.with_context(|| format!("{} {}", scenario.family, scenario.seed))?;
        Ok(EpisodeRecord::from(&played))
    }
}
