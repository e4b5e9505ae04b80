//! The backbones: whole sequences, single steps, batches and carried states agree.

mod common;

use common::{max_abs_diff, noise};
use robomamba_kernels::{Isa, Kernels, Threads};
use robomamba_model::{BackboneConfig, MambaConfig, ModelConfig, Preset, Weights};
use robomamba_runtime::{Backbone, Format, RuntimeError, State, Workspace};

const TOLERANCE: f32 = 1e-4;

fn random(edit: impl FnOnce(&mut ModelConfig)) -> (BackboneConfig, Backbone) {
    let checkpoint = common::checkpoint(Preset::Nano, edit);
    let backbone = Backbone::new(Format::F32, &checkpoint.config.backbone, &checkpoint.weights, "backbone")
        .expect("weights are complete");
    (checkpoint.config.backbone, backbone)
}

/// Trunks of even and odd sizes; the Transformers' contexts are longer and shorter than the sequences.
fn backbones() -> Vec<(String, BackboneConfig, Backbone)> {
    let mamba =
        |d_model, n_layer, d_state, d_conv| MambaConfig { d_state, d_conv, ..MambaConfig::new(d_model, n_layer) };
    let configs = [
        BackboneConfig::Mamba(mamba(48, 2, 8, 4)),
        BackboneConfig::Mamba(mamba(20, 3, 5, 2)),
        BackboneConfig::Mamba(mamba(33, 1, 16, 3)),
        BackboneConfig::Transformer(BackboneConfig::Mamba(mamba(48, 2, 8, 4)).to_transformer(100)),
        BackboneConfig::Transformer(BackboneConfig::Mamba(mamba(48, 2, 8, 4)).to_transformer(7)),
    ];
    configs
        .into_iter()
        .map(|config| {
            let (config, backbone) = random(|model| model.backbone = config);
            (format!("{config:?}"), config, backbone)
        })
        .collect()
}

fn workspace() -> Workspace {
    Workspace::new(Kernels::detect().with_threads(Threads::One))
}

fn forward(backbone: &Backbone, x: &[f32], state: &mut State) -> Vec<f32> {
    let mut hidden = vec![0.0; x.len()];
    backbone.forward(x, state, &mut hidden, &mut workspace()).expect("sizes fit");
    hidden
}

/// Largest absolute value of a state.
fn size(state: &State, config: &BackboneConfig) -> f32 {
    match state {
        State::Mamba(_) => state.max_abs_diff(&State::zeros(config)).expect("same model"),
        State::Transformer(_) => 1.0,
    }
}

fn steps(backbone: &Backbone, x: &[f32], state: &mut State) -> Vec<f32> {
    let (d, mut workspace) = (backbone.d_model(), workspace());
    let mut hidden = vec![0.0; x.len()];
    for (x, hidden) in x.chunks_exact(d).zip(hidden.chunks_exact_mut(d)) {
        backbone.step(x, state, hidden, &mut workspace).expect("sizes fit");
    }
    hidden
}

#[test]
fn a_sequence_of_thousands_is_its_parts_with_carried_state() {
    let (name, config, backbone) = backbones().swap_remove(1);
    let x = noise(6, 1300 * backbone.d_model());
    let (mut whole, mut in_parts) = (State::zeros(&config), State::zeros(&config));
    let expected = forward(&backbone, &x, &mut whole);
    let (first, rest) = x.split_at(411 * backbone.d_model());
    let parts = [first, rest].map(|part| forward(&backbone, part, &mut in_parts)).concat();
    assert!(max_abs_diff(&expected, &parts) <= TOLERANCE, "{name}: outputs");
    let difference = whole.max_abs_diff(&in_parts).expect("same model");
    assert!(difference <= TOLERANCE * size(&whole, &config).max(1.0), "{name}: states differ by {difference}");
}

#[test]
fn forward_equals_repeated_step_and_chunks_with_carried_state() {
    for (name, config, backbone) in backbones() {
        let x = noise(1, 37 * backbone.d_model());
        let (mut whole, mut stepped, mut chunked) =
            (State::zeros(&config), State::zeros(&config), State::zeros(&config));
        let expected = forward(&backbone, &x, &mut whole);
        let by_step = steps(&backbone, &x, &mut stepped);
        let by_chunk: Vec<f32> = [&x[..5 * backbone.d_model()], &x[5 * backbone.d_model()..]]
            .into_iter()
            .flat_map(|x| forward(&backbone, x, &mut chunked))
            .collect();
        assert!(expected.iter().any(|value| value.abs() > 0.1), "{name}: the output says nothing");
        for (way, hidden, state) in [("step", by_step, stepped), ("chunk", by_chunk, chunked)] {
            assert!(max_abs_diff(&expected, &hidden) < TOLERANCE, "{name}, {way}: output");
            let difference = whole.max_abs_diff(&state).expect("same step");
            assert!(
                difference < TOLERANCE,
                "{name}, {way}: states differ by {difference}, size {}",
                size(&whole, &config)
            );
        }
    }
}

