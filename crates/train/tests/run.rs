//! Whole runs on a tiny recording.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use robomamba_data::{DType, DatasetWriter, Feature, Features, Frame, Value, WriterConfig};
use robomamba_model::{Checkpoint, Preset};
use robomamba_policy::Image;
use robomamba_runtime::Format;
use robomamba_train::{
    Backbone, LossConfig, Metrics, Progress, RunOptions, RunStart, TokenConfig, TrainConfig, TrainError, run,
};
use sha2::{Digest, Sha256};

const SIZE: usize = 32;
/// Kind of a square.
const KIND: f32 = 5.0;

/// Records episodes in which a bright square moves and the action is the way to the centre.
fn record(target: &Path, episodes: usize, camera: &str) {
    record_things(target, episodes, camera, |[x, y], colour| [x, y, KIND, colour]);
}

/// The same; `thing` says what is recorded of the square from its middle and its colour.
fn record_things(target: &Path, episodes: usize, camera: &str, thing: impl Fn([f32; 2], f32) -> [f32; 4]) {
    let [grounding, things] = [".grounding.", ".things."].map(|knowledge| camera.replace(".images.", knowledge));
    let features = Features::default()
        .with(camera, Feature::image(SIZE, SIZE))
        .with(&grounding, Feature::vector(["square_x", "square_y"]))
        .with(&things, Feature::vector(["square_x", "square_y", "square_kind", "square_colour"]))
        .with("observation.state", Feature::vector(["x_m", "y_m"]))
        .with("observation.environment_state", Feature::vector(["distance_m"]))
        .with("action", Feature::vector(["dx", "dy"]))
        .with("next.success", Feature::scalar(DType::Bool))
        .with("is_demonstration", Feature::scalar(DType::Bool));
    let recipe = serde_json::json!({});
    let config = WriterConfig { features, fps: 20, robot_type: "square".into(), episodes, recipe };
    let writer = DatasetWriter::create(target, config).unwrap();
    for index in 0..episodes {
        let mut episode = writer.episode(index).unwrap();
        let length = 8 + 3 * index;
        for frame in 0..length {
            let (row, column) = ((index * 5) % 20, frame / 2);
            let [x, y] = [column as f32 / 10.0 - 0.8, row as f32 / 10.0 - 0.8];
            let centre = [column, row].map(|from| (from as f32 + 3.0) / SIZE as f32);
            let values = [
                (camera, Value::Image(&square(row, column))),
                (grounding.as_str(), Value::F32(&centre)),
                (things.as_str(), Value::F32(&thing(centre, (index % 2) as f32))),
                ("observation.state", Value::F32(&[x, y])),
                ("observation.environment_state", Value::F32(&[x.hypot(y)])),
                ("action", Value::F32(&[-x, -y])),
                ("next.success", Value::Bool(frame + 1 == length && index % 3 != 0)),
                ("is_demonstration", Value::Bool(index % 3 != 0)),
            ];
            episode.add_frame(&Frame { task: ["to the middle", "go"][index % 2], values: &values }).unwrap();
        }
        episode.save().unwrap();
    }
    writer.finalize().unwrap();
}

fn square(row: usize, column: usize) -> Image {
    let mut image = Image::black(SIZE, SIZE);
    for (i, pixel) in image.data_mut().chunks_exact_mut(3).enumerate() {
        let inside = (row..row + 6).contains(&(i / SIZE)) && (column..column + 6).contains(&(i % SIZE));
        pixel.fill(if inside { 255 } else { 20 });
    }
    image
}

/// A run of `steps` steps; segments of at most 6 steps, so that states are carried.
fn config(dir: &Path, out: &str, steps: u64) -> TrainConfig {
    let text = format!(
        r#"
        out = "{out}"
        seed = 3
        preset = "small"
        [[data]]
        path = "{data}"
        [batch]
        max_frames = 24
        max_steps = 40
        max_seq_len = 6
        noise_probability = 0.2
        [loss]
        auxiliary = 0.2
        [optimiser]
        learning_rate = 3e-3
        [schedule]
        kind = "steps"
        steps = {steps}
        warmup = 5
        [augment]
        contrast = 0.05
        shift_px = 1
        [output]
        checkpoint_every = 5
        log_every = 1
        keep = 0
        "#,
        out = dir.join(out).display(),
        data = dir.join("data").display(),
    );
    let mut config: TrainConfig = toml::from_str(&text).unwrap();
    config.preset = Preset::Nano;
    config
}

/// Folder of the policy that the run `out` left.
fn policy(dir: &Path, out: &str) -> PathBuf {
    dir.join(out).join("checkpoints/last/pretrained_model")
}

