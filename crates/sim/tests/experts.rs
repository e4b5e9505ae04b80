//! The experts solve their families on held-out seeds, with and without perturbations, and spoil them on request.

use robomamba_policy::{Outcome, Played};
use robomamba_sim::{
    Difficulty, ExpertRollout, Family, HAND_RANGE_M, Intent, LabelledStep, NoiseConfig, Scenario, Tabletop,
    environment_state_spec, expert_rollout,
};

/// Plays seeds `0..episodes`.
fn play(family: Family, episodes: u64, difficulty: Difficulty, manner: Manner) -> Vec<Played> {
    let mut environment = Tabletop::new(8, 8).expect("a small picture");
    let Manner { noise, intent } = manner;
    let rollout = |seed| {
        let scenario = Scenario::heldout(family, seed).with_difficulty(difficulty);
        let rollout = ExpertRollout { scenario, noise, intent };
        expert_rollout(&mut environment, &rollout, |_| {}).expect("options are in range")
    };
    (0..episodes).map(rollout).collect()
}

/// How the expert plays.
struct Manner {
    noise: NoiseConfig,
    intent: Intent,
}

impl Manner {
    fn solve(noise: NoiseConfig) -> Self {
        Self { noise, intent: Intent::Solve }
    }
}

fn solved(results: &[Played]) -> usize {
    results.iter().filter(|result| result.outcome.is_success()).count()
}

#[test]
fn experts_solve_every_family() {
    let standard = Difficulty::default();
    let cases = [
        (Family::Reach, standard, 60, 60),
        (Family::Push, standard, 60, 60),
        (Family::PickPlace, standard, 60, 60),
        (Family::Sequence, standard, 60, 60),
        (Family::Sequence, Difficulty { subgoals: 8, ..standard }, 40, 39),
        (Family::Remember, Difficulty { delay_steps: 0, ..standard }, 40, 38),
        (Family::Remember, Difficulty { delay_steps: 2000, ..standard }, 10, 10),
        (Family::Count, standard, 40, 38),
        (Family::Retry, standard, 60, 57),
        (Family::Endurance, Difficulty { tasks: 40, ..standard }, 4, 4),
    ];
    for (family, difficulty, episodes, at_least) in cases {
        let results = play(family, episodes, difficulty, Manner::solve(NoiseConfig::NONE));
        let solved = solved(&results);
        assert!(solved >= at_least, "{family} {difficulty:?}: {solved} of {episodes}, at least {at_least} expected");
    }
}

#[test]
fn experts_recover_from_noise() {
    let difficulty = Difficulty { delay_steps: 40, ..Difficulty::default() };
    for family in [Family::Reach, Family::Push, Family::PickPlace, Family::Sequence, Family::Remember, Family::Count] {
        let results = play(family, 60, difficulty, Manner::solve(NoiseConfig::default()));
        let solved = solved(&results);
        assert!(solved >= 57, "{family}: {solved} of 60 with noise, at least 57 expected");
    }
}

#[test]
fn experts_come_back_from_detours() {
    let difficulty = Difficulty { delay_steps: 40, ..Difficulty::default() };
    let noise = NoiseConfig { detour_probability: 0.03, ..NoiseConfig::NONE };
    for family in [Family::Reach, Family::Push, Family::PickPlace, Family::Sequence, Family::Remember] {
        let [plain, detoured] =
            [NoiseConfig::NONE, noise].map(|noise| play(family, 40, difficulty, Manner::solve(noise)));
        assert!(solved(&detoured) >= 38, "{family}: {} of 40 with detours, at least 38 expected", solved(&detoured));
        let steps = |results: &[Played]| results.iter().map(|result| result.steps).sum::<usize>();
        let (plain, detoured) = (steps(&plain), steps(&detoured));
        assert!(10 * detoured > 11 * plain, "{family}: {detoured} steps with detours, {plain} without");
    }
}

/// Where the hand was, what was to be done where, and how far the episode had come, before a control step.
struct Moment {
    hand: [f32; 2],
    object: [f32; 2],
    is_reach: bool,
    is_press: bool,
    progress: f32,
}

impl Moment {
    fn of(step: &LabelledStep) -> Self {
        let names = environment_state_spec().names;
        let value =
            |name: &str| step.labels.environment_state[names.iter().position(|it| it == name).expect("a known name")];
        Self {
            hand: [step.observation.state[0], step.observation.state[1]],
            object: [value("object_x") * HAND_RANGE_M, value("object_y") * HAND_RANGE_M],
            is_reach: value("goal_reach") == 1.0,
            is_press: value("goal_press") == 1.0,
            progress: value("progress"),
        }
    }

    fn distance_mm(&self, from: [f32; 2]) -> f32 {
        1e3 * (self.hand[0] - from[0]).hypot(self.hand[1] - from[1])
    }
}

#[test]
fn what_leaves_no_trace_is_done_beyond_doubt() {
    let mut environment = Tabletop::new(8, 8).expect("a small picture");
    let (mut reaches, mut presses) = (0, 0);
    for seed in 0..60 {
        let rollout = ExpertRollout {
            scenario: Scenario::heldout(Family::Sequence, seed),
            noise: NoiseConfig::NONE,
            intent: Intent::Solve,
        };
        let mut moments = Vec::new();
        expert_rollout(&mut environment, &rollout, |step| moments.push(Moment::of(&step))).expect("a scenario");
        for (i, pair) in moments.windows(2).enumerate().filter(|(_, pair)| pair[0].progress < pair[1].progress) {
            let place = pair[0].object;
            if pair[0].is_reach {
                reaches += 1;
                let stay = moments[i + 1..].iter().take(8).map(|moment| moment.distance_mm(place));
                let farthest = stay.fold(0.0, f32::max);
                assert!(farthest < 25.0, "seed {seed}: {farthest} mm away from what was just reached");
            } else if pair[0].is_press {
                presses += 1;
                let distance = pair[1].distance_mm(place);
                assert!(distance < 12.0, "seed {seed}: pressed {distance} mm beside the middle of the button");
            }
        }
    }
    assert!(reaches >= 20 && presses >= 20, "{reaches} reaches, {presses} presses");
}

#[test]
fn blunders_fail_irreparably() {
    let difficulty = Difficulty { delay_steps: 40, ..Difficulty::default() };
    for family in Family::ALL.into_iter().filter(|&family| family != Family::Endurance) {
        let results = play(family, 40, difficulty, Manner { noise: NoiseConfig::NONE, intent: Intent::Blunder });
        let failed = results.iter().filter(|result| matches!(result.outcome, Outcome::Failed { .. })).count();
        assert!(failed >= 36, "{family}: {failed} of 40 spoiled episodes failed, at least 36 expected");
    }
}

#[test]
fn long_endurance_has_no_dead_end() {
    let difficulty = Difficulty { tasks: 400, ..Difficulty::default() };
    let results = play(Family::Endurance, 1, difficulty, Manner::solve(NoiseConfig::NONE));
    assert_eq!(results[0].outcome, Outcome::Succeeded);
    assert!(results[0].steps >= 10_000, "400 tasks took {} steps, 10,000 expected", results[0].steps);
}
