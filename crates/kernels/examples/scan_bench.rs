//! Times the selective scan, forward and backward, on every instruction set of this processor.
//!
//! `cargo run --release -p robomamba-kernels --example scan_bench [-- --json FILE]`
//!
//! Prints medians, and in brackets the best runs, in ns per channel * state * step at 1,536 channels, 16 states and 512
//! steps on one thread, the scan of the `base` preset.

use std::error::Error;
use std::time::Instant;

use robomamba_kernels::scan::{
    self, ScanCheckpoints, ScanGradOutput, ScanGrads, ScanInput, ScanOutput, ScanParams, ScanShape, reference,
};
use robomamba_kernels::{Isa, Kernels, LineAllocator, Rows, RowsMut, Threads};
use serde_json::json;

#[global_allocator]
static ALLOCATOR: LineAllocator = LineAllocator;

const SHAPE: ScanShape = ScanShape { batch: 1, seq_len: 512, d_inner: 1536, d_state: 16 };
const RUNS: usize = 31;
const REFERENCE_RUNS: usize = 3;

fn main() -> Result<(), Box<dyn Error>> {
    let file = json_file()?;
    let machine = machine_name();
    println!("{machine}, one thread, {SHAPE:?}, median (best) of {RUNS} runs");
    println!("{:10} {:>18} {:>18}  ns per channel * state * step", "", "forward", "backward");

    let mut problem = Problem::new();
    let mut results = Vec::new();
    let mut report = |name: &str, (forward, backward): (Times, Times)| {
        println!("{name:10} {forward:>18} {backward:>18}");
        results.push(json!({
            "kernel": name,
            "forward_ns": forward.median,
            "forward_ns_min": forward.best,
            "backward_ns": backward.median,
            "backward_ns_min": backward.best,
        }));
    };
    report("reference", problem.time_reference());
    for isa in Isa::available().into_iter().rev() {
        report(&format!("{isa:?}").to_lowercase(), problem.time(Kernels::new(isa, Threads::One)?)?);
    }

    if let Some(file) = file {
        let report = json!({
            "benchmark": "selective scan, ns per channel * state * step, median, one thread",
            "machine": machine,
            "shape": { "batch": SHAPE.batch, "seq_len": SHAPE.seq_len, "d_inner": SHAPE.d_inner, "d_state": SHAPE.d_state },
            "runs": RUNS,
            "results": results,
        });
        std::fs::write(file, serde_json::to_string_pretty(&report)? + "\n")?;
    }
    Ok(())
}

/// The argument of `--json`, if given.
fn json_file() -> Result<Option<String>, Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    match arguments.next().as_deref() {
        None => Ok(None),
        Some("--json") => Ok(Some(arguments.next().ok_or("--json needs a file name")?)),
        Some(other) => Err(format!("unknown argument `{other}`; there is only --json FILE").into()),
    }
}

/// The processor's own name, where the system tells it.
fn machine_name() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    name.map_or(std::env::consts::ARCH.to_owned(), |(_, name)| name.to_owned())
}

/// Arguments and results of a scan; gradients are written over and over.
struct Problem {
    channels: Vec<f32>,
    delta: Vec<f32>,
    states: Vec<f32>,
    a_log: Vec<f32>,
    d: Vec<f32>,
    dt_bias: Vec<f32>,
    y: Vec<f32>,
    h_last: Vec<f32>,
    grads: [Vec<f32>; 8],
}

