//! The environment as others see it: determinism, pictures, bad input, splits, families.

use std::collections::HashSet;

use robomamba_policy::{
    ActionChunk, Environment, Episode, FeatureSpec, Observation, Outcome, Policy, PolicyError, Step, play,
};
use robomamba_sim::{
    CAMERA, CONTROL_PERIOD_S, Difficulty, ENVIRONMENT_STATE_DIM, ExpertRollout, Failure, Family, GROUNDING_ABSENT,
    GROUNDING_DIM, HAND_RANGE_M, HAND_SPEED_MAX_M_S, Instructed, Intent, NoiseConfig, Scenario, THING_ABSENT, THINGS,
    THINGS_DIM, Tabletop, environment_state_spec, expert_rollout, grounding_spec, instruction_corpus, things_spec,
};

fn tabletop(size: usize) -> Tabletop {
    Tabletop::new(size, size).expect("a picture size in range")
}

fn at(environment: &mut Tabletop, scenario: Scenario) {
    environment.reset(&scenario).expect("options in range");
}

/// Deterministic, wild, out of range now and then.
fn wild_action(step: usize) -> [f32; 3] {
    let wave = |rate: f32| 1.3 * (rate * step as f32).sin();
    [wave(0.071), wave(0.053), wave(0.11)]
}

/// All bytes that a policy would see in `steps` wild steps.
fn trace(environment: &mut Tabletop, steps: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    for step in 0..steps {
        let observation = environment.look();
        bytes.extend_from_slice(observation.images[0].1.data());
        bytes.extend(observation.state.iter().flat_map(|value| value.to_le_bytes()));
        bytes.extend(environment.environment_state().iter().flat_map(|value| value.to_le_bytes()));
        environment.step(&wild_action(step)).expect("finite actions");
    }
    bytes
}

#[test]
fn same_seed_and_actions_give_identical_bytes() {
    for family in Family::ALL {
        let scenario = Scenario::train(family, 11);
        let mut fresh = tabletop(48);
        at(&mut fresh, scenario);
        let expected = trace(&mut fresh, 300);
        let mut used = tabletop(48);
        at(&mut used, Scenario::train(Family::Push, 3));
        trace(&mut used, 50);
        at(&mut used, scenario);
        assert!(trace(&mut used, 300) == expected, "{family}: the second run differs");
    }
}

#[test]
fn a_clone_continues_as_the_original() {
    for family in Family::ALL {
        let mut original = tabletop(32);
        at(&mut original, Scenario::train(family, 5));
        trace(&mut original, 120);
        let mut copy = original.clone();
        assert!(trace(&mut original, 200) == trace(&mut copy, 200), "{family}: the clone differs");
    }
}

#[test]
fn train_and_heldout_scenes_never_coincide() {
    for family in Family::ALL {
        let mut seen = HashSet::new();
        let mut environment = tabletop(24);
        for seed in 0..100 {
            for scenario in [Scenario::train(family, seed), Scenario::heldout(family, seed)] {
                at(&mut environment, scenario);
                let image = environment.look().images[0].1.data().to_vec();
                assert!(seen.insert(image), "{scenario:?} looks like an earlier scene");
            }
        }
    }
}

#[test]
fn pictures_have_any_size() {
    for (height, width) in [(1, 1), (7, 13), (31, 97), (64, 64), (96, 96), (224, 224), (480, 640)] {
        let mut environment = Tabletop::new(height, width).expect("a size in range");
        let spec = environment.features().clone();
        let observation = environment.look();
        spec.check(observation).expect("the observation fits the features");
        assert_eq!(observation.image(CAMERA).map(|image| image.data().len()), Some(height * width * 3));
    }
    for (height, width) in [(0, 96), (96, 0), (4097, 96)] {
        let error = Tabletop::new(height, width).err().expect("an impossible size");
        assert!(error.to_string().contains(&format!("{height}x{width}")), "{error}");
    }
}

