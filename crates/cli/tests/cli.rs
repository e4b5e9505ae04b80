//! The binary as users meet it: exit codes, messages, files.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

fn command(dir: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_robomamba"));
    command.current_dir(dir).args(args);
    command
}

fn run(dir: &Path, args: &[&str]) -> Output {
    command(dir, args).output().unwrap()
}

/// Runs a command that must succeed and returns its stdout.
fn ok(dir: &Path, args: &[&str]) -> String {
    let output = run(dir, args);
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Runs a command that must fail with `code`, and returns its stderr.
fn fails(dir: &Path, args: &[&str], code: i32) -> String {
    let output = run(dir, args);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(code), "{args:?}: {stderr}");
    assert!(!stderr.contains("panicked"), "{stderr}");
    stderr
}

fn json(path: PathBuf) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// Every file below `root` with its content.
fn files(root: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let (mut folders, mut files) = (vec![root.to_path_buf()], BTreeMap::new());
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                files.insert(path.strip_prefix(root).unwrap().into(), fs::read(path).unwrap());
            }
        }
    }
    files
}

/// The score of the task `name` in the figures of `demo` or of one checkpoint of `eval`.
fn task<'a>(figures: &'a Value, name: &str) -> &'a Value {
    figures["tasks"].as_array().unwrap().iter().find(|score| score["task"] == name).unwrap()
}

/// The result of one checkpoint without the times of its episodes, which differ from run to run.
fn without_latency(checkpoint: &Value) -> Value {
    let mut checkpoint = checkpoint.clone();
    for episode in checkpoint["episodes"].as_array_mut().unwrap() {
        assert!(episode.as_object_mut().unwrap().remove("latency").is_some());
    }
    checkpoint
}

fn with_checkpoint() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    ok(dir.path(), &["init", "--preset", "nano", "--to", "nano"]);
    dir
}

