//! `demo`: a trained policy at work on held-out scenes, with everything measured.

use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use clap::Args;
use robomamba_eval::{
    DEADLINE_MS, Demonstration, EpisodeRecord, Figures, Latency, McapLog, StateBytes, Table, Trace, Tracer, Utc,
    demonstration_page, overall, peak_rss_mb, scores,
};
use robomamba_policy::{ChunkQueue, DeadlineGuard, Environment, play};
use robomamba_runtime::Session;
use robomamba_sim::{FPS, Family, Instructed, Scenario, Tabletop};

use crate::args::{Execution, Loading};
use crate::interrupt::{self, Interrupted};
use crate::loaded::{self, Loaded};
use crate::machine;
use crate::output;
use crate::progress::Progress;
use crate::run_folder::{RunFolder, write_atomically};

/// Families of the shipped checkpoint.
const FAMILIES: [Family; 5] = [Family::Reach, Family::Push, Family::PickPlace, Family::Sequence, Family::Remember];
/// Episodes when the user does not choose.
const EPISODES: usize = 40;
/// Control steps between two updates of the live progress.
const STEPS_PER_UPDATE: u64 = 8;
/// Side of the report's images in pixels; the policy sees smaller ones.
const STILL_SIZE: usize = 192;

/// Options of `demo`.
#[derive(Args)]
pub struct DemoArgs {
    /// Folder of the checkpoint [default: checkpoints/tabletop]
    #[arg(long, value_name = "DIR")]
    checkpoint: Option<PathBuf>,
    #[command(flatten)]
    loading: Loading,
    /// Only this task family [default: reach, push, pick_place, sequence and remember in turn]
    #[arg(long, value_name = "FAMILY")]
    task: Option<Family>,
    /// Tell the robot this instead of the scene's own task; scored where the words can be understood
    #[arg(long, value_name = "TEXT")]
    instruction: Option<String>,
    /// Seed of the first scene
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Number of episodes [default: 40, or 1 with --instruction]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    episodes: Option<u16>,
    #[command(flatten)]
    execution: Execution,
    /// Write the figures to this file as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Folder for report.html, episodes.mcap and figures.json [default: runs/TIME]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Run at the robot's pace instead of as fast as possible
    #[arg(long)]
    realtime: bool,
}

/// What drives the robot: a session whose chunks are blended, timed from observation to action.
type Driver = DeadlineGuard<ChunkQueue<Session>>;

/// Runs `demo`.
pub fn run(args: DemoArgs) -> Result<()> {
    let time = Utc::now();
    let loaded = Loaded::open(&loaded::find(args.checkpoint.as_deref())?, args.loading.options())?;
    let folder = RunFolder::create(&args.out.clone().unwrap_or_else(|| Path::new("runs").join(time.folder_name())))?;
    let mut show = Show::begin(&args, &loaded, folder.path(), time)?;
    let seconds = show.play_all(&args)?;
    let Show { traces, driver, state_bytes, log, .. } = show;
    log.finish()?;
    let figures = measure(&loaded, &Ended { traces: &traces, driver: &driver, state_bytes, seconds });
    let page = demonstration_page(&Demonstration {
        time,
        command: &command_line(),
        figures: &figures,
        latency: driver.latency(),
        traces: &traces,
        image_size: loaded.image_size().0,
        policy: &loaded.description(),
    });
    let json = serde_json::to_string_pretty(&figures)? + "\n";
    folder.write("report.html", page.as_bytes())?;
    folder.write("figures.json", json.as_bytes())?;
    if let Some(path) = &args.json {
        write_atomically(path, json.as_bytes())?;
    }
    print_outcome(&figures, &traces)?;
    output::print(format!("report: {}", folder.commit()?.join("report.html").display()))?;
    // The report of the episodes that were complete is there, but not all that was asked for.
    interrupt::check()
}

/// The demonstration while it runs.
struct Show {
    environment: Tabletop,
    /// The same world in larger images: a pure function of scenario and actions.
    stage: Tabletop,
    driver: Driver,
    scenarios: Vec<Scenario>,
    instruction: Option<String>,
    log: McapLog,
    traces: Vec<Trace>,
    state_bytes: StateBytes,
}