/// Saturated pixels, which only coloured things have.
fn n_coloured(image: &[u8]) -> usize {
    let spread = |rgb: &[u8]| rgb.iter().max().copied().unwrap_or(0) - rgb.iter().min().copied().unwrap_or(0);
    image.chunks_exact(3).filter(|rgb| spread(rgb) > 110).count()
}

#[test]
fn things_are_visible_at_64_pixels() {
    let mut environment = tabletop(64);
    for seed in 0..50 {
        at(&mut environment, Scenario::heldout(Family::PickPlace, seed));
        let coloured = n_coloured(environment.look().images[0].1.data());
        assert!(coloured >= 30, "seed {seed}: only {coloured} coloured pixels");
    }
}

#[test]
fn sub_pixel_motion_and_opening_are_visible() {
    let mut environment = tabletop(96);
    let before = environment.look().images[0].1.clone();
    environment.step(&[0.1, 0.0, 0.0]).expect("a finite action");
    let moved = environment.look().images[0].1.clone();
    assert!(before != moved, "2 mm are not visible");
    environment.step(&[0.0, 0.0, 1.0]).expect("a finite action");
    environment.step(&[0.0, 0.0, 0.0]).expect("a finite action");
    assert!(moved != environment.look().images[0].1, "closing is not visible");
}

#[test]
fn unusable_actions_are_refused_and_nothing_moves() {
    let mut environment = tabletop(16);
    let before = environment.hand_state();
    for action in [&[0.0, f32::NAN, 0.0][..], &[f32::INFINITY, 0.0, 0.0], &[0.0, 0.0, f32::NAN], &[0.0, 0.0], &[]] {
        assert!(environment.step(action).is_err(), "{action:?} was accepted");
        assert_eq!((environment.hand_state(), environment.steps()), (before, 0));
    }
    let message = environment.step(&[0.0, f32::NAN, 0.0]).expect_err("NaN").to_string();
    assert!(message.contains("action[1]") && message.contains("dy"), "{message}");
}

#[test]
fn large_actions_are_clamped() {
    let (mut wild, mut tame) = (tabletop(16), tabletop(16));
    for _ in 0..10 {
        wild.step(&[1e30, -7.0, 99.0]).expect("finite");
        tame.step(&[1.0, -1.0, 1.0]).expect("finite");
    }
    assert_eq!(wild.hand_state(), tame.hand_state());
}

#[test]
fn the_hand_obeys_its_limits() {
    let mut environment = tabletop(16);
    let mut last = environment.hand_state();
    for step in 0..400 {
        environment.step(&wild_action(step * 7)).expect("finite");
        let [x, y, opening] = environment.hand_state();
        let reach = HAND_SPEED_MAX_M_S * CONTROL_PERIOD_S + 1e-6;
        assert!((x - last[0]).abs() <= reach && (y - last[1]).abs() <= reach, "too fast at step {step}");
        assert!(x.abs() <= HAND_RANGE_M && y.abs() <= HAND_RANGE_M && (0.0..=1.0).contains(&opening));
        last = [x, y, opening];
    }
}

#[test]
fn difficulty_is_checked() {
    let mut environment = tabletop(16);
    let standard = Difficulty::default();
    let cases = [
        (Difficulty { subgoals: 2, ..standard }, "subgoals"),
        (Difficulty { subgoals: 9, ..standard }, "subgoals"),
        (Difficulty { delay_steps: 1_000_000, ..standard }, "delay_steps"),
        (Difficulty { tasks: 0, ..standard }, "tasks"),
    ];
    for (difficulty, option) in cases {
        let scenario = Scenario::train(Family::Sequence, 0).with_difficulty(difficulty);
        let error = environment.reset(&scenario).expect_err("out of range");
        assert!(error.to_string().contains(option), "{error}");
    }
    assert!("pick".parse::<Family>().expect_err("no such family").to_string().contains("pick_place"));
}

#[test]
fn environment_state_is_named_and_finite() {
    assert_eq!(environment_state_spec().dim(), ENVIRONMENT_STATE_DIM);
    let mut environment = tabletop(8);
    for family in Family::ALL {
        for seed in 0..20 {
            at(&mut environment, Scenario::train(family, seed));
            let state = environment.environment_state();
            assert!(state.iter().all(|value| value.is_finite() && value.abs() <= 1.5), "{family} {seed}: {state:?}");
            assert_eq!(state[4..10].iter().sum::<f32>(), 1.0, "exactly one kind of goal");
        }
    }
}