#[test]
fn bad_input_is_refused_with_a_reason() {
    let dir = with_checkpoint();
    let dir = dir.path();
    fs::write(dir.join("file"), "x").unwrap();
    fs::write(dir.join("bad.toml"), "out = 'run'\npreset = 'nano'\nsurprise = 1\n").unwrap();
    ok(dir, &["data", "record", "--family", "reach", "--episodes", "1", "--out", "d", "--image-size", "32"]);
    let record = ["data", "record", "--family", "reach", "--episodes", "1", "--out", "e"];
    let with = |more: &[&'static str]| [&record[..], more].concat();
    let usage: [(Vec<&str>, &str); 18] = [
        (vec!["data", "record", "--family", "dance", "--episodes", "1", "--out", "e"], "found `dance`"),
        (vec!["data", "record", "--episodes", "1", "--out", "e"], "--family"),
        (with(&["--split", "test"]), "expected train or heldout, found `test`"),
        (with(&["--noise", "2"]), "a number from 0 to 1, found `2`"),
        (with(&["--detours", "2"]), "a number from 0 to 1, found `2`"),
        (with(&["--detours", "0.1", "--policy", "nano"]), "cannot be used with"),
        (with(&["--subgoals", "5..3"]), "found `5..3`"),
        (with(&["--jobs", "0"]), "--jobs"),
        (with(&["--policy-share", "0.5"]), "--policy <DIR>"),
        (with(&["--stateless"]), "--policy <DIR>"),
        (with(&["--precision", "int8"]), "--policy <DIR>"),
        (with(&["--blend", "2"]), "--policy <DIR>"),
        (with(&["--replan-every", "2"]), "--policy <DIR>"),
        (vec!["demo", "--episodes", "0"], "--episodes"),
        (vec!["demo", "--task", "dance"], "found `dance`"),
        (vec!["eval", "--family", "reach", "--blend", "0"], "from 1 to 1000, found `0`"),
        (vec!["eval", "--family", "reach", "--replan-every", "0"], "from 1 to 1000, found `0`"),
        (vec!["inspect"], "required"),
    ];
    for (args, message) in usage {
        let stderr = fails(dir, &args, 2);
        assert!(stderr.contains(message), "{args:?}: {stderr}");
    }
    let refused: [(Vec<&str>, &str); 19] = [
        (with(&["--subgoals", "2", "--family", "sequence"]), "`subgoals` must be 3 to 8, found 2"),
        (with(&["--delay-max", "5"]), "--delay-max must be at least --delay-min (200), found 5"),
        (with(&["--image-size", "0"]), "1x1"),
        (with(&["--seed", "18446744073709551615"]), "leaves no room"),
        (with(&["--policy", "nowhere"]), "nowhere"),
        (vec!["data", "record", "--family", "reach", "--episodes", "0", "--out", "e"], "at least one"),
        (
            vec!["data", "record", "--family", "reach", "--episodes", "2", "--out", "d", "--image-size", "32"],
            "already exists",
        ),
        (vec!["data", "stats", "nowhere"], "nowhere/meta/info.json is missing"),
        (vec!["data", "check", "nowhere"], "damaged"),
        (vec!["demo", "--checkpoint", "nowhere"], "cannot load the checkpoint nowhere"),
        (vec!["demo", "--checkpoint", "nano", "--out", "d"], "d already exists; choose another folder"),
        (vec!["demo", "--checkpoint", "nano", "--episodes", "1", "--instruction", " "], "instruction"),
        (
            vec!["eval", "--checkpoint", "nano", "--family", "sequence", "--subgoals", "9"],
            "`subgoals` must be 3 to 8, found 9",
        ),
        (vec!["inspect", "d"], "cannot inspect d"),
        (vec!["convert", "--from", "hf", "d", "--to", "out"], "d"),
        (vec!["convert", "--from", "hf", "nowhere", "--to", "out"], "nowhere"),
        (vec!["convert", "--from", "robomamba", "nano", "nano", "--to", "out"], "one checkpoint folder, found 2"),
        (
            vec!["convert", "--from", "robomamba", "--average", "nano", "--to", "out"],
            "at least two checkpoints, found 1",
        ),
        (vec!["convert", "--from", "hf", "--average", "nano", "nano", "--to", "out"], "found --from hf"),
    ];
    for (args, message) in refused {
        let stderr = fails(dir, &args, 1);
        assert!(stderr.starts_with("error: ") || stderr.contains("\nerror: "), "{args:?}: {stderr}");
        assert!(stderr.contains(message), "{args:?}: {stderr}");
    }
    let int4 = ["demo", "--checkpoint", "nano", "--precision", "int4"];
    assert!(fails(dir, &int4, 2).contains("f32, bf16 or int8, found `int4`"));
    assert!(fails(dir, &["train", "--config", "nowhere.toml"], 1).contains("nowhere.toml"));
    assert!(fails(dir, &["train", "--config", "bad.toml"], 1).contains("surprise"));
    assert!(fails(dir, &["train", "--config", "bad.toml", "--set", "seed"], 2).contains("KEY=VALUE"));
    let left: Vec<_> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    let half_written: Vec<_> =
        left.iter().filter(|name| name.starts_with('.') || *name == "out" || *name == "run").collect();
    assert!(half_written.is_empty(), "{half_written:?}");
}

#[test]
fn a_damaged_checkpoint_is_named() {
    let dir = with_checkpoint();
    let path = dir.path().join("nano/model.safetensors");
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&path, &bytes).unwrap();
    let demo = ["demo", "--checkpoint", "nano", "--episodes", "1"];
    assert!(fails(dir.path(), &demo, 1).contains("model.safetensors"));
    fs::write(&path, &bytes[..middle]).unwrap();
    assert!(fails(dir.path(), &demo, 1).contains("model.safetensors"));
    assert!(!dir.path().join("runs").exists());
}

