//! The scan on every instruction set against the f64 reference, and the reference's gradients against
//! differences.

mod common;

use common::{Random, all_kernels, assert_close, assert_gradient, wide};
use proptest::prelude::*;
use robomamba_kernels::scan::{
    self, ScanCheckpoints, ScanGradOutput, ScanGrads, ScanInput, ScanOutput, ScanParams, ScanShape, StepInput,
    StepWeights, reference,
};
use robomamba_kernels::{Isa, KernelError, Kernels, Rows, RowsMut, Threads};

/// Whether a case has the optional arguments.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Options {
    None,
    GateAndState,
}

/// Owned arguments of a scan. `delta`, `B` and `C` lie side by side in one projection, as in a Mamba block.
#[derive(Clone)]
struct Problem<T> {
    shape: ScanShape,
    options: Options,
    a_log: Vec<T>,
    d: Vec<T>,
    dt_bias: Vec<T>,
    u: Vec<T>,
    /// `[rows, d_inner + 2 * d_state]`.
    projection: Vec<T>,
    z: Vec<T>,
    h0: Vec<T>,
    dy: Vec<T>,
    dh_last: Vec<T>,
}

/// All that a scan computes.
#[derive(Default)]
struct Results<T> {
    y: Vec<T>,
    h_last: Vec<T>,
    u: Vec<T>,
    projection: Vec<T>,
    z: Vec<T>,
    h0: Vec<T>,
    a_log: Vec<T>,
    d: Vec<T>,
    dt_bias: Vec<T>,
}

impl Problem<f32> {
    fn random(seed: u64, shape: ScanShape, options: Options) -> Self {
        let mut random = Random(seed);
        let (rows, channels) = (shape.rows(), shape.d_inner);
        Self {
            shape,
            options,
            a_log: random.vec(channels * shape.d_state, -1.0, 2.7),
            d: random.vec(channels, -1.0, 1.0),
            dt_bias: random.vec(channels, -4.0, 0.0),
            u: random.vec(rows * channels, -2.0, 2.0),
            projection: random.vec(rows * (channels + 2 * shape.d_state), -1.5, 1.5),
            z: random.vec(rows * channels, -3.0, 3.0),
            h0: random.vec(shape.state_len(), -1.0, 1.0),
            dy: random.vec(rows * channels, -1.0, 1.0),
            dh_last: random.vec(shape.state_len(), -1.0, 1.0),
        }
    }

    fn wide(&self) -> Problem<f64> {
        Problem {
            shape: self.shape,
            options: self.options,
            a_log: wide(&self.a_log),
            d: wide(&self.d),
            dt_bias: wide(&self.dt_bias),
            u: wide(&self.u),
            projection: wide(&self.projection),
            z: wide(&self.z),
            h0: wide(&self.h0),
            dy: wide(&self.dy),
            dh_last: wide(&self.dh_last),
        }
    }

    fn run(&self, kernels: Kernels) -> Results<f32> {
        let mut results = self.empty();
        let mut checkpoints = ScanCheckpoints::default();
        let (input, width) = (self.input(), self.shape.d_inner);
        let output = ScanOutput { y: RowsMut::new(&mut results.y, width), h_last: &mut results.h_last };
        scan::forward(kernels, &input, output, Some(&mut checkpoints)).unwrap();
        let (grad_output, mut parts) = (self.grad_output(), self.gradient_parts());
        scan::backward(kernels, &input, &checkpoints, grad_output, self.grads(&mut results, &mut parts)).unwrap();
        self.join(&mut results, parts);
        results
    }
}

impl<T: num_traits::Float> Problem<T> {
    fn columns(&self) -> usize {
        self.shape.d_inner + 2 * self.shape.d_state
    }

