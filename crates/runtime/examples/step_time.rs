//! Times the control step of a preset with random weights: `step_time PRESET [STEPS] [THREADS] [FORMAT]`.
//!
//! Every step sees a new image, so that nothing is reused.

use std::error::Error;
use std::num::NonZeroUsize;
use std::sync::Arc;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use robomamba_model::{Checkpoint, Preset, TextTokenizer};
use robomamba_policy::{ActionChunk, CameraSpec, FeatureSpec, Image, Observation, Policy, VectorSpec};
use robomamba_runtime::{Format, Model, RuntimeOptions, Session, StepTimings};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let preset: Preset = arguments.next().as_deref().unwrap_or("tabletop").parse()?;
    let steps: usize = arguments.next().map_or(Ok(100), |steps| steps.parse())?;
    let threads = arguments.next().map(|threads| threads.parse::<NonZeroUsize>()).transpose()?;

    let format = arguments.next().map_or(Ok(Format::F32), |format| format.parse())?;

    let checkpoint = random_checkpoint(preset)?;
    let model = Arc::new(Model::from_checkpoint(format, &checkpoint)?);
    drop(checkpoint);
    let mut session = Session::new(model, &RuntimeOptions { threads, ..Default::default() })?;

    let mut observation = blank_observation(session.features());
    let mut chunk = ActionChunk::default();
    session.act(&observation, &mut chunk)?;
    println!(
        "{preset} in {format}, {} threads; first step {:.3} ms, of which text {:.3} ms",
        session.threads(),
        ms(session.timings().total_ns()),
        ms(session.timings().text_ns)
    );
    let mut timings = Vec::with_capacity(steps);
    for step in 0..steps {
        observation.images[0].1.data_mut()[step % 3] ^= 0xff;
        session.act(&observation, &mut chunk)?;
        timings.push(session.timings());
    }
    report(&timings);
    println!("state {} bytes", session.state().bytes());
    if let Some(peak) = peak_rss_mb() {
        println!("peak resident memory {peak:.0} MB (with the unpacked weights while loading)");
    }
    Ok(())
}

fn random_checkpoint(preset: Preset) -> Result<Checkpoint, Box<dyn Error>> {
    let tokenizer = TextTokenizer::characters()?;
    let mut config = preset.config(FeatureSpec {
        cameras: Vec::new(),
        state: VectorSpec::new(["x_m", "y_m", "yaw_rad", "opening"]),
        action: VectorSpec::new(["dx", "dy", "dyaw", "grip"]),
        fps: 20,
    });
    let size = config.vision.image_size;
    config.features.cameras = vec![CameraSpec { name: "observation.images.top".into(), height: size, width: size }];
    config.text.vocab_size = config.text.vocab_size.max(tokenizer.vocab_size());
    Ok(Checkpoint::random(config, tokenizer, 1)?)
}

fn blank_observation(features: &FeatureSpec) -> Observation {
    let mut rng = ChaCha8Rng::seed_from_u64(2);
    let images = features.cameras.iter().map(|camera| {
        let mut image = Image::black(camera.height, camera.width);
        image.data_mut().iter_mut().for_each(|byte| *byte = rng.random());
        (camera.name.as_str().into(), image)
    });
    Observation {
        images: images.collect(),
        state: vec![0.1; features.state.dim()],
        instruction: "pick up the red block and place it in the blue zone".into(),
        timestamp_ns: 0,
    }
}

fn report(timings: &[StepTimings]) {
    type Part = (&'static str, fn(&StepTimings) -> u64);
    let parts: [Part; 6] = [
        ("preprocess", |t| t.preprocess_ns),
        ("vision", |t| t.vision_ns),
        ("connector", |t| t.connector_ns),
        ("backbone", |t| t.backbone_ns),
        ("heads", |t| t.heads_ns),
        ("total", StepTimings::total_ns),
    ];
    println!("{:<12}{:>10}{:>10}{:>10}  ms", "part", "p50", "p95", "p99");
    for (name, part) in parts {
        let mut sorted: Vec<u64> = timings.iter().map(part).collect();
        sorted.sort_unstable();
        let rank = |p: usize| ms(sorted.get((sorted.len() * p).div_ceil(100).saturating_sub(1)).copied().unwrap_or(0));
        println!("{name:<12}{:>10.3}{:>10.3}{:>10.3}", rank(50), rank(95), rank(99));
    }
}

fn ms(ns: u64) -> f64 {
    ns as f64 / 1e6
}

/// Largest resident memory so far, where the system tells.
fn peak_rss_mb() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let kilobytes = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?.trim().strip_suffix(" kB")?.trim();
    kilobytes.parse::<f64>().ok().map(|kilobytes| kilobytes / 1024.0)
}
