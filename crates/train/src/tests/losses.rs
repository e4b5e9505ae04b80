//! Losses against their formulas, and the mask.

use burn::tensor::Tensor;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::ops::loss::{Pinball, Target, bce_with_logits, smooth_l1, smooth_pinball};
use crate::ops::mixture::mixture;
use crate::ops::{self};

fn target(values: &[f32], weights: &[f32]) -> Target {
    Target { values: values.into(), weights: weights.into() }
}

/// The loss and its gradient.
fn evaluate(prediction: &[f32], loss: impl Fn(ops::Input) -> Tensor<1>) -> (f32, Vec<f32>) {
    let leaf = ops::constant(prediction.to_vec(), [prediction.len()]).require_grad();
    let loss = loss(ops::input(&leaf));
    let gradients = loss.backward();
    (ops::values(loss)[0], ops::values(leaf.grad(&gradients).unwrap()))
}

#[test]
fn smooth_l1_is_huber_over_beta() {
    let target = target(&[0.0, 0.0, 1.0], &[0.5, 0.25, 0.25]);
    let (loss, gradient) = evaluate(&[0.05, -2.0, 1.0], |x| smooth_l1(x, target.clone(), 0.1));
    assert!((loss - (0.5 * 0.0125 + 0.25 * 1.95)).abs() < 1e-6, "{loss}");
    assert_eq!(gradient, [0.25, -0.25, 0.0]);
}

#[test]
fn beta_of_zero_is_the_l1_loss() {
    let target = target(&[1.0, 1.0], &[0.5, 0.5]);
    assert_eq!(evaluate(&[3.0, 1.0], |x| smooth_l1(x, target.clone(), 0.0)), (1.0, vec![0.5, 0.0]));
}

#[test]
fn a_quantile_weighs_one_sign_of_the_error_more() {
    let target = target(&[1.0, 1.0, 1.0, 1.0], &[0.25; 4]);
    // Too low and too high by 2; every second element is drawn to the upper quarter.
    let pinball = Pinball { beta: 0.0, quantiles: [0.5, 0.75].into() };
    let (loss, gradient) = evaluate(&[-1.0, -1.0, 3.0, 3.0], |x| smooth_pinball(x, target.clone(), pinball.clone()));
    assert_eq!(loss, 0.25 * 2.0 * (1.0 + 1.5 + 1.0 + 0.5));
    assert_eq!(gradient, [-0.25, -0.375, 0.25, 0.125]);
}

#[test]
fn binary_cross_entropy_is_stable_and_right() {
    let (loss, gradient) =
        evaluate(&[0.0, 200.0, -200.0], |x| bce_with_logits(x, target(&[1.0, 1.0, 1.0], &[1.0, 1.0, 1.0])));
    assert!((loss - (std::f32::consts::LN_2 + 200.0)).abs() < 1e-3, "{loss}");
    assert_eq!(gradient, [-0.5, 0.0, -1.0]);
}

#[test]
fn padding_neither_counts_nor_gets_a_gradient() {
    let prediction = [0.3, -0.7, 5.0];
    for padding in [0.0, 1e30, f32::NAN] {
        let target = target(&[0.0, 0.0, padding], &[0.5, 0.5, 0.0]);
        let (loss, gradient) = evaluate(&prediction, |x| smooth_l1(x, target.clone(), 0.0));
        assert_eq!((loss, gradient), (0.5, vec![0.5, -0.5, 0.0]));
        let (loss, gradient) = evaluate(&prediction, |x| bce_with_logits(x, target.clone()));
        assert!(loss.is_finite() && gradient[2] == 0.0);
    }
}

/// The mixture's loss and its gradients with respect to chunks and logits.
fn evaluate_mixture(chunks: &[f32], logits: &[f32], target: &Target, temperature: f32) -> (f32, [Vec<f32>; 2]) {
    let leaf = |values: &[f32]| ops::constant(values.to_vec(), [values.len()]).require_grad();
    let (chunks, logits) = (leaf(chunks), leaf(logits));
    let pinball = Pinball { beta: 0.02, quantiles: [0.5, 0.7].into() };
    let loss = mixture([&chunks, &logits].map(ops::input), target.clone(), pinball, temperature);
    let gradients = loss.backward();
    (ops::values(loss)[0], [chunks, logits].map(|leaf| ops::values(leaf.grad(&gradients).unwrap())))
}