/// A run of `steps` steps that goes on from the policy of the run `first`, with the encoders and the connector frozen.
fn on_frozen_encoders(dir: &Path, out: &str, steps: u64, first: &str) -> TrainConfig {
    let mut config = config(dir, out, steps);
    config.initial_checkpoint = Some(policy(dir, first));
    config.frozen = ["vision", "text", "connector"].map(String::from).into();
    config.augment = robomamba_train::AugmentConfig::default();
    config
}

/// The policy of such a run of 3 steps.
fn trained(dir: &Path, out: &str, first: &str, change: impl FnOnce(&mut TrainConfig)) -> Checkpoint {
    let mut config = on_frozen_encoders(dir, out, 3, first);
    change(&mut config);
    train(&config);
    Checkpoint::load(&policy(dir, out)).unwrap()
}

fn train(config: &TrainConfig) -> Vec<Metrics> {
    run(config, &RunOptions { progress: Progress::Silent, ..RunOptions::default() }).unwrap();
    let log = fs::read_to_string(config.out.join("metrics.jsonl")).unwrap();
    log.lines().filter(|line| !line.starts_with("{\"run\":")).map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The headers of a log.
fn starts(config: &TrainConfig) -> Vec<RunStart> {
    let log = fs::read_to_string(config.out.join("metrics.jsonl")).unwrap();
    let run = |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap().get("run").cloned();
    log.lines().filter_map(run).map(|run| serde_json::from_value(run).unwrap()).collect()
}

/// What was learnt, without the clock.
fn curve(metrics: &[Metrics]) -> Vec<(u64, String)> {
    metrics.iter().map(|m| (m.step, format!("{:?} {}", m.losses, m.learning_rate))).collect()
}

#[test]
fn a_killed_run_continues_the_same_curve() {
    let dir = tempfile::tempdir().unwrap();
    record(&dir.path().join("data"), 5, "observation.images.top");
    let whole = train(&config(dir.path(), "whole", 14));
    assert_eq!(whole.len(), 14);

    // What kill -9 in step 9 leaves behind: the checkpoint of step 5, a log that is further, a half-written checkpoint.
    let killed = dir.path().join("killed");
    let checkpoints = killed.join("checkpoints");
    copy(&dir.path().join("whole/checkpoints/000005"), &checkpoints.join("000005"));
    fs::create_dir_all(checkpoints.join(".000010.partial/training_state")).unwrap();
    std::os::unix::fs::symlink("000005", checkpoints.join("last")).unwrap();
    let log = fs::read_to_string(dir.path().join("whole/metrics.jsonl")).unwrap();
    // A header and seven steps.
    let first_lines: Vec<_> = log.lines().take(8).collect();
    fs::write(killed.join("metrics.jsonl"), first_lines.join("\n") + "\n{\"step\":9,\"tot").unwrap();

    let continued = train(&config(dir.path(), "killed", 14));
    assert_eq!(curve(&continued), curve(&whole));
    let headers = starts(&config(dir.path(), "killed", 14));
    assert_eq!(headers.iter().map(|start| start.from_step).collect::<Vec<_>>(), [0, 5]);
    assert_eq!((headers[1].data.len(), headers[1].episodes, headers[1].vision_threads), (1, 5, 2));
    let kernels = robomamba_kernels::KernelChoice::current().to_string();
    assert_eq!((&headers[1].kernels, headers[1].precision), (&kernels, robomamba_train::Precision::F32));
    let weights = |out: &str| {
        let last = dir.path().join(out).join("checkpoints/last/pretrained_model");
        Checkpoint::load(&last).unwrap().weights
    };
    assert!(weights("whole") == weights("killed"), "the exported weights differ");
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[test]
fn a_tiny_set_is_learnt_by_heart() {
    let dir = tempfile::tempdir().unwrap();
    record(&dir.path().join("data"), 4, "observation.images.top");
    // A head with several modes needs longer: it also learns which mode is the right one.
    let cases = [("mamba", "mamba", 1, 150), ("transformer", "transformer", 1, 150), ("modes", "mamba", 3, 300)];
    for (name, backbone, n_mode, steps) in cases {
        let mut config = config(dir.path(), name, steps);
        config.backbone = serde_json::from_value(backbone.into()).unwrap();
        config.n_mode = Some(n_mode);
        config.augment = Default::default();
        config.batch.noise_probability = 0.0;
        config.batch.max_seq_len = 64;
        config.output.checkpoint_every = 1000;
        let metrics = train(&config);
        let mean = |part: &[Metrics]| part.iter().map(|m| m.losses.action).sum::<f32>() / part.len() as f32;
        let (first, last) = (mean(&metrics[..5]), mean(&metrics[steps as usize - 10..]));
        assert!(last < 0.2 * first, "{name}: action loss {first} -> {last}");
        let svg = fs::read_to_string(config.out.join("loss.svg")).unwrap();
        assert!(svg.contains("<polyline") && svg.ends_with("</svg>\n"));
    }
}

#[test]
fn fine_tuning_starts_from_the_checkpoint() {
    let dir = tempfile::tempdir().unwrap();
    record(&dir.path().join("data"), 3, "observation.images.top");
    let first = config(dir.path(), "first", 6);
    train(&first);
    let mut second = config(dir.path(), "second", 1);
    second.optimiser.learning_rate = 1e-12;
    second.initial_checkpoint = Some(first.out.join("checkpoints/last/pretrained_model"));
    train(&second);
    let load = |config: &TrainConfig| Checkpoint::load(&config.out.join("checkpoints/last/pretrained_model")).unwrap();
    let (a, b) = (load(&first), load(&second));
    assert_eq!(a.stats, b.stats);
    for ((name, x), (_, y)) in a.weights.iter().zip(b.weights.iter()) {
        let worst = x.data.iter().zip(&y.data).map(|(x, y)| (x - y).abs()).fold(0.0, f32::max);
        assert!(worst < 1e-6, "{name} moved by {worst}");
    }
}

#[test]
fn a_run_is_not_resumed_with_another_size() {
    let dir = tempfile::tempdir().unwrap();
    record(&dir.path().join("data"), 2, "observation.images.top");
    let mut config = config(dir.path(), "run", 2);
    config.output.checkpoint_every = 1;
    train(&config);
    let options = RunOptions { progress: Progress::Silent, ..RunOptions::default() };
    config.preset = Preset::Tabletop;
    let sizes = ["`model.action_head.chunk_size` is 4 in the checkpoint and 8 in the configuration", "`out`"];
    assert_error(run(&config, &options), &sizes);
    (config.preset, config.backbone) = (Preset::Nano, Backbone::Transformer);
    assert_error(run(&config, &options), &["`model.backbone.", "in the checkpoint", "in the configuration"]);
}

#[test]
fn mistakes_are_named() {
    let dir = tempfile::tempdir().unwrap();
    record(&dir.path().join("data"), 2, "observation.images.top");
    record(&dir.path().join("other"), 2, "observation.images.side");
    let good = config(dir.path(), "out", 1);

    let path = dir.path().join("config.toml");
    let text = toml::to_string(&good).unwrap();
    fs::write(&path, text.replace("max_frames", "max_frame")).unwrap();
    assert_error(TrainConfig::load(&path), &["config.toml", "max_frame", "max_frames"]);
    fs::write(&path, text.replace("max_steps = 40", "max_steps = 0")).unwrap();
    assert_error(TrainConfig::load(&path), &["batch.max_steps", "at least 1", "found 0"]);
    fs::write(&path, text.replace("format = \"f32\"", "format = \"int4\"")).unwrap();
    assert_error(TrainConfig::load(&path), &["config.toml", "int4", "f32, bf16"]);
    assert_error(
        TrainConfig::load(&dir.path().join("nowhere.toml")),
        &["cannot read", "nowhere.toml", "check the path"],
    );

    let fails = |change: &dyn Fn(&mut TrainConfig), expected: &[&str]| {
        let mut config = good.clone();
        change(&mut config);
        assert_error(run(&config, &RunOptions { progress: Progress::Silent, ..RunOptions::default() }), expected);
        assert!(!config.out.exists(), "nothing may be left behind");
    };
    fails(&|config| config.data[0].path = dir.path().join("gone"), &["gone"]);
    fails(
        &|config| {
            let mut other = config.data[0].clone();
            other.path = dir.path().join("other");
            config.data.push(other);
        },
        &["other", "observation.images.side", "observation.images.top"],
    );
    fails(&|config| config.loss.set_weight("pointing", -1.0).unwrap(), &["loss.pointing", "at least 0", "-1"]);
    fails(&|config| config.loss.action_beta = f32::NAN, &["loss.action_beta", "NaN"]);
    let quantile = |name: &str, value| [(name.to_string(), value)].into();
    fails(&|config| config.loss.action_quantiles = quantile("dx", 1.0), &["loss.action_quantiles", "between 0 and 1"]);
    fails(&|config| config.loss.action_quantiles = quantile("jaw", 0.6), &["loss.action_quantiles", "jaw", "dx"]);
    fails(&|config| config.n_mode = Some(0), &["n_mode", "at least 1", "0"]);
    fails(&|config| config.loss.mode_temperature = 0.0, &["loss.mode_temperature", "positive", "0"]);
    fails(&|config| config.tokenizer = Some(dir.path().join("none.json")), &["none.json"]);
    fails(&|config| config.initial_checkpoint = Some(dir.path().join("none")), &["none"]);
}

fn assert_error<T: std::fmt::Debug>(result: Result<T, TrainError>, expected: &[&str]) {
    let message = result.expect_err("this must not work").to_string();
    for part in expected {
        assert!(message.contains(part), "`{part}` is missing in: {message}");
    }
}

/// Gives these auxiliary objectives a weight of 1.
fn weigh(loss: &mut LossConfig, names: &[&str]) {
    names.iter().for_each(|name| loss.set_weight(name, 1.0).unwrap());
}

/// Loss of an auxiliary objective.
fn of(metrics: &Metrics, name: &str) -> f32 {
    metrics.losses.objective(name).unwrap()
}

/// Learns from windows of two steps of moving squares what `weigh` gives a weight to.
fn learn(dir: &Path, steps: u64, weigh: impl Fn(&mut LossConfig)) -> Vec<Metrics> {
    record(&dir.join("data"), 8, "observation.images.top");
    let mut config = config(dir, "run", steps);
    config.data[0].window = Some(2);
    weigh(&mut config.loss);
    let metrics = train(&config);
    let weights = Checkpoint::load(&config.out.join("checkpoints/last/pretrained_model")).unwrap().weights;
    for head in ["auxiliary", "recognition", "pointing", "naming"] {
        assert!(weights.get(&format!("{head}.weight")).is_err(), "a head of training is not exported");
    }
    metrics
}

#[test]
fn a_query_learns_to_look_at_the_square() {
    let dir = tempfile::tempdir().unwrap();
    let metrics = learn(dir.path(), 120, |loss| weigh(loss, &["grounding"]));
    let (first, last) = (of(&metrics[0], "grounding"), of(&metrics[119], "grounding"));
    // All 16 patches and 5 words alike cost ln 21 = 3.0; the mean entropy of the shares is the floor.
    assert!(first > 2.5 && last < 1.8, "cross-entropy {first} -> {last}");
}

#[test]
fn a_token_learns_to_tell_where_the_square_is() {
    let dir = tempfile::tempdir().unwrap();
    let metrics = learn(dir.path(), 240, |loss| weigh(loss, &["pointing"]));
    let mean = |metrics: &[Metrics]| metrics.iter().map(|m| of(m, "pointing")).sum::<f32>() / metrics.len() as f32;
    let (first, last) = (mean(&metrics[..10]), mean(&metrics[230..]));
    // Without looking, the best guess costs 0.22.
    assert!(first > 0.3 && last < 0.12, "{first} -> {last}");
}

#[test]
fn a_token_learns_to_tell_the_colour_of_the_square() {
    let dir = tempfile::tempdir().unwrap();
    let metrics = learn(dir.path(), 240, |loss| weigh(loss, &["naming"]));
    let (first, last) = (of(&metrics[0], "naming"), of(&metrics[239], "naming"));
    // Two of eight colours occur, and the row tells which. Without knowledge each costs ln 2; the best guess without
    // looking costs ln 2 for two of them.
    assert!((first - 2f32.ln()).abs() < 0.05 && last < 0.5 * 2f32.ln() / 4.0, "{first} -> {last}");
}

#[test]
fn a_place_without_a_thing_has_no_colour_to_tell() {
    type Things = fn([f32; 2], f32) -> [f32; 4];
    let things: [Things; 2] = [|_, _| [-1.0; 4], |[x, y], colour| [1.0 - x, y + 0.1, KIND, colour]];
    for thing in things {
        let dir = tempfile::tempdir().unwrap();
        record_things(&dir.path().join("data"), 4, "observation.images.top", thing);
        let mut config = config(dir.path(), "run", 2);
        weigh(&mut config.loss, &["naming"]);
        assert!(train(&config).iter().all(|metrics| of(metrics, "naming") == 0.0 && metrics.losses.total.is_finite()));
    }
}

#[test]
fn a_place_without_a_thing_does_not_dilute_the_others() {
    let dir = tempfile::tempdir().unwrap();
    let every_second = |[x, y]: [f32; 2], colour| if colour == 0.0 { [x, y, KIND, colour] } else { [-1.0; 4] };
    record_things(&dir.path().join("data"), 8, "observation.images.top", every_second);
    let mut config = config(dir.path(), "run", 1);
    config.data[0].window = Some(2);
    weigh(&mut config.loss, &["naming"]);
    // A mean over what is there: nothing known costs ln 2, where one over all places would give about half of that.
    let naming = of(&train(&config)[0], "naming");
    assert!((naming - 2f32.ln()).abs() < 0.05, "{naming}");
}

#[test]
fn the_patches_learn_to_tell_the_square() {
    let dir = tempfile::tempdir().unwrap();
    let metrics = learn(dir.path(), 240, |loss| weigh(loss, &["recognition"]));
    let (first, last) = (of(&metrics[0], "recognition"), of(&metrics[239], "recognition"));
    // Eight classes alike cost ln 8. The kind is always the same, but the colour follows from the row: without looking,
    // the best guess of both costs ln 2 / 2 = 0.35. The middle of a patch as the place costs about 0.2 more.
    assert!((0.0..0.45).contains(&(first - 8f32.ln())) && last < 0.2, "{first} -> {last}");
}

#[test]
fn heads_of_training_go_on_in_the_next_run() {
    let dir = tempfile::tempdir().unwrap();
    let losses = |metrics: &Metrics| ["auxiliary", "recognition", "pointing", "naming"].map(|name| of(metrics, name));
    let heads = ["recognition", "pointing", "naming"];
    let first = learn(dir.path(), 240, |loss| weigh(loss, &heads));
    let mut next = config(dir.path(), "next", 1);
    next.data[0].window = Some(2);
    next.initial_checkpoint = Some(dir.path().join("run/checkpoints/last/pretrained_model"));
    weigh(&mut next.loss, &heads);
    let with_heads = losses(&train(&next)[0]);
    // The same policy alone, as after a download.
    let alone = dir.path().join("alone");
    copy(&dir.path().join("run/checkpoints/last/pretrained_model"), &alone);
    (next.out, next.initial_checkpoint) = (dir.path().join("anew"), Some(alone));
    let anew = losses(&train(&next)[0]);
    for ((kept, anew), begun) in with_heads.iter().zip(anew).zip(losses(&first[0])) {
        assert!(*kept < 0.8 * anew && *kept < 0.8 * begun, "{kept} kept, {anew} anew, {begun} at first");
    }
}

#[test]
fn what_has_no_weight_is_not_learnt() {
    let dir = tempfile::tempdir().unwrap();
    let losses = |metrics: &Metrics| ["grounding", "pointing", "naming", "recognition"].map(|name| of(metrics, name));
    assert!(learn(dir.path(), 3, |_| ()).iter().all(|metrics| losses(metrics) == [0.0; 4]));
}

#[test]
fn knowledge_that_is_missing_or_unusable_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    record(&dir.path().join("data"), 2, "observation.images.top");
    let column = "observation.things.top";
    let expect = |expected: &[&str]| {
        let mut config = config(dir.path(), "run", 2);
        weigh(&mut config.loss, &["recognition"]);
        assert_error(run(&config, &RunOptions { progress: Progress::Silent, ..RunOptions::default() }), expected);
    };
    let recorded = |things: Feature, values: &[f32]| {
        fs::remove_dir_all(dir.path().join("data")).unwrap();
        let features = Features::default()
            .with("observation.images.top", Feature::image(SIZE, SIZE))
            .with(column, things)
            .with("observation.state", Feature::vector(["x_m", "y_m"]))
            .with("action", Feature::vector(["dx", "dy"]));
        let recipe = serde_json::json!({});
        let config = WriterConfig { features, fps: 20, robot_type: "square".into(), episodes: 1, recipe };
        let writer = DatasetWriter::create(dir.path().join("data"), config).unwrap();
        let mut episode = writer.episode(0).unwrap();
        let values = [
            ("observation.images.top", Value::Image(&square(3, 4))),
            (column, Value::F32(values)),
            ("observation.state", Value::F32(&[0.0, 0.0])),
            ("action", Value::F32(&[0.1, 0.2])),
        ];
        episode.add_frame(&Frame { task: "go", values: &values }).unwrap();
        episode.save().unwrap();
        writer.finalize().unwrap();
    };
    let things = || Feature::vector(["x", "y", "kind", "colour"]);
    let classes = serde_json::json!({"classes": {"kind": ["disc", "square", "cross"], "colour": ["red", "blue"]}});
    let described = || Feature { info: Some(classes.clone()), ..things() };
    recorded(Feature::vector(["x", "y", "kind"]), &[0.5, 0.5, 1.0]);
    expect(&[column, "4 values per place", "found 3"]);
    recorded(described(), &[0.5, 0.5, 1.0, 2.0]);
    expect(&["colours", "whole numbers from 0 to 1", "found 2"]);
    recorded(described(), &[0.5, 0.5, -1.0, 1.0]);
    expect(&["kinds", "whole numbers from 0 to 2", "found -1"]);
    recorded(things(), &[0.5, 0.5, 0.5, 0.0]);
    expect(&["whole numbers from 0 to 7", "found 0.5"]);
    recorded(things(), &[-1.0, -1.0, -1.0, -1.0]);
    for name in ["grounding", "pointing", "naming"] {
        let mut without = config(dir.path(), "run", 2);
        weigh(&mut without.loss, &[name]);
        let options = RunOptions { progress: Progress::Silent, ..RunOptions::default() };
        assert_error(run(&without, &options), &[&format!("loss.{name}"), "observation.grounding"]);
    }
}

#[test]
fn class_counts_are_those_of_the_data() {
    // Nobody has a description: the largest class that occurs tells how many there are, and no fewer than eight.
    for (largest, n_colour) in [(1.0, 8), (7.0, 8), (9.0, 10)] {
        let dir = tempfile::tempdir().unwrap();
        let thing = |[x, y]: [f32; 2], colour| [x, y, KIND, if colour == 0.0 { 0.0 } else { largest }];
        record_things(&dir.path().join("data"), 3, "observation.images.top", thing);
        let mut config = config(dir.path(), "run", 1);
        weigh(&mut config.loss, &["recognition", "naming"]);
        train(&config);
        let state = fs::read(config.out.join("checkpoints/last/training_state/optimizer_state.safetensors")).unwrap();
        let tensors = safetensors::SafeTensors::deserialize(&state).unwrap();
        let len = |name: &str| tensors.tensor(&format!("weight/{name}.bias")).unwrap().shape()[0];
        assert_eq!((len("recognition"), len("naming")), (8 + n_colour + 2, n_colour));
    }
}

#[test]
fn the_committed_configurations_are_valid() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs/tabletop");
    let stages = ["1-frames", "2-driven", "3-together", "4-again", "5-alone", "6-last"];
    for stage in stages {
        let config = TrainConfig::load(&folder.join(stage).with_extension("toml")).unwrap_or_else(|e| panic!("{e}"));
        // This comes from common.toml.
        assert_eq!((config.preset, config.optimiser.clip_norm), (Preset::Tabletop, 1.0), "{stage}");
    }
    let count = fs::read_dir(&folder).unwrap().count();
    assert_eq!(count, stages.len() + 2, "every file is a stage or common to several");
}