impl Problem {
    fn new() -> Self {
        let wave = |len: usize, step: f32| (0..len).map(|i| (i as f32 * step).sin()).collect::<Vec<_>>();
        let (channels, states) = (SHAPE.rows() * SHAPE.d_inner, SHAPE.rows() * SHAPE.d_state);
        let parameters = SHAPE.d_inner * SHAPE.d_state;
        Self {
            channels: wave(channels, 0.37),
            delta: wave(channels, 0.11),
            states: wave(states, 0.73),
            // A = -(1..=d_state), the initialisation of Mamba.
            a_log: (0..parameters).map(|i| ((i % SHAPE.d_state + 1) as f32).ln()).collect(),
            d: vec![1.0; SHAPE.d_inner],
            dt_bias: vec![-4.0; SHAPE.d_inner],
            y: vec![0.0; channels],
            h_last: vec![0.0; SHAPE.state_len()],
            grads: [channels, channels, channels, states, states, parameters, SHAPE.d_inner, SHAPE.d_inner]
                .map(|len| vec![0.0; len]),
        }
    }

    /// The scan's input beside the places of its results.
    fn split(&mut self) -> (ScanInput<'_>, ScanOutput<'_>, ScanGrads<'_>) {
        let channels = Rows::new(&self.channels, SHAPE.d_inner);
        let states = Rows::new(&self.states, SHAPE.d_state);
        let input = ScanInput {
            shape: SHAPE,
            params: ScanParams { a_log: &self.a_log, d: &self.d, dt_bias: &self.dt_bias },
            u: channels,
            delta: Rows::new(&self.delta, SHAPE.d_inner),
            b: states,
            c: states,
            z: Some(channels),
            h0: None,
        };
        let output = ScanOutput { y: RowsMut::new(&mut self.y, SHAPE.d_inner), h_last: &mut self.h_last };
        let [u, delta, z, b, c, a_log, d, dt_bias] = &mut self.grads;
        let grads = ScanGrads {
            u: RowsMut::new(u, SHAPE.d_inner),
            delta: RowsMut::new(delta, SHAPE.d_inner),
            b: RowsMut::new(b, SHAPE.d_state),
            c: RowsMut::new(c, SHAPE.d_state),
            z: Some(RowsMut::new(z, SHAPE.d_inner)),
            h0: None,
            a_log,
            d,
            dt_bias,
        };
        (input, output, grads)
    }

    fn time(&mut self, kernels: Kernels) -> Result<(Times, Times), Box<dyn Error>> {
        let mut checkpoints = ScanCheckpoints::default();
        let (mut forward, mut backward) = (Vec::new(), Vec::new());
        for _ in 0..RUNS {
            let (input, output, grads) = self.split();
            let grad_output = ScanGradOutput { y: input.u, h_last: None };
            let start = Instant::now();
            scan::forward(kernels, &input, output, Some(&mut checkpoints))?;
            forward.push(nanoseconds(start));
            let start = Instant::now();
            scan::backward(kernels, &input, &checkpoints, grad_output, grads)?;
            backward.push(nanoseconds(start));
        }
        Ok((Times::of(forward), Times::of(backward)))
    }

    fn time_reference(&mut self) -> (Times, Times) {
        let (mut forward, mut backward) = (Vec::new(), Vec::new());
        for _ in 0..REFERENCE_RUNS {
            let (input, output, grads) = self.split();
            let start = Instant::now();
            reference::forward(&input, output);
            forward.push(nanoseconds(start));
            let start = Instant::now();
            reference::backward(&input, ScanGradOutput { y: input.u, h_last: None }, grads);
            backward.push(nanoseconds(start));
        }
        (Times::of(forward), Times::of(backward))
    }
}

/// Time since `start` per channel, state and step.
fn nanoseconds(start: Instant) -> f64 {
    start.elapsed().as_nanos() as f64 / (SHAPE.rows() * SHAPE.d_inner * SHAPE.d_state) as f64
}

/// What is reported of repeated runs.
struct Times {
    median: f64,
    best: f64,
}

impl Times {
    fn of(mut times: Vec<f64>) -> Self {
        times.sort_by(f64::total_cmp);
        Self { median: times[times.len() / 2], best: times[0] }
    }
}

impl std::fmt::Display for Times {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.pad(&format!("{:.4} ({:.4})", self.median, self.best))
    }
}