    fn input(&self) -> ScanInput<'_, T> {
        let ScanShape { d_inner, d_state, .. } = self.shape;
        let options = self.options == Options::GateAndState;
        ScanInput {
            shape: self.shape,
            params: ScanParams { a_log: &self.a_log, d: &self.d, dt_bias: &self.dt_bias },
            u: Rows::new(&self.u, d_inner),
            delta: Rows::strided(&self.projection, self.columns()),
            b: Rows::strided(self.projection.get(d_inner..).unwrap_or_default(), self.columns()),
            c: Rows::strided(self.projection.get(d_inner + d_state..).unwrap_or_default(), self.columns()),
            z: options.then_some(Rows::new(&self.z, d_inner)),
            h0: options.then_some(&self.h0),
        }
    }

    fn grad_output(&self) -> ScanGradOutput<'_, T> {
        ScanGradOutput {
            y: Rows::new(&self.dy, self.shape.d_inner),
            h_last: (self.options == Options::GateAndState).then_some(&self.dh_last),
        }
    }

    /// NaN everywhere, so that a value that is not written shows.
    fn empty(&self) -> Results<T> {
        let nan = |like: &[T]| vec![T::nan(); like.len()];
        Results {
            y: nan(&self.u),
            h_last: nan(&self.h0),
            u: nan(&self.u),
            projection: nan(&self.projection),
            z: if self.options == Options::None { vec![] } else { nan(&self.z) },
            h0: nan(&self.h0),
            a_log: nan(&self.a_log),
            d: nan(&self.d),
            dt_bias: nan(&self.dt_bias),
        }
    }

    fn gradient_parts(&self) -> [Vec<T>; 3] {
        let rows = self.shape.rows();
        [self.shape.d_inner, self.shape.d_state, self.shape.d_state].map(|width| vec![T::nan(); rows * width])
    }

    fn grads<'a>(&self, results: &'a mut Results<T>, parts: &'a mut [Vec<T>; 3]) -> ScanGrads<'a, T> {
        let ScanShape { d_inner, d_state, .. } = self.shape;
        let [delta, b, c] = parts;
        ScanGrads {
            u: RowsMut::new(&mut results.u, d_inner),
            delta: RowsMut::new(delta, d_inner),
            b: RowsMut::new(b, d_state),
            c: RowsMut::new(c, d_state),
            z: (self.options == Options::GateAndState).then_some(RowsMut::new(&mut results.z, d_inner)),
            h0: Some(&mut results.h0),
            a_log: &mut results.a_log,
            d: &mut results.d,
            dt_bias: &mut results.dt_bias,
        }
    }

    /// Puts the gradients of `delta`, `B` and `C` side by side.
    fn join(&self, results: &mut Results<T>, [delta, b, c]: [Vec<T>; 3]) {
        let ScanShape { d_inner, d_state, .. } = self.shape;
        for (row, out) in results.projection.chunks_exact_mut(self.columns()).enumerate() {
            out[..d_inner].copy_from_slice(&delta[row * d_inner..][..d_inner]);
            out[d_inner..][..d_state].copy_from_slice(&b[row * d_state..][..d_state]);
            out[d_inner + d_state..].copy_from_slice(&c[row * d_state..][..d_state]);
        }
    }

    fn reference(&self) -> Results<T> {
        let mut results = self.empty();
        let output = ScanOutput { y: RowsMut::new(&mut results.y, self.shape.d_inner), h_last: &mut results.h_last };
        reference::forward(&self.input(), output);
        let mut parts = self.gradient_parts();
        reference::backward(&self.input(), self.grad_output(), self.grads(&mut results, &mut parts));
        self.join(&mut results, parts);
        results
    }
}

impl Problem<f64> {
    /// A scalar whose gradients are those of the backward pass.
    fn loss(&self) -> f64 {
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        let results = self.reference();
        let carried = if self.options == Options::None { 0.0 } else { dot(&results.h_last, &self.dh_last) };
        dot(&results.y, &self.dy) + carried
    }
}

fn shape(batch: usize, seq_len: usize, d_inner: usize, d_state: usize) -> ScanShape {
    ScanShape { batch, seq_len, d_inner, d_state }
}

/// Whole and broken registers, groups of states, chunks of steps and tiles of channels.
fn shapes() -> Vec<ScanShape> {
    vec![
        shape(1, 1, 1, 1),
        shape(2, 3, 5, 1),
        shape(2, 16, 16, 5),
        shape(1, 17, 33, 8),
        shape(3, 31, 40, 16),
        shape(1, 33, 19, 24),
        shape(2, 40, 300, 16),
        shape(1, 7, 513, 13),
        shape(2, 0, 8, 4),
    ]
}

