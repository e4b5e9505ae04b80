//! Sessions: determinism, forks, caches, whole sequences, and what they refuse.

mod common;

use std::num::NonZeroUsize;

use common::{max_abs_diff, observation, session};
use robomamba_kernels::{Isa, KernelChoice, Kernels, Threads};
use robomamba_policy::{ActionChunk, Image, Observation, Policy, PolicyError};
use robomamba_runtime::{FrameReuse, RuntimeOptions, Session, State, Workspace};

fn act(session: &mut Session, observation: &Observation) -> ActionChunk {
    let mut chunk = ActionChunk::default();
    session.act(observation, &mut chunk).expect("the observation fits");
    chunk
}

fn run(session: &mut Session, seeds: std::ops::Range<u64>) -> Vec<ActionChunk> {
    seeds.map(|seed| act(session, &observation(seed))).collect()
}

#[test]
fn chunks_have_the_shape_of_the_head_and_a_probability() {
    let model = common::nano();
    let chunk = act(&mut session(&model), &observation(1));
    assert_eq!((chunk.chunk_size(), chunk.action_dim), (model.config().action_head.chunk_size, 2));
    assert!(chunk.actions.iter().all(|value| value.is_finite()));
    assert!(chunk.success_probability.is_some_and(|p| p > 0.0 && p < 1.0));
}

#[test]
fn equal_runs_are_equal_to_the_bit() {
    for model in [common::nano(), common::nano_transformer(6)] {
        let (mut a, mut b) = (session(&model), session(&model));
        let first = run(&mut a, 0..12);
        assert_eq!(first, run(&mut b, 0..12));
        assert_eq!(a.state(), b.state());
        a.reset();
        assert_eq!(first, run(&mut a, 0..12), "a reset session must be as good as new");
    }
}

#[test]
fn the_history_changes_the_actions() {
    let model = common::nano();
    let (mut fresh, mut experienced) = (session(&model), session(&model));
    run(&mut experienced, 0..5);
    let (a, b) = (act(&mut fresh, &observation(9)), act(&mut experienced, &observation(9)));
    assert!(max_abs_diff(&a.actions, &b.actions) > 1e-4);
}

#[test]
fn forks_go_their_own_ways() {
    let model = common::nano();
    let mut original = session(&model);
    run(&mut original, 0..4);
    let before = original.state().clone();
    let mut fork = original.fork();
    run(&mut fork, 100..104);
    assert_eq!(original.state(), &before);
    assert!(before.distance(fork.state()).expect("same model") > 0.0);
    let expected = run(&mut original, 4..8);
    fork.set_state(before).expect("same model");
    assert_eq!(run(&mut fork, 4..8), expected, "rolled back to the fork");
}

#[test]
fn phases_compose_to_a_control_step() {
    for model in [common::nano(), common::nano_transformer(6)] {
        let (mut whole, mut phased) = (session(&model), session(&model));
        let mut chunk = ActionChunk::default();
        for seed in 0..6 {
            let token = phased.perceive(&observation(seed)).expect("the observation fits").to_vec();
            let hidden = phased.advance(&token).expect("a token of this model").to_vec();
            phased.plan(&mut chunk).expect("the heads fit");
            assert_eq!(chunk, act(&mut whole, &observation(seed)));
            assert_eq!((whole.token(), whole.hidden()), (&*token, &*hidden));
        }
        assert_eq!(phased.state(), whole.state());
    }
}

#[test]
fn foreign_tokens_and_states_are_refused() {
    let model = common::nano();
    let mut session = session(&model);
    run(&mut session, 0..2);
    let before = session.state().clone();
    let error = session.advance(&[0.0; 3]).expect_err("a short token");
    assert!(error.to_string().contains("`token` must hold 48 values, found 3"), "{error}");
    let foreign = State::zeros(&common::nano_transformer(6).config().backbone);
    let error = session.set_state(foreign).expect_err("a state of another model");
    assert!(error.to_string().contains("the state was made for"), "{error}");
    assert_eq!(session.state(), &before);
    let replaced = session.set_state(State::zeros(&model.config().backbone)).expect("same model");
    assert_eq!(replaced, before);
}

