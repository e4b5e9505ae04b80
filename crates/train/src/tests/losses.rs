//! Losses against their formulas, and the mask.

use burn::tensor::Tensor;

use crate::ops::loss::{Target, bce_with_logits, smooth_l1, smooth_pinball};
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
fn a_quantile_makes_one_kind_of_error_dearer() {
    let target = target(&[1.0, 1.0, 1.0, 1.0], &[0.25; 4]);
    // Too low and too high by 2; every second element is drawn to the upper quarter.
    let pinball = |x| smooth_pinball(x, target.clone(), 0.0, [0.5, 0.75].into());
    let (loss, gradient) = evaluate(&[-1.0, -1.0, 3.0, 3.0], pinball);
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
