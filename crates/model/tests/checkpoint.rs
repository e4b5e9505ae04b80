//! Checkpoint folders: what is saved is loaded, and nothing else is.

mod common;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use rand_chacha::{
    ChaCha8Rng,
    rand_core::{Rng, SeedableRng},
};
use robomamba_model::{Checkpoint, Dtype, ModelError, seal, verify};
use safetensors::tensor::{Dtype as FileDtype, TensorView};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

fn saved(dtype: Dtype) -> (TempDir, PathBuf, Checkpoint) {
    let parent = tempfile::tempdir().unwrap();
    let (dir, checkpoint) = (parent.path().join("model"), common::checkpoint());
    checkpoint.save(&dir, dtype).unwrap();
    (parent, dir, checkpoint)
}

fn files(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(dir).unwrap().map(Result::unwrap);
    entries.map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap())).collect()
}

/// Makes the manifest agree with the files again, so that the checks behind it are reached.
fn reseal(dir: &Path) {
    let path = dir.join("manifest.json");
    let mut manifest: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    for (name, entry) in manifest["files"].as_object_mut().unwrap() {
        let bytes = fs::read(dir.join(name)).unwrap();
        entry["bytes"] = bytes.len().into();
        entry["sha256"] = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect::<String>().into();
    }
    fs::write(path, serde_json::to_vec(&manifest).unwrap()).unwrap();
}

#[test]
fn f32_checkpoint_comes_back_to_the_bit() {
    let (_parent, dir, mut checkpoint) = saved(Dtype::F32);
    checkpoint.train_config = Some("{\"steps\": 3}".into());
    checkpoint.save(&dir, Dtype::F32).unwrap();
    let loaded = Checkpoint::load(&dir).unwrap();
    assert_eq!(loaded.config, checkpoint.config);
    assert_eq!(loaded.weights, checkpoint.weights);
    assert_eq!(loaded.stats, checkpoint.stats);
    assert_eq!(loaded.card, checkpoint.card);
    assert_eq!(loaded.train_config, checkpoint.train_config);
    assert_eq!(loaded.tokenizer.encode("go", 8).unwrap(), checkpoint.tokenizer.encode("go", 8).unwrap());
}

#[test]
fn equal_checkpoints_are_equal_files() {
    let (_a, dir_a, _) = saved(Dtype::Bf16);
    let (_b, dir_b, _) = saved(Dtype::Bf16);
    assert_eq!(files(&dir_a), files(&dir_b));
}

#[test]
fn bf16_rounds_matrices_and_keeps_vectors_and_a_log() {
    let (_parent, dir, checkpoint) = saved(Dtype::Bf16);
    let loaded = Checkpoint::load(&dir).unwrap();
    let mut n_rounded = 0;
    for (name, tensor) in checkpoint.weights.iter() {
        let matrix = tensor.shape.len() > 1 && !name.ends_with("A_log");
        for (&before, &after) in tensor.data.iter().zip(loaded.weights.get(name).unwrap()) {
            let expected = if matrix { half::bf16::from_f32(before).to_f32() } else { before };
            assert_eq!(after, expected, "{name}");
            n_rounded += usize::from(after != before);
        }
    }
    assert!(n_rounded > 10_000);
    // Saved once more, nothing changes.
    loaded.save(&dir, Dtype::Bf16).unwrap();
    assert_eq!(Checkpoint::load(&dir).unwrap().weights, loaded.weights);
}

