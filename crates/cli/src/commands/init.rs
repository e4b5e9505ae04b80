//! `init`: a checkpoint with random weights, for measuring speed and for trying things out.

use std::path::PathBuf;

use anyhow::Result;
use clap::{Args, ValueEnum};
use robomamba_model::{BackboneConfig, Checkpoint, Dtype, Preset, Summary, TextTokenizer};
use robomamba_policy::Environment;
use robomamba_sim::{Tabletop, instruction_corpus};

use crate::output;

/// Options of `init`.
#[derive(Args)]
pub struct InitArgs {
    /// Size of the model: nano, tabletop, small or base
    #[arg(long, default_value = "tabletop")]
    preset: Preset,
    /// The backbone
    #[arg(long, value_enum, default_value_t = BackboneKind::Mamba)]
    backbone: BackboneKind,
    /// Folder of the new checkpoint
    #[arg(long, value_name = "DIR")]
    to: PathBuf,
    /// Seed of the weights
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

#[derive(Clone, Copy, ValueEnum)]
enum BackboneKind {
    Mamba,
    Transformer,
}

/// Control steps in the context of a Transformer backbone.
const CONTEXT_STEPS: usize = 1024;

/// Runs `init`.
pub fn run(args: InitArgs) -> Result<()> {
    let corpus = instruction_corpus();
    let mut config = args.preset.config(Tabletop::new(1, 1)?.features().clone());
    let side = config.vision.image_size;
    config.features = Tabletop::new(side, side)?.features().clone();
    if matches!(args.backbone, BackboneKind::Transformer) {
        config.backbone = BackboneConfig::Transformer(config.backbone.to_transformer(CONTEXT_STEPS));
    }
    let text = corpus.sentences.iter().chain(&corpus.words).map(String::as_str);
    let tokenizer = TextTokenizer::train(text, config.text.vocab_size).or_else(|_| TextTokenizer::characters())?;
    config.text.vocab_size = config.text.vocab_size.max(tokenizer.vocab_size());
    Checkpoint::random(config, tokenizer, args.seed)?.save(&args.to, Dtype::F32)?;
    output::print(format!("{}: random weights\n{}", args.to.display(), Summary::load(&args.to)?))?;
    Ok(())
}