#[test]
fn an_edited_checkpoint_is_verified_and_sealed() {
    let dir = with_checkpoint();
    assert!(ok(dir.path(), &["checkpoint", "verify", "nano"]).contains("nano: the checkpoint is sound"));
    let card = dir.path().join("nano/README.md");
    fs::write(&card, "My own words.\n").unwrap();
    let stderr = fails(dir.path(), &["checkpoint", "verify", "nano"], 1);
    assert!(stderr.contains("nano has 1 finding;"), "{stderr}");
    fails(dir.path(), &["eval", "--checkpoint", "nano", "--family", "reach", "--episodes", "1"], 1);
    assert!(ok(dir.path(), &["checkpoint", "seal", "nano"]).contains("sealed; changed: README.md"));
    ok(dir.path(), &["eval", "--checkpoint", "nano", "--family", "reach", "--episodes", "1"]);

    // The folder of a training run, with the checkpoint in it.
    fs::create_dir_all(dir.path().join("run/training_state")).unwrap();
    fs::rename(dir.path().join("nano"), dir.path().join("run/pretrained_model")).unwrap();
    assert!(ok(dir.path(), &["checkpoint", "verify", "run"]).contains("pretrained_model: the checkpoint is sound"));
    assert!(ok(dir.path(), &["checkpoint", "seal", "run"]).contains("nothing had changed"));
    fs::rename(dir.path().join("run/pretrained_model"), dir.path().join("nano")).unwrap();

    fs::write(dir.path().join("nano/config.json"), "{}").unwrap();
    assert!(fails(dir.path(), &["checkpoint", "seal", "nano"], 1).contains("nano cannot be sealed: "));
    assert!(fails(dir.path(), &["checkpoint", "verify", "nowhere"], 1).contains("nowhere"));
}

#[test]
fn the_same_recording_has_the_same_bytes_on_any_number_of_threads() {
    let dir = tempfile::tempdir().unwrap();
    let record = |out: &'static str, jobs: &'static str| {
        let args =
            ["--family", "push", "--family", "sequence", "--family", "remember", "--episodes", "6", "--seed", "3"];
        let more =
            ["--blunders", "0.4", "--subgoals", "3..4", "--delay-min", "5", "--delay-max", "30", "--image-size", "24"];
        let fixed = ["data", "record", "--json", "--out", out, "--jobs", jobs];
        ok(dir.path(), &[&fixed[..], &args, &more].concat())
    };
    let summary: Value = serde_json::from_str(&record("a", "1")).unwrap();
    record("b", "3");
    assert!(files(&dir.path().join("a")) == files(&dir.path().join("b")));
    let families: Vec<_> = summary.as_array().unwrap().iter().map(|family| family["path"].as_str().unwrap()).collect();
    assert_eq!(families, ["a/push", "a/sequence", "a/remember"]);
    let demonstrations: u64 =
        summary.as_array().unwrap().iter().map(|family| family["demonstrations"].as_u64().unwrap()).sum();
    assert!((1..18).contains(&demonstrations), "some of 18 episodes are blunders: {demonstrations}");
    assert!(ok(dir.path(), &["data", "check", "a/push"]).contains("the data set is sound"));
    let stats: Value = serde_json::from_str(&ok(dir.path(), &["data", "stats", "--json", "a/push"])).unwrap();
    assert_eq!(stats["summary"]["episodes"], 6);
    assert_eq!(stats["features"]["action"]["mean"].as_array().unwrap().len(), 3);
    // The same command again has nothing to do and says the same.
    assert_eq!(serde_json::from_str::<Value>(&record("a", "2")).unwrap(), summary);
}

/// Kills the process the hard way as soon as `until` says so; returns whether it was still running.
fn kill_when(mut child: Child, until: impl Fn() -> bool) -> bool {
    let start = Instant::now();
    while !until() && child.try_wait().unwrap().is_none() {
        assert!(start.elapsed() < Duration::from_secs(60));
        sleep(Duration::from_millis(1));
    }
    let was_running = child.try_wait().unwrap().is_none();
    child.kill().unwrap();
    child.wait().unwrap();
    was_running
}

#[test]
fn a_killed_recording_continues_and_ends_with_the_same_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let args = |out: &'static str| {
        ["data", "record", "--family", "pick_place", "--episodes", "120", "--out", out, "--jobs", "2"]
    };
    ok(dir.path(), &args("whole"));
    let partial = dir.path().join("killed/pick_place.partial");
    let episodes = || fs::read_dir(&partial).map_or(0, |entries| entries.count());
    for count in [4, 30] {
        let child = command(dir.path(), &args("killed")).stderr(Stdio::null()).spawn().unwrap();
        assert!(kill_when(child, || episodes() > count), "it ended before it could be killed");
        assert!(!dir.path().join("killed/pick_place").exists());
    }
    ok(dir.path(), &args("killed"));
    assert!(files(&dir.path().join("whole")) == files(&dir.path().join("killed")));
}

