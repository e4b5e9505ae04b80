//! What 16 and 8 bits cost in accuracy, and what they must not cost.

mod common;

use std::sync::Arc;

use common::{checkpoint, observation, session};
use robomamba_model::{Checkpoint, Dtype, Preset};
use robomamba_policy::{ActionChunk, Observation, Policy};
use robomamba_runtime::{Format, LoadOptions, Model, TextWeights};

/// Plans for the first `steps` observations, one after the other.
fn plans(format: Format, checkpoint: &Checkpoint, steps: u64) -> Vec<f32> {
    let model = Arc::new(Model::from_checkpoint(format, checkpoint).expect("the checkpoint is complete"));
    let mut session = session(&model);
    let mut chunk = ActionChunk::default();
    (0..steps)
        .flat_map(|seed| {
            session.act(&observation(seed), &mut chunk).expect("the observation fits");
            chunk.actions.clone()
        })
        .collect()
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

/// Takes the mean of the actions out, which every plan shares.
fn centre(actions: &mut [f32]) {
    actions.chunks_exact_mut(2).for_each(|action| {
        action[0] = (action[0] - 0.5) / 2.0;
        action[1] = (action[1] + 0.5) / 0.1;
    });
}

#[test]
fn a_checkpoint_stored_in_8_bits_plans_as_the_one_that_it_was_made_of() {
    let checkpoint = checkpoint(Preset::Tabletop, |_| {});
    let dir = tempfile::tempdir().expect("a folder can be made");
    let mut exact = plans(Format::Int8, &checkpoint, 20);
    centre(&mut exact);
    // Both round convolutions and embeddings to 16 bits; in 8 bits the matrices are those that are computed with.
    let [int8, bf16] = [Dtype::Int8, Dtype::Bf16].map(|dtype| {
        let folder = dir.path().join(dtype.name());
        checkpoint.save(&folder, dtype).expect("the checkpoint can be saved");
        let stored = Checkpoint::load(&folder).expect("it can be loaded");
        let mut plans = plans(Format::Int8, &stored, 20);
        centre(&mut plans);
        cosine(&exact, &plans)
    });
    assert!(int8 > 0.9995 && int8 > bf16 - 1e-4, "cosine {int8} in 8 bits, {bf16} in 16");
}

#[test]
fn fewer_bits_plan_nearly_the_same() {
    let checkpoint = checkpoint(Preset::Tabletop, |_| {});
    let mut exact = plans(Format::F32, &checkpoint, 20);
    centre(&mut exact);
    for (format, least) in [(Format::Bf16, 0.9999), (Format::Int8, 0.995)] {
        let mut found = plans(format, &checkpoint, 20);
        centre(&mut found);
        let cosine = cosine(&exact, &found);
        assert!(cosine > least && cosine < 1.0, "{format}: cosine {cosine}");
        assert_eq!(plans(format, &checkpoint, 3), plans(format, &checkpoint, 3), "{format} is not deterministic");
    }
}

#[test]
fn a_text_encoder_that_stays_in_the_checkpoint_reads_the_same() {
    let dir = tempfile::tempdir().expect("a folder can be made");
    let folder = dir.path().join("model");
    checkpoint(Preset::Nano, |_| {}).save(&folder, Dtype::F32).expect("the checkpoint can be saved");
    for format in Format::ALL {
        let [resident, stored] = [TextWeights::Resident, TextWeights::Stored].map(|text| {
            let model = Arc::new(Model::load_with(&folder, &LoadOptions { format, text }).expect("it can be loaded"));
            let mut session = session(&model);
            let mut chunk = ActionChunk::default();
            let plans = ["reach the red disc", "push the blue square", "reach the red disc"].map(|instruction| {
                let observation = Observation { instruction: instruction.into(), ..observation(3) };
                session.act(&observation, &mut chunk).expect("the observation fits");
                chunk.actions.clone()
            });
            assert!(plans[0] != plans[1], "the instruction matters");
            plans
        });
        assert!(resident == stored, "{format}");
    }
}

#[test]
fn a_checkpoint_that_was_cut_short_meanwhile_is_named() {
    let dir = tempfile::tempdir().expect("a folder can be made");
    let folder = dir.path().join("model");
    checkpoint(Preset::Nano, |_| {}).save(&folder, Dtype::F32).expect("the checkpoint can be saved");
    let options = LoadOptions { text: TextWeights::Stored, ..LoadOptions::default() };
    let model = Arc::new(Model::load_with(&folder, &options).expect("it can be loaded"));
    let file = std::fs::OpenOptions::new().write(true).open(folder.join("model.safetensors")).expect("it is there");
    file.set_len(1000).expect("it can be cut");
    let error = session(&model).act(&observation(0), &mut ActionChunk::default()).unwrap_err();
    assert!(error.to_string().contains("model.safetensors"), "{error}");
}

#[test]
fn formats_have_the_names_that_they_print() {
    for format in Format::ALL {
        assert_eq!(format.to_string().parse(), Ok(format));
    }
    assert!("int4".parse::<Format>().unwrap_err().to_string().contains("f32, bf16 or int8, found `int4`"));
}
