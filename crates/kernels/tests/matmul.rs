//! The packed product on every instruction set in every format against sums in f64.

mod common;

use common::{Random, all_kernels, assert_close, wide};
use robomamba_kernels::activation::Activation;
use robomamba_kernels::matmul::{
    ConvertedRows, Factor, Format, PackedMatrix, Write, multiply_bf16, multiply_f32, reference,
};
use robomamba_kernels::{Bf16Products, Isa, KernelChoice, KernelError, Kernels, Rows, RowsMut, Threads};

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
        (7, 40, 16),
        (8, 40, 16),
        (9, 33, 300),
        (11, 40, 16),
        (12, 32, 256),
        (20, 70, 40),
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
        // Rounding errors of a sum grow like a random walk.
        let tolerance = 1e-6 * (n_in as f64).sqrt().max(10.0);
        let cases = Format::ALL.into_iter().flat_map(|format| [(format, None), (format, Some(bias.as_slice()))]);
        for (format, bias) in cases {
            let matrix = PackedMatrix::new(format, (n_out, n_in), &weight, bias).unwrap();
            let stride = n_out + 5;
            let mut expected = vec![7.0; rows * stride];
            reference::apply(&matrix, rows, Rows::strided(&x, n_in + 3), RowsMut::strided(&mut expected, stride));
            for kernels in all_kernels() {
                let mut y = vec![7.0; rows * stride];
                let (x, out) = (Rows::strided(&x, n_in + 3), RowsMut::strided(&mut y, stride));
                matrix.apply(kernels, rows, x, out, &mut ConvertedRows::default()).unwrap();
                let name = format!("{rows} x {n_out} x {n_in} in {format:?} on {kernels:?}");
                assert_close(&name, &y, &wide(&expected), tolerance);
            }
        }
    }
}

/// Every instruction set with bf16 computed as f32.
fn kernels_as_f32() -> Vec<Kernels> {
    let choice = |isa| KernelChoice { isa, bf16: Bf16Products::AsF32 };
    let handles = |isa| [Threads::One, Threads::Rayon].map(|threads| Kernels::pinned(choice(isa), threads).unwrap());
    Isa::available().into_iter().flat_map(handles).collect()
}

#[test]
fn bf16_as_f32_rounds_the_weights_alone() {
    // Odd depths, several pieces of depth, broken panels and tiles.
    let cases = [(1, 70, 33), (2, 33, 1), (3, 64, 257), (12, 100, 512), (25, 97, 1030), (7, 5, 0)];
    for (seed, (rows, n_out, n_in)) in cases.into_iter().enumerate() {
        let mut random = Random(40 + seed as u64);
        let (weight, bias) = (random.vec(n_out * n_in, -1.0, 1.0), random.vec(n_out, -1.0, 1.0));
        let x = random.vec(rows * (n_in + 3), -1.0, 1.0);
        let matrix = PackedMatrix::new(Format::Bf16, (n_out, n_in), &weight, Some(&bias)).unwrap();
        // A single row waits for its weights, and is rounded as ever.
        let input = |x: f32| if rows == 1 { rounded(x) } else { x.into() };
        let output = |i: usize| -> f64 {
            let (x, w) = (&x[i / n_out * (n_in + 3)..][..n_in], &weight[i % n_out * n_in..][..n_in]);
            let sum: f64 = x.iter().zip(w).map(|(&x, &w)| input(x) * rounded(w)).sum();
            sum + f64::from(bias[i % n_out])
        };
        let expected: Vec<f64> = (0..rows * n_out).map(output).collect();
        for kernels in kernels_as_f32() {
            let mut y = vec![7.0; rows * n_out];
            let (x, out) = (Rows::strided(&x, n_in + 3), RowsMut::new(&mut y, n_out));
            matrix.apply(kernels, rows, x, out, &mut ConvertedRows::default()).unwrap();
            let tolerance = 1e-6 * (n_in as f64).sqrt().max(10.0);
            assert_close(&format!("{rows} x {n_out} x {n_in} on {kernels:?}"), &y, &expected, tolerance);
        }
    }
    let mut random = Random(60);
    let (a, b) = (random.vec(20 * 70, -1.0, 1.0), random.vec(70 * 40, -1.0, 1.0));
    let factors = [Factor::new(&a, [20, 70]), Factor::new(&b, [70, 40])];
    for kernels in kernels_as_f32() {
        let product = |multiply: Multiply| {
            let mut y = vec![0.0; 20 * 40];
            multiply(kernels, Write::Set, factors, None, &mut y).unwrap();
            y
        };
        assert!(product(multiply_bf16) == product(multiply_f32), "{kernels:?}");
    }
}

