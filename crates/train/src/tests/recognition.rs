//! The loss of the recognition head against its formula.

use crate::classes::Classes;
use crate::objectives::recognition::{PicturePoint, Thing, detection};
use crate::ops::{self};

const WIDTH: usize = 2;
const CLASSES: Classes = Classes { kinds: 8, colours: 7 };
const OUTPUTS: usize = 8 + 7 + 2;

fn thing(picture: usize, point: [f32; 2], classes: [usize; 2]) -> Thing {
    Thing::at(PicturePoint { picture, point }, 2, classes)
}

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
    ops::values(detection(things.into(), CLASSES, inputs))[0]
}

fn output(i: usize, token: [f64; WIDTH]) -> f64 {
    f64::from(bias()[i]) + (0..WIDTH).map(|j| f64::from(weight()[i * WIDTH + j]) * token[j]).sum::<f64>()
}

/// Mean cross-entropy of the attributes in f64, from the shared token of a thing.
fn expected_classes(token: [f64; WIDTH], classes: [usize; 2]) -> f64 {
    let logit = |i: usize| output(i, token);
    let nll = |first: usize, count: usize, class: usize| {
        let all: f64 = (first..first + count).map(|i| logit(i).exp()).sum();
        all.ln() - logit(first + class)
    };
    (nll(0, CLASSES.kinds, classes[0]) + nll(CLASSES.kinds, CLASSES.colours, classes[1])) / 2.0
}

/// Mean smooth L1 distance of the place in f64, from the token of its own patch.
fn expected_place(token: [f64; WIDTH], place: [f64; 2]) -> f64 {
    let huber = |e: f64| if e.abs() < 0.1 { e * e / 0.2 } else { e.abs() - 0.05 };
    (huber(output(OUTPUTS - 2, token) - place[0]) + huber(output(OUTPUTS - 1, token) - place[1])) / 2.0
}

#[test]
fn the_loss_is_that_of_kind_colour_and_place() {
    let row = |i: usize| [0, 1].map(|j| f64::from(tokens()[i * WIDTH + j]));
    // Pictures of 2 x 2 patches: the second one's top right patch is token 5, its middle at three quarters and one.
    let first = thing(1, [0.9, 0.1], [3, 6]);
    let expected_first = expected_classes(row(5), [3, 6]) + expected_place(row(5), [0.3, -0.3]);
    assert!((f64::from(loss(&[first])) - expected_first).abs() < 1e-6);
    // On an edge, both patches classify the thing, and the right one regresses its position.
    let between = [0, 1].map(|j| 0.5 * (row(0)[j] + row(1)[j]));
    let second = thing(0, [0.5, 0.2], [7, 0]);
    let expected_second = expected_classes(between, [7, 0]) + expected_place(row(1), [-0.5, -0.1]);
    assert!((f64::from(loss(&[second])) - expected_second).abs() < 1e-6);
    let mean = (expected_first + expected_second) / 2.0;
    assert!((f64::from(loss(&[first, second])) - mean).abs() < 1e-6);
}

#[test]
fn without_things_there_is_no_loss() {
    assert_eq!(loss(&[]), 0.0);
}
