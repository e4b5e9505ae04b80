//! The mean of checkpoints.

mod common;

use robomamba_model::{Checkpoint, ModelError, TextTokenizer};
use robomamba_policy::VectorStats;

fn random(seed: u64) -> Checkpoint {
    Checkpoint::random(common::nano(), TextTokenizer::characters().unwrap(), seed).unwrap()
}

#[test]
fn every_weight_is_the_mean_of_all() {
    let mut checkpoints = [random(1), random(2), random(3)];
    checkpoints[2].train_config = Some("{\"steps\": 3}".into());
    let mean = Checkpoint::average(&checkpoints).unwrap();
    assert_eq!(mean.train_config, checkpoints[2].train_config);
    assert_eq!(
        (mean.weights.len(), mean.weights.numel()),
        (checkpoints[0].weights.len(), checkpoints[0].weights.numel())
    );
    let mut differing = 0;
    for (name, tensor) in mean.weights.iter() {
        let all = checkpoints.each_ref().map(|checkpoint| checkpoint.weights.get(name).unwrap());
        for (i, &value) in tensor.data.iter().enumerate() {
            let expected = (all[0][i] as f64 + all[1][i] as f64 + all[2][i] as f64) / 3.0;
            assert!((value as f64 - expected).abs() <= 1e-7 * expected.abs(), "{name} {i}: {value}, {expected}");
            differing += usize::from(value != all[0][i]);
        }
    }
    assert!(differing > mean.weights.numel() / 2, "{differing}");
}

#[test]
fn the_mean_of_equals_is_what_they_are() {
    let checkpoints = [random(4), random(4)];
    assert_eq!(Checkpoint::average(&checkpoints).unwrap().weights, checkpoints[0].weights);
}

#[test]
fn only_what_differs_in_weights_alone_is_averaged() {
    for checkpoints in [vec![], vec![random(1)]] {
        let error = Checkpoint::average(&checkpoints).unwrap_err();
        assert!(matches!(error, ModelError::NothingToAverage { found } if found == checkpoints.len()), "{error}");
    }
    let tokenizer = || TextTokenizer::characters().unwrap();
    let other_backbone = Checkpoint::random(common::nano_transformer(), tokenizer(), 2).unwrap();
    let mut other_stats = random(2);
    other_stats.stats.action = VectorStats { mean: vec![0.5; 2], ..other_stats.stats.action };
    let words = TextTokenizer::train(["push the red disc"; 9], 120).unwrap();
    let other_words = Checkpoint::random(common::nano(), words, 2).unwrap();
    for (other, part) in [(other_backbone, "backbone"), (other_stats, "normalisation"), (other_words, "tokenizer")] {
        let error = Checkpoint::average(&[random(1), random(2), other]).unwrap_err().to_string();
        assert!(error.contains(part) && error.contains("number 3 of 3"), "{error}");
    }
    let mut incomplete = random(2);
    let name = incomplete.weights.iter().next().unwrap().0.to_owned();
    incomplete.weights.remove(&name);
    let error = Checkpoint::average(&[random(1), incomplete]).unwrap_err().to_string();
    assert!(error.contains(&name), "{error}");
}