#[test]
fn an_activated_product_is_the_activation_of_the_product() {
    let mut random = Random(21);
    for (rows, n_out, n_in) in [(1, 70, 40), (7, 33, 19), (197, 96, 64), (300, 260, 70)] {
        let (weight, x) = (random.vec(n_out * n_in, -1.0, 1.0), random.vec(rows * n_in, -1.0, 1.0));
        let bias = random.vec(n_out, -1.0, 1.0);
        for format in Format::ALL {
            for activation in [Activation::Gelu, Activation::GeluQuick, Activation::Relu] {
                let matrix = PackedMatrix::new(format, (n_out, n_in), &weight, Some(&bias)).unwrap();
                let matrix = matrix.activated(activation);
                let mut expected = vec![0.0; rows * n_out];
                reference::apply(&matrix, rows, Rows::new(&x, n_in), RowsMut::new(&mut expected, n_out));
                for kernels in all_kernels() {
                    let mut y = vec![7.0; rows * n_out];
                    let out = RowsMut::new(&mut y, n_out);
                    matrix.apply(kernels, rows, Rows::new(&x, n_in), out, &mut ConvertedRows::default()).unwrap();
                    let name = format!("{activation:?} of {rows} x {n_out} x {n_in} in {format:?} on {kernels:?}");
                    assert_close(&name, &y, &wide(&expected), 1e-5);
                }
            }
        }
    }
}

#[test]
fn what_a_row_becomes_does_not_depend_on_the_rows_beside_it() {
    let (rows, n_out, n_in) = (65, 70, 600);
    let mut random = Random(5);
    let (weight, x) = (random.vec(n_out * n_in, -1.0, 1.0), random.vec(rows * n_in, -1.0, 1.0));
    for format in Format::ALL {
        let matrix = PackedMatrix::new(format, (n_out, n_in), &weight, None).unwrap();
        for kernels in all_kernels().into_iter().chain(kernels_as_f32()) {
            let product = |x: &[f32]| {
                let rows = x.len() / n_in;
                let mut y = vec![7.0; rows * n_out];
                let out = RowsMut::new(&mut y, n_out);
                matrix.apply(kernels, rows, Rows::new(x, n_in), out, &mut ConvertedRows::default()).unwrap();
                y
            };
            let whole = product(&x);
            for cut in [16, 28, 33, 49] {
                let (first, second) = x.split_at(cut * n_in);
                let parts = [product(first), product(second)].concat();
                assert!(whole == parts, "{format:?} on {kernels:?}, cut after {cut} rows");
            }
        }
    }
}

#[test]
fn a_single_row_does_not_depend_on_the_threads() {
    // Pieces of even and odd numbers of panels, and a broken one.
    let (n_out, n_in) = (1990, 333);
    let mut random = Random(9);
    let (weight, x) = (random.vec(n_out * n_in, -1.0, 1.0), random.vec(n_in, -1.0, 1.0));
    for format in Format::ALL {
        let matrix = PackedMatrix::new(format, (n_out, n_in), &weight, None).unwrap();
        for kernels in all_kernels() {
            let with = |threads: usize| {
                let mut y = vec![0.0; n_out];
                let (x, out) = (Rows::new(&x, n_in), RowsMut::new(&mut y, n_out));
                let kernels = kernels.with_threads(Threads::Rayon);
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                pool.install(|| matrix.apply(kernels, 1, x, out, &mut ConvertedRows::default()).unwrap());
                y
            };
            let alone = with(1);
            for threads in [2, 3, 7] {
                assert!(with(threads) == alone, "{format:?} on {kernels:?}, {threads} threads");
            }
        }
    }
}

