//! `rust-engines NAME` answers `ready` and then, for every line that it reads, the median time of a step in
//! milliseconds.

use std::error::Error;
use std::io::{BufRead, Write, stdin, stdout};
use std::time::Instant;

use candle_core::{DType, Device, Tensor};
use candle_nn::{VarBuilder, VarMap};
use candle_transformers::models::mamba;
use mamba_rs::{MambaBackbone, MambaConfig};

const D_MODEL: usize = 768;
const N_LAYER: usize = 24;
const WARM_UP: usize = 3;
const REPEATS: usize = 60;

type Step = Box<dyn FnMut() -> Result<(), Box<dyn Error>>>;

/// The trunk of mamba-rs, which has a projection of its input more (0.6 of 91 million parameters).
fn mamba_rs() -> Step {
    let config = MambaConfig { d_model: D_MODEL, n_layers: N_LAYER, ..MambaConfig::default() };
    let backbone = MambaBackbone::init(config, D_MODEL, 42);
    let (mut state, mut scratch) = (backbone.alloc_state(), backbone.alloc_scratch());
    let (input, mut output) = (vec![0.1; D_MODEL], vec![0.0; D_MODEL]);
    Box::new(move || {
        backbone.forward_step(&input, &mut output, &mut state, &mut scratch);
        Ok(())
    })
}

/// The Mamba of candle-transformers, which takes words and gives logits, of as few as it can (16).
fn candle() -> Result<Step, Box<dyn Error>> {
    let config = mamba::Config { d_model: D_MODEL, n_layer: N_LAYER, vocab_size: 16, pad_vocab_size_multiple: 1 };
    let weights = VarBuilder::from_varmap(&VarMap::new(), DType::F32, &Device::Cpu);
    let model = mamba::Model::new(&config, weights)?;
    let mut state = mamba::State::new(1, &config, DType::F32, &Device::Cpu)?;
    let word = Tensor::new(&[1u32], &Device::Cpu)?;
    Ok(Box::new(move || {
        model.forward(&word, &mut state)?;
        Ok(())
    }))
}

fn median_ms(step: &mut Step) -> Result<f64, Box<dyn Error>> {
    let mut times = Vec::with_capacity(REPEATS);
    for repeat in 0..WARM_UP + REPEATS {
        let start = Instant::now();
        step()?;
        if repeat >= WARM_UP {
            times.push(start.elapsed().as_secs_f64() * 1e3);
        }
    }
    times.sort_by(f64::total_cmp);
    Ok(times[REPEATS / 2])
}

fn main() -> Result<(), Box<dyn Error>> {
    let name = std::env::args().nth(1).unwrap_or_default();
    let mut step = match name.as_str() {
        "mamba-rs" => mamba_rs(),
        "candle" => candle()?,
        _ => return Err(format!("the engines are mamba-rs and candle, found `{name}`").into()),
    };
    let mut out = stdout().lock();
    writeln!(out, "ready")?;
    for line in stdin().lock().lines() {
        line?;
        writeln!(out, "{}", median_ms(&mut step)?)?;
        out.flush()?;
    }
    Ok(())
}
