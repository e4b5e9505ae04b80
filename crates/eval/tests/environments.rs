//! Roll-outs and results of environments of different shapes: `tabletop`, and a drawer with two cameras.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use robomamba_eval::{
    EpisodeRecord, McapLog, RecordFile, Recurrent, RecurrentState, Tracer, read_records, records_page, records_table,
    scores, to_json_lines,
};
use robomamba_policy::{
    ActionChunk, CameraSpec, ChunkQueue, DeadlineGuard, Environment, Episode, FeatureSpec, Image, Observation, Outcome,
    Played, Policy, PolicyError, Step, StepOutcome, VectorSpec, play,
};
use robomamba_sim::{Family, Scenario, Tabletop};

/// A drawer on a rail: `pull` moves it, `open` and `close` are its tasks, and pulling too hard breaks it.
struct Drawer {
    features: FeatureSpec,
    observation: Observation,
    task: &'static str,
    steps: usize,
}

/// Steps after which the drawer gives up.
const STEPS_MAX: usize = 12;

impl Drawer {
    fn new(task: &'static str) -> Self {
        let camera =
            |name: &str, height, width| CameraSpec { name: format!("observation.images.{name}"), height, width };
        let cameras = vec![camera("left", 16, 24), camera("inside", 8, 8)];
        let images = cameras.iter().map(|it| (it.name.as_str().into(), Image::black(it.height, it.width))).collect();
        let joints = ["a", "b", "c", "d", "e", "f", "opening_m"];
        Self {
            features: FeatureSpec {
                cameras,
                state: VectorSpec::new(joints),
                action: VectorSpec::new(["pull", "twist"]),
                fps: 10,
            },
            observation: Observation { images, state: vec![0.0; 7], instruction: task.into(), timestamp_ns: 0 },
            task,
            steps: 0,
        }
    }
}

impl Environment for Drawer {
    fn features(&self) -> &FeatureSpec {
        &self.features
    }

    fn episode(&self) -> Episode {
        let suite: Arc<str> = "drawers".into();
        Episode {
            suite: suite.clone(),
            task: self.task.into(),
            robot: suite.clone(),
            scene: suite,
            seed: 3,
            attempt: 1,
            instruction: self.task.into(),
        }
    }

    fn observe(&mut self) -> Result<&Observation, PolicyError> {
        self.observation.timestamp_ns = self.steps as u64 * 100_000_000;
        self.observation.images[1].1.data_mut()[0] = self.steps as u8;
        Ok(&self.observation)
    }

    fn step(&mut self, action: &[f32]) -> Result<StepOutcome, PolicyError> {
        self.features.check_action(action)?;
        self.steps += 1;
        let opening = &mut self.observation.state[6];
        *opening = (*opening + action[0]).max(0.0);
        let (opening, goal) = (*opening, if self.task == "open" { 0.3 } else { 0.0 });
        let outcome = match opening {
            _ if action[0] > 1.0 => Some(Outcome::Failed { reason: "handle_broken".into(), step: self.steps }),
            opening if (opening - goal).abs() < 0.01 => Some(Outcome::Succeeded),
            _ if self.steps == STEPS_MAX => Some(Outcome::TimedOut),
            _ => None,
        };
        Ok(StepOutcome { progress: if goal > 0.0 { (opening / goal).min(1.0) } else { 1.0 }, outcome })
    }
}

/// Counts its calls, in counters that outlive wrappers.
#[derive(Clone, Default)]
struct Calls {
    begun: Arc<AtomicUsize>,
    acted: Arc<AtomicUsize>,
    ended: Arc<AtomicUsize>,
}

/// Always acts alike and keeps the arguments of `end`.
struct Constant {
    features: FeatureSpec,
    action: Vec<f32>,
    calls: Calls,
    end: Option<(Outcome, Observation)>,
}

impl Constant {
    fn new(environment: &impl Environment, action: &[f32]) -> Self {
        let features = environment.features().clone();
        Self { features, action: action.to_vec(), calls: Calls::default(), end: None }
    }
}

fn count(counter: &AtomicUsize) {
    counter.fetch_add(1, Ordering::Relaxed);
}

impl Policy for Constant {
    fn features(&self) -> &FeatureSpec {
        &self.features
    }

    fn begin(&mut self, episode: &Episode) -> Result<(), PolicyError> {
        assert!(!episode.suite.is_empty());
        count(&self.calls.begun);
        Ok(())
    }

    fn act(&mut self, observation: &Observation, chunk: &mut ActionChunk) -> Result<(), PolicyError> {
        self.features.check(observation)?;
        count(&self.calls.acted);
        chunk.set_action(&self.action);
        chunk.success_probability = Some(0.5);
        Ok(())
    }