#[test]
fn the_grounding_points_at_what_the_instruction_names() {
    assert_eq!(grounding_spec().dim(), GROUNDING_DIM);
    let colours = ["red", "green", "blue", "yellow", "purple", "orange"];
    let mut environment = tabletop(SIDE);
    let mut checked = 0;
    for family in [Family::Reach, Family::Push, Family::PickPlace, Family::Sequence] {
        for seed in 0..50 {
            at(&mut environment, Scenario::train(family, seed));
            let observation = environment.look().clone();
            let named = observation.instruction.split(' ').filter_map(|word| colours.iter().position(|it| *it == word));
            let grounding = environment.grounding();
            let points: Vec<_> = grounding.chunks_exact(2).filter(|point| point[0] != GROUNDING_ABSENT).collect();
            let named: Vec<usize> = named.collect();
            assert_eq!(named.len(), points.len(), "{}", observation.instruction);
            for (point, colour) in points.into_iter().zip(named) {
                let [x, y] = [0, 1].map(|i| (point[i] * SIDE as f32) as usize);
                let pixel = &observation.images[0].1.data()[(y * SIDE + x) * 3..][..3];
                // The hand may be over the thing, and the centre of a zone is paler than its rim.
                checked += usize::from(nearest_hue(pixel) == Some(colours[colour]));
            }
        }
    }
    // 6 points of 50 sequences (fewer where a sub-goal is a press), 2 of the other two, 1 of `reach`.
    assert!(checked > 400, "{checked} points show the colour that is named");
}

#[test]
fn the_things_are_what_the_instruction_calls_them() {
    assert_eq!(things_spec().dim(), THINGS_DIM);
    let kinds = ["square", "disc", "triangle", "cross", "zone", "button", "container", "lamp"];
    let colours = ["red", "green", "blue", "yellow", "purple", "orange"];
    let mut environment = tabletop(SIDE);
    for family in Family::ALL {
        for seed in 0..50 {
            at(&mut environment, Scenario::train(family, seed));
            let instruction = environment.look().instruction.clone();
            let words: Vec<&str> = instruction.split(|c: char| !c.is_alphabetic()).collect();
            let things = environment.things();
            let present = || things.chunks_exact(4).filter(|thing| thing[0] != THING_ABSENT);
            assert!((2..THINGS).contains(&present().count()), "{family} {seed}: {things:?}");
            for point in environment.grounding().chunks_exact(2).filter(|point| point[0] != GROUNDING_ABSENT) {
                let thing = present().find(|thing| thing[..2] == *point).expect("something is there");
                let (kind, colour) = (kinds[thing[2] as usize], thing[3] as usize);
                // `remember` speaks of the lamp and its colours only, and zones have several names.
                let is_block = thing[2] < 4.0;
                let named = family != Family::Remember;
                assert!(!(named && is_block) || words.contains(&kind), "{instruction}: {kind}");
                assert!(!named || colour >= 6 || words.contains(&colours[colour]), "{instruction}: {thing:?}");
            }
        }
    }
}

#[test]
fn the_lamp_is_a_thing_that_changes_its_colour() {
    let mut environment = tabletop(8);
    at(&mut environment, Scenario::train(Family::Remember, 3));
    let mut seen = Vec::new();
    for _ in 0..300 {
        let things = environment.things();
        let lamp = things.chunks_exact(4).find(|thing| thing[2] == 7.0).expect("a lamp");
        if seen.last() != Some(&lamp[3]) {
            seen.push(lamp[3]);
        }
        environment.step(&[0.0, 0.0, -1.0]).unwrap();
    }
    assert_eq!(seen.len(), 4, "{seen:?}");
    assert!(
        seen[0] == 6.0 && seen[1] < 6.0 && seen[2] == 6.0 && seen[3] == 7.0,
        "dark, a colour, dark, white: {seen:?}"
    );
}

