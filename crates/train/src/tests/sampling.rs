//! The order of the data.

use std::collections::BTreeMap;

use crate::config::BatchConfig;
use crate::sampler::{EpisodeSize, SampledBatch, Sampler, SourceSizes};

fn size(steps: usize, frames: usize) -> EpisodeSize {
    EpisodeSize { steps, frames }
}

/// Two data sets: short episodes, and long ones of which every other frame repeats.
fn sampler(seed: u64) -> Sampler {
    let short = (0..40).map(|i| size(10 + i % 7, 10 + i % 7)).collect();
    let long = (0..6).map(|i| size(90 + 10 * i, 45 + 5 * i)).collect();
    let sources = vec![
        SourceSizes { weight: 1.0, window: None, episodes: short },
        SourceSizes { weight: 3.0, window: None, episodes: long },
    ];
    Sampler::of_sizes(sources, &batch_config(), seed)
}

fn batch_config() -> BatchConfig {
    BatchConfig { max_frames: 100, max_steps: 160, max_seq_len: 50, ..BatchConfig::default() }
}

#[test]
fn a_round_is_a_function_of_seed_and_number() {
    assert_eq!(sampler(1).round(3), sampler(1).round(3));
    assert_ne!(sampler(1).round(3), sampler(1).round(4));
    assert_ne!(sampler(1).round(3), sampler(2).round(3));
}

#[test]
fn every_episode_comes_whole_in_consecutive_batches() {
    let round = sampler(5).round(0);
    for (i, batch) in round.iter().enumerate() {
        for segment in batch {
            match segment.continues {
                None => assert_eq!(segment.start, 0),
                Some(place) => {
                    let before = &round[i - 1][place];
                    assert_eq!((before.episode, before.start + before.len), (segment.episode, segment.start));
                }
            }
        }
    }
    let steps = |batches: &[SampledBatch]| batches.iter().flatten().map(|segment| segment.len).sum::<usize>();
    let begun = round.iter().flatten().filter(|segment| segment.start == 0).map(|segment| segment.episode);
    let size = |(source, episode): (usize, usize)| if source == 0 { 10 + episode % 7 } else { 90 + 10 * episode };
    assert_eq!(steps(&round), begun.map(size).sum::<usize>());
}

#[test]
fn data_sets_get_their_share_of_the_frames() {
    let mut frames: BTreeMap<usize, f64> = BTreeMap::new();
    for segment in (0..4).flat_map(|round| sampler(7).round(round)).flatten() {
        *frames.entry(segment.episode.0).or_default() += segment.len as f64 / (1.0 + segment.episode.0 as f64);
    }
    let share = frames[&1] / (frames[&0] + frames[&1]);
    assert!((share - 0.75).abs() < 0.05, "{share}");
}

#[test]
fn no_episode_comes_again_before_all_others_came() {
    let sampler = sampler(13);
    let mut times: BTreeMap<(usize, usize), usize> = BTreeMap::new();
    // Rounds begin and end within a pass over the episodes.
    for round in 0..5 {
        for segment in sampler.round(round).into_iter().flatten().filter(|segment| segment.continues.is_none()) {
            *times.entry(segment.episode).or_default() += 1;
        }
        for source in 0..2 {
            let of_source = || times.iter().filter(|((i, _), _)| *i == source).map(|(_, &n)| n);
            let (least, most) = (of_source().min().unwrap(), of_source().max().unwrap());
            assert!(most - least <= 1 && most > round as usize, "source {source}, round {round}: {least} to {most}");
        }
    }
}

#[test]
fn budgets_hold_unless_one_segment_exceeds_them() {
    for batch in sampler(9).round(2) {
        let steps: usize = batch.iter().map(|segment| segment.len).sum();
        let fresh = batch.iter().filter(|segment| segment.continues.is_none()).count();
        assert!(steps <= 160 || fresh == 0, "{batch:?}");
    }
}

#[test]
fn windows_lie_anywhere_in_their_episode_and_are_not_continued() {
    let episodes: Vec<_> = (0..30).map(|i| size(3 + i, 3 + i)).collect();
    let source = SourceSizes { weight: 1.0, window: Some(8), episodes: episodes.clone() };
    let sampler = Sampler::of_sizes(vec![source], &batch_config(), 11);
    let drawn: Vec<_> = (0..4).flat_map(|round| sampler.round(round)).flatten().collect();
    for segment in &drawn {
        let steps = episodes[segment.episode.1].steps;
        assert_eq!((segment.len, segment.continues), (steps.min(8), None), "{segment:?}");
        assert!(segment.start + segment.len <= steps, "{segment:?}");
    }
    let longest = drawn.iter().filter(|segment| segment.episode.1 == 29);
    let (first, last) = (longest.clone().map(|s| s.start).min(), longest.map(|s| s.start).max());
    assert!(first < Some(8) && last > Some(16), "{first:?} {last:?}");
}