/// Writes configuration files and loads the first.
fn load_files(files: &[(&str, &str)]) -> Result<TrainConfig, TrainError> {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    TrainConfig::load(&dir.path().join(files[0].0))
}

#[test]
fn a_configuration_extends_others() {
    let own = "extends = '../common.toml'\nout = 'run'\n[loss]\nauxiliary = 0.7\n[[data]]\npath = 'mine'";
    let common = "extends = 'base/all.toml'\nseed = 5\nfrozen = ['text']\n[loss]\nauxiliary = 0.1\nconfidence = 0.3";
    let all = "out = 'other'\nseed = 1\npreset = 'nano'\nfrozen = ['vision', 'text']\n[[data]]\npath = 'one'\n\
               [[data]]\npath = 'two'\n[schedule]\nkind = 'steps'\nsteps = 3";
    let config = load_files(&[("stages/own.toml", own), ("common.toml", common), ("base/all.toml", all)]).unwrap();
    assert_eq!((config.out.to_str(), config.seed, config.preset), (Some("run"), 5, Preset::Nano));
    let weight = |name| config.loss.weight(name).unwrap();
    assert_eq!((weight("auxiliary"), weight("confidence")), (0.7, 0.3), "tables are merged key by key");
    assert_eq!((config.data.len(), &*config.frozen), (1, &["text".to_string()][..]), "arrays are replaced as a whole");
    // A run stores the resolved configuration.
    assert!(!serde_json::to_string(&config).unwrap().contains("extends"));
}

