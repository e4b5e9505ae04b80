//! A step of a mixer is what its parts make of it one after the other.

mod common;

use common::{Random, all_kernels};
use robomamba_kernels::matmul::{ConvertedRows, Format, PackedMatrix};
use robomamba_kernels::mixer::{self, StepScratch, StepState, StepWeights};
use robomamba_kernels::scan::{self, ScanParams, StepInput};
use robomamba_kernels::{KernelError, Kernels, Rows, RowsMut, conv1d};

const D_CONV: usize = 4;

/// Sizes of a mixer.
#[derive(Clone, Copy, Debug)]
struct Sizes {
    d_model: usize,
    d_inner: usize,
    d_state: usize,
    dt_rank: usize,
}

/// Even and odd ones, with and without a panel that holds both inputs and gates, and with enough work for threads.
const SIZES: [Sizes; 4] = [
    Sizes { d_model: 5, d_inner: 10, d_state: 3, dt_rank: 1 },
    Sizes { d_model: 33, d_inner: 71, d_state: 5, dt_rank: 3 },
    Sizes { d_model: 48, d_inner: 96, d_state: 16, dt_rank: 3 },
    Sizes { d_model: 301, d_inner: 602, d_state: 16, dt_rank: 19 },
];

/// The parameters of a mixer.
struct Mixer {
    sizes: Sizes,
    in_proj: PackedMatrix,
    conv: conv1d::StepWeights,
    x_proj: PackedMatrix,
    dt_proj: PackedMatrix,
    scan: scan::StepWeights,
    out_proj: PackedMatrix,
}

impl Mixer {
    fn random(format: Format, sizes: Sizes) -> Self {
        let Sizes { d_model, d_inner, d_state, dt_rank } = sizes;
        let mut random = Random(7);
        let mut matrix = |format, n_out: usize, n_in: usize| {
            let scale = (n_in as f32).sqrt().recip();
            PackedMatrix::new(format, (n_out, n_in), &random.vec(n_out * n_in, -scale, scale), None).unwrap()
        };
        let fine = if format == Format::Int8 { Format::Bf16 } else { format };
        let in_proj = matrix(format, 2 * d_inner, d_model);
        let (x_proj, dt_proj) = (matrix(fine, dt_rank + 2 * d_state, d_inner), matrix(fine, d_inner, dt_rank));
        let out_proj = matrix(format, d_model, d_inner);
        let taps = random.vec(d_inner * D_CONV, -1.0, 1.0);
        let conv = conv1d::StepWeights::new((d_inner, D_CONV), &taps, &random.vec(d_inner, -1.0, 1.0)).unwrap();
        let (a_log, d, dt_bias) =
            (random.vec(d_inner * d_state, 0.0, 2.0), random.vec(d_inner, -1.0, 1.0), random.vec(d_inner, -1.0, 1.0));
        let params = ScanParams { a_log: &a_log, d: &d, dt_bias: &dt_bias };
        let scan = scan::StepWeights::new((d_inner, d_state), &params).unwrap();
        Self { sizes, in_proj, conv, x_proj, dt_proj, scan, out_proj }
    }

    fn weights(&self) -> StepWeights<'_> {
        let Self { in_proj, conv, x_proj, dt_proj, scan, out_proj, .. } = self;
        StepWeights { in_proj, conv, x_proj, dt_proj, scan, out_proj }
    }

    /// One part after the other.
    fn by_parts(&self, kernels: Kernels, x: &[f32], state: StepState, y: &mut [f32]) {
        let Sizes { d_inner, d_state, dt_rank, .. } = self.sizes;
        let apply = |matrix: &PackedMatrix, x: &[f32], y: &mut [f32]| {
            let (x, y) = (Rows::new(&x[..matrix.n_in()], matrix.n_in()), RowsMut::new(y, matrix.n_out()));
            matrix.apply(kernels, 1, x, y, &mut ConvertedRows::default()).unwrap();
        };
        let (mut projected, mut narrow) = (vec![0.0; 2 * d_inner], vec![0.0; dt_rank + 2 * d_state]);
        let [mut mixed, mut delta, mut hidden] = [(); 3].map(|()| vec![0.0; d_inner]);
        apply(&self.in_proj, x, &mut projected);
        let (x, z) = projected.split_at(d_inner);
        conv1d::step(kernels, &self.conv, x, state.conv, &mut mixed).unwrap();
        apply(&self.x_proj, &mixed, &mut narrow);
        apply(&self.dt_proj, &narrow, &mut delta);
        let (b, c) = narrow[dt_rank..].split_at(d_state);
        let input = StepInput { u: &mixed, delta: &delta, b, c, z: Some(z) };
        scan::step(kernels, &self.scan, &input, state.ssm, &mut hidden).unwrap();
        apply(&self.out_proj, &hidden, y);
    }
}

