//! The convolution on every instruction set against the f64 reference, and the reference's gradients
//! against differences.

mod common;

use common::{Random, all_kernels, assert_close, assert_gradient, wide};
use robomamba_kernels::conv1d::{
    self, ConvGradOutput, ConvGrads, ConvInput, ConvOutput, ConvShape, StepWeights, reference,
};
use robomamba_kernels::{Isa, KernelError, Kernels, Rows, RowsMut, Threads};

#[derive(Clone)]
struct Problem<T> {
    shape: ConvShape,
    /// `[rows, 2 * d_inner]`, of which the convolution reads the first half, as in a Mamba block.
    x: Vec<T>,
    weight: Vec<T>,
    bias: Vec<T>,
    state: Vec<T>,
    dy: Vec<T>,
    dstate_last: Vec<T>,
    carried: Carried,
}

/// Whether a sequence has something before and after it.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Carried {
    No,
    Yes,
}

struct Results<T> {
    y: Vec<T>,
    state_last: Vec<T>,
    x: Vec<T>,
    weight: Vec<T>,
    bias: Vec<T>,
    state: Vec<T>,
}

impl Problem<f32> {
    fn random(seed: u64, shape: ConvShape, carried: Carried) -> Self {
        let mut random = Random(seed);
        let channels = shape.rows() * shape.d_inner;
        Self {
            shape,
            x: random.vec(2 * channels, -2.0, 2.0),
            weight: random.vec(shape.d_inner * shape.d_conv, -1.0, 1.0),
            bias: random.vec(shape.d_inner, -1.0, 1.0),
            state: random.vec(shape.state_len(), -2.0, 2.0),
            dy: random.vec(channels, -1.0, 1.0),
            dstate_last: random.vec(shape.state_len(), -1.0, 1.0),
            carried,
        }
    }

    fn wide(&self) -> Problem<f64> {
        Problem {
            shape: self.shape,
            x: wide(&self.x),
            weight: wide(&self.weight),
            bias: wide(&self.bias),
            state: wide(&self.state),
            dy: wide(&self.dy),
            dstate_last: wide(&self.dstate_last),
            carried: self.carried,
        }
    }

    fn run(&self, kernels: Kernels) -> Results<f32> {
        let mut results = self.empty();
        let (output, _) = results.split(&self.shape);
        conv1d::forward(kernels, &self.input(), output).unwrap();
        let (_, grads) = results.split(&self.shape);
        conv1d::backward(kernels, &self.input(), self.grad_output(), grads).unwrap();
        results
    }
}

impl<T> Results<T> {
    fn split(&mut self, shape: &ConvShape) -> (ConvOutput<'_, T>, ConvGrads<'_, T>) {
        let output = ConvOutput { y: RowsMut::new(&mut self.y, shape.d_inner), state_last: &mut self.state_last };
        let grads = ConvGrads {
            x: RowsMut::new(&mut self.x, shape.d_inner),
            weight: &mut self.weight,
            bias: &mut self.bias,
            state: Some(&mut self.state),
        };
        (output, grads)
    }
}

impl<T: num_traits::Float> Problem<T> {
    fn input(&self) -> ConvInput<'_, T> {
        ConvInput {
            shape: self.shape,
            x: Rows::strided(&self.x, 2 * self.shape.d_inner),
            weight: &self.weight,
            bias: &self.bias,
            state: (self.carried == Carried::Yes).then_some(&self.state),
        }
    }

    fn grad_output(&self) -> ConvGradOutput<'_, T> {
        ConvGradOutput {
            y: Rows::new(&self.dy, self.shape.d_inner),
            state_last: (self.carried == Carried::Yes).then_some(&self.dstate_last),
        }
    }

    /// NaN everywhere, so that a value that is not written shows.
    fn empty(&self) -> Results<T> {
        let nan = |len: usize| vec![T::nan(); len];
        Results {
            y: nan(self.dy.len()),
            state_last: nan(self.state.len()),
            x: nan(self.dy.len()),
            weight: nan(self.weight.len()),
            bias: nan(self.bias.len()),
            state: nan(self.state.len()),
        }
    }

    fn reference(&self) -> Results<T> {
        let mut results = self.empty();
        reference::forward(&self.input(), results.split(&self.shape).0);
        reference::backward(&self.input(), self.grad_output(), results.split(&self.shape).1);
        results
    }
}

impl Problem<f64> {
    fn loss(&self) -> f64 {
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        let results = self.reference();
        let carried = if self.carried == Carried::No { 0.0 } else { dot(&results.state_last, &self.dstate_last) };
        dot(&results.y, &self.dy) + carried
    }
}