/// Presses Ctrl-C as soon as `until` says so; returns the exit code and what was written to stdout and stderr.
#[cfg(unix)]
fn interrupt_when(dir: &Path, args: &[&str], until: impl Fn() -> bool) -> (Option<i32>, [String; 2]) {
    let child = command(dir, args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let start = Instant::now();
    while !until() && start.elapsed() < Duration::from_secs(60) {
        sleep(Duration::from_millis(1));
    }
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    (output.status.code(), [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap()))
}

#[cfg(unix)]
#[test]
fn ctrl_c_stops_in_good_order() {
    let dir = tempfile::tempdir().unwrap();
    let args = ["data", "record", "--family", "push", "--episodes", "5000", "--out", "d", "--jobs", "2"];
    let partial = dir.path().join("d/push.partial");
    let begun = || fs::read_dir(&partial).is_ok_and(|entries| entries.count() >= 5);
    let (code, [_, stderr]) = interrupt_when(dir.path(), &args, begun);
    assert_eq!(code, Some(130), "{stderr}");
    assert!(stderr.contains("error: recording `push`: interrupted; run the same command again"), "{stderr}");
    assert!(partial.is_dir() && !dir.path().join("d/push").exists());
}

#[cfg(unix)]
#[test]
fn an_interrupted_demonstration_reports_what_is_complete_and_says_so() {
    let dir = with_checkpoint();
    let args = ["demo", "--checkpoint", "nano", "--task", "reach", "--episodes", "5000", "--out", "run", "--verbose"];
    let log = |entry: std::io::Result<fs::DirEntry>| entry.unwrap().path().join("episodes.mcap");
    // An episode of random weights takes 100 steps, and each has some hundred bytes of log.
    let begun = || {
        let mut logs = fs::read_dir(dir.path()).unwrap().map(log);
        logs.any(|log| fs::metadata(log).is_ok_and(|log| log.len() > 500_000))
    };
    let (code, [stdout, stderr]) = interrupt_when(dir.path(), &args, begun);
    assert_eq!(code, Some(130), "{stderr}");
    assert!(stderr.contains("error: interrupted"), "{stderr}");
    assert!(stderr.contains("checkpoint loaded") && stderr.contains("kernels="), "{stderr}");
    assert!(stdout.contains("report: run/report.html") && dir.path().join("run/figures.json").is_file(), "{stdout}");
}

#[test]
fn records_of_any_simulator_are_reported() {
    let dir = with_checkpoint();
    let eval = ["eval", "--checkpoint", "nano", "--family", "reach", "--episodes", "2", "--records", "ours.jsonl"];
    ok(dir.path(), &eval);
    let theirs = "{\"suite\": \"libero_10\", \"task\": \"KITCHEN<3>\", \"seed\": 7, \"outcome\": \"succeeded\", \"steps\": 212, \"gpu\": 0}\n\n\
                  {\"suite\": \"libero_10\", \"task\": \"KITCHEN<3>\", \"seed\": 8, \"outcome\": {\"failed\": {\"reason\": \"dropped_mug\", \"step\": 9}}, \"steps\": 9}\n";
    fs::write(dir.path().join("theirs.jsonl"), theirs).unwrap();
    let table = ok(dir.path(), &["report", "ours.jsonl", "theirs.jsonl", "--html", "both.html"]);
    assert!(table.contains("tabletop/reach") && table.contains("libero_10/KITCHEN<3>"), "{table}");
    assert!(table.contains("50.0 % [9.5, 90.5]") && table.contains("(2) theirs.jsonl"), "{table}");
    let page = fs::read_to_string(dir.path().join("both.html")).unwrap();
    assert!(page.contains("KITCHEN&lt;3&gt;") && page.contains("dropped mug") && !page.contains("KITCHEN<3>"));
    fs::write(dir.path().join("bad.jsonl"), theirs.replace("9}", "nine}")).unwrap();
    assert!(fails(dir.path(), &["report", "bad.jsonl"], 1).contains("bad.jsonl, line 3: expected an episode record"));
    fs::write(dir.path().join("bad.jsonl"), "\n").unwrap();
    assert!(fails(dir.path(), &["report", "bad.jsonl"], 1).contains("holds no episode record"));
    assert!(fails(dir.path(), &["report", "nowhere.jsonl"], 1).contains("cannot read nowhere.jsonl"));
}

#[cfg(unix)]
#[test]
fn ctrl_c_is_no_end_of_a_training() {
    let dir = tempfile::tempdir().unwrap();
    ok(dir.path(), &["data", "record", "--family", "reach", "--episodes", "4", "--out", "data", "--image-size", "32"]);
    let config = "out = 'run'\npreset = 'nano'\n[[data]]\npath = 'data/reach'\n[schedule]\nkind = 'steps'\nsteps = 1000000\n\
                  [output]\nlog_every = 1\n";
    fs::write(dir.path().join("c.toml"), config).unwrap();
    let begun = || fs::metadata(dir.path().join("run/metrics.jsonl")).is_ok_and(|metrics| metrics.len() > 0);
    let (code, output) = interrupt_when(dir.path(), &["train", "--config", "c.toml", "--quiet"], begun);
    assert_eq!(code, Some(130), "{output:?}");
    assert!(output[0].contains("stopped; the same command continues"), "{output:?}");
    assert!(dir.path().join("run/checkpoints/last/pretrained_model").is_dir());
}

#[test]
fn a_policy_is_trained_and_evaluated() {
    let dir = tempfile::tempdir().unwrap();
    ok(dir.path(), &["data", "record", "--family", "reach", "--episodes", "6", "--out", "data", "--image-size", "32"]);
    let config =
        "out = 'run'\npreset = 'nano'\n[[data]]\npath = 'data/reach'\n[schedule]\nkind = 'steps'\nsteps = 500\n";
    fs::write(dir.path().join("c.toml"), config).unwrap();
    let train =
        ["train", "--config", "c.toml", "--set", "schedule.steps=3", "--set", "backbone=transformer", "--quiet"];
    assert!(ok(dir.path(), &train).contains("finished at step 3"));
    let checkpoint = "run/checkpoints/last";
    assert!(json(dir.path().join(checkpoint).join("pretrained_model/train_config.json"))["backbone"] == "transformer");
    let table = ok(dir.path(), &["eval", "--checkpoint", checkpoint, "--family", "reach", "--episodes", "2"]);
    assert!(table.contains("reach"), "{table}");
    let stopped =
        ok(dir.path(), &["train", "--config", "c.toml", "--out", "other", "--max-minutes", "0.001", "--quiet"]);
    assert!(stopped.contains("stopped; the same command continues"), "{stopped}");
}

#[test]
fn a_policy_drives_and_the_expert_labels() {
    let dir = with_checkpoint();
    let record = |out: &'static str, share: &'static str| {
        let args = ["data", "record", "--family", "reach", "--episodes", "2", "--image-size", "32", "--noise", "0"];
        let json = ok(
            dir.path(),
            &[&args[..], &["--json", "--out", out, "--policy", "nano", "--policy-share", share]].concat(),
        );
        serde_json::from_str::<Value>(&json).unwrap()[0].clone()
    };
    // Random weights reach nothing, and every step of theirs is labelled; the expert alone reaches everything.
    let driven = record("driven", "1");
    assert_eq!((&driven["successes"], &driven["demonstrations"]), (&0.into(), &2.into()));
    assert_eq!(record("expert", "0")["successes"], 2);
    record("again", "1");
    assert!(files(&dir.path().join("driven")) == files(&dir.path().join("again")));
}

#[test]
fn a_demonstration_leaves_report_log_and_figures() {
    let dir = with_checkpoint();
    let args = [
        "demo",
        "--checkpoint",
        "nano",
        "--episodes",
        "3",
        "--json",
        "figures.json",
        "--out",
        "runs/here",
        "--seed",
        "7",
    ];
    let stdout = ok(dir.path(), &args);
    assert!(
        stdout.contains("deadline misses at 30 Hz")
            && stdout.contains("reach")
            && stdout.contains("runs/here/report.html"),
        "{stdout}"
    );
    let figures = json(dir.path().join("figures.json"));
    for family in ["reach", "push", "pick_place"] {
        let score = task(&figures, family);
        assert_eq!(score["n"], 1, "{figures}");
        assert!(score["k"].is_u64() && score["interval"].as_array().unwrap().len() == 2);
    }
    for key in ["p50_ms", "p95_ms", "p99_ms"] {
        assert!(figures["latency"][key].as_f64().unwrap() > 0.0);
    }
    let state = &figures["state_bytes"];
    assert!(state["first"].as_u64().unwrap() > 0 && state["first"] == state["last"]);
    assert!(figures["control_rate_hz"].as_f64().unwrap() > 0.0 && figures["deadline_misses"].is_u64());
    assert!(figures["peak_rss_mb"].as_f64().is_some() || !cfg!(target_os = "linux"));
    let run = dir.path().join("runs/here");
    assert_eq!(json(run.join("figures.json")), figures);
    let page = fs::read_to_string(run.join("report.html")).unwrap();
    assert!(
        page.contains("data:image/png;base64,")
            && page.contains("class=\"line line2\"")
            && page.contains("deadline 33.3 ms")
    );
    assert!(!page.contains("http"), "the report loads nothing from elsewhere");
    let log = fs::read(run.join("episodes.mcap")).unwrap();
    let steps = figures["steps"].as_u64().unwrap();
    let actions =
        mcap::MessageStream::new(&log).unwrap().filter(|message| message.as_ref().unwrap().channel.topic == "/action");
    assert_eq!(actions.count() as u64, steps);
    assert_eq!(fs::read_dir(dir.path().join("runs")).unwrap().count(), 1, "no working folder is left");
}

#[test]
fn a_transformer_s_state_grows_and_free_words_are_judged_when_they_fit() {
    let dir = tempfile::tempdir().unwrap();
    ok(dir.path(), &["init", "--preset", "nano", "--backbone", "transformer", "--to", "t"]);
    let demo = |words: &'static str, json: &'static str| {
        ok(
            dir.path(),
            &["demo", "--checkpoint", "t", "--instruction", words, "--json", json, "--out", &format!("runs/{json}")],
        )
    };
    assert!(demo("sing a song", "a.json").contains("\"sing a song\": not scored"));
    let figures = json(dir.path().join("a.json"));
    assert_eq!(figures["tasks"], serde_json::json!([]));
    assert!(figures["state_bytes"]["last"].as_u64() > figures["state_bytes"]["first"].as_u64());
}

#[test]
fn checkpoints_are_evaluated_side_by_side() {
    let dir = with_checkpoint();
    ok(dir.path(), &["init", "--preset", "nano", "--backbone", "transformer", "--to", "transformer"]);
    let eval = ["eval", "--family", "reach", "--family", "push", "--episodes", "3", "--seed", "5", "--json", "e.json"];
    let table = ok(dir.path(), &[&eval[..], &["--checkpoint", "nano", "--checkpoint", "transformer"]].concat());
    assert!(
        table.contains("(1) nano") && table.contains("(2) transformer") && table.contains("0.0 % [0.0, 56.1]"),
        "{table}"
    );
    let evaluation = json(dir.path().join("e.json"));
    assert_eq!(evaluation["recurrent_state"], "carried");
    for checkpoint in evaluation["checkpoints"].as_array().unwrap() {
        assert_eq!(task(checkpoint, "push")["n"], 3);
        let seeds: Vec<_> = checkpoint["episodes"]
            .as_array()
            .unwrap()
            .iter()
            .map(|episode| episode["seed"].as_u64().unwrap())
            .collect();
        assert_eq!(seeds, [5, 6, 7, 5, 6, 7]);
    }
    let again = |more: &[&'static str]| {
        ok(dir.path(), &[&eval[..], &["--checkpoint", "nano"], more].concat());
        json(dir.path().join("e.json"))
    };
    let checkpoint = |evaluation: &Value| without_latency(&evaluation["checkpoints"][0]);
    assert_eq!(checkpoint(&again(&["--jobs", "3"])), checkpoint(&evaluation));
    assert_eq!(again(&["--stateless"])["recurrent_state"], "reset_at_every_step");
}

#[test]
fn the_benchmark_measures_every_part_and_judges_goals() {
    let dir = tempfile::tempdir().unwrap();
    let bench = ["bench", "--quick", "--preset", "nano", "--json", "bench.json", "--report", "bench.html"];
    // Histories of 1,000; whole sequences of 100 are long enough.
    let goals = concat!(env!("CARGO_MANIFEST_DIR"), "/../../benchmarks/goals.json");
    let long = ["--longest", "1000", "--only", "history", "--goals", goals];
    ok(dir.path(), &[&bench[..], &long].concat());
    let verdicts = json(dir.path().join("bench.json"))["goals"].clone();
    let is_flat = |verdict: &&serde_json::Value| verdict["goal"] == "cost and memory after 1000 steps";
    let flat = verdicts.as_array().unwrap().iter().find(is_flat).unwrap();
    assert!(flat["measured"].as_str().unwrap().contains("the same state"), "{flat}");
    fs::write(dir.path().join("goals.json"), "{\"hz\": 5}").unwrap();
    let unknown = ["bench", "--quick", "--preset", "nano", "--goals", "goals.json"];
    assert!(fails(dir.path(), &unknown, 1).contains("goals.json is no file of goals: unknown field `hz`"));
    let table = ok(dir.path(), &bench);
    assert!(table.contains("GFLOP/s") && table.contains("nano"), "{table}");
    let page = fs::read_to_string(dir.path().join("bench.html")).unwrap();
    assert!(page.matches("<polyline").count() == 5 && page.contains("Limits of the machine"), "{page}");
    let figures = json(dir.path().join("bench.json"));
    assert_eq!(figures["goals"].as_array().unwrap().len(), 0, "without goals there are no verdicts");
    assert!(figures["machine"]["kernels"].as_str().unwrap().contains("/bf16="), "{}", figures["machine"]);
    for precision in ["f32", "bf16", "int8"] {
        let step = &figures["step_ms"]["nano"][precision];
        let [p50, p99] = ["p50", "p99"].map(|key| step[key].as_f64().unwrap());
        let parts: f64 = step["parts"].as_object().unwrap().values().map(|part| part.as_f64().unwrap()).sum();
        // Medians of parts add up to the median of the whole, nearly.
        assert!(p50 > 0.0 && p50 <= p99 && parts > 0.5 * p50 && parts < 1.5 * p50, "{step}");
    }
    let history = figures["history"].as_array().unwrap();
    let carried = |backbone: &str| -> Vec<u64> {
        let of_backbone = history.iter().filter(|point| point["backbone"] == backbone && point["precision"] == "f32");
        of_backbone.map(|point| point["state_bytes"].as_u64().unwrap()).collect()
    };
    assert!(carried("mamba").windows(2).all(|pair| pair[0] == pair[1]), "{history:?}");
    assert!(carried("transformer").windows(2).all(|pair| pair[0] < pair[1]), "{history:?}");
    assert_eq!(figures["limits"].as_array().unwrap().len(), 2);
    // Both backbones in every format.
    assert_eq!(figures["sequences"].as_array().unwrap().len(), 6);
    let reading: Vec<_> = history.iter().filter_map(|point| point["reading"]["step"].as_f64()).collect();
    assert!(reading.len() == 3 && reading.iter().all(|step| *step > 0.0), "{history:?}");
    for training in figures["training"].as_array().unwrap() {
        assert!(training["ms"].as_f64().unwrap() > 0.0, "{training}");
    }
    // Blocks of both backbones.
    assert_eq!(figures["training"].as_array().unwrap().len(), 2);
}

#[test]
fn a_killed_benchmark_leaves_what_it_has_measured() {
    let dir = tempfile::tempdir().unwrap();
    let bench = ["bench", "--preset", "nano", "--steps", "1000000", "--json", "bench.json", "--report", "bench.html"];
    let child = command(dir.path(), &bench).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    assert!(kill_when(child, || dir.path().join("bench.json").exists()), "it ended before it could be killed");
    let figures = json(dir.path().join("bench.json"));
    assert_eq!(figures["limits"].as_array().unwrap().len(), 2);
    assert_eq!(figures["step_ms"].as_object().unwrap().len(), 0);
    assert!(fs::read_to_string(dir.path().join("bench.html")).unwrap().contains("Limits of the machine"));
}

#[test]
fn the_benchmark_measures_only_what_is_asked_and_shows_the_peers() {
    let dir = tempfile::tempdir().unwrap();
    let bench = ["bench", "--steps", "5", "--preset", "nano", "--json", "bench.json"];
    let comparison = r#"{"peers": [{"name": "another engine", "work": "a step", "ours_ms": 2.0, "peer_ms": 5.0,
        "ratio": 2.5, "ratios": [2.4, 2.5], "rounds": 2, "goal": 2.0}], "missing": {}}"#;
    fs::write(dir.path().join("peers.json"), comparison).unwrap();
    let only = ["--only", "steps", "--cameras", "1", "--precision", "int8", "--peers", "peers.json"];
    let table = ok(dir.path(), &[&bench[..], &only].concat());
    assert!(table.contains("another engine") && !table.contains("GFLOP/s"), "{table}");
    let figures = json(dir.path().join("bench.json"));
    assert_eq!(figures["peers"][0]["ratio"], 2.5);
    // One camera on one thread beside the main measurement.
    assert_eq!(figures["step_ms_variants"].as_array().unwrap().len(), 1);
    for section in ["limits", "history", "sequences", "training"] {
        assert_eq!(figures[section].as_array().unwrap().len(), 0, "{section}");
    }

    fs::write(dir.path().join("peers.json"), "[]").unwrap();
    let error = fails(dir.path(), &[&bench[..], &["--only", "limits", "--peers", "peers.json"]].concat(), 1);
    assert!(error.contains("peers.json") && error.contains("compare.py"), "{error}");
}