#[test]
fn a_batch_equals_its_sequences() {
    for (name, config, backbone) in backbones() {
        let len = 9 * backbone.d_model();
        let x = noise(2, 3 * len);
        let mut states = vec![State::zeros(&config); 3];
        steps(&backbone, &noise(3, backbone.d_model()), &mut states[1]);
        let mut alone = states.clone();
        let mut hidden = vec![0.0; x.len()];
        backbone.forward_batch(&x, &mut states, &mut hidden, &mut workspace()).expect("sizes fit");
        for (i, alone) in alone.iter_mut().enumerate() {
            let expected = forward(&backbone, &x[i * len..][..len], alone);
            assert!(max_abs_diff(&expected, &hidden[i * len..][..len]) < 1e-5, "{name}: output {i}");
            assert!(states[i].max_abs_diff(alone).expect("same step") < 1e-5, "{name}: state {i}");
        }
    }
}

#[test]
fn the_past_matters_and_the_future_does_not() {
    for (name, config, backbone) in backbones() {
        let d = backbone.d_model();
        let mut x = noise(4, 6 * d);
        let before = forward(&backbone, &x, &mut State::zeros(&config));
        x[3 * d..4 * d].fill(0.7);
        let after = forward(&backbone, &x, &mut State::zeros(&config));
        assert!(max_abs_diff(&before[..3 * d], &after[..3 * d]) == 0.0, "{name}: the future leaks");
        assert!(max_abs_diff(&before[5 * d..], &after[5 * d..]) > 1e-4, "{name}: the past is forgotten");
    }
}

#[test]
fn every_instruction_set_gives_the_same_result() {
    for (name, config, backbone) in backbones() {
        let x = noise(5, 11 * backbone.d_model());
        let mut reference = State::zeros(&config);
        let expected = forward(&backbone, &x, &mut reference);
        for isa in Isa::available() {
            let mut workspace = Workspace::new(Kernels::new(isa, Threads::One).expect("it is available"));
            let (mut state, mut hidden) = (State::zeros(&config), vec![0.0; x.len()]);
            backbone.forward(&x, &mut state, &mut hidden, &mut workspace).expect("sizes fit");
            assert!(max_abs_diff(&expected, &hidden) < TOLERANCE, "{name}, {isa:?}: output");
            let difference = reference.max_abs_diff(&state).expect("same step");
            assert!(
                difference < TOLERANCE,
                "{name}, {isa:?}: states differ by {difference}, size {}",
                size(&state, &config)
            );
        }
    }
}

#[test]
fn wrong_sizes_and_states_are_refused_and_change_nothing() {
    let all = backbones();
    for (i, (name, config, backbone)) in all.iter().enumerate() {
        let (d, mut workspace) = (backbone.d_model(), workspace());
        let mut state = State::zeros(config);
        let mut hidden = vec![0.0; d];
        assert!(matches!(
            backbone.step(&noise(6, d - 1), &mut state, &mut hidden, &mut workspace),
            Err(RuntimeError::Length { name: "x", .. })
        ));
        assert!(backbone.forward(&noise(6, d + 1), &mut state, &mut hidden, &mut workspace).is_err(), "{name}");
        assert!(backbone.step(&noise(6, d), &mut state, &mut hidden[1..], &mut workspace).is_err(), "{name}");
        assert_eq!(state, State::zeros(config), "{name}: the state was touched");
        let mut other = State::zeros(&all[(i + 1) % all.len()].1);
        let error =
            backbone.step(&noise(6, d), &mut other, &mut hidden, &mut workspace).expect_err("another backbone's state");
        assert!(matches!(error, RuntimeError::StateShape { .. }), "{name}: {error}");
    }
}

#[test]
fn a_missing_or_misshapen_parameter_is_named() {
    let checkpoint = common::checkpoint(Preset::Nano, |_| {});
    let config = &checkpoint.config.backbone;
    let name = "backbone.layers.1.mixer.x_proj.weight";
    let mut weights = checkpoint.weights.clone();
    let tensor = weights.remove(name).expect("it is there");
    let error =
        Backbone::new(Format::F32, config, &weights, "backbone").expect_err("a parameter is missing").to_string();
    assert!(error.contains(name), "{error}");
    weights.insert(name, vec![tensor.data.len()], tensor.data).expect("the shape is filled");
    let error = Backbone::new(Format::F32, config, &weights, "backbone").expect_err("a shape is wrong").to_string();
    assert!(error.contains(name) && error.contains("[19, 96]"), "{error}");
    assert!(Backbone::new(Format::F32, config, &Weights::new(), "backbone").is_err());
}
