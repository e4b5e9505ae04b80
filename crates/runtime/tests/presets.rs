//! Every preset can be built and run, with every vision encoder.

mod common;

use common::{max_abs_diff, observation, session};
use robomamba_kernels::{Isa, Kernels, Threads};
use robomamba_model::{BackboneConfig, Checkpoint, Preset, TextTokenizer, VisionKind, Weights};
use robomamba_policy::{ActionChunk, Policy};
use robomamba_runtime::{Format, TextEncoder, VisionEncoder, Workspace};

#[test]
fn every_preset_acts_with_either_trunk() {
    for preset in Preset::ALL {
        // Initialising a base model takes seconds, and its Transformer differs from small's in size only.
        let backbones: &[bool] = if preset == Preset::Base { &[false] } else { &[false, true] };
        for &transformer in backbones {
            let tokenizer = TextTokenizer::characters().expect("characters always fit");
            let mut config = preset.config(common::features());
            // The vocabulary of the large presets takes most of the time and nothing but look-ups depends on it.
            config.text.vocab_size = tokenizer.vocab_size();
            if transformer {
                config.backbone = BackboneConfig::Transformer(config.backbone.to_transformer(64));
            }
            let model = common::model(&Checkpoint::random(config, tokenizer, 1).expect("the preset is valid"));
            let (mut session, mut chunk) = (session(&model), ActionChunk::default());
            for step in 0..3 {
                session.act(&observation(step), &mut chunk).expect("the observation fits");
            }
            assert_eq!(chunk.chunk_size(), model.config().action_head.chunk_size, "{preset}");
            assert!(chunk.actions.iter().all(|value| value.is_finite()), "{preset}");
            assert!(session.hidden().iter().any(|value| value.abs() > 1e-3), "{preset}: the backbone says nothing");
        }
    }
}

#[test]
fn every_vision_encoder_runs_on_every_instruction_set() {
    for kind in [VisionKind::Vit, VisionKind::Clip, VisionKind::Siglip, VisionKind::Dinov2] {
        let checkpoint = common::checkpoint(Preset::Nano, |config| config.vision.kind = kind);
        let config = &checkpoint.config.vision;
        let encoder =
            VisionEncoder::new(Format::F32, config, &checkpoint.weights, "vision").expect("weights are complete");
        let patches = common::noise(3, config.n_patch() * config.patch_dim());
        let run = |isa: Isa, patches: &[f32]| {
            let mut tokens = vec![0.0; config.n_token() * config.hidden_size];
            let mut workspace = Workspace::new(Kernels::new(isa, Threads::One).expect("it is available"));
            encoder.forward(patches, &mut tokens, &mut workspace).expect("sizes fit");
            tokens
        };
        let expected = run(Kernels::detect().isa(), &patches);
        assert_eq!(encoder.patch_tokens(&expected).len(), config.n_patch() * config.hidden_size);
        for isa in Isa::available() {
            assert!(max_abs_diff(&expected, &run(isa, &patches)) < 1e-4, "{kind:?}, {isa:?}");
        }
        let other = run(Kernels::detect().isa(), &common::noise(4, patches.len()));
        assert!(max_abs_diff(&expected, &other) > 1e-2, "{kind:?}: the image does not matter");
    }
}

#[test]
fn every_vision_encoder_sees_the_same_on_any_number_of_threads() {
    for kind in [VisionKind::Vit, VisionKind::Clip, VisionKind::Siglip, VisionKind::Dinov2] {
        let checkpoint = common::checkpoint(Preset::Nano, |config| {
            (config.vision.kind, config.vision.image_size) = (kind, 128);
        });
        let config = &checkpoint.config.vision;
        let patches = common::noise(3, config.n_patch() * config.patch_dim());
        for format in Format::ALL {
            let encoder =
                VisionEncoder::new(format, config, &checkpoint.weights, "vision").expect("weights are complete");
            let run = |threads: Threads| {
                let mut tokens = vec![0.0; config.n_token() * config.hidden_size];
                let mut workspace = Workspace::new(Kernels::detect().with_threads(threads));
                encoder.forward(&patches, &mut tokens, &mut workspace).expect("sizes fit");
                tokens
            };
            let expected = run(Threads::One);
            // Each has a block of rows; with sixteen threads the blocks are as low as they may be, with twenty some
            // threads help others.
            for threads in [2, 3, 16, 20] {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads start");
                let found = pool.install(|| run(Threads::Rayon));
                assert!(expected == found, "{kind:?} in {format} on {threads} threads");
            }
        }
    }
}

#[test]
fn layer_scale_is_part_of_dinov2() {
    let checkpoint = common::checkpoint(Preset::Nano, |config| config.vision.kind = VisionKind::Dinov2);
    let config = &checkpoint.config.vision;
    let patches = common::noise(3, config.n_patch() * config.patch_dim());
    let run = |weights: &Weights| {
        let encoder = VisionEncoder::new(Format::F32, config, weights, "vision").expect("weights are complete");
        let mut tokens = vec![0.0; config.n_token() * config.hidden_size];
        let mut workspace = Workspace::new(Kernels::detect().with_threads(Threads::One));
        encoder.forward(&patches, &mut tokens, &mut workspace).expect("sizes fit");
        tokens
    };
    let mut weights = checkpoint.weights.clone();
    let scale = weights.get_mut("vision.encoder.layer.1.layer_scale2.lambda1").expect("it is there");
    scale.iter_mut().for_each(|value| *value *= 2.0);
    assert!(max_abs_diff(&run(&checkpoint.weights), &run(&weights)) > 1e-3);
}

#[test]
fn words_and_their_order_matter_and_wrong_tokens_are_refused() {
    let checkpoint = common::checkpoint(Preset::Nano, |_| {});
    let config = &checkpoint.config.text;
    let encoder = TextEncoder::new(Format::F32, config, &checkpoint.weights, "text").expect("weights are complete");
    let mut workspace = Workspace::new(Kernels::detect().with_threads(Threads::One));
    let mut run = |ids: &[u32]| {
        let mut tokens = Vec::new();
        encoder.forward(ids, &mut tokens, &mut workspace).map(|()| tokens)
    };
    let tokens = run(&[2, 7, 8, 9, 3]).expect("ids are in the vocabulary");
    assert_eq!(tokens.len(), 5 * config.hidden_size);
    assert!(max_abs_diff(&tokens, &run(&[2, 8, 7, 9, 3]).expect("ids are in the vocabulary")) > 1e-2);
    let too_many = vec![5; config.max_position_embeddings + 1];
    for (ids, part) in [(vec![], "found 0"), (too_many, "1 to 128 tokens"), (vec![2, 1_000_000], "1000000")] {
        let error = run(&ids).expect_err(part).to_string();
        assert!(error.contains(part), "{error}");
    }
}