/// Side of a picture on which small things have pixels of their own.
const SIDE: usize = 192;

/// Which colour of the things a pixel has, by the direction of its difference from grey; `None` for grey ones.
fn nearest_hue(pixel: &[u8]) -> Option<&'static str> {
    let things = [
        ("red", [214, 40, 40]),
        ("green", [38, 158, 68]),
        ("blue", [38, 96, 224]),
        ("yellow", [246, 212, 32]),
        ("purple", [148, 58, 186]),
        ("orange", [244, 124, 22]),
    ];
    let hue = |rgb: [f32; 3]| {
        let mean = rgb.iter().sum::<f32>() / 3.0;
        let off = rgb.map(|value| value - mean);
        let norm = off.iter().map(|value| value * value).sum::<f32>().sqrt();
        (norm > 12.0).then(|| off.map(|value| value / norm))
    };
    let seen = hue([0, 1, 2].map(|i| f32::from(pixel[i])))?;
    let likeness =
        |rgb: [u8; 3]| hue(rgb.map(f32::from)).map_or(0.0, |it| (0..3).map(|i| it[i] * seen[i]).sum::<f32>());
    things.into_iter().max_by(|a, b| likeness(a.1).total_cmp(&likeness(b.1))).map(|(name, _)| name)
}

#[test]
fn the_vocabulary_is_small_and_complete() {
    let corpus = instruction_corpus();
    assert!(corpus.words.len() <= 400, "{} words", corpus.words.len());
    let words: HashSet<&str> = corpus.words.iter().map(String::as_str).collect();
    let mut environment = tabletop(8);
    for family in Family::ALL {
        for seed in 1000..1100 {
            at(&mut environment, Scenario::heldout(family, seed));
            let instruction = environment.look().instruction.clone();
            for word in instruction.split(|c: char| !c.is_alphabetic()).filter(|word| !word.is_empty()) {
                assert!(words.contains(word), "`{word}` of `{instruction}` is not in the corpus");
            }
            assert!(!instruction.contains(['{', '[', '|']), "unexpanded: {instruction}");
        }
    }
}

#[test]
fn the_cue_is_gone_during_the_delay() {
    let mut environment = tabletop(48);
    let difficulty = Difficulty { delay_steps: 120, ..Difficulty::default() };
    for seed in 0..10 {
        let scenario = Scenario::heldout(Family::Remember, seed).with_difficulty(difficulty);
        let mut pictures = Vec::new();
        let rollout = ExpertRollout { scenario, noise: NoiseConfig::NONE, intent: Intent::Solve };
        expert_rollout(&mut environment, &rollout, |frame| {
            pictures.push(frame.observation.images[0].1.data().to_vec());
        })
        .expect("in range");
        let waiting = &pictures[50..130];
        assert!(waiting.iter().all(|picture| *picture == waiting[0]), "seed {seed}: the delay is not static");
        assert!(pictures[..30].iter().any(|picture| n_coloured(picture) > n_coloured(&waiting[0]) + 10), "no cue");
    }
}

#[test]
fn acting_too_early_fails() {
    let mut environment = tabletop(8);
    at(&mut environment, Scenario::heldout(Family::Remember, 1));
    let mut expert = environment.clone();
    // Learn where the right button is from an expert that is allowed to act, then go there at once.
    while expert.subgoals().0 == 0 {
        expert.step(&expert.expert_action()).expect("finite");
    }
    let [x, y] = [0, 1].map(|i| expert.environment_state()[i] * HAND_RANGE_M);
    for _ in 0..60 {
        let [hand_x, hand_y, _] = environment.hand_state();
        let near = (x - hand_x).hypot(y - hand_y) < 0.01;
        let action = [(x - hand_x) * 15.0, (y - hand_y) * 15.0, if near { 1.0 } else { -1.0 }];
        environment.step(&action).expect("finite");
    }
    assert!(
        matches!(environment.outcome().outcome, Some(Outcome::Failed { reason, .. }) if reason == Failure::TooEarly.reason())
    );
}