impl Show {
    fn begin(args: &DemoArgs, loaded: &Loaded, folder: &Path, time: Utc) -> Result<Self> {
        let (height, width) = loaded.image_size();
        let environment = Tabletop::new(height, width)?;
        let session = args.execution.queue(loaded.session()?);
        let guard = DeadlineGuard::new(session, Duration::from_secs_f64(DEADLINE_MS / 1e3));
        let log = McapLog::create(&folder.join("episodes.mcap"), environment.features(), time.unix_ns())?;
        Ok(Self {
            environment,
            stage: Tabletop::new(STILL_SIZE, STILL_SIZE)?,
            driver: guard,
            scenarios: scenarios(args)?,
            instruction: args.instruction.clone(),
            log,
            traces: Vec::new(),
            state_bytes: StateBytes::default(),
        })
    }

    /// Plays all episodes and returns the time that it took in seconds. After Ctrl-C those that are complete remain.
    fn play_all(&mut self, args: &DemoArgs) -> Result<f64> {
        let progress = Progress::start("demo", self.scenarios.len(), "episodes");
        let started = Instant::now();
        let pace = if args.realtime { Duration::from_secs(1) / FPS } else { Duration::ZERO };
        for scenario in self.scenarios.clone() {
            match self.play(&scenario, &progress, pace) {
                Err(error) if error.is::<Interrupted>() => break,
                trace => self.traces.push(trace?),
            }
            progress.advance(self.standing(&scenario));
        }
        progress.finish();
        if self.traces.is_empty() {
            interrupt::check().and(Err(anyhow!("no episode was played")))
        } else {
            Ok(started.elapsed().as_secs_f64())
        }
    }

    fn play(&mut self, scenario: &Scenario, progress: &Progress, pace: Duration) -> Result<Trace> {
        let standing = self.standing(scenario);
        let understood = self.reset(scenario)?;
        let Self { environment, stage, driver, log, state_bytes, .. } = self;
        let mut tracer = Tracer::default();
        log.episode(&environment.episode())?;
        let mut next_step = Instant::now();
        let played = play(environment, driver, |driver, step| {
            interrupt::check()?;
            state_bytes.observe(driver.inner().inner().state().bytes());
            log.step(&step)?;
            if tracer.wants_image() {
                tracer.image(&stage.look().images[0].1)?;
            }
            tracer.step(&step);
            stage.step(step.action())?;
            if driver.latency().len().is_multiple_of(STEPS_PER_UPDATE) {
                progress.say(standing.clone());
            }
            next_step += pace;
            thread::sleep(next_step.saturating_duration_since(Instant::now()));
            anyhow::Ok(())
        })?;
        let is_scored = understood != Some(Instructed::NotUnderstood);
        if !is_scored {
            progress.note(&format!(
                "scene {}: nobody can tell whether that was done; on the table are {}",
                scenario.seed,
                environment.description()
            ));
        }
        let names = &environment.features().action.names;
        let trace = tracer.finish(EpisodeRecord::from(&played), names, &stage.look().images[0].1)?;
        Ok(Trace { is_scored, ..trace })
    }

    /// Starts an episode, on the stage as well, with another task if the user gave an instruction.
    fn reset(&mut self, scenario: &Scenario) -> Result<Option<Instructed>> {
        self.environment.reset(scenario)?;
        self.stage.reset(scenario)?;
        let Some(text) = &self.instruction else { return Ok(None) };
        self.stage.instruct(text);
        Ok(Some(self.environment.instruct(text)))
    }

    /// What the live progress says while the episode of `scenario` runs.
    fn standing(&self, scenario: &Scenario) -> String {
        let rate = overall(&scores(&scored(&self.traces)));
        let rate_hz = self.driver.latency().rate_hz();
        format!("{:<10}  {} of {} solved  {rate_hz:.0} Hz", scenario.family.name(), rate.k, rate.n)
    }
}

