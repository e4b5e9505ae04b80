//! Attention on every instruction set against the f64 reference, and the reference's gradients against
//! differences.

mod common;

use common::{Random, all_kernels, assert_close, assert_gradient, wide};
use robomamba_kernels::attention::{
    self, AttentionGrads, AttentionInput, AttentionScratch, AttentionShape, Mask, reference,
};
use robomamba_kernels::matmul::Format;
use robomamba_kernels::{KernelError, Kernels, Rows, RowsMut};

/// Owned arguments; queries, keys and values each fill the middle third of wider rows.
#[derive(Clone)]
struct Problem<T> {
    shape: AttentionShape,
    q: Vec<T>,
    k: Vec<T>,
    v: Vec<T>,
    dout: Vec<T>,
    scale: T,
    mask: Mask<'static>,
    format: Format,
}

/// One of a problem's tensors.
type Field = fn(&mut Problem<f64>) -> &mut Vec<f64>;

/// Output and gradients of queries, keys and values.
type Results<T> = [Vec<T>; 4];

impl Problem<f32> {
    fn random(seed: u64, shape: AttentionShape, mask: Mask<'static>) -> Self {
        let mut random = Random(seed);
        let (queries, keys) = (shape.batch * shape.n_query, shape.batch * shape.n_key);
        Self {
            shape,
            q: random.vec(3 * queries * shape.width(), -2.0, 2.0),
            k: random.vec(3 * keys * shape.width(), -2.0, 2.0),
            v: random.vec(3 * keys * shape.width(), -2.0, 2.0),
            dout: random.vec(queries * shape.width(), -1.0, 1.0),
            scale: 1.0 / (shape.head_dim as f32).sqrt(),
            mask,
            format: Format::F32,
        }
    }

    fn wide(&self) -> Problem<f64> {
        Problem {
            shape: self.shape,
            q: wide(&self.q),
            k: wide(&self.k),
            v: wide(&self.v),
            dout: wide(&self.dout),
            scale: self.scale.into(),
            mask: self.mask,
            format: self.format,
        }
    }

    fn with(self, format: Format) -> Self {
        Self { format, ..self }
    }

    fn run(&self, kernels: Kernels, scratch: &mut AttentionScratch) -> Results<f32> {
        let width = self.shape.width();
        let [mut out, mut dq, mut dk, mut dv] = self.empty();
        attention::forward(kernels, &self.input(), RowsMut::new(&mut out, width), scratch).unwrap();
        let grads = AttentionGrads {
            q: RowsMut::new(&mut dq, width),
            k: RowsMut::new(&mut dk, width),
            v: RowsMut::new(&mut dv, width),
        };
        attention::backward(kernels, &self.input(), Rows::new(&self.dout, width), grads, scratch).unwrap();
        [out, dq, dk, dv]
    }
}

impl<T: num_traits::Float> Problem<T> {
    fn input(&self) -> AttentionInput<'_, T> {
        let width = self.shape.width();
        AttentionInput {
            shape: self.shape,
            q: Rows::strided(&self.q[width..], 3 * width),
            k: Rows::strided(&self.k[width..], 3 * width),
            v: Rows::strided(&self.v[width..], 3 * width),
            scale: self.scale,
            mask: self.mask,
            format: self.format,
        }
    }

    /// NaN everywhere, so that a value that is not written shows.
    fn empty(&self) -> Results<T> {
        let queries = self.dout.len();
        let keys = self.shape.batch * self.shape.n_key * self.shape.width();
        [queries, queries, keys, keys].map(|len| vec![T::nan(); len])
    }

    fn reference(&self) -> Results<T> {
        let width = self.shape.width();
        let [mut out, mut dq, mut dk, mut dv] = self.empty();
        reference::forward(&self.input(), RowsMut::new(&mut out, width));
        let grads = AttentionGrads {
            q: RowsMut::new(&mut dq, width),
            k: RowsMut::new(&mut dk, width),
            v: RowsMut::new(&mut dv, width),
        };
        reference::backward(&self.input(), Rows::new(&self.dout, width), grads);
        [out, dq, dk, dv]
    }
}

fn shape(batch: usize, (n_query, n_key): (usize, usize), (n_head, head_dim): (usize, usize)) -> AttentionShape {
    AttentionShape { batch, n_query, n_key, n_head, head_dim }
}

fn cases() -> Vec<(AttentionShape, Mask<'static>)> {
    vec![
        (shape(1, (1, 1), (1, 1)), Mask::Full),
        (shape(2, (3, 5), (2, 7)), Mask::Full),
        (shape(2, (50, 33), (3, 32)), Mask::KeyLengths(&[33, 9])),
        (shape(1, (65, 65), (2, 64)), Mask::Full),
        (shape(1, (13, 40), (2, 16)), Mask::Causal),
        (shape(2, (1, 100), (4, 32)), Mask::Full),
        (shape(3, (2, 19), (2, 33)), Mask::KeyLengths(&[1, 19, 7])),
        (shape(1, (197, 197), (1, 64)), Mask::Full),
    ]
}

