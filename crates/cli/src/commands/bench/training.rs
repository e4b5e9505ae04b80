//! Optimiser steps on random data: a backbone alone, and a whole policy.

use anyhow::Result;
use robomamba_model::{BackboneConfig, ModelConfig, Preset, param_specs};
use robomamba_train::{Precision, ThroughputConfig, measure_throughput};

use super::measure::{TrainingTime, median};
use super::steps;
use crate::progress::Progress;

/// Blocks of the backbone that learns alone, each as wide as those of `base`, and what it learns from: sequences of so
/// many steps.
const TRUNK: (usize, usize, usize) = (4, 4, 64);

/// Four blocks of both backbones, and `tabletop` from pictures, in both precisions.
pub fn measure(threads: usize, quick: bool) -> Result<Vec<TrainingTime>> {
    robomamba_kernels::keep_freed_memory();
    let (n_layer, n_episode, n_step) = TRUNK;
    let n_repeat = if quick { 1 } else { 7 };
    let mamba = with_blocks(n_layer);
    let mut transformer = mamba.clone();
    transformer.backbone = BackboneConfig::Transformer(mamba.backbone.to_transformer(n_step));
    let of_backbone = format!("of width {}, {n_episode} sequences of {n_step}", mamba.backbone.d_model());
    let policy = Preset::Tabletop.config(steps::robot(Preset::Tabletop, 1));
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build()?;
    let models = [
        (format!("{n_layer} Mamba blocks {of_backbone}"), &mamba, true),
        (format!("{n_layer} Transformer blocks {of_backbone}"), &transformer, true),
        (format!("tabletop, all of it, {n_episode} episodes of {n_step} pictures"), &policy, false),
    ];
    let size = |precision, known_tokens| ThroughputConfig {
        n_episode,
        n_step,
        n_repeat,
        lanes: threads,
        precision,
        known_tokens,
    };
    // A minute is not enough for a whole policy, or for both precisions, on a slow machine.
    let (models, precisions): (_, &[_]) =
        if quick { (&models[..2], &[Precision::F32]) } else { (&models[..], &[Precision::F32, Precision::Bf16]) };
    let runs = models.iter().flat_map(|model| precisions.iter().map(move |&precision| (model, precision)));
    let progress = Progress::start("bench of training", precisions.len() * models.len(), "models");
    let times = pool.install(|| {
        runs.map(|((work, config, known_tokens), precision)| {
            let measured = time(work, config, size(precision, *known_tokens))?;
            progress.advance(format!("{work}, {precision}: {:.0} ms", measured.ms));
            Ok(measured)
        })
        .collect()
    });
    progress.finish();
    times
}

/// `base` with few blocks; its encoders, which do not learn here, are as small as they can be.
fn with_blocks(n_layer: usize) -> ModelConfig {
    let mut config = Preset::Base.config(steps::robot(Preset::Base, 1));
    config.vision.num_hidden_layers = 1;
    config.text.num_hidden_layers = 1;
    if let BackboneConfig::Mamba(mamba) = &mut config.backbone {
        mamba.n_layer = n_layer;
    }
    config
}

fn time(work: &str, config: &ModelConfig, size: ThroughputConfig) -> Result<TrainingTime> {
    let steps = (size.n_episode * size.n_step) as f64;
    let rates = measure_throughput(config, size)?;
    let rate = median(rates);
    let encodes = |name: &str| ["vision.", "text.", "connector."].iter().any(|part| name.starts_with(part));
    let specs = param_specs(config);
    let learning = specs.iter().filter(|spec| !(size.known_tokens && encodes(&spec.name)));
    Ok(TrainingTime {
        work: work.to_owned(),
        precision: size.precision.to_string(),
        parameters_m: learning.map(|spec| spec.numel()).sum::<usize>() as f64 / 1e6,
        ms: 1e3 * steps / rate,
        steps_per_s: rate,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_whole_policy_is_measured_in_both_precisions() {
        let policy = Preset::Tabletop.config(steps::robot(Preset::Tabletop, 1));
        for precision in [Precision::F32, Precision::Bf16] {
            let size =
                ThroughputConfig { n_episode: 1, n_step: 2, n_repeat: 1, lanes: 1, precision, known_tokens: false };
            let time = time("tabletop", &policy, size).unwrap();
            assert!(time.ms > 0.0 && time.precision == precision.to_string(), "{time:?}");
        }
    }
}