#[test]
fn int8_is_the_same_on_every_isa_and_exact_for_what_it_can_represent() {
    // Extremes: every product and partial sum is as large as it can be, and no instruction may saturate. A single row
    // has 15 bits.
    for (rows, n_in) in [(5, 1030), (1, 1030), (1, 4100)] {
        // An interpreter takes minutes for a twentieth of it.
        extremes_are_exact((rows, 40, if cfg!(miri) { n_in / 20 } else { n_in }));
    }
}

fn extremes_are_exact((rows, n_out, n_in): (usize, usize, usize)) {
    let mut random = Random(3);
    let mut signs = |len: usize| -> Vec<f32> { (0..len).map(|_| random.uniform(-1.0, 1.0).signum()).collect() };
    let (mut weight, mut x) = (signs(n_out * n_in), signs(rows * n_in));
    weight[..n_in].fill(1.0);
    x[..n_in].fill(1.0);
    let matrix = PackedMatrix::new(Format::Int8, (n_out, n_in), &weight, None).unwrap();
    for kernels in all_kernels() {
        let mut y = vec![0.0; rows * n_out];
        let mut quantised = ConvertedRows::default();
        matrix.apply(kernels, rows, Rows::new(&x, n_in), RowsMut::new(&mut y, n_out), &mut quantised).unwrap();
        for (row, y) in y.chunks_exact(n_out).enumerate() {
            for (out, &y) in y.iter().enumerate() {
                let terms = x[row * n_in..][..n_in].iter().zip(&weight[out * n_in..][..n_in]);
                let exact: f32 = terms.map(|(x, w)| x * w).sum();
                let tolerance = 1e-6 * n_in as f32;
                assert!((y - exact).abs() < tolerance, "{kernels:?} row {row} output {out}: {y}, expected {exact}");
            }
        }
    }
}

#[test]
fn quantisation_costs_what_its_steps_say() {
    let (rows, n_out, n_in) = (16, 96, 768);
    let mut random = Random(11);
    let (weight, x) = (random.vec(n_out * n_in, -1.0, 1.0), random.vec(rows * n_in, -1.0, 1.0));
    let product = |format| {
        let matrix = PackedMatrix::new(format, (n_out, n_in), &weight, None).unwrap();
        let mut y = vec![0.0; rows * n_out];
        let mut quantised = ConvertedRows::default();
        let (x, out) = (Rows::new(&x, n_in), RowsMut::new(&mut y, n_out));
        matrix.apply(Kernels::detect(), rows, x, out, &mut quantised).unwrap();
        (y, matrix.bytes())
    };
    let (exact, f32_bytes) = product(Format::F32);
    let size = exact.iter().map(|y| y * y).sum::<f32>().sqrt();
    // Rounding is uniform: relative errors of about 2^-9 / sqrt(3) in bf16, and of a step of 1/127 over sqrt(12)
    // against uniform values' 1 / sqrt(3) in int8, in both factors.
    for (format, expected, size_ratio) in [(Format::Bf16, 1.7e-3, 0.5), (Format::Int8, 5.6e-3, 0.27)] {
        let (y, bytes) = product(format);
        let error = y.iter().zip(&exact).map(|(a, b)| (a - b) * (a - b)).sum::<f32>().sqrt() / size;
        assert!((0.5 * expected..1.5 * expected).contains(&error), "{format:?}: relative error {error}");
        assert!(bytes as f64 <= size_ratio * f32_bytes as f64, "{format:?}: {bytes} bytes of {f32_bytes}");
    }
}

/// [`multiply_f32`] or [`multiply_bf16`].
type Multiply = fn(Kernels, Write, [Factor; 2], Option<&[f32]>, &mut [f32]) -> Result<(), KernelError>;