#[test]
fn every_isa_agrees_with_the_reference() {
    let mut scratch = AttentionScratch::default();
    for (seed, (shape, mask)) in cases().into_iter().enumerate() {
        let problem = Problem::random(seed as u64, shape, mask);
        let expected = problem.wide().reference();
        for kernels in all_kernels() {
            let found = problem.run(kernels, &mut scratch);
            for (i, what) in ["out", "dq", "dk", "dv"].into_iter().enumerate() {
                let name = format!("{what} of {shape:?}, {mask:?} on {kernels:?}");
                assert_close(&name, &found[i], &expected[i], 5e-6);
            }
        }
    }
}

#[test]
fn in_bf16_attention_is_the_reference_but_for_rounding() {
    let mut scratch = AttentionScratch::default();
    for (seed, (shape, mask)) in cases().into_iter().enumerate() {
        let mut problem = Problem::random(seed as u64, shape, mask);
        problem.format = Format::Bf16;
        let expected = problem.wide().reference();
        for kernels in all_kernels() {
            let found = problem.run(kernels, &mut scratch);
            for (i, what) in ["out", "dq", "dk", "dv"].into_iter().enumerate() {
                // Factors have 8 bits: errors of scores up to a few thousandths make those of probabilities.
                let squares = |values: &mut dyn Iterator<Item = f64>| values.map(|x| x * x).sum::<f64>().sqrt();
                let errors = squares(&mut found[i].iter().zip(&expected[i]).map(|(&a, b)| f64::from(a) - b));
                let size = squares(&mut expected[i].iter().copied());
                let name = format!("{what} of {shape:?}, {mask:?} on {kernels:?}");
                assert!(errors <= 0.01 * size + 1e-6, "{name}: relative error {}", errors / size);
            }
            let exact = problem.clone().with(Format::F32).run(kernels, &mut scratch);
            let is_rounded = shape.n_query > 2 && kernels.isa().multiplies_bf16();
            assert_eq!(exact[0] != found[0], is_rounded, "{shape:?}, {mask:?} on {kernels:?}: whether it was rounded");
            let int8 = problem.clone().with(Format::Int8).run(kernels, &mut scratch);
            assert!(int8 == found, "8 bits are as bf16");
        }
    }
}

#[test]
fn what_a_query_gets_does_not_depend_on_the_queries_beside_it() {
    // Several blocks of queries, and probabilities in several pieces of depth.
    let shape = shape(1, (197, 300), (2, 32));
    for format in Format::ALL {
        let problem = Problem::random(8, shape, Mask::Full).with(format);
        for kernels in all_kernels() {
            let queries = |first: usize, n_query: usize| {
                let (mut input, width) = (problem.input(), shape.width());
                input.shape.n_query = n_query;
                input.q = Rows::strided(&problem.q[(3 * first + 1) * width..], 3 * width);
                let mut out = vec![f32::NAN; n_query * width];
                attention::forward(kernels, &input, RowsMut::new(&mut out, width), &mut AttentionScratch::default())
                    .unwrap();
                out
            };
            let whole = queries(0, 197);
            for cut in [16, 65, 99, 129] {
                let parts = [queries(0, cut), queries(cut, 197 - cut)].concat();
                assert!(whole == parts, "{format:?} on {kernels:?}, cut after {cut} queries");
            }
        }
    }
}

#[test]
fn the_references_gradients_are_differences() {
    for mask in [Mask::Full, Mask::KeyLengths(&[2, 4]), Mask::Causal] {
        let problem = Problem::random(5, shape(2, (3, 4), (2, 3)), mask).wide();
        let gradients = problem.reference();
        let fields: [Field; 3] = [|p| &mut p.q, |p| &mut p.k, |p| &mut p.v];
        for (field, gradient) in fields.into_iter().zip(&gradients[1..]) {
            let width = problem.shape.width();
            let zeros = vec![0.0; width];
            let spread: Vec<f64> =
                gradient.chunks_exact(width).flat_map(|row| [zeros.as_slice(), row, &zeros].concat()).collect();
            let mut moved = problem.clone();
            let values = field(&mut moved).clone();
            assert_gradient(&format!("{mask:?}"), &values, &spread, |values| {
                field(&mut moved).copy_from_slice(values);
                moved.reference()[0].iter().zip(&problem.dout).map(|(y, dy)| y * dy).sum()
            });
        }
    }
}

#[test]
fn misfits_are_named() {
    let problem = Problem::random(1, shape(2, (3, 4), (1, 8)), Mask::KeyLengths(&[5, 1]));
    let mut out = vec![0.0; 48];
    let found = attention::forward(
        Kernels::detect(),
        &problem.input(),
        RowsMut::new(&mut out, 8),
        &mut AttentionScratch::default(),
    );
    let expected = KernelError::Dimension { dimension: "key length", expected: "1 to n_key", found: 5 };
    assert_eq!(found.unwrap_err(), expected);
}