#[test]
fn a_restored_state_continues_to_the_bit() {
    for model in [common::nano(), common::nano_transformer(6)] {
        let mut original = session(&model);
        run(&mut original, 0..9);
        let saved = original.state().save();
        let mut restored = session(&model);
        let state = State::restore(&saved, &model.config().backbone).expect("it is ours");
        restored.set_state(state).expect("same model");
        assert_eq!(restored.state(), original.state());
        assert_eq!(run(&mut original, 9..14), run(&mut restored, 9..14));
    }
}

#[test]
fn whole_sequences_agree_with_steps() {
    for model in [common::nano(), common::nano_transformer(6)] {
        let mut stepped = session(&model);
        let chunks = run(&mut stepped, 0..20);
        let mut encoder = session(&model);
        let tokens: Vec<f32> = (0..20)
            .flat_map(|seed| encoder.perceive(&observation(seed)).expect("the observation fits").to_vec())
            .collect();
        assert_eq!(encoder.state(), &State::zeros(&model.config().backbone), "encoding must not touch the state");
        let mut state = State::zeros(&model.config().backbone);
        let mut workspace = Workspace::new(Kernels::detect().with_threads(Threads::One));
        let trajectory = model.forward_tokens(&tokens, &mut state, &mut workspace).expect("sizes fit");
        let actions: Vec<f32> = chunks.iter().flat_map(|chunk| chunk.actions.clone()).collect();
        let success: Vec<f32> = chunks.iter().filter_map(|chunk| chunk.success_probability).collect();
        assert!(max_abs_diff(&trajectory.actions, &actions) < 1e-4);
        assert!(max_abs_diff(&trajectory.success_probability, &success) < 1e-4);
        assert!(state.max_abs_diff(stepped.state()).expect("same step") < 1e-4);
        assert!(
            max_abs_diff(stepped.hidden(), &trajectory.hidden[trajectory.hidden.len() - stepped.hidden().len()..])
                < 1e-4
        );
    }
}

#[test]
fn frame_reuse_threads_and_instruction_sets_do_not_change_the_result() {
    let model = common::nano();
    let frames = [1, 1, 2, 2, 2, 1];
    let run = |options: &RuntimeOptions| -> Vec<f32> {
        let mut session = Session::new(model.clone(), options).expect("the options are possible here");
        frames.iter().flat_map(|&seed| act(&mut session, &observation(seed)).actions).collect()
    };
    let expected = run(&RuntimeOptions::default());
    assert_eq!(expected, run(&RuntimeOptions { frame_reuse: FrameReuse::Off, ..Default::default() }));
    for threads in [1, 2, 3] {
        let options = RuntimeOptions { threads: NonZeroUsize::new(threads), ..Default::default() };
        assert!(max_abs_diff(&expected, &run(&options)) < 1e-4, "{threads} threads");
    }
    for isa in Isa::available() {
        let options = RuntimeOptions { kernels: Some(KernelChoice::of(isa)), ..Default::default() };
        assert!(max_abs_diff(&expected, &run(&options)) < 1e-4, "{isa:?}");
    }
}