/// The nearest bf16.
fn rounded(x: f32) -> f64 {
    half::bf16::from_f32(x).to_f64()
}

#[test]
fn products_of_any_two_factors_agree_with_sums_in_f64() {
    // (rows, depth, columns): odd depths, broken panels and tiles, several pieces of depth, blocks of rows and groups
    // of columns.
    let cases = [
        (1, 1, 1),
        (3, 5, 33),
        (13, 33, 70),
        (64, 600, 96),
        (96, 520, 31),
        (3000, 64, 40),
        (13, 2100, 200),
        (5, 0, 7),
        (0, 4, 5),
    ];
    for (seed, (rows, depth, columns)) in cases.into_iter().enumerate() {
        let mut random = Random(100 + seed as u64);
        let (a, b) = (random.vec(rows * depth, -1.0, 1.0), random.vec(depth * columns, -1.0, 1.0));
        let (bias, before) = (random.vec(columns, -1.0, 1.0), random.vec(rows * columns, -1.0, 1.0));
        let transpose = |data: &[f32], [rows, columns]: [usize; 2]| -> Vec<f32> {
            (0..rows * columns).map(|i| data[i % rows * columns + i / rows]).collect()
        };
        let (a_t, b_t) = (transpose(&a, [rows, depth]), transpose(&b, [depth, columns]));
        let product = |value: fn(f32) -> f64| -> Vec<f64> {
            let sum = |row: usize, column: usize| {
                (0..depth).map(|k| value(a[row * depth + k]) * value(b[k * columns + column])).sum()
            };
            (0..rows * columns).map(|i| sum(i / columns, i % columns)).collect()
        };
        let products = [product(f64::from), product(rounded)];
        let tolerance = 1e-6 * (depth as f64).sqrt().max(10.0);
        for kernels in all_kernels() {
            for case in 0..32 {
                let [a_transposed, b_transposed, adds, is_biased, in_bf16] = [1, 2, 4, 8, 16].map(|bit| case & bit > 0);
                let (multiply, product): (Multiply, _) =
                    if in_bf16 { (multiply_bf16, &products[1]) } else { (multiply_f32, &products[0]) };
                let left =
                    if a_transposed { Factor::transposed(&a_t, [depth, rows]) } else { Factor::new(&a, [rows, depth]) };
                let right = if b_transposed {
                    Factor::transposed(&b_t, [columns, depth])
                } else {
                    Factor::new(&b, [depth, columns])
                };
                let write = if adds { Write::Add } else { Write::Set };
                let mut y = before.clone();
                let bias = is_biased.then_some(bias.as_slice());
                multiply(kernels, write, [left, right], bias, &mut y).unwrap();
                let expected = product.iter().enumerate().map(|(i, product)| {
                    product
                        + bias.map_or(0.0, |bias| bias[i % columns].into())
                        + if adds { before[i].into() } else { 0.0 }
                });
                let name = format!("{rows} x {depth} x {columns}, case {case:05b}, on {kernels:?}");
                assert_close(&name, &y, &expected.collect::<Vec<_>>(), tolerance);
            }
        }
    }
}

#[test]
fn products_of_any_two_factors_do_not_depend_on_the_threads() {
    // The second has a block of a single row.
    for (rows, depth, columns) in [(600, 70, 200), (5809, 30, 70), (40, 2000, 100)] {
        let mut random = Random(7);
        let (a, b) = (random.vec(rows * depth, -1.0, 1.0), random.vec(depth * columns, -1.0, 1.0));
        let factors = [Factor::new(&a, [rows, depth]), Factor::new(&b, [depth, columns])];
        for multiply in [multiply_f32 as Multiply, multiply_bf16] {
            let with = |threads: usize| {
                let mut y = vec![0.0; rows * columns];
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                pool.install(|| multiply(Kernels::detect(), Write::Set, factors, None, &mut y).unwrap());
                y
            };
            let alone = with(1);
            for threads in [2, 3, 7, 20] {
                assert!(with(threads) == alone, "{rows} x {depth} x {columns} on {threads} threads");
            }
        }
    }
}