#[test]
fn mistakes_in_what_is_extended_are_named() {
    let missing = load_files(&[("own.toml", "extends = 'none.toml'")]);
    assert_error(missing, &["none.toml", "cannot be read", "`extends` in", "own.toml"]);
    let circle = [("a.toml", "extends = 'b.toml'"), ("b.toml", "extends = 'c.toml'"), ("c.toml", "extends = 'b.toml'")];
    assert_error(load_files(&circle), &["circle", "b.toml -> ", "c.toml -> "]);
    assert_error(load_files(&[("a.toml", "extends = 'a.toml'")]), &["circle", "a.toml -> "]);
    assert_error(
        load_files(&[("a.toml", "extends = ['b.toml']")]),
        &["a.toml", "`extends` must be the path of a file"],
    );
    let broken = [("a.toml", "extends = 'b.toml'"), ("b.toml", "seed = ")];
    assert_error(load_files(&broken), &["b.toml", "seed ="]);
    let unknown = [("a.toml", "extends = 'b.toml'\nout = 'run'"), ("b.toml", "[batch]\nmax_frame = 3")];
    assert_error(load_files(&unknown), &["a.toml", "max_frame", "max_frames"]);
}

#[test]
fn frozen_encoders_see_every_step_once_and_learn_the_same() {
    let dir = tempfile::tempdir().unwrap();
    record(&dir.path().join("data"), 4, "observation.images.top");
    train(&config(dir.path(), "first", 5));
    let frozen = |out: &str| on_frozen_encoders(dir.path(), out, 12, "first");
    let known = train(&frozen("known"));
    // No softmax depends on the bias of its keys: the same model, but its pictures are encoded again for every batch.
    let checkpoint = Checkpoint::load(&policy(dir.path(), "first")).unwrap();
    let names = robomamba_model::param_specs(&checkpoint.config).into_iter().map(|spec| spec.name);
    let names = names.filter(|name| name.starts_with("connector.") && !name.ends_with("k_proj.bias"));
    let mut again = frozen("again");
    again.frozen = ["vision", "text"].map(String::from).into_iter().chain(names).collect();
    let again = train(&again);
    for (known, again) in known.iter().zip(&again) {
        let (known, again) = (known.losses.total, again.losses.total);
        assert!((known - again).abs() < 1e-4 * known.abs(), "{known} and {again}");
    }

    let mut changed = frozen("changed");
    changed.augment.contrast = 0.1;
    let error = run(&changed, &RunOptions::default()).unwrap_err().to_string();
    assert!(error.contains("augment.contrast") && error.contains("frozen"), "{error}");
    let mut pointing = frozen("pointing");
    weigh(&mut pointing.loss, &["pointing"]);
    let error = run(&pointing, &RunOptions::default()).unwrap_err().to_string();
    assert!(error.contains("loss.pointing") && error.contains("frozen"), "{error}");
}