#[test]
fn every_isa_agrees_with_the_reference() {
    for (seed, shape) in shapes().into_iter().enumerate() {
        for options in [Options::None, Options::GateAndState] {
            let problem = Problem::random(seed as u64, shape, options);
            let expected = problem.wide().reference();
            for kernels in all_kernels() {
                let found = problem.run(kernels);
                let name = |tensor: &str| format!("{tensor} of {shape:?}, {options:?} on {kernels:?}");
                assert_close(&name("y"), &found.y, &expected.y, 2e-5);
                assert_close(&name("h_last"), &found.h_last, &expected.h_last, 2e-5);
                assert_close(&name("du"), &found.u, &expected.u, 5e-5);
                assert_close(&name("d(delta, B, C)"), &found.projection, &expected.projection, 1e-4);
                assert_close(&name("dz"), &found.z, &expected.z, 5e-5);
                assert_close(&name("dh0"), &found.h0, &expected.h0, 5e-5);
                assert_close(&name("dA_log"), &found.a_log, &expected.a_log, 1e-4);
                assert_close(&name("dD"), &found.d, &expected.d, 5e-5);
                assert_close(&name("ddt_bias"), &found.dt_bias, &expected.dt_bias, 1e-4);
            }
        }
    }
}

#[test]
fn the_references_gradients_are_differences() {
    for options in [Options::None, Options::GateAndState] {
        let problem = Problem::random(7, shape(2, 4, 3, 2), options).wide();
        let results = problem.reference();
        let check = |what: &str, gradient: &[f64], field: fn(&mut Problem<f64>) -> &mut Vec<f64>| {
            let mut moved = problem.clone();
            let values = field(&mut moved).clone();
            assert_gradient(what, &values, gradient, |values| {
                field(&mut moved).copy_from_slice(values);
                moved.loss()
            });
        };
        check("u", &results.u, |p| &mut p.u);
        check("delta, B, C", &results.projection, |p| &mut p.projection);
        check("A_log", &results.a_log, |p| &mut p.a_log);
        check("D", &results.d, |p| &mut p.d);
        check("dt_bias", &results.dt_bias, |p| &mut p.dt_bias);
        if options == Options::GateAndState {
            check("z", &results.z, |p| &mut p.z);
            check("h0", &results.h0, |p| &mut p.h0);
        }
    }
}

#[test]
fn threads_do_not_change_a_bit_of_steps() {
    // Ranges of channels that are no whole tiles, and enough states for a second thread.
    for d_state in [8, 16] {
        let problem = Problem::random(78, shape(1, 3, 1111, d_state), Options::GateAndState);
        for isa in Isa::available() {
            let [one, many] =
                [Threads::One, Threads::Rayon].map(|t| repeated_steps(&problem, Kernels::new(isa, t).unwrap()));
            assert!(one == many, "{d_state} states, {isa:?}");
        }
    }
}

#[test]
fn threads_do_not_change_a_bit() {
    let problem = Problem::random(3, shape(3, 21, 600, 16), Options::GateAndState);
    for isa in Isa::available() {
        let [one, many] = [Threads::One, Threads::Rayon].map(|t| problem.run(Kernels::new(isa, t).unwrap()));
        assert_eq!(one.y, many.y);
        assert_eq!(one.projection, many.projection);
        assert_eq!(one.a_log, many.a_log);
    }
}

/// Runs the scan in pieces of `lengths`, carrying the state.
fn scan_in_pieces(problem: &Problem<f32>, kernels: Kernels, lengths: &[usize]) -> (Vec<f32>, Vec<f32>) {
    let ScanShape { d_inner, .. } = problem.shape;
    let mut h = problem.h0.clone();
    let mut y = vec![0.0; problem.u.len()];
    let mut start = 0;
    for &seq_len in lengths {
        let mut input = problem.input();
        input.shape.seq_len = seq_len;
        let columns = problem.columns();
        input.u = Rows::new(&problem.u[start * d_inner..], d_inner);
        input.delta = Rows::strided(&problem.projection[start * columns..], columns);
        input.b = Rows::strided(&problem.projection[start * columns + d_inner..], columns);
        input.c = Rows::strided(&problem.projection[start * columns + d_inner + problem.shape.d_state..], columns);
        input.z = Some(Rows::new(&problem.z[start * d_inner..], d_inner));
        let h0 = h.clone();
        input.h0 = Some(&h0);
        let output = ScanOutput { y: RowsMut::new(&mut y[start * d_inner..], d_inner), h_last: &mut h };
        scan::forward(kernels, &input, output, None).unwrap();
        start += seq_len;
    }
    (y, h)
}