#[test]
fn a_changed_camera_or_instruction_is_noticed_among_unchanged_ones() {
    let model = common::nano();
    let base = observation(1);
    type Change = (&'static str, fn(&mut Observation));
    let changes: [Change; 4] = [
        ("first camera", |o| o.images[0].1.data_mut()[5] ^= 0xff),
        ("second camera", |o| o.images[1].1.data_mut().fill(9)),
        ("instruction", |o| o.instruction = "open the drawer".into()),
        ("state", |o| o.state[2] += 0.5),
    ];
    for (what, change) in changes {
        let mut changed = base.clone();
        change(&mut changed);
        let mut cached = session(&model);
        cached.perceive(&base).expect("the observation fits");
        let (token, before) = (
            cached.perceive(&changed).expect("the observation fits").to_vec(),
            session(&model).perceive(&base).expect("fits").to_vec(),
        );
        assert!(max_abs_diff(&token, &before) > 1e-5, "{what}: the change is not seen");
        assert_eq!(token, session(&model).perceive(&changed).expect("fits"), "{what}: a stale part is left");
    }
}

#[test]
fn the_state_of_mamba_keeps_its_size_over_ten_thousand_steps() {
    let model = common::nano();
    let mut session = session(&model);
    let observations: Vec<_> = (0..4).map(observation).collect();
    let mut chunk = ActionChunk::default();
    let (bytes, saved_len) = (session.state().bytes(), session.state().save().len());
    for step in 0..10_000 {
        session.act(&observations[step / 2500], &mut chunk).expect("the observation fits");
    }
    assert_eq!((session.state().bytes(), session.state().save().len()), (bytes, saved_len));
    assert!(session.state().is_finite() && chunk.actions.iter().all(|value| value.is_finite()));
}

#[test]
fn the_cache_of_the_transformer_grows_to_its_context_and_no_further() {
    let model = common::nano_transformer(6);
    let mut session = session(&model);
    let step_bytes = 2 * 2 * 48 * size_of::<f32>();
    for step in 1..=10 {
        run(&mut session, step..step + 1);
        assert_eq!(session.state().bytes(), (step as usize).min(6) * step_bytes);
    }
}

#[test]
fn bad_observations_are_refused_before_the_state_is_touched() {
    type Case = (&'static str, fn(&mut Observation), fn(&PolicyError) -> bool, &'static str);
    let cases: [Case; 9] = [
        ("missing camera", |o| drop(o.images.remove(1)), |e| matches!(e, PolicyError::MissingCamera { .. }), "wrist"),
        (
            "image size",
            |o| o.images[0].1 = Image::black(31, 32),
            |e| matches!(e, PolicyError::ImageSize { .. }),
            "31x32",
        ),
        ("NaN", |o| o.state[1] = f32::NAN, |e| matches!(e, PolicyError::StateNotFinite { .. }), "y_m"),
        ("infinity", |o| o.state[0] = f32::INFINITY, |e| matches!(e, PolicyError::StateNotFinite { .. }), "x_m"),
        ("short state", |o| o.state.truncate(2), |e| matches!(e, PolicyError::StateLength { .. }), "found 2"),
        ("long state", |o| o.state.push(0.0), |e| matches!(e, PolicyError::StateLength { .. }), "found 4"),
        ("empty instruction", |o| o.instruction = "".into(), |e| matches!(e, PolicyError::Instruction { .. }), "word"),
        (
            "blank instruction",
            |o| o.instruction = " \n".into(),
            |e| matches!(e, PolicyError::Instruction { .. }),
            "word",
        ),
        (
            "10,000 words",
            |o| o.instruction = "push ".repeat(10_000).into(),
            |e| matches!(e, PolicyError::Instruction { .. }),
            "128",
        ),
    ];
    let model = common::nano();
    for (name, spoil, expected, part) in cases {
        let mut session = session(&model);
        run(&mut session, 0..2);
        let before = session.clone();
        let mut bad = observation(2);
        spoil(&mut bad);
        let mut chunk = ActionChunk::default();
        let error = session.act(&bad, &mut chunk).expect_err(name);
        assert!(expected(&error) && error.to_string().contains(part), "{name}: {error}");
        assert_eq!(session.state(), before.state(), "{name}: the state was touched");
        assert_eq!(chunk, ActionChunk::default(), "{name}: actions were written");
        assert_eq!(run(&mut session, 2..4), run(&mut before.clone(), 2..4), "{name}: it did not recover");
    }
}