#[test]
fn known_tokens_are_kept_for_the_next_run() {
    let dir = tempfile::tempdir().unwrap();
    record(&dir.path().join("data"), 4, "observation.images.top");
    train(&config(dir.path(), "first", 5));
    let kept = dir.path().join("tokens");
    let learn = |out: &str, format: Format| {
        let mut config = on_frozen_encoders(dir.path(), out, 6, "first");
        config.tokens = TokenConfig { format, dir: Some(kept.clone()) };
        curve(&train(&config))
    };
    let files = || -> Vec<_> {
        let mut files: Vec<_> = fs::read_dir(&kept).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        files
    };
    let made = learn("made", Format::F32);
    let [file] = files().try_into().unwrap();
    let bytes = fs::read(&file).unwrap();
    assert_eq!(learn("kept", Format::F32), made);

    // A file that is damaged is made anew.
    let mut flipped = bytes.clone();
    flipped[bytes.len() - 1] ^= 0x41;
    for (out, damaged) in [("truncated", &bytes[..bytes.len() / 2]), ("flipped", &flipped)] {
        fs::write(&file, damaged).unwrap();
        assert_eq!(learn(out, Format::F32), made);
        assert!(fs::read(&file).unwrap() == bytes, "{out}: the file was not made anew");
    }
    // A sound one is what is learnt from.
    let mut other = safetensors::SafeTensors::deserialize(&bytes).unwrap().tensor("tokens").unwrap().data().to_vec();
    other.fill(0);
    let view = safetensors::tensor::TensorView::new(safetensors::Dtype::F32, vec![other.len() / 4 / 48, 48], &other);
    let sum: String = Sha256::digest(&other).iter().map(|byte| format!("{byte:02x}")).collect();
    let header = Some([("sha256".to_string(), sum)].into());
    fs::write(&file, safetensors::serialize([("tokens", view.unwrap())], header).unwrap()).unwrap();
    assert_ne!(learn("other", Format::F32), made);

    // Another format or other data has another name.
    assert_ne!(learn("int8", Format::Int8), made);
    assert_eq!(files().len(), 2);
    fs::remove_dir_all(dir.path().join("data")).unwrap();
    record(&dir.path().join("data"), 5, "observation.images.top");
    learn("more", Format::F32);
    assert_eq!(files().len(), 3);

    // Whoever asks to stop need not wait until everything is encoded.
    let mut stopped = on_frozen_encoders(dir.path(), "stopped", 6, "first");
    stopped.tokens.dir = Some(dir.path().join("none"));
    let options = RunOptions { progress: Progress::Silent, ..RunOptions::default() };
    options.stop.store(true, Ordering::Relaxed);
    assert_error(run(&stopped, &options), &["data", "encoded", "same command"]);
    assert!(!dir.path().join("none").exists() && !stopped.out.exists(), "nothing may be left behind");
}