#[test]
fn int8_keeps_every_row_within_half_a_step_of_its_scale() {
    let (_parent, dir, checkpoint) = saved(Dtype::Int8);
    let loaded = Checkpoint::load(&dir).unwrap();
    let finer = ["embeddings", "x_proj", "dt_proj", "A_log", "conv1d", "query"];
    let mut n_quantised = 0;
    for (name, tensor) in checkpoint.weights.iter() {
        let after = loaded.weights.get(name).unwrap();
        if tensor.shape.len() != 2 || finer.iter().any(|part| name.contains(part)) {
            continue;
        }
        for (row, after) in tensor.data.chunks_exact(tensor.shape[1]).zip(after.chunks_exact(tensor.shape[1])) {
            let step = row.iter().fold(0.0, |largest: f32, x| largest.max(x.abs())) / 127.0;
            assert!(row.iter().zip(after).all(|(a, b)| (a - b).abs() <= 0.5001 * step), "{name}");
            n_quantised += row.len();
        }
    }
    assert!(n_quantised > 10_000);
    // Saved once more, nothing changes.
    loaded.save(&dir, Dtype::Int8).unwrap();
    let again = Checkpoint::load(&dir).unwrap().weights;
    for (name, tensor) in loaded.weights.iter() {
        let same = tensor.data.iter().zip(again.get(name).unwrap()).all(|(a, b)| (a - b).abs() <= 1e-6 * a.abs());
        assert!(same, "{name}");
    }
}

#[test]
fn int8_scales_are_checked_as_the_matrices_are() {
    let (_parent, dir, _) = saved(Dtype::Int8);
    let name = "head.confidence.fc2.weight.scale";
    for (replacement, expected) in [
        (Some((FileDtype::F32, vec![2])), format!("tensor `{name}` must have shape [1], found [2]")),
        (None, format!("tensor `{name}` of shape [1] is missing (1 missing in all)")),
    ] {
        let message = with_tensor(&dir, name, replacement);
        assert!(message.starts_with(&expected), "{message}");
    }
}

#[test]
fn safetensors_file_is_read_by_the_public_library() {
    let (_parent, dir, checkpoint) = saved(Dtype::Bf16);
    let bytes = fs::read(dir.join("model.safetensors")).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(tensors.len(), checkpoint.weights.len());
    let a_log = tensors.tensor("backbone.layers.0.mixer.A_log").unwrap();
    assert_eq!((a_log.dtype(), a_log.shape()), (FileDtype::F32, &[96, 8][..]));
}

#[test]
fn saving_replaces_the_folder_as_a_whole() {
    let (parent, dir, mut checkpoint) = saved(Dtype::F32);
    fs::write(dir.join("stale.bin"), "from an older version").unwrap();
    fs::create_dir(parent.path().join(".model.partial")).unwrap();
    checkpoint.card = "# Another".into();
    checkpoint.save(&dir, Dtype::F32).unwrap();
    assert_eq!(Checkpoint::load(&dir).unwrap().card, "# Another");
    assert!(!dir.join("stale.bin").exists());
    assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 1);
}

#[test]
fn a_flipped_bit_anywhere_is_found() {
    let (_parent, dir, _) = saved(Dtype::Bf16);
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    for (name, bytes) in files(&dir) {
        let path = dir.join(&name);
        // Every bit of the short manifest, 40 random bits of each other file.
        let n_bit = bytes.len() * 8;
        let positions: Vec<usize> = match name.as_str() {
            "manifest.json" => (0..n_bit).collect(),
            _ => (0..40).map(|_| rng.next_u64() as usize % n_bit).collect(),
        };
        for position in positions {
            let mut bad = bytes.clone();
            bad[position / 8] ^= 1 << (position % 8);
            fs::write(&path, &bad).unwrap();
            match Checkpoint::load(&dir) {
                Err(error) => assert!(error.to_string().contains(&name), "bit {position} of {name}: {error}"),
                // The case of a hexadecimal digit is the only bit without a meaning.
                Ok(_) => assert!(
                    name == "manifest.json" && bad.eq_ignore_ascii_case(&bytes),
                    "bit {position} of {name} is not found"
                ),
            }
        }
        fs::write(&path, &bytes).unwrap();
    }
    Checkpoint::load(&dir).unwrap();
}