/// Outputs of some steps, and both states after them.
type Trace = (Vec<f32>, Vec<f32>, Vec<f32>);

fn trace(sizes: Sizes, mut step: impl FnMut(&[f32], StepState, &mut [f32])) -> Trace {
    let Sizes { d_model, d_inner, d_state, .. } = sizes;
    let (mut conv, mut ssm) = (vec![0.0; d_inner * (D_CONV - 1)], vec![0.0; d_inner * d_state]);
    let x = Random(3).vec(6 * d_model, -1.0, 1.0);
    let mut y = vec![0.0; x.len()];
    for (x, y) in x.chunks_exact(d_model).zip(y.chunks_exact_mut(d_model)) {
        step(x, StepState { conv: &mut conv, ssm: &mut ssm }, y);
    }
    (y, conv, ssm)
}

#[test]
fn a_step_is_its_parts_bit_for_bit() {
    // One for all sizes, as a program has it.
    let mut scratch = StepScratch::default();
    for (format, sizes) in Format::ALL.into_iter().flat_map(|format| SIZES.map(|sizes| (format, sizes))) {
        let mixer = Mixer::random(format, sizes);
        for kernels in all_kernels() {
            let expected = trace(sizes, |x, state, y| mixer.by_parts(kernels, x, state, y));
            let found = trace(sizes, |x, state, y| {
                mixer::step(kernels, &mixer.weights(), x, state, y, &mut scratch).unwrap();
            });
            assert!(expected.0.iter().any(|y| y.abs() > 1e-3), "{format}, {sizes:?}: the output says nothing");
            assert!(found == expected, "{format}, {sizes:?}, {kernels:?}");
        }
    }
    assert!(scratch.bytes() >= 602 * 5 * size_of::<f32>());
}

#[test]
fn misfits_are_named_and_change_nothing() {
    let (mixer, other) = (Mixer::random(Format::F32, SIZES[1]), Mixer::random(Format::F32, SIZES[2]));
    let (conv, ssm, y) = (vec![1.0; 71 * (D_CONV - 1)], vec![1.0; 71 * 5], vec![1.0; 33]);
    let refusal = |weights: StepWeights, x: &[f32], state: (usize, usize), len: usize| {
        let (mut conv, mut ssm, mut y) = (conv[..state.0].to_vec(), ssm[..state.1].to_vec(), y[..len].to_vec());
        let of = StepState { conv: &mut conv, ssm: &mut ssm };
        let error = mixer::step(Kernels::detect(), &weights, x, of, &mut y, &mut StepScratch::default()).unwrap_err();
        assert!([conv, ssm, y].concat().iter().all(|&value| value == 1.0), "{error}");
        error
    };
    let (own, x, state) = (mixer.weights(), [0.5; 33], (conv.len(), ssm.len()));
    let len = |tensor, expected, found| KernelError::Length { tensor, expected, found };
    assert_eq!(refusal(own, &x[1..], state, 33), len("x", 33, 32));
    assert_eq!(refusal(own, &x, state, 32), len("y", 33, 32));
    assert_eq!(refusal(own, &x, (1, state.1), 33), len("state.conv", 213, 1));
    assert_eq!(refusal(own, &x, (state.0, 354), 33), len("state.ssm", 355, 354));
    let strangers = [
        ("outputs of in_proj", StepWeights { in_proj: &other.in_proj, ..own }),
        ("channels of the convolution", StepWeights { conv: &other.conv, ..own }),
        ("inputs of x_proj", StepWeights { x_proj: &other.x_proj, ..own }),
        ("outputs of dt_proj", StepWeights { dt_proj: &other.dt_proj, ..own }),
        ("outputs of in_proj", StepWeights { scan: &other.scan, ..own }),
        ("inputs of out_proj", StepWeights { out_proj: &other.out_proj, ..own }),
    ];
    for (named, weights) in strangers {
        let error = refusal(weights, &x, state, 33);
        assert!(
            matches!(error, KernelError::Dimension { dimension, .. } if dimension == named),
            "{error}, not {named}"
        );
    }
}