#[test]
fn a_checkpoint_of_half_the_size_plays_in_any_precision() {
    let dir = with_checkpoint();
    let convert = ["convert", "--from", "robomamba", "nano", "--to", "half", "--quantize", "bf16"];
    assert!(ok(dir.path(), &convert).contains("bf16"));
    let size = |folder: &str| fs::metadata(dir.path().join(folder).join("model.safetensors")).unwrap().len();
    assert!(size("half") * 100 < size("nano") * 65, "{} bytes of {}", size("half"), size("nano"));
    let convert = ["convert", "--from", "robomamba", "nano", "--to", "bytes", "--quantize", "int8"];
    assert!(ok(dir.path(), &convert).contains("int8"));
    assert!(size("bytes") < size("half"), "{} bytes of {}", size("bytes"), size("half"));
    ok(dir.path(), &["eval", "--checkpoint", "bytes", "--family", "reach", "--episodes", "1", "--precision", "int8"]);
    for precision in ["f32", "bf16", "int8"] {
        let eval = ["eval", "--checkpoint", "half", "--family", "reach", "--episodes", "1", "--json", "e.json"];
        ok(dir.path(), &[&eval[..], &["--precision", precision]].concat());
        let resident = json(dir.path().join("e.json"));
        assert_eq!(resident["precision"], precision);
        // Where the text encoder is makes no difference to what the policy does.
        ok(dir.path(), &[&eval[..], &["--precision", precision, "--stream-text"]].concat());
        let streamed = json(dir.path().join("e.json"));
        let episodes = |evaluation: &Value| without_latency(&evaluation["checkpoints"][0]);
        assert_eq!(episodes(&streamed), episodes(&resident));
        fs::remove_file(dir.path().join("e.json")).unwrap();
    }
}