#[test]
fn the_manifest_counts_by_what_it_says() {
    let (_parent, dir, _) = saved(Dtype::F32);
    let path = dir.join("manifest.json");
    let original = fs::read_to_string(&path).unwrap();
    let manifest: serde_json::Value = serde_json::from_str(&original).unwrap();
    let (version, files) = (&manifest["format_version"], &manifest["files"]);
    let same = [
        serde_json::to_string(&manifest).unwrap(),
        format!("{{\"files\": {files},\r\n\t\"format_version\": {version}}}"),
        original.to_uppercase().replace("FORMAT_VERSION", "format_version").replace("FILES", "files"),
    ];
    for spelling in &same[..2] {
        fs::write(&path, spelling).unwrap();
        Checkpoint::load(&dir).unwrap_or_else(|error| panic!("{spelling}: {error}"));
    }
    let twice = original.replacen("\"files\": {", "\"files\": {\"config.json\": {\"bytes\": 0, \"sha256\": \"\"},", 1);
    for (wrong, message) in
        [(twice.as_str(), "`config.json` is listed twice"), (&same[2], "unknown field"), ("", "EOF")]
    {
        fs::write(&path, wrong).unwrap();
        let error = Checkpoint::load(&dir).unwrap_err().to_string();
        assert!(error.contains("manifest.json") && error.contains(message), "{error}");
    }
}

#[test]
fn every_finding_is_told_and_an_edited_folder_can_be_sealed() {
    let (_parent, dir, checkpoint) = saved(Dtype::F32);
    assert!(verify(&dir).is_empty());
    assert_eq!(seal(&dir).unwrap(), Vec::<String>::new(), "nothing had changed");
    // A changed card and a changed number of the configuration.
    let edit = |name: &str, from: &str, to: &str| {
        let text = fs::read_to_string(dir.join(name)).unwrap();
        assert!(text.contains(from), "{name} has no {from}");
        fs::write(dir.join(name), text.replacen(from, to, 1)).unwrap();
    };
    edit("README.md", "#", "# My own");
    edit("config.json", "\"fps\": ", "\"fps\": 1");
    let findings: Vec<String> = verify(&dir).iter().map(ToString::to_string).collect();
    assert!(
        findings.len() == 2 && findings[0].contains("README.md") && findings[1].contains("config.json"),
        "{findings:?}"
    );
    assert!(Checkpoint::load(&dir).is_err());
    assert_eq!(seal(&dir).unwrap(), ["README.md", "config.json"]);
    assert!(verify(&dir).is_empty());
    assert_ne!(Checkpoint::load(&dir).unwrap().config, checkpoint.config);

    // What makes no checkpoint is not sealed.
    let manifest = fs::read(dir.join("manifest.json")).unwrap();
    edit("config.json", "\"d_state\": ", "\"d_state\": 1");
    let error = seal(&dir).unwrap_err().to_string();
    assert!(error.contains("A_log") || error.contains("x_proj"), "{error}");
    assert_eq!(fs::read(dir.join("manifest.json")).unwrap(), manifest);
    assert_eq!(verify(&dir).len(), 2, "the hash, and what does not fit");
    fs::remove_file(dir.join("tokenizer.json")).unwrap();
    assert!(seal(&dir).unwrap_err().to_string().contains("tokenizer.json"));
    fs::remove_file(dir.join("manifest.json")).unwrap();
    assert!(verify(&dir)[0].to_string().contains("manifest.json"));
}

#[test]
fn findings_of_several_files_are_all_reported() {
    let (_parent, dir, _) = saved(Dtype::F32);
    let replace = |name: &str, from: &str, to: &str| {
        let text = fs::read_to_string(dir.join(name)).unwrap();
        assert!(text.contains(from), "{name} has no {from}");
        fs::write(dir.join(name), text.replace(from, to)).unwrap();
    };
    replace("manifest.json", "README.md", "readme.md");
    replace("manifest.json", "tokenizer.json", "Tokenizer.json");
    replace("policy_preprocessor.json", "observation.state", "observation.pose");
    fs::write(dir.join("policy_postprocessor.json"), "{").unwrap();
    let findings: Vec<String> = verify(&dir).iter().map(ToString::to_string).collect();
    for expected in [
        "complete with tokenizer.json",
        "complete with README.md",
        "readme.md` is missing",
        "Tokenizer.json` is missing",
        "policy_preprocessor.json` is damaged",
        "policy_postprocessor.json` is damaged",
        "policy_preprocessor.json` is not what it should be",
        "policy_postprocessor.json` is not what it should be",
    ] {
        assert!(findings.iter().any(|finding| finding.contains(expected)), "{expected}: {findings:#?}");
    }
    assert_eq!(findings.len(), 8, "{findings:#?}");
}

