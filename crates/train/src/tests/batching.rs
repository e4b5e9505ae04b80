//! How episodes are put together must not matter: in one batch or alone, whole or in segments.

use std::ops::Range;

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use robomamba_model::{BackboneConfig, ModelConfig, Preset, Weights};

use super::COMPUTE;
use super::gradients::features;
use crate::modules::batch::{Batch, Episodes, Frames, Pictures, SequenceState};
use crate::modules::policy::PolicyModel;
use crate::throughput::random_batch;
use crate::{Parameters, ops};

const TOLERANCE: f32 = 2e-5;

fn pictures(batch: &Batch) -> &Pictures {
    let Frames::Pictures(pictures) = &batch.frames else { panic!("the batch is of pictures") };
    pictures
}

/// Some steps of a batch whose every step has a frame of its own, as episodes of `lengths`.
fn part(config: &ModelConfig, whole: &Batch, steps: Range<usize>, lengths: &[usize]) -> Batch {
    let Range { start: from, end: to } = steps;
    let frame_len = config.features.cameras.len() * config.vision.n_patch() * config.vision.patch_dim();
    let state_dim = config.features.state.dim();
    let pictures = pictures(whole);
    Batch {
        frames: Frames::Pictures(Pictures {
            patches: pictures.patches[from * frame_len..to * frame_len].to_vec(),
            instruction: pictures.instruction[from..to].into(),
            texts: pictures.texts.clone(),
        }),
        episodes: Episodes {
            lengths: lengths.into(),
            frame: (0..to - from).collect(),
            state: whole.episodes.state[from * state_dim..to * state_dim].to_vec(),
        },
    }
}

struct Setup {
    config: ModelConfig,
    model: PolicyModel,
    parameters: Parameters,
    whole: Batch,
}

impl Setup {
    fn new(config: ModelConfig) -> Self {
        let whole = random_batch(&config, &[6, 6], &mut ChaCha8Rng::seed_from_u64(2));
        let parameters = Parameters::new(&config, &Weights::random(&config, 1), &[]).unwrap();
        Self { model: PolicyModel::new(&config, COMPUTE), parameters, whole, config }
    }

    fn actions(&self, batch: Batch, initial: &[Option<SequenceState>]) -> (Vec<f32>, Vec<SequenceState>) {
        let outputs = self.model.forward(&self.parameters.clone().lend(COMPUTE.precision), batch, initial);
        (ops::values(outputs.chunks), outputs.last)
    }

    fn part(&self, steps: Range<usize>, lengths: &[usize]) -> Batch {
        part(&self.config, &self.whole, steps, lengths)
    }
}

fn assert_close(a: &[f32], b: &[f32]) {
    assert_eq!(a.len(), b.len());
    let worst = a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(worst < TOLERANCE, "outputs differ by {worst}");
}

#[test]
fn an_episode_in_a_batch_is_the_episode_alone() {
    let mamba = Preset::Nano.config(features(1));
    let mut transformer = mamba.clone();
    transformer.backbone = BackboneConfig::Transformer(mamba.backbone.to_transformer(64));
    for config in [mamba, transformer] {
        let setup = Setup::new(config);
        let (together, _) = setup.actions(setup.whole.clone(), &[]);
        let (first, _) = setup.actions(setup.part(0..6, &[6]), &[]);
        let (second, _) = setup.actions(setup.part(6..12, &[6]), &[]);
        assert_close(&together, &[first, second].concat());
    }
}

#[test]
fn segments_with_carried_states_are_the_whole_episode() {
    let setup = Setup::new(Preset::Nano.config(features(2)));
    let (whole, end) = setup.actions(setup.part(0..12, &[12]), &[]);
    let (first, carried) = setup.actions(setup.part(0..5, &[5]), &[]);
    let (second, last) = setup.actions(setup.part(5..12, &[7]), &[Some(carried[0].clone())]);
    assert_close(&whole, &[first, second].concat());
    for (a, b) in end[0].iter().zip(&last[0]) {
        assert_close(&a.ssm, &b.ssm);
        assert_close(&a.conv, &b.conv);
    }
}

#[test]
fn a_repeated_frame_is_encoded_once_and_counts_everywhere() {
    let setup = Setup::new(Preset::Nano.config(features(1)));
    let mut shared = setup.part(0..1, &[3]);
    shared.episodes.frame = vec![0, 0, 0].into();
    shared.episodes.state = [&shared.episodes.state[..]; 3].concat();
    let mut copied = shared.clone();
    copied.frames = Frames::Pictures(Pictures {
        patches: [&pictures(&shared).patches[..]; 3].concat(),
        instruction: vec![0; 3].into(),
        ..pictures(&shared).clone()
    });
    copied.episodes.frame = vec![0, 1, 2].into();
    assert_close(&setup.actions(shared, &[]).0, &setup.actions(copied, &[]).0);
}

#[test]
fn tokens_that_are_known_do_for_the_pictures() {
    let setup = Setup::new(Preset::Nano.config(features(2)));
    let (pictures, episodes) = (pictures(&setup.whole).clone(), setup.whole.episodes.clone());
    let tokens = setup.model.tokens(&setup.parameters.clone().lend(COMPUTE.precision), pictures, episodes);
    let mut known = setup.whole.clone();
    known.frames = Frames::Tokens(tokens);
    assert_eq!(setup.actions(setup.whole.clone(), &[]).0, setup.actions(known, &[]).0);
}
