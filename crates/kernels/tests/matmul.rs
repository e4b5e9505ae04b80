//! The packed product on every instruction set against sums in f64.

mod common;

use common::{Random, all_kernels, assert_close, wide};
use robomamba_kernels::matmul::{PackedMatrix, reference};
use robomamba_kernels::{KernelError, Kernels, Rows, RowsMut};

#[test]
fn every_isa_agrees_with_the_reference() {
    // (rows, n_out, n_in): single rows, every height of tile, broken panels, several pieces of depth.
    let cases = [
        (1, 1, 1),
        (1, 33, 7),
        (1, 200, 1030),
        (2, 31, 5),
        (3, 64, 300),
        (5, 40, 16),
        (12, 32, 256),
        (25, 97, 513),
        (31, 70, 0),
        (0, 5, 4),
        (64, 768, 192),
    ];
    for (seed, (rows, n_out, n_in)) in cases.into_iter().enumerate() {
        let mut random = Random(seed as u64);
        let weight = random.vec(n_out * n_in, -1.0, 1.0);
        let bias = random.vec(n_out, -1.0, 1.0);
        // Rows and outputs lie within wider rows.
        let x = random.vec(rows * (n_in + 3), -1.0, 1.0);
        for bias in [None, Some(bias.as_slice())] {
            let matrix = PackedMatrix::new((n_out, n_in), &weight, bias).unwrap();
            let stride = n_out + 5;
            let mut expected = vec![7.0; rows * stride];
            reference::apply(&matrix, rows, Rows::strided(&x, n_in + 3), RowsMut::strided(&mut expected, stride));
            for kernels in all_kernels() {
                let mut y = vec![7.0; rows * stride];
                matrix.apply(kernels, rows, Rows::strided(&x, n_in + 3), RowsMut::strided(&mut y, stride)).unwrap();
                let name = format!("{rows} x {n_out} x {n_in} on {kernels:?}");
                assert_close(&name, &y, &wide(&expected), 1e-5);
            }
        }
    }
}

#[test]
fn misfits_are_named() {
    let error = PackedMatrix::new((3, 4), &[0.0; 11], None).unwrap_err();
    assert_eq!(error, KernelError::Length { tensor: "weight", expected: 12, found: 11 });
    let matrix = PackedMatrix::new((3, 4), &[0.0; 12], None).unwrap();
    let error = matrix.apply(Kernels::detect(), 2, Rows::new(&[0.0; 7], 4), RowsMut::new(&mut [0.0; 6], 3));
    assert_eq!(error.unwrap_err(), KernelError::Length { tensor: "x", expected: 8, found: 7 });
}