#[test]
fn sealing_compares_content_and_refuses_another_format() {
    let (_parent, dir, mut checkpoint) = saved(Dtype::F32);
    checkpoint.train_config = Some("{}".into());
    checkpoint.save(&dir, Dtype::F32).unwrap();
    let path = dir.join("manifest.json");
    let original = fs::read_to_string(&path).unwrap();
    let mut manifest: serde_json::Value = serde_json::from_str(&original).unwrap();
    for entry in manifest["files"].as_object_mut().unwrap().values_mut() {
        entry["sha256"] = entry["sha256"].as_str().unwrap().to_uppercase().into();
    }
    fs::write(&path, manifest.to_string()).unwrap();
    assert_eq!(seal(&dir).unwrap(), Vec::<String>::new(), "the case of a digit is no change");
    assert_eq!(fs::read_to_string(&path).unwrap(), original);

    fs::write(dir.join("train_config.json"), "{").unwrap();
    assert!(seal(&dir).unwrap_err().to_string().contains("train_config.json"));
    fs::remove_file(dir.join("train_config.json")).unwrap();
    assert_eq!(seal(&dir).unwrap(), ["train_config.json"], "a removed file is named");
    assert!(verify(&dir).is_empty());

    for lost in ["", "{}"] {
        fs::write(&path, lost).unwrap();
        assert_eq!(seal(&dir).unwrap().len(), 6, "every file is new to the manifest");
    }
    let newer = original.replacen("\"format_version\": 1", "\"format_version\": 2", 1);
    assert_ne!(newer, original);
    fs::write(&path, &newer).unwrap();
    let error = seal(&dir).unwrap_err();
    assert!(matches!(error, ModelError::FormatVersion { found: 2, .. }), "{error}");
    assert_eq!(fs::read_to_string(&path).unwrap(), newer);
}

#[test]
fn a_truncated_or_extended_file_is_named_with_both_lengths() {
    let (_parent, dir, _) = saved(Dtype::Bf16);
    let mut rng = ChaCha8Rng::seed_from_u64(2);
    for (name, bytes) in files(&dir) {
        // The newline at the end of the manifest says nothing; all else does.
        let content_len = bytes.trim_ascii_end().len();
        let content_len = if name == "manifest.json" { content_len } else { bytes.len() };
        let mut lengths: Vec<usize> = (0..10).map(|_| rng.next_u64() as usize % content_len).collect();
        lengths.extend([0, content_len - 1]);
        for len in lengths {
            fs::write(dir.join(&name), &bytes[..len]).unwrap();
            let error = Checkpoint::load(&dir).expect_err(&name).to_string();
            let expected = format!("must be {} by manifest.json, found {len}", bytes.len());
            assert!(name == "manifest.json" || error.contains(&name) && error.contains(&expected), "{error}");
        }
        fs::write(dir.join(&name), [&bytes[..], b"0"].concat()).unwrap();
        assert!(Checkpoint::load(&dir).unwrap_err().to_string().contains(&name));
        fs::write(dir.join(&name), &bytes).unwrap();
    }
}

#[test]
fn a_missing_file_is_named() {
    let (_parent, dir, _) = saved(Dtype::Bf16);
    for (name, bytes) in files(&dir) {
        fs::remove_file(dir.join(&name)).unwrap();
        let error = Checkpoint::load(&dir).unwrap_err();
        assert!(matches!(&error, ModelError::MissingFile { path, .. } if path.ends_with(&name)), "{error}");
        fs::write(dir.join(&name), &bytes).unwrap();
    }
    let error = Checkpoint::load(&dir.join("nowhere")).unwrap_err();
    assert!(matches!(error, ModelError::Read { .. }), "{error}");
}