fn repeated_steps(problem: &Problem<f32>, kernels: Kernels) -> (Vec<f32>, Vec<f32>) {
    let ScanShape { d_inner, d_state, .. } = problem.shape;
    let input = problem.input();
    let weights = StepWeights::new((d_inner, d_state), &input.params).unwrap();
    let mut h = problem.h0.clone();
    let mut y = vec![0.0; problem.u.len()];
    for t in 0..problem.shape.seq_len {
        let step = StepInput {
            u: input.u.row(t, d_inner),
            delta: input.delta.row(t, d_inner),
            b: input.b.row(t, d_state),
            c: input.c.row(t, d_state),
            z: input.z.as_ref().map(|z| z.row(t, d_inner)),
        };
        scan::step(kernels, &weights, &step, &mut h, &mut y[t * d_inner..][..d_inner]).unwrap();
    }
    (y, h)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn scan_is_repeated_step_is_chunked_scan(
        seed: u64,
        d_inner in 1_usize..40,
        d_state in 1_usize..20,
        lengths in proptest::collection::vec(1_usize..20, 1..5),
    ) {
        let problem =
            Problem::random(seed, shape(1, lengths.iter().sum(), d_inner, d_state), Options::GateAndState);
        for kernels in all_kernels() {
            let whole = problem.run(kernels);
            let (y, h) = scan_in_pieces(&problem, kernels, &lengths);
            prop_assert_eq!(&y, &whole.y);
            prop_assert_eq!(&h, &whole.h_last);
            assert_steps(&problem, kernels, &whole);
        }
    }
}

/// Sixteen states, which steps have code for, and a number of channels that is no whole tile.
#[test]
fn the_scan_of_sixteen_states_is_repeated_step() {
    let problem = Problem::random(5, shape(1, 7, 131, 16), Options::GateAndState);
    for kernels in all_kernels() {
        assert_steps(&problem, kernels, &problem.run(kernels));
    }
}

/// Fails unless repeated steps are the scan `whole`.
fn assert_steps(problem: &Problem<f32>, kernels: Kernels, whole: &Results<f32>) {
    let (y, h) = repeated_steps(problem, kernels);
    assert_close("y of steps", &y, &wide(&whole.y), 1e-5);
    assert_close("h of steps", &h, &wide(&whole.h_last), 1e-5);
}

#[test]
fn misfits_are_named() {
    let problem = Problem::random(1, shape(1, 4, 6, 2), Options::GateAndState);
    let kernels = Kernels::detect();
    let (mut y, mut h_last) = (vec![0.0; 24], vec![0.0; 11]);
    let output = ScanOutput { y: RowsMut::new(&mut y, 6), h_last: &mut h_last };
    let error = scan::forward(kernels, &problem.input(), output, None).unwrap_err();
    assert_eq!(error, KernelError::Length { tensor: "h_last", expected: 12, found: 11 });

    let mut input = problem.input();
    input.b = Rows::strided(&problem.projection, 1);
    let mut h_last = vec![0.0; 12];
    let output = ScanOutput { y: RowsMut::new(&mut y, 6), h_last: &mut h_last };
    let error = scan::forward(kernels, &input, output, None).unwrap_err();
    assert_eq!(error, KernelError::Stride { tensor: "B", width: 2, stride: 1 });

    let (mut results, mut parts) = (problem.empty(), problem.gradient_parts());
    let grads = problem.grads(&mut results, &mut parts);
    let stale = ScanCheckpoints::default();
    let error = scan::backward(kernels, &problem.input(), &stale, problem.grad_output(), grads).unwrap_err();
    assert!(error.to_string().contains("run the forward pass again"), "{error}");
}