#[test]
fn another_backbone_starts_on_trained_encoders() {
    let dir = tempfile::tempdir().unwrap();
    record(&dir.path().join("data"), 4, "observation.images.top");
    train(&config(dir.path(), "mamba", 5));
    let from = |out: &str, first: &str, backbone| trained(dir.path(), out, first, |config| config.backbone = backbone);
    let mamba = Checkpoint::load(&policy(dir.path(), "mamba")).unwrap();
    let transformer = from("transformer", "mamba", Backbone::Transformer);
    let back = from("back", "transformer", Backbone::Mamba);
    assert!(matches!(transformer.config.backbone, robomamba_model::BackboneConfig::Transformer(_)));
    assert_eq!(back.config.backbone, mamba.config.backbone);
    let name = "vision.embeddings.patch_embeddings.projection.weight";
    for checkpoint in [&transformer, &back] {
        assert_eq!(checkpoint.weights.get(name).unwrap(), mamba.weights.get(name).unwrap());
    }
    let name = "backbone.layers.0.mixer.in_proj.weight";
    assert_ne!(back.weights.get(name).unwrap(), mamba.weights.get(name).unwrap());
}

#[test]
fn a_head_that_chooses_starts_on_a_trained_policy() {
    let dir = tempfile::tempdir().unwrap();
    record(&dir.path().join("data"), 4, "observation.images.top");
    train(&config(dir.path(), "one", 5));
    let from = |out: &str, first: &str, n_mode| {
        trained(dir.path(), out, first, |config| {
            config.optimiser.learning_rate = 1e-12;
            config.n_mode = n_mode;
        })
    };
    let one = Checkpoint::load(&policy(dir.path(), "one")).unwrap();
    let (three, again) = (from("three", "one", Some(3)), from("again", "three", None));
    let shape = |checkpoint: &Checkpoint, name: &str| checkpoint.weights.shape(name).unwrap().to_vec();
    let (logits, chunks) = ("head.action.mode.weight", "head.action.fc3.weight");
    assert_eq!(shape(&three, logits)[0], 3);
    assert_eq!(shape(&three, chunks)[0], 3 * shape(&one, chunks)[0]);
    let moved = |a: &Checkpoint, b: &Checkpoint, name: &str| {
        let values = a.weights.get(name).unwrap().iter().zip(b.weights.get(name).unwrap());
        values.map(|(x, y)| (x - y).abs()).fold(0.0, f32::max) > 1e-6
    };
    for name in ["backbone.layers.0.mixer.in_proj.weight", "head.action.fc2.weight", "head.confidence.fc1.weight"] {
        assert!(!moved(&one, &three, name), "{name} starts with what was learnt");
    }
    assert!(
        !moved(&three, &again, chunks) && !moved(&three, &again, logits),
        "the modes continue where no other number is configured"
    );
}

