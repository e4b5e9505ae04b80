//! Points as shares of patches, and the cross-entropy of attention.

use robomamba_kernels::attention::AttentionShape;

use crate::modules::batch::ConnectorAttention;
use crate::objectives::grounding::{Pointer, cross_entropy};
use crate::objectives::patches;
use crate::ops::{self};

const GRID: usize = 4;

fn shares(point: [f32; 2]) -> Vec<(usize, f32)> {
    let keys = patches::shares(point, GRID, 0);
    assert!((keys.iter().map(|key| key.1).sum::<f32>() - 1.0).abs() < 1e-6, "{keys:?}");
    keys.into_iter().filter(|key| key.1 > 1e-6).collect()
}

#[test]
fn a_point_at_a_patch_centre_is_that_patch() {
    // Column 2, row 1 of four.
    assert_eq!(shares([2.5 / 4.0, 1.5 / 4.0]), [(6, 1.0)]);
}

#[test]
fn a_point_between_patches_is_shared_by_distance() {
    let found = shares([1.75 / 4.0, 0.5 / 4.0]);
    assert_eq!(found.iter().map(|key| key.0).collect::<Vec<_>>(), [1, 2]);
    assert!((found[0].1 - 0.75).abs() < 1e-6 && (found[1].1 - 0.25).abs() < 1e-6, "{found:?}");
    assert_eq!(shares([0.5, 0.5]).len(), 4);
}

#[test]
fn a_point_outside_the_centres_is_the_patch_at_the_edge() {
    for (point, key) in [([0.0, 0.0], 0), ([1.0, 0.0], 3), ([-0.2, 1.3], 12), ([1.0, 1.0], 15)] {
        assert_eq!(shares(point), [(key, 1.0)], "{point:?}");
    }
}

/// Two frames of one query and three keys, two heads of width 1.
fn loss(pointers: &[Pointer], lengths: [usize; 2]) -> f32 {
    let shape = AttentionShape { batch: 2, n_query: 1, n_key: 3, n_head: 2, head_dim: 1 };
    let queries = ops::constant(vec![1.0, 2.0, 0.5, -1.0], [2, 2]);
    let keys = ops::constant(vec![0.0, 0.0, 1.0, 0.5, 2.0, -1.0, 1.0, 1.0, 3.0, 0.0, 9.0, 9.0], [6, 2]);
    let attention = ConnectorAttention { shape, n_visible: lengths.into(), queries, keys };
    ops::values(cross_entropy(&attention, pointers.into()))[0]
}

fn pointer(frame: usize, keys: [(usize, f32); 4]) -> Pointer {
    Pointer { frame, query: 0, keys }
}

#[test]
fn the_loss_is_the_cross_entropy_with_the_attention_of_every_head() {
    let nll = |logits: &[f64], key: usize| logits.iter().map(|x| x.exp()).sum::<f64>().ln() - logits[key];
    let first = pointer(0, [(0, 0.25), (1, 0.75), (0, 0.0), (0, 0.0)]);
    let head = |logits: &[f64]| 0.25 * nll(logits, 0) + 0.75 * nll(logits, 1);
    let expected = (head(&[0.0, 1.0, 2.0]) + head(&[0.0, 1.0, -2.0])) / 2.0;
    assert!((f64::from(loss(&[first], [3, 3])) - expected).abs() < 1e-6);
    // The second frame sees two keys only.
    let second = pointer(1, [(1, 1.0), (0, 0.0), (0, 0.0), (0, 0.0)]);
    let alone = (nll(&[0.5, 1.5], 1) + nll(&[-1.0, 0.0], 1)) / 2.0;
    assert!((f64::from(loss(&[second], [3, 2])) - alone).abs() < 1e-6);
    assert!((f64::from(loss(&[first, second], [3, 2])) - (expected + alone) / 2.0).abs() < 1e-6);
}

#[test]
fn without_pointers_there_is_no_loss() {
    assert_eq!(loss(&[], [3, 3]), 0.0);
}
