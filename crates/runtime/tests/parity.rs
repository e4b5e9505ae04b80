//! The parts of the runtime against `transformers`, on the golden models of `tests/golden/hf` (whose script is
//! beside them), read by the same conversion that users call: outputs, and for Mamba the states too.

use std::{fs, path::PathBuf};

use robomamba_kernels::{Isa, Kernels, Threads};
use robomamba_model::{
    ImageTransform, MambaConfig,
    convert::{Converted, PartConfig, from_hf},
};
use robomamba_runtime::{Format, Mamba, MambaState, TextEncoder, VisionEncoder, Workspace};
use safetensors::SafeTensors;

const TOLERANCE: f32 = 1e-4;

fn folder(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/hf").join(name)
}

/// The numbers that `transformers` computed for one model.
struct Golden {
    bytes: Vec<u8>,
}

impl Golden {
    fn read(name: &str) -> Self {
        Self { bytes: fs::read(folder(name).join("golden.safetensors")).expect("the golden file is committed") }
    }

    /// Shape and bytes of a tensor.
    fn raw(&self, name: &str) -> (Vec<usize>, Vec<u8>) {
        let tensors = SafeTensors::deserialize(&self.bytes).expect("the golden file is whole");
        let tensor = tensors.tensor(name).expect("the script writes this tensor");
        (tensor.shape().to_vec(), tensor.data().to_vec())
    }

    fn f32(&self, name: &str) -> (Vec<usize>, Vec<f32>) {
        let (shape, bytes) = self.raw(name);
        (shape, words(&bytes).map(f32::from_le_bytes).collect())
    }

    fn u32(&self, name: &str) -> Vec<u32> {
        words(&self.raw(name).1).map(u32::from_le_bytes).collect()
    }
}

fn words(bytes: &[u8]) -> impl Iterator<Item = [u8; 4]> + '_ {
    bytes.chunks_exact(4).map(|word| word.try_into().expect("four bytes"))
}

fn assert_close(what: &str, found: &[f32], expected: &[f32]) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let error = found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(error < TOLERANCE, "{what}: largest error {error:e}");
    // A comparison of NaN with anything is false and would be skipped by `max`.
    assert!(found.iter().all(|value| value.is_finite()), "{what}");
}

/// Runs `test` with a workspace of every instruction set of this machine.
fn on_every_isa(test: impl Fn(&str, &mut Workspace)) {
    for isa in Isa::available() {
        let kernels = Kernels::new(isa, Threads::One).expect("it is available");
        test(&format!("{isa:?}"), &mut Workspace::new(kernels));
    }
}

fn vision_matches(name: &str) {
    let (golden, converted) = (Golden::read(name), from_hf(&folder(name)).expect("the model is supported"));
    let PartConfig::Vision(config) = &converted.part else { panic!("{name} is no vision encoder") };
    let encoder =
        VisionEncoder::new(Format::F32, config, &converted.weights, "vision").expect("the weights are complete");
    let (shape, rgb) = golden.raw("rgb");
    let (_, expected) = golden.f32("last_hidden_state");
    let transform = ImageTransform::new(config, shape[1], shape[2]).expect("the size is valid");
    let tokens_len = config.n_token() * config.hidden_size;
    on_every_isa(|isa, workspace| {
        let (mut patches, mut tokens) = (vec![0.0; transform.patches_len()], vec![0.0; tokens_len]);
        for (i, expected) in expected.chunks_exact(tokens_len).enumerate() {
            let image = &rgb[i * rgb.len() / shape[0]..][..rgb.len() / shape[0]];
            transform.apply(image, &mut transform.scratch(), &mut patches).expect("the buffers fit");
            encoder.forward(&patches, &mut tokens, workspace).expect("the buffers fit");
            assert_close(&format!("{name}, image {i}, {isa}"), &tokens, expected);
        }
    });
}

#[test]
fn vit_matches_transformers() {
    vision_matches("vit");
}

#[test]
fn clip_matches_transformers() {
    vision_matches("clip");
}

#[test]
fn siglip_matches_transformers() {
    vision_matches("siglip");
}

#[test]
fn dinov2_matches_transformers() {
    vision_matches("dinov2");
}

#[test]
fn bert_matches_transformers() {
    let (golden, converted) = (Golden::read("bert"), from_hf(&folder("bert")).expect("the model is supported"));
    let PartConfig::Text(config) = &converted.part else { panic!("bert is no text encoder") };
    let encoder = TextEncoder::new(Format::F32, config, &converted.weights, "text").expect("the weights are complete");
    on_every_isa(|isa, workspace| {
        let mut tokens = Vec::new();
        encoder.forward(&golden.u32("ids"), &mut tokens, workspace).expect("the ids are in the vocabulary");
        assert_close(isa, &tokens, &golden.f32("last_hidden_state").1);
    });
}