#[test]
fn frozen_parts_keep_their_weights() {
    let dir = tempfile::tempdir().unwrap();
    record(&dir.path().join("data"), 4, "observation.images.top");
    train(&config(dir.path(), "first", 5));
    let first = dir.path().join("first/checkpoints/last/pretrained_model");
    let mut second = config(dir.path(), "second", 5);
    second.initial_checkpoint = Some(first.clone());
    second.frozen = vec!["vision".into(), "head.action".into()];
    train(&second);
    let before = Checkpoint::load(&first).unwrap();
    let after = Checkpoint::load(&second.out.join("checkpoints/last/pretrained_model")).unwrap();
    let same = |name: &str| before.weights.get(name).unwrap() == after.weights.get(name).unwrap();
    for spec in robomamba_model::param_specs(&before.config) {
        let frozen = spec.name.starts_with("vision.") || spec.name.starts_with("head.action.");
        assert!(same(&spec.name) == frozen || spec.name.ends_with("k_proj.bias"), "{}", spec.name);
    }

    second.frozen = vec!["eyes".into()];
    second.out = dir.path().join("third");
    let error = run(&second, &RunOptions::default()).unwrap_err().to_string();
    assert!(error.contains("frozen") && error.contains("`eyes`"), "{error}");
}

fn silent() -> RunOptions {
    RunOptions { progress: Progress::Silent, ..RunOptions::default() }
}