fn shape(batch: usize, seq_len: usize, d_inner: usize, d_conv: usize) -> ConvShape {
    ConvShape { batch, seq_len, d_inner, d_conv }
}

/// Sequences shorter and longer than the filter, whole and broken registers and tiles.
fn shapes() -> Vec<ConvShape> {
    vec![
        shape(1, 1, 1, 1),
        shape(2, 2, 5, 4),
        shape(2, 9, 16, 2),
        shape(1, 33, 40, 3),
        shape(3, 12, 300, 4),
        shape(1, 7, 19, 7),
        shape(1, 9, 70, 4),
    ]
}

#[test]
fn every_isa_agrees_with_the_reference() {
    for (seed, shape) in shapes().into_iter().enumerate() {
        for carried in [Carried::No, Carried::Yes] {
            let problem = Problem::random(seed as u64, shape, carried);
            let expected = problem.wide().reference();
            for kernels in all_kernels() {
                let found = problem.run(kernels);
                let name = |tensor: &str| format!("{tensor} of {shape:?}, {carried:?} on {kernels:?}");
                assert_close(&name("y"), &found.y, &expected.y, 2e-6);
                assert_close(&name("state_last"), &found.state_last, &expected.state_last, 0.0);
                assert_close(&name("dx"), &found.x, &expected.x, 2e-6);
                assert_close(&name("dweight"), &found.weight, &expected.weight, 5e-6);
                assert_close(&name("dbias"), &found.bias, &expected.bias, 5e-6);
                assert_close(&name("dstate"), &found.state, &expected.state, 2e-6);
            }
        }
    }
}

#[test]
fn the_references_gradients_are_differences() {
    for shape in [shape(2, 5, 3, 4), shape(1, 2, 2, 4), shape(1, 3, 2, 1)] {
        let problem = Problem::random(11, shape, Carried::Yes).wide();
        let results = problem.reference();
        let check = |what: &str, gradient: &[f64], field: fn(&mut Problem<f64>) -> &mut Vec<f64>| {
            let mut moved = problem.clone();
            let values = field(&mut moved).clone();
            assert_gradient(what, &values, gradient, |values| {
                field(&mut moved).copy_from_slice(values);
                moved.loss()
            });
        };
        // Only the first half of each row is read.
        let dx: Vec<f64> = results
            .x
            .chunks_exact(shape.d_inner)
            .flat_map(|row| row.iter().copied().chain(std::iter::repeat_n(0.0, shape.d_inner)))
            .collect();
        check("x", &dx, |p| &mut p.x);
        check("weight", &results.weight, |p| &mut p.weight);
        check("bias", &results.bias, |p| &mut p.bias);
        check("state", &results.state, |p| &mut p.state);
    }
}

#[test]
fn repeated_steps_are_the_forward_pass() {
    for (seed, shape) in shapes().into_iter().filter(|shape| shape.batch == 1).enumerate() {
        let problem = Problem::random(seed as u64, shape, Carried::Yes);
        for kernels in all_kernels() {
            let expected = problem.run(kernels);
            let (y, state) = repeated_steps(&problem, kernels);
            assert_close("y", &y, &wide(&expected.y), 2e-6);
            assert_eq!(state, expected.state_last);
        }
    }
}

#[test]
fn threads_do_not_change_a_bit_of_steps() {
    let problem = Problem::random(78, shape(1, 3, 1111, 4), Carried::Yes);
    for isa in Isa::available() {
        let [one, many] =
            [Threads::One, Threads::Rayon].map(|t| repeated_steps(&problem, Kernels::new(isa, t).unwrap()));
        assert!(one == many, "{isa:?}");
    }
}

/// Output and last state.
fn repeated_steps(problem: &Problem<f32>, kernels: Kernels) -> (Vec<f32>, Vec<f32>) {
    let ConvShape { seq_len, d_inner, d_conv, .. } = problem.shape;
    let weights = StepWeights::new((d_inner, d_conv), &problem.weight, &problem.bias).unwrap();
    let (mut state, mut y) = (problem.state.clone(), vec![0.0; problem.dy.len()]);
    for t in 0..seq_len {
        let x = problem.input().x.row(t, d_inner);
        conv1d::step(kernels, &weights, x, &mut state, &mut y[t * d_inner..][..d_inner]).unwrap();
    }
    (y, state)
}

#[test]
fn misfits_are_named() {
    let problem = Problem::random(1, shape(1, 4, 6, 4), Carried::Yes);
    let mut input = problem.input();
    input.weight = &problem.weight[1..];
    let mut results = problem.empty();
    let error = conv1d::forward(Kernels::detect(), &input, results.split(&problem.shape).0).unwrap_err();
    assert_eq!(error, KernelError::Length { tensor: "weight", expected: 24, found: 23 });
}