#[test]
fn bf16_is_rounded_to_the_nearest_with_ties_to_even() {
    let ulp = 2.0_f32.powi(-7);
    let x = [
        1.0 + 0.5 * ulp,
        1.0 + 1.5 * ulp,
        1.0 + 0.501 * ulp,
        -1.0 - 0.499 * ulp,
        f32::MAX,
        f32::MIN_POSITIVE,
        3.1e38,
        f32::INFINITY,
        f32::NEG_INFINITY,
        f32::NAN,
        f32::from_bits(0x7fff_ffff),
        f32::from_bits(0xffff_ffff),
        -0.0,
    ];
    for kernels in all_kernels() {
        let mut y = [0.0; 13];
        let factors = [Factor::new(&x, [13, 1]), Factor::new(&[1.0], [1, 1])];
        multiply_bf16(kernels, Write::Set, factors, None, &mut y).unwrap();
        for (x, y) in x.into_iter().zip(y) {
            let expected = half::bf16::from_f32(x).to_f32();
            assert!(y == expected || y.is_nan() && expected.is_nan(), "{kernels:?}: {x} became {y}, not {expected}");
        }
        // The same by the other way of rounding, and as the other factor.
        let mut z = [0.0; 13];
        let factors = [Factor::new(&[1.0], [1, 1]), Factor::new(&x, [1, 13])];
        multiply_bf16(kernels, Write::Set, factors, None, &mut z).unwrap();
        assert_eq!(z.map(f32::is_nan), y.map(f32::is_nan), "{kernels:?}");
        assert!(z.iter().zip(&y).all(|(z, y)| z == y || y.is_nan()), "{kernels:?}: {z:?} and {y:?}");
    }
}

#[test]
fn zeros_and_values_that_are_no_numbers_do_no_harm() {
    let matrix = PackedMatrix::new(Format::Int8, (3, 4), &[0.0; 12], Some(&[1.0, 2.0, 3.0])).unwrap();
    let mut y = [0.0; 6];
    let x = [0.0, 0.0, 0.0, 0.0, f32::NAN, f32::INFINITY, 1.0, -1.0];
    let (rows, out) = (Rows::new(&x, 4), RowsMut::new(&mut y, 3));
    matrix.apply(Kernels::detect(), 2, rows, out, &mut ConvertedRows::default()).unwrap();
    assert_eq!(y[..3], [1.0, 2.0, 3.0]);
}

#[test]
fn misfits_are_named() {
    let (a, b) = (Factor::new(&[0.0; 6], [2, 3]), Factor::transposed(&[0.0; 8], [4, 2]));
    let mut y = [7.0; 8];
    let error = multiply_bf16(Kernels::detect(), Write::Set, [a, b], None, &mut y);
    let expected = "the columns of a";
    assert_eq!(error.unwrap_err(), KernelError::Dimension { dimension: "rows of b", expected, found: 2 });
    let a = Factor::new(&[0.0; 5], [2, 2]);
    let error = multiply_bf16(Kernels::detect(), Write::Set, [a, b], None, &mut y);
    assert_eq!(error.unwrap_err(), KernelError::Length { tensor: "a", expected: 4, found: 5 });
    assert_eq!(y, [7.0; 8]);
    let error = PackedMatrix::new(Format::F32, (3, 4), &[0.0; 11], None).unwrap_err();
    assert_eq!(error, KernelError::Length { tensor: "weight", expected: 12, found: 11 });
    for format in Format::ALL {
        let matrix = PackedMatrix::new(format, (3, 4), &[0.0; 12], None).unwrap();
        let (x, mut y) = (Rows::new(&[0.0; 7], 4), [0.0; 6]);
        let y = RowsMut::new(&mut y, 3);
        let error = matrix.apply(Kernels::detect(), 2, x, y, &mut ConvertedRows::default());
        assert_eq!(error.unwrap_err(), KernelError::Length { tensor: "x", expected: 8, found: 7 });
    }
}
