//! `demo`: a trained policy at work on held-out scenes, with everything measured.

use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use clap::Args;
use robomamba_policy::{ChunkQueue, DeadlineGuard, DeadlineStats};
use robomamba_runtime::Session;
use robomamba_sim::{Environment, EpisodeResult, FPS, Family, Instructed, Scenario, Tabletop};

use crate::args::{Execution, Loading};
use crate::drive;
use crate::figures::{self, DEADLINE_MS, Figures, Percentiles, StateBytes};
use crate::interrupt::{self, Interrupted};
use crate::loaded::{self, Loaded};
use crate::machine::{Machine, Utc, peak_rss_mb};
use crate::mcap_log::McapLog;
use crate::output;
use crate::progress::Progress;
use crate::report::{self, Report};
use crate::run_folder::{RunFolder, write_atomically};
use crate::table::Table;
use crate::trace::{Trace, Tracer};

/// Families of the shipped checkpoint.
const FAMILIES: [Family; 5] = [Family::Reach, Family::Push, Family::PickPlace, Family::Sequence, Family::Remember];
/// Episodes when the user does not choose.
const EPISODES: usize = 40;
/// Control steps between two updates of the live progress.
const STEPS_PER_UPDATE: usize = 8;
/// Control steps for which room is reserved, so that measuring does not allocate.
const STEPS_RESERVED: usize = 1 << 16;

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
    let stats = driver.stats();
    let figures = measure(&loaded, &traces, stats, state_bytes, seconds);
    let latencies_ms: Vec<f64> = stats.latency_ns.iter().map(|&ns| ns as f64 / 1e6).collect();
    let page = report::html(&Report {
        time,
        command: &command_line(),
        figures: &figures,
        latencies_ms: &latencies_ms,
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
    Ok(())
}

/// The demonstration while it runs.
struct Show {
    environment: Tabletop,
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
        let guard = DeadlineGuard::new(session, Duration::from_secs_f64(DEADLINE_MS / 1e3), STEPS_RESERVED);
        let log = McapLog::create(&folder.join("episodes.mcap"), environment.features(), time.unix_ns)?;
        Ok(Self {
            environment,
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
        let Self { environment, driver, log, state_bytes, instruction, .. } = self;
        environment.reset(scenario)?;
        let understood = instruction.as_deref().map(|text| environment.instruct(text));
        let mut tracer = Tracer::new(scenario, instruction.as_deref())?;
        log.episode(scenario, &environment.observe().instruction)?;
        let mut next_step = Instant::now();
        let result = drive::play(environment, driver, |driver, step| {
            let bytes = driver.inner().inner().state().bytes();
            *state_bytes =
                StateBytes { first: if state_bytes.first == 0 { bytes } else { state_bytes.first }, last: bytes };
            log.step(&step)?;
            tracer.step(&step)?;
            if driver.stats().latency_ns.len().is_multiple_of(STEPS_PER_UPDATE) {
                progress.say(standing.clone());
            }
            next_step += pace;
            thread::sleep(next_step.saturating_duration_since(Instant::now()));
            Ok(())
        })?;
        let is_scored = understood != Some(Instructed::NotUnderstood);
        if !is_scored {
            progress.note(&format!(
                "scene {}: nobody can tell whether that was done; on the table are {}",
                scenario.seed,
                environment.description()
            ));
        }
        Ok(Trace { is_scored, ..tracer.finish(result)? })
    }

    /// What the live progress says while the episode of `scenario` runs.
    fn standing(&self, scenario: &Scenario) -> String {
        let rate = figures::overall(&figures::success(&scored(&self.traces)));
        let stats = self.driver.stats();
        format!("{:<10}  {} of {} solved  {:.0} Hz", scenario.family.name(), rate.k, rate.n, stats.rate_hz())
    }
}

fn scored(traces: &[Trace]) -> Vec<EpisodeResult> {
    traces.iter().filter(|trace| trace.is_scored).map(|trace| trace.result.clone()).collect()
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

fn measure(loaded: &Loaded, traces: &[Trace], stats: &DeadlineStats, state_bytes: StateBytes, seconds: f64) -> Figures {
    let episodes: Vec<EpisodeResult> = traces.iter().map(|trace| trace.result.clone()).collect();
    let success = figures::success(&scored(traces));
    let percentile = |p| stats.percentile_ms(p);
    let steps = stats.latency_ns.len();
    Figures {
        success_interval: success.iter().map(|(&family, rate)| (family, rate.wilson())).collect(),
        success,
        mean_steps: figures::mean_steps(&episodes),
        latency_ms: Percentiles {
            p50: percentile(50.0),
            p95: percentile(95.0),
            p99: percentile(99.0),
            max: percentile(100.0),
        },
        control_rate_hz: stats.rate_hz(),
        loop_rate_hz: steps as f64 / seconds.max(1e-9),
        deadline_misses: stats.misses,
        deadline_ms: DEADLINE_MS,
        steps,
        state_bytes,
        peak_rss_mb: peak_rss_mb(),
        machine: Machine::this(),
        checkpoint: loaded.path().display().to_string(),
        precision: loaded.format().to_string(),
        episodes,
    }
}

fn print_outcome(figures: &Figures, traces: &[Trace]) -> Result<()> {
    let mut table = Table::new(["family", "episodes", "solved", "rate [95 % interval]", "mean steps"]);
    for (family, rate) in &figures.success {
        let steps = format!("{:.0}", figures.mean_steps.get(family).copied().unwrap_or(0.0));
        table.row([family.to_string(), rate.n.to_string(), rate.k.to_string(), rate.to_string(), steps]);
    }
    let all = figures::overall(&figures.success);
    table.row(["all".into(), all.n.to_string(), all.k.to_string(), all.to_string(), String::new()]);
    if all.n > 0 {
        output::print(&table)?;
    }
    for trace in traces.iter().filter(|trace| !trace.is_scored) {
        let result = &trace.result;
        output::print(format!(
            "\"{}\": not scored, because its words do not fit the scene ({} {}, {} steps)",
            result.instruction, result.family, result.seed, result.steps
        ))?;
    }
    output::print(measurements(figures))
}

fn measurements(figures: &Figures) -> Table {
    let latency = figures.latency_ms;
    let mut table = Table::new(["measured", ""]);
    let memory = figures.peak_rss_mb.map_or("n/a".into(), |mb| format!("{mb:.0} MB"));
    table.row([
        "control latency p50, p95, p99",
        &format!("{:.2}, {:.2}, {:.2} ms", latency.p50, latency.p95, latency.p99),
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