/// Its formula in f64.
fn mixture_oracle(chunks: &[f64], logits: &[f64], target: &Target, temperature: f64) -> f64 {
    let (width, n_mode) = (4, 3);
    let log_sum_exp = |x: &[f64]| x.iter().map(|x| x.exp()).sum::<f64>().ln();
    let mut loss = 0.0;
    for (row, logits) in logits.chunks_exact(n_mode).enumerate() {
        let labels = |values: &[f32]| values[row * width..][..width].iter().map(|&x| f64::from(x)).collect::<Vec<_>>();
        let (values, weights) = (labels(&target.values), labels(&target.weights));
        let weight: f64 = weights.iter().sum();
        if weight == 0.0 {
            continue;
        }
        let score = |mode: usize| {
            let term = |j: usize| {
                let e = chunks[(row * n_mode + mode) * width + j] - values[j];
                let side = 2.0 * [0.5f32, 0.7].map(|q| if e < 0.0 { f64::from(q) } else { 1.0 - f64::from(q) })[j % 2];
                weights[j] * side * if e.abs() < 0.02 { e * e / 0.04 } else { e.abs() - 0.01 }
            };
            logits[mode] - (0..width).filter(|&j| weights[j] != 0.0).map(term).sum::<f64>() / weight / temperature
        };
        let scores: Vec<f64> = (0..n_mode).map(score).collect();
        loss += weight * temperature * (log_sum_exp(logits) - log_sum_exp(&scores));
    }
    loss
}

#[test]
fn a_mixture_and_its_gradients_are_those_of_the_formula_in_f64() {
    let mut rng = ChaCha8Rng::seed_from_u64(4);
    let mut random = |n: usize| (0..n).map(|_| rng.random_range(-1.0..1.0f32)).collect::<Vec<_>>();
    let (chunks, logits, mut values) = (random(3 * 12), random(3 * 3), random(3 * 4));
    // The end of the second row is padding, and so is all of the third.
    values[6..].fill(f32::NAN);
    let weights = [0.1, 0.2, 0.05, 0.15, 0.2, 0.3, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0];
    let target = target(&values, &weights);
    let wide = |x: &[f32]| x.iter().map(|&x| f64::from(x)).collect::<Vec<_>>();
    for temperature in [0.05, 0.4] {
        let (loss, [d_chunks, d_logits]) = evaluate_mixture(&chunks, &logits, &target, temperature);
        let oracle = |chunks: &[f64], logits: &[f64]| mixture_oracle(chunks, logits, &target, f64::from(temperature));
        let (chunks, logits) = (wide(&chunks), wide(&logits));
        assert!((f64::from(loss) - oracle(&chunks, &logits)).abs() < 1e-6);
        let difference = |x: &[f64], i: usize, loss: &dyn Fn(&[f64]) -> f64| {
            let at = |step: f64| {
                let mut moved = x.to_vec();
                moved[i] += step;
                loss(&moved)
            };
            (at(1e-6) - at(-1e-6)) / 2e-6
        };
        for (i, found) in d_chunks.iter().enumerate() {
            let expected = difference(&chunks, i, &|chunks| oracle(chunks, &logits));
            assert!((f64::from(*found) - expected).abs() < 1e-5, "chunk {i}: {found}, {expected}");
        }
        for (i, found) in d_logits.iter().enumerate() {
            let expected = difference(&logits, i, &|logits| oracle(&chunks, logits));
            assert!((f64::from(*found) - expected).abs() < 1e-5, "logit {i}: {found}, {expected}");
        }
    }
}

#[test]
fn a_mixture_of_one_chunk_is_the_plain_loss() {
    let target = target(&[0.3, -0.2, 1.0, 0.0], &[0.25, 0.25, 0.5, 0.0]);
    let chunks = [0.1, 0.4, 0.99, 7.0];
    let pinball = Pinball { beta: 0.02, quantiles: [0.5, 0.7].into() };
    let (plain, gradient) = evaluate(&chunks, |x| smooth_pinball(x, target.clone(), pinball.clone()));
    let (loss, [d_chunks, d_logits]) = evaluate_mixture(&chunks, &[0.5, -3.0], &target, 0.1);
    assert!((loss - plain).abs() < 1e-6);
    assert!(d_chunks.iter().zip(&gradient).all(|(a, b)| (a - b).abs() < 1e-6));
    assert_eq!(d_logits, [0.0, 0.0]);
}

#[test]
fn two_answers_stay_apart() {
    // Half of the labels are -1 and half are 1; both rows have the same chunks, so their gradients add up.
    let target = target(&[-1.0, -1.0, 1.0, 1.0], &[0.25; 4]);
    let [low, high] = [-0.5, 0.6];
    let (_, [d_chunks, d_logits]) =
        evaluate_mixture(&[low, low, high, high, low, low, high, high], &[0.0; 4], &target, 0.1);
    // The lower chunk is drawn down and the higher one up; the median would move neither.
    assert!(d_chunks[0] + d_chunks[4] > 0.2 && d_chunks[2] + d_chunks[6] < -0.2, "{d_chunks:?}");
    assert!((d_logits[0] + d_logits[2]).abs() < 1e-3, "as likely as each other: {d_logits:?}");
}