    fn end(&mut self, outcome: &Outcome, last: &Observation) -> Result<(), PolicyError> {
        count(&self.calls.ended);
        self.end = Some((outcome.clone(), last.clone()));
        Ok(())
    }
}

/// Plays with a log and a tracer, as a demonstration does, whatever the robot is.
fn observed<E: Environment>(environment: &mut E, policy: &mut Constant) -> (Played, usize) {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let path = dir.path().join("episodes.mcap");
    let mut log = McapLog::create(&path, environment.features(), 0).expect("a new file");
    log.episode(&environment.episode()).expect("the file can be written");
    let mut tracer = Tracer::default();
    let played = play(environment, policy, |_, step: Step| {
        if tracer.wants_image() {
            tracer.image(&step.observation.images[0].1).expect("an image with pixels");
        }
        tracer.step(&step);
        log.step(&step).expect("the file can be written");
        Ok::<_, PolicyError>(())
    })
    .expect("the policy fits");
    log.finish().expect("the file can be written");
    let names = environment.features().action.names.clone();
    let last = &environment.observe().expect("it always observes").images[0].1;
    let trace = tracer.finish(EpisodeRecord::from(&played), &names, last).expect("an image with pixels");
    assert_eq!(trace.actions.len(), played.steps * names.len());
    assert_eq!(trace.success_probability.len(), played.steps);
    let bytes = std::fs::read(path).expect("the log is there");
    let messages = mcap::MessageStream::new(&bytes).expect("a whole file");
    let cameras = messages.filter(|message| message.as_ref().expect("sound").channel.topic.starts_with("/camera/"));
    (played, cameras.count())
}

#[test]
fn robots_of_any_shape_are_played_and_logged() {
    let mut drawer = Drawer::new("open");
    let mut policy = Constant::new(&drawer, &[0.1, 0.0]);
    let (played, images) = observed(&mut drawer, &mut policy);
    assert_eq!((&played.outcome, played.steps, played.latency.len()), (&Outcome::Succeeded, 3, 3));
    // The left camera sees the same thing all the time and is written once.
    assert_eq!(images, 1 + 3);
    let (outcome, last) = policy.end.expect("the episode ended");
    assert_eq!(outcome, Outcome::Succeeded);
    assert!((last.state[6] - 0.3).abs() < 1e-6, "the last observation shows the consequence: {:?}", last.state);
    assert_eq!(last.timestamp_ns, 300_000_000);

    let mut tabletop = Tabletop::new(16, 16).expect("a small image");
    tabletop.reset(&Scenario::heldout(Family::Push, 4)).expect("in range");
    let mut policy = Constant::new(&tabletop, &[0.0, 0.0, -1.0]);
    let (played, _) = observed(&mut tabletop, &mut policy);
    assert_eq!(played.outcome, Outcome::TimedOut);
    assert_eq!((&*played.episode.suite, &*played.episode.task, played.episode.seed), ("tabletop", "push", 4));
    assert_eq!(&*played.episode.scene, "heldout/push/4");
}

#[test]
fn every_episode_that_begins_ends_through_every_wrapper() {
    type Wrap = fn(Constant) -> Box<dyn Policy>;
    let wraps: [(&str, Wrap); 4] = [
        ("chunk queue", |policy| Box::new(ChunkQueue::new(policy, 3, 0.1))),
        ("deadline guard", |policy| Box::new(DeadlineGuard::new(policy, std::time::Duration::from_secs(1)))),
        ("carried", |policy| Box::new(Recurrent::new(policy, RecurrentState::Carried))),
        ("box of a queue", |policy| Box::new(Box::new(ChunkQueue::new(policy, 1, 0.0)))),
    ];
    type Case = (&'static str, &'static [f32], Outcome);
    let failed = Outcome::Failed { reason: "handle_broken".into(), step: 1 };
    let cases: [Case; 3] = [
        ("success", &[0.3, 0.0], Outcome::Succeeded),
        ("time-out", &[0.0, 0.0], Outcome::TimedOut),
        ("failure", &[2.0, 0.0], failed),
    ];
    for (wrapper, wrap) in wraps {
        for (case, action, outcome) in &cases {
            let mut drawer = Drawer::new("open");
            let policy = Constant::new(&drawer, action);
            let calls = policy.calls.clone();
            let played = play(&mut drawer, &mut wrap(policy), |_, _| Ok::<_, PolicyError>(())).expect("it fits");
            assert_eq!(played.outcome, *outcome, "{wrapper}, {case}");
            let counts = [&calls.begun, &calls.acted, &calls.ended].map(|count| count.load(Ordering::Relaxed));
            assert_eq!(counts, [1, played.steps, 1], "{wrapper}, {case}");
        }
    }
}

