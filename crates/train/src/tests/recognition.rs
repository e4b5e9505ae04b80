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

fn output(i: usize, token: [f64; WIDTH]) -> f64 {
    f64::from(bias()[i]) + (0..WIDTH).map(|j| f64::from(weight()[i * WIDTH + j]) * token[j]).sum::<f64>()
}

/// Mean over the attributes, in f64, of a thing whose shared token is `token`, ..
fn expected_classes(token: [f64; WIDTH], classes: [usize; 2]) -> f64 {
    let logit = |i: usize| output(i, token);
    let nll = |attribute: usize| {
        let all: f64 = (0..CLASSES).map(|class| logit(attribute * CLASSES + class).exp()).sum();
        all.ln() - logit(attribute * CLASSES + classes[attribute])
    };
    (nll(0) + nll(1)) / 2.0
}

/// .. and mean smooth L1 distance of the place that `token`, its own, tells.
fn expected_place(token: [f64; WIDTH], place: [f64; 2]) -> f64 {
    let huber = |e: f64| if e.abs() < 0.1 { e * e / 0.2 } else { e.abs() - 0.05 };
    (huber(output(OUTPUTS - 2, token) - place[0]) + huber(output(OUTPUTS - 1, token) - place[1])) / 2.0
}

#[test]
fn the_loss_is_that_of_kind_colour_and_place() {
    let row = |i: usize| [0, 1].map(|j| f64::from(tokens()[i * WIDTH + j]));
    // Pictures of 2 x 2 patches: the second one's top right patch is token 5, its middle at three quarters and one.
    let first = Thing::at(1, [0.9, 0.1], 2, [3, 6]);
    let expected_first = expected_classes(row(5), [3, 6]) + expected_place(row(5), [0.3, -0.3]);
    assert!((f64::from(loss(&[first])) - expected_first).abs() < 1e-6);
    // On the edge of two patches both are asked what it is, the right one where.
    let between = [0, 1].map(|j| 0.5 * (row(0)[j] + row(1)[j]));
    let second = Thing::at(0, [0.5, 0.2], 2, [7, 0]);
    let expected_second = expected_classes(between, [7, 0]) + expected_place(row(1), [-0.5, -0.1]);
    assert!((f64::from(loss(&[second])) - expected_second).abs() < 1e-6);
    let mean = (expected_first + expected_second) / 2.0;
    assert!((f64::from(loss(&[first, second])) - mean).abs() < 1e-6);
}

#[test]
fn without_things_there_is_no_loss() {
    assert_eq!(loss(&[]), 0.0);
}