/// Rewrites the weights with one tensor replaced (or added, or removed) and the manifest in agreement.
fn with_tensor(dir: &Path, name: &str, replacement: Option<(FileDtype, Vec<usize>)>) -> String {
    let path = dir.join("model.safetensors");
    let bytes = fs::read(&path).unwrap();
    let original = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let data = vec![0; 1 << 20];
    let mut tensors: BTreeMap<&str, TensorView> = original.iter().collect();
    tensors.remove(name);
    if let Some((dtype, shape)) = replacement {
        let n = shape.iter().product::<usize>() * dtype.bitsize() / 8;
        tensors.insert(name, TensorView::new(dtype, shape, &data[..n]).unwrap());
    }
    fs::write(&path, safetensors::serialize(tensors, None).unwrap()).unwrap();
    reseal(dir);
    let message = Checkpoint::load(dir).unwrap_err().to_string();
    fs::write(&path, bytes).unwrap();
    message
}

#[test]
fn one_wrong_tensor_is_named_with_what_was_expected_and_found() {
    let (_parent, dir, _) = saved(Dtype::F32);
    let name = "head.confidence.fc2.weight";
    let shape = vec![1, 16];
    for (replacement, expected) in [
        (
            Some((FileDtype::F16, shape.clone())),
            format!("tensor `{name}` must be F32, BF16 or (a matrix) I8, found F16"),
        ),
        (
            Some((FileDtype::I64, shape.clone())),
            format!("tensor `{name}` must be F32, BF16 or (a matrix) I8, found I64"),
        ),
        (Some((FileDtype::F32, vec![16, 1])), format!("tensor `{name}` must have shape [1, 16], found [16, 1]")),
        (Some((FileDtype::F32, vec![16])), format!("tensor `{name}` must have shape [1, 16], found [16]")),
        (None, format!("tensor `{name}` of shape [1, 16] is missing (1 missing in all)")),
    ] {
        let message = with_tensor(&dir, name, replacement);
        assert!(message.starts_with(&expected), "{message}");
    }
    let message = with_tensor(&dir, "vision.pooler.dense.bias", Some((FileDtype::F32, vec![32])));
    assert!(message.starts_with("unexpected tensors [vision.pooler.dense.bias]"), "{message}");
}

#[test]
fn weights_that_are_not_finite_are_neither_saved_nor_loaded() {
    let (parent, dir, mut checkpoint) = saved(Dtype::F32);
    checkpoint.weights.get_mut("backbone.norm_f.weight").unwrap()[5] = f32::NAN;
    let error = checkpoint.save(&parent.path().join("bad"), Dtype::F32).unwrap_err();
    assert!(error.to_string().starts_with("tensor `backbone.norm_f.weight` must be finite, found NaN at index 5"));
    assert!(!parent.path().join("bad").exists());

    let path = dir.join("model.safetensors");
    let mut bytes = fs::read(&path).unwrap();
    let end = bytes.len();
    bytes[end - 4..].copy_from_slice(&f32::INFINITY.to_le_bytes());
    fs::write(&path, bytes).unwrap();
    reseal(&dir);
    let error = Checkpoint::load(&dir).unwrap_err();
    assert!(matches!(error, ModelError::NotFinite { value: f32::INFINITY, .. }), "{error}");
}

#[test]
fn a_wrong_header_of_the_weights_is_an_error() {
    let (_parent, dir, _) = saved(Dtype::F32);
    let path = dir.join("model.safetensors");
    let original = fs::read(&path).unwrap();
    let too_long = [&u64::MAX.to_le_bytes(), &original[8..]].concat();
    for bytes in [Vec::new(), vec![0; 7], too_long, original[..original.len() - 4].to_vec(), vec![b'{'; 64]] {
        fs::write(&path, bytes).unwrap();
        reseal(&dir);
        let error = Checkpoint::load(&dir).unwrap_err();
        assert!(matches!(error, ModelError::SafeTensors { .. }), "{error}");
    }
}

fn with_config(dir: &Path, change: impl Fn(&mut serde_json::Value)) -> String {
    let path = dir.join("config.json");
    let original = fs::read(&path).unwrap();
    let mut json: serde_json::Value = serde_json::from_slice(&original).unwrap();
    change(&mut json);
    fs::write(&path, serde_json::to_vec(&json).unwrap()).unwrap();
    reseal(dir);
    let message = Checkpoint::load(dir).unwrap_err().to_string();
    fs::write(&path, original).unwrap();
    message
}

