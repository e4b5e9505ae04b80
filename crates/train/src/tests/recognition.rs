//! What the patch tokens are told, against the formula.

use crate::ops::recognition::{CLASSES, OUTPUTS, Thing, recognition};
use crate::ops::{self};

const WIDTH: usize = 2;

fn weight() -> Vec<f32> {
    (0..OUTPUTS * WIDTH).map(|i| 0.1 * (i as f32 * 1.7).sin()).collect()
}

fn bias() -> Vec<f32> {
    (0..OUTPUTS).map(|i| 0.05 * i as f32).collect()
}

fn tokens() -> Vec<f32> {
    (0..8 * WIDTH).map(|i| (i as f32 * 0.9).cos()).collect()
}

fn loss(things: &[Thing]) -> f32 {
    let inputs = [
        ops::input(&ops::constant(tokens(), [8, WIDTH])),
        ops::input(&ops::constant(weight(), [OUTPUTS * WIDTH])),
        ops::input(&ops::constant(bias(), [OUTPUTS])),
    ];
    ops::values(recognition(things.into(), inputs))[0]
}

/// Mean over the attributes, in f64, of a thing whose shared token is `token`.
fn expected(token: [f64; WIDTH], classes: [usize; 2]) -> f64 {
    let logit = |i: usize| {
        f64::from(bias()[i]) + (0..WIDTH).map(|j| f64::from(weight()[i * WIDTH + j]) * token[j]).sum::<f64>()
    };
    let nll = |attribute: usize| {
        let all: f64 = (0..CLASSES).map(|class| logit(attribute * CLASSES + class).exp()).sum();
        all.ln() - logit(attribute * CLASSES + classes[attribute])
    };
    (nll(0) + nll(1)) / 2.0
}

#[test]
fn the_loss_is_the_mean_cross_entropy_of_kind_and_colour() {
    let row = |i: usize| [0, 1].map(|j| f64::from(tokens()[i * WIDTH + j]));
    // Pictures of 2 x 2 patches: the second one's top right patch is token 5.
    let first = Thing::at(1, [0.9, 0.1], 2, [3, 6]);
    assert!((f64::from(loss(&[first])) - expected(row(5), [3, 6])).abs() < 1e-6);
    let between = [0, 1].map(|j| 0.5 * (row(0)[j] + row(1)[j]));
    let second = Thing::at(0, [0.5, 0.2], 2, [7, 0]);
    assert!((f64::from(loss(&[second])) - expected(between, [7, 0])).abs() < 1e-6);
    let mean = (expected(row(5), [3, 6]) + expected(between, [7, 0])) / 2.0;
    assert!((f64::from(loss(&[first, second])) - mean).abs() < 1e-6);
}

#[test]
fn without_things_there_is_no_loss() {
    assert_eq!(loss(&[]), 0.0);
}