#[test]
fn attempts_share_the_scene_but_not_the_start() {
    let mut environment = tabletop(32);
    for seed in 0..30 {
        let scenario = Scenario::heldout(Family::Retry, seed);
        at(&mut environment, scenario);
        let (first, start) = (environment.environment_state(), environment.hand_state());
        let instruction = environment.look().instruction.clone();
        for attempt in 1..4 {
            at(&mut environment, scenario.with_attempt(attempt));
            assert_eq!(environment.environment_state(), first, "seed {seed}: the scene changed");
            assert_eq!(environment.look().instruction, instruction);
            assert_ne!(environment.hand_state(), start, "seed {seed}: the start pose is the same");
        }
    }
}

#[test]
fn wild_actions_never_break_the_physics() {
    for family in Family::ALL {
        let mut environment = tabletop(24);
        at(&mut environment, Scenario::train(family, 2));
        for step in 0..3000 {
            environment.step(&wild_action(step)).expect("finite");
            let state = environment.environment_state();
            assert!(
                state.iter().all(|value| value.is_finite() && value.abs() <= 1.5),
                "{family} step {step}: {state:?}"
            );
        }
    }
}

/// Does nothing, or fails.
struct Idle {
    features: FeatureSpec,
    actions: Vec<f32>,
}

impl Policy for Idle {
    fn features(&self) -> &FeatureSpec {
        &self.features
    }

    fn act(&mut self, observation: &Observation, chunk: &mut ActionChunk) -> Result<(), PolicyError> {
        self.features.check(observation)?;
        chunk.action_dim = 3;
        chunk.actions.clone_from(&self.actions);
        Ok(())
    }

    fn begin(&mut self, _: &Episode) -> Result<(), PolicyError> {
        Ok(())
    }

    fn end(&mut self, _: &Outcome, _: &Observation) -> Result<(), PolicyError> {
        Ok(())
    }
}

#[test]
fn policies_are_judged() {
    let mut environment = tabletop(16);
    let features = environment.features().clone();
    let mut idle = Idle { features: features.clone(), actions: vec![0.0; 3] };
    let mut steps = 0;
    let scenario = Scenario::heldout(Family::Reach, 0);
    at(&mut environment, scenario);
    let count = |_: &Idle, _: Step| {
        steps += 1;
        Ok::<_, PolicyError>(())
    };
    let played = play(&mut environment, &mut idle, count).expect("a valid policy");
    assert_eq!((played.outcome, played.steps), (Outcome::TimedOut, steps));
    let mut empty = Idle { features: features.clone(), actions: Vec::new() };
    at(&mut environment, scenario);
    let ignore = |_: &Idle, _: Step| Ok::<_, PolicyError>(());
    let error = play(&mut environment, &mut empty, ignore).expect_err("no action");
    assert!(matches!(error, PolicyError::EmptyChunk));
    let mut broken = Idle { features, actions: vec![f32::NAN; 3] };
    at(&mut environment, scenario);
    let error = play(&mut environment, &mut broken, ignore).expect_err("NaN");
    assert!(matches!(error, PolicyError::ActionNotFinite { .. }));
}

#[test]
fn free_instructions_are_judged_when_understood() {
    let mut environment = tabletop(16);
    at(&mut environment, Scenario::heldout(Family::Sequence, 4));
    let things = environment.description();
    let button = things.split(", ").find(|thing| thing.ends_with("button")).expect("sequences have buttons");
    let told = environment.instruct(&format!("Go to the {button}, then press the {button}"));
    assert_eq!(told, Instructed::Understood { subgoals: 2 });
    while !environment.outcome().is_over() {
        environment.step(&environment.expert_action()).expect("finite");
    }
    assert_eq!(environment.outcome().outcome, Some(Outcome::Succeeded));
    assert_eq!(environment.instruct("sing a song"), Instructed::NotUnderstood);
    assert_eq!(&*environment.look().instruction, "sing a song");
}

#[test]
fn environments_can_be_sent_to_threads() {
    fn assert_send<T: Send>() {}
    assert_send::<Tabletop>();
}