fn scored(traces: &[Trace]) -> Vec<EpisodeRecord> {
    traces.iter().filter(|trace| trace.is_scored).map(|trace| trace.record.clone()).collect()
}

/// The scenes: families in turn, each with consecutive seeds.
fn scenarios(args: &DemoArgs) -> Result<Vec<Scenario>> {
    let own_words = args.instruction.is_some();
    let episodes = args.episodes.map_or(if own_words { 1 } else { EPISODES }, usize::from);
    let families = match args.task {
        Some(family) => vec![family],
        None if own_words => vec![Family::PickPlace],
        None => FAMILIES.to_vec(),
    };
    let scenario = |i: usize| {
        let seed = args.seed.checked_add((i / families.len()) as u64).context("--seed is too large")?;
        Ok(Scenario::heldout(families[i % families.len()], seed))
    };
    (0..episodes).map(scenario).collect()
}

/// A demonstration that has ended.
struct Ended<'a> {
    traces: &'a [Trace],
    driver: &'a Driver,
    state_bytes: StateBytes,
    /// Time of the whole loop.
    seconds: f64,
}

fn measure(loaded: &Loaded, show: &Ended) -> Figures {
    let latency = show.driver.latency();
    Figures {
        tasks: scores(&scored(show.traces)),
        latency: Latency::of(latency),
        control_rate_hz: latency.rate_hz(),
        loop_rate_hz: latency.len() as f64 / show.seconds.max(1e-9),
        deadline_misses: show.driver.misses(),
        deadline_ms: DEADLINE_MS,
        steps: latency.len(),
        state_bytes: show.state_bytes,
        peak_rss_mb: peak_rss_mb(),
        machine: machine::this(),
        checkpoint: loaded.path().display().to_string(),
        precision: loaded.format().to_string(),
        episodes: show.traces.iter().map(|trace| trace.record.clone()).collect(),
    }
}

fn print_outcome(figures: &Figures, traces: &[Trace]) -> Result<()> {
    let mut table = Table::new(["task", "episodes", "solved", "rate [95 % interval]", "mean steps"]);
    for score in &figures.tasks {
        let (rate, steps) = (score.rate, format!("{:.0}", score.mean_steps));
        table.row([score.task.clone(), rate.n.to_string(), rate.k.to_string(), rate.to_string(), steps]);
    }
    let all = overall(&figures.tasks);
    table.row(["all".into(), all.n.to_string(), all.k.to_string(), all.to_string(), String::new()]);
    if all.n > 0 {
        output::print(&table)?;
    }
    for trace in traces.iter().filter(|trace| !trace.is_scored) {
        let EpisodeRecord { instruction, task, seed, steps, .. } = &trace.record;
        output::print(format!(
            "\"{instruction}\": not scored, because its words do not fit the scene ({task} {seed}, {steps} steps)"
        ))?;
    }
    output::print(measurements(figures))
}

fn measurements(figures: &Figures) -> Table {
    let latency = figures.latency;
    let mut table = Table::new(["measured", ""]);
    let memory = figures.peak_rss_mb.map_or("n/a".into(), |mb| format!("{mb:.0} MB"));
    table.row([
        "control latency p50, p95, p99",
        &format!("{:.2}, {:.2}, {:.2} ms", latency.p50_ms, latency.p95_ms, latency.p99_ms),
    ]);
    table.row(["control rate", &format!("{:.0} Hz", figures.control_rate_hz)]);
    table.row(["deadline misses at 30 Hz", &format!("{} of {} steps", figures.deadline_misses, figures.steps)]);
    table.row([
        "state at the first and last step",
        &format!("{}, {} bytes", figures.state_bytes.first, figures.state_bytes.last),
    ]);
    table.row(["peak memory", &memory]);
    table
}

fn command_line() -> String {
    let quoted = |arg: String| if arg.contains([' ', '"', '\'']) { format!("{arg:?}") } else { arg };
    ["robomamba".into()].into_iter().chain(std::env::args().skip(1).map(quoted)).collect::<Vec<_>>().join(" ")
}
