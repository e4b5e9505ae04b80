//! Sums over more rows than one part has, against plain sums in f64.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::Precision;
use crate::gemm::{self, Mode, Write};

#[test]
fn sums_over_many_rows_are_complete() {
    let (n_in, n_out) = (3, 5);
    let mut rng = ChaCha8Rng::seed_from_u64(4);
    // One part, parts that come out even, and parts that do not.
    for rows in [7, 4096, 5000] {
        let mut random = |len: usize| -> Vec<f32> { (0..len).map(|_| rng.random_range(-1.0..1.0)).collect() };
        let (x, dy, before) = (random(rows * n_in), random(rows * n_out), random(n_in * n_out));
        for write in [Write::Set, Write::Add] {
            let (mut dw, mut db) = (before.clone(), before[..n_out].to_vec());
            gemm::backward_weight(Mode { precision: Precision::F32, write }, n_in, [&dy, &x], &mut dw);
            gemm::backward_bias(write, &dy, &mut db);
            let start = |i: usize| if write == Write::Add { f64::from(before[i]) } else { 0.0 };
            let dy = |row: usize, out: usize| f64::from(dy[row * n_out + out]);
            for out in 0..n_out {
                let sum = start(out) + (0..rows).map(|row| dy(row, out)).sum::<f64>();
                assert!((f64::from(db[out]) - sum).abs() < 1e-3, "{rows} rows, {write:?}: {} for {sum}", db[out]);
                for i in 0..n_in {
                    let terms = (0..rows).map(|row| dy(row, out) * f64::from(x[row * n_in + i]));
                    let (found, sum) = (dw[out * n_in + i], start(out * n_in + i) + terms.sum::<f64>());
                    assert!((f64::from(found) - sum).abs() < 1e-3, "{rows} rows, {write:?}: {found} for {sum}");
                }
            }
        }
    }
}