/// A golden Mamba model with its inputs and outputs, one sequence of the batch.
struct MambaCase {
    config: MambaConfig,
    mamba: Mamba,
    golden: Golden,
    /// `[seq_len, d_model]`.
    x: Vec<f32>,
    /// `[seq_len, d_model]`.
    expected: Vec<f32>,
    batch: usize,
}

impl MambaCase {
    fn all() -> Vec<Self> {
        ["mamba", "mamba_odd"].into_iter().flat_map(|name| (0..2).map(move |batch| Self::read(name, batch))).collect()
    }

    fn read(name: &str, batch: usize) -> Self {
        let golden = Golden::read(name);
        let Converted { part, weights, .. } = from_hf(&folder(name)).expect("the model is supported");
        let PartConfig::Backbone(config) = part else { panic!("{name} is no backbone") };
        let mamba = Mamba::new(Format::F32, &config, &weights, "backbone").expect("the weights are complete");
        let sequence = |name: &str| {
            let (shape, values) = golden.f32(name);
            values[batch * shape[1] * shape[2]..][..shape[1] * shape[2]].to_vec()
        };
        Self { x: sequence("x"), expected: sequence("last_hidden_state"), config, mamba, golden, batch }
    }

    /// Values of the part of the input that `transformers` ran as a sequence.
    fn prompt_len(&self) -> usize {
        self.golden.u32("n_prompt")[0] as usize * self.config.d_model
    }

    /// Compares with the states after the sequence (`suffix` empty) or after the last step (`_end`).
    fn assert_state(&self, isa: &str, suffix: &str, state: &MambaState) {
        let (_, ssm) = self.golden.f32(&format!("ssm{suffix}.{}", self.batch));
        assert_close(&format!("{isa}: ssm{suffix}"), state.ssm(), &ssm);
        // Upstream keeps the current input as well, which the next convolution does not need.
        let (_, conv) = self.golden.f32(&format!("conv{suffix}.{}", self.batch));
        let conv: Vec<f32> = conv.chunks_exact(self.config.d_conv).flat_map(|taps| &taps[1..]).copied().collect();
        assert_close(&format!("{isa}: conv{suffix}"), state.conv(), &conv);
    }
}

#[test]
fn mamba_sequence_and_its_states_match_transformers() {
    for case in MambaCase::all() {
        on_every_isa(|isa, workspace| {
            let (mut state, len) = (MambaState::zeros(&case.config), case.prompt_len());
            let mut hidden = vec![0.0; len];
            case.mamba.forward(&case.x[..len], &mut state, &mut hidden, workspace).expect("the buffers fit");
            assert_close(isa, &hidden, &case.expected[..len]);
            case.assert_state(isa, "", &state);
        });
    }
}

#[test]
fn mamba_continued_step_by_step_matches_transformers() {
    for case in MambaCase::all() {
        on_every_isa(|isa, workspace| {
            let (mut state, len) = (MambaState::zeros(&case.config), case.prompt_len());
            let mut hidden = vec![0.0; len];
            case.mamba.forward(&case.x[..len], &mut state, &mut hidden, workspace).expect("the buffers fit");
            steps(&case, len, &mut state, isa, workspace);
            case.assert_state(isa, "_end", &state);
        });
    }
}

#[test]
fn mamba_stepped_from_the_start_matches_transformers() {
    for case in MambaCase::all() {
        on_every_isa(|isa, workspace| {
            let mut state = MambaState::zeros(&case.config);
            steps(&case, 0, &mut state, isa, workspace);
            case.assert_state(isa, "_end", &state);
        });
    }
}

/// Steps through the input from value `start` on.
fn steps(case: &MambaCase, start: usize, state: &mut MambaState, isa: &str, workspace: &mut Workspace) {
    let d_model = case.config.d_model;
    let mut hidden = vec![0.0; d_model];
    let rows = case.x[start..].chunks_exact(d_model).zip(case.expected[start..].chunks_exact(d_model));
    for (i, (x, expected)) in rows.enumerate() {
        case.mamba.step(x, state, &mut hidden, workspace).expect("the buffers fit");
        assert_close(&format!("{isa}, step {i}"), &hidden, expected);
    }
}