#[test]
fn sizes_of_the_preset_are_changed_by_the_table_model() {
    let dir = tempfile::tempdir().unwrap();
    record(&dir.path().join("data"), 2, "observation.images.top");
    let sized = |out: &str, steps: u64, sizes: &str| {
        let mut config = config(dir.path(), out, steps);
        config.model = toml::from_str(sizes).unwrap();
        config
    };
    let sizes = "[vision]\nimage_size = 16\n[backbone]\nn_layer = 1\n[action_head]\nchunk_size = 2";
    train(&sized("small", 2, sizes));
    let checkpoint = Checkpoint::load(&policy(dir.path(), "small")).unwrap();
    let preset = Preset::Nano.config(checkpoint.config.features.clone());
    assert_eq!(checkpoint.config.vision.image_size, 16);
    assert_eq!(checkpoint.config.action_head.chunk_size, 2);
    assert_eq!(checkpoint.config.vision.hidden_size, preset.vision.hidden_size);
    let recorded: serde_json::Value = serde_json::from_str(&checkpoint.train_config.unwrap()).unwrap();
    assert_eq!(recorded["model"]["backbone"]["n_layer"], 1, "the recorded configuration says the sizes");
    // The same sizes go on, others are refused.
    train(&sized("small", 3, sizes));
    let other = run(&sized("small", 4, "[backbone]\nn_layer = 2"), &silent());
    assert_error(other, &["`model.action_head.chunk_size` is 2 in the checkpoint and 4 in the configuration"]);
    let unknown = run(&sized("new", 1, "[backbone]\nlayers = 2"), &silent());
    assert_error(unknown, &["`model.backbone.layers` must be one of", "n_layer"]);
    let mut fine_tuned = sized("tuned", 1, "[backbone]\nn_layer = 2");
    fine_tuned.initial_checkpoint = Some(policy(dir.path(), "small"));
    assert_error(run(&fine_tuned, &silent()), &["`model`", "initial_checkpoint"]);
}