#[test]
fn a_config_that_does_not_fit_is_an_error_that_names_the_field() {
    let (_parent, dir, _) = saved(Dtype::F32);
    type Change = fn(&mut serde_json::Value);
    let cases: [(Change, &str); 9] = [
        (|json| json["model"]["backbone"]["n_layers"] = 3.into(), "unknown field `n_layers`"),
        (|json| json["surprise"] = true.into(), "unknown field `surprise`"),
        (|json| json["model"]["vision"]["patch_size"] = "8".into(), "invalid type: string \"8\""),
        (
            |json| json["model"]["vision"]["patch_size"] = 7.into(),
            "`vision.image_size` must be a multiple of vision.patch_size = 7",
        ),
        (
            |json| json["model"]["text"]["vocab_size"] = 64.into(),
            "tensor `text.embeddings.word_embeddings.weight` must have shape [64, 32]",
        ),
        (|json| json["format_version"] = 2.into(), "format version 2, this build reads version 1"),
        (|json| json["type"] = "act".into(), "`type` must be `robomamba`, found `act`"),
        (|json| json["input_features"]["observation.state"]["shape"] = 9.into(), "invalid type: integer `9`"),
        (
            |json| json["input_features"]["observation.state"]["shape"][0] = 9.into(),
            "`input_features` must be the same",
        ),
    ];
    for (change, expected) in cases {
        let message = with_config(&dir, change);
        assert!(message.contains(expected), "{message}");
    }
}

#[test]
fn parts_that_contradict_each_other_are_not_saved() {
    let (parent, _, checkpoint) = saved(Dtype::F32);
    let dir = parent.path().join("bad");
    let mut short_stats = checkpoint.clone();
    short_stats.stats.action.mean.pop();
    let mut small_vocabulary = checkpoint.clone();
    small_vocabulary.config.text.vocab_size = 100;
    let mut other_width = checkpoint;
    other_width.config.action_head.hidden_size += 1;
    for (bad, expected) in [
        (short_stats, "normalisation of `action`: `mean` must hold 2 finite values"),
        (small_vocabulary, "configuration `text.vocab_size` must be at least 109"),
        (other_width, "tensor `head.action.fc1.weight` must have shape [33, 48], found [32, 48]"),
    ] {
        let message = bad.save(&dir, Dtype::F32).unwrap_err().to_string();
        assert!(message.starts_with(expected), "{message}");
        assert!(!dir.exists());
    }
}

/// Runs itself in a process whose files may have 64 KiB at most. The write fails amid the weights, as on a full disk.
#[cfg(unix)]
#[test]
fn a_full_disk_leaves_the_old_folder_and_nothing_half_written() {
    const TARGET: &str = "ROBOMAMBA_TEST_TARGET";
    if let Some(dir) = std::env::var_os(TARGET) {
        let message = common::checkpoint().save(Path::new(&dir), Dtype::F32).unwrap_err().to_string();
        assert!(message.contains("model.safetensors") && message.contains("nothing was changed"), "{message}");
        return;
    }
    let (parent, dir, _) = saved(Dtype::F32);
    let before = files(&dir);
    let name = "a_full_disk_leaves_the_old_folder_and_nothing_half_written";
    let output = std::process::Command::new("bash")
        .args(["-c", "trap '' XFSZ; ulimit -f 64; exec \"$0\" --exact \"$1\" --nocapture"])
        .arg(std::env::current_exe().unwrap())
        .arg(name)
        .env(TARGET, &dir)
        .output()
        .unwrap();
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{stdout}{}", String::from_utf8_lossy(&output.stderr));
    assert!(stdout.contains("1 passed"), "{stdout}");
    assert_eq!(files(&dir), before);
    assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 1);
    Checkpoint::load(&dir).unwrap();
}

#[test]
fn a_destination_that_cannot_be_written_is_an_error() {
    let parent = tempfile::tempdir().unwrap();
    let file = parent.path().join("file");
    fs::write(&file, "here first").unwrap();
    for path in [file.clone(), file.join("model"), PathBuf::from("/")] {
        let error = common::checkpoint().save(&path, Dtype::F32).unwrap_err();
        assert!(matches!(error, ModelError::Write { .. }), "{error}");
    }
    assert_eq!(fs::read(&file).unwrap(), b"here first");
}