#[test]
fn an_aborted_episode_ends_as_aborted() {
    let stop = |steps: usize| {
        move |_: &Constant, step: Step| {
            if step.observation.timestamp_ns == 100_000_000 * (steps as u64 - 1) {
                Err(PolicyError::EmptyChunk)
            } else {
                Ok(())
            }
        }
    };
    let mut drawer = Drawer::new("open");
    let mut policy = Constant::new(&drawer, &[0.01, 0.0]);
    play(&mut drawer, &mut policy, stop(2)).expect_err("the watcher stops it");
    let (outcome, last) = policy.end.take().expect("the episode ended");
    assert_eq!(outcome, Outcome::Aborted);
    assert_eq!(last.timestamp_ns, 200_000_000, "the consequence of the last action is seen");

    let broken: [&[f32]; 3] = [&[0.1], &[f32::NAN, 0.0], &[]];
    for action in broken {
        let mut policy = Constant::new(&drawer, action);
        let error = play(&mut drawer, &mut policy, |_, _| Ok::<_, PolicyError>(())).expect_err("no usable action");
        let expected = match action {
            [] => "the chunk of actions is empty",
            [_] => "`action` must have 2 values (pull, twist), found 1",
            _ => "`action[0]` (pull) must be finite, found NaN",
        };
        assert!(error.to_string().contains(expected), "{error}");
        assert_eq!(policy.end.expect("the episode ended").0, Outcome::Aborted);
    }
}

#[test]
fn a_stateless_policy_begins_anew_before_every_step() {
    let mut drawer = Drawer::new("open");
    let policy = Constant::new(&drawer, &[0.1, 0.0]);
    let calls = policy.calls.clone();
    let mut policy = Recurrent::new(policy, RecurrentState::ResetAtEveryStep);
    play(&mut drawer, &mut policy, |_, _| Ok::<_, PolicyError>(())).expect("it fits");
    assert_eq!(calls.begun.load(Ordering::Relaxed), 1 + 3);
}

/// Compares records, times to a relative 1e-12: `serde_json` reads numbers to within one unit in the last place.
fn assert_same(found: &[EpisodeRecord], expected: &[EpisodeRecord]) {
    let without_times = |records: &[EpisodeRecord]| -> Vec<EpisodeRecord> {
        records.iter().map(|record| EpisodeRecord { latency: None, ..record.clone() }).collect()
    };
    assert_eq!(without_times(found), without_times(expected));
    let times = |record: &EpisodeRecord| {
        let latency = record.latency.as_ref().expect("play measures it");
        [latency.p50_ms, latency.p95_ms, latency.p99_ms, latency.max_ms]
    };
    for (found, expected) in found.iter().zip(expected) {
        for (found, expected) in times(found).into_iter().zip(times(expected)) {
            assert!((found - expected).abs() <= 1e-12 * expected, "{found} ms read, {expected} ms written");
        }
    }
}

#[test]
fn results_of_both_robots_are_told_in_one_form() {
    let mut records = Vec::new();
    for (task, action) in [("open", [0.1, 0.0]), ("open", [2.0, 0.0]), ("close", [0.1, 0.0])] {
        let mut drawer = Drawer::new(task);
        let mut policy = Constant::new(&drawer, &action);
        let played = play(&mut drawer, &mut policy, |_, _| Ok::<_, PolicyError>(())).expect("it fits");
        records.push(EpisodeRecord::from(&played));
    }
    let mut tabletop = Tabletop::new(8, 8).expect("a small image");
    let mut policy = Constant::new(&tabletop, &[0.0, 0.0, 0.0]);
    let played = play(&mut tabletop, &mut policy, |_, _| Ok::<_, PolicyError>(())).expect("it fits");
    records.push(EpisodeRecord::from(&played));

    let dir = tempfile::tempdir().expect("a temporary folder");
    let path = dir.path().join("records.jsonl");
    std::fs::write(&path, to_json_lines(&records)).expect("the file can be written");
    assert_same(&read_records(&path).expect("what was written"), &records);

    let found: Vec<_> =
        scores(&records).into_iter().map(|score| (score.suite, score.task, score.rate.k, score.rate.n)).collect();
    let expected = [("drawers", "open", 1, 2), ("drawers", "close", 0, 1), ("tabletop", "reach", 0, 1)];
    assert_eq!(found, expected.map(|(suite, task, k, n)| (suite.to_string(), task.to_string(), k, n)));
    let files = [RecordFile { name: "both".into(), records }];
    assert!(records_table(&files).to_string().contains("drawers/open"));
    let page = records_page(&files);
    assert!(page.contains("handle broken") && page.contains("timed out"), "{page}");
}