#[test]
fn the_mean_of_checkpoints_plays() {
    let dir = with_checkpoint();
    ok(dir.path(), &["init", "--preset", "nano", "--seed", "5", "--to", "other"]);
    ok(dir.path(), &["convert", "--from", "robomamba", "--average", "nano", "other", "--to", "mean"]);
    ok(dir.path(), &["eval", "--checkpoint", "mean", "--family", "reach", "--episodes", "1"]);
    ok(dir.path(), &["init", "--preset", "tabletop", "--to", "larger"]);
    let error = fails(dir.path(), &["convert", "--from", "robomamba", "--average", "nano", "larger", "--to", "no"], 1);
    assert!(error.contains("number 2 of 2"), "{error}");
    assert!(!dir.path().join("no").exists());
}

#[test]
fn public_checkpoints_are_converted_and_run() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/hf");
    let folders = [golden.join("vit"), golden.join("bert"), golden.join("mamba")];
    let [vit, bert, mamba] = folders.each_ref().map(|folder| folder.to_str().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let stdout = ok(dir.path(), &["convert", "--from", "hf", vit, bert, mamba, "--to", "out", "--preset", "nano"]);
    assert!(stdout.contains("vision") && stdout.contains("state"), "{stdout}");
    let summary: Value = serde_json::from_str(&ok(dir.path(), &["inspect", "out", "--json"])).unwrap();
    assert_eq!(summary["parts"].as_array().unwrap().len(), 5);
    ok(dir.path(), &["demo", "--checkpoint", "out", "--episodes", "1", "--out", "run"]);
}
