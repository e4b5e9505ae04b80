//! Configurations with names.

use std::{fmt, str::FromStr};

use robomamba_policy::FeatureSpec;
use serde::{Deserialize, Serialize};

use crate::ModelError;
use crate::config::{
    ActionHeadConfig, BackboneConfig, ConfidenceHeadConfig, ConnectorConfig, MambaConfig, ModelConfig, TextConfig,
    VisionConfig, VisionKind,
};

/// A model size with a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Preset {
    /// For tests: milliseconds to build and run.
    Nano,
    /// The shipped demonstration: small enough to train on two CPU cores.
    Tabletop,
    /// ViT-S/16 at 224 px, a six-layer BERT of width 384, 24 Mamba blocks of width 384.
    Small,
    /// ViT-B/16 at 224 px, BERT-base, 24 Mamba blocks of width 768: the reference configuration.
    Base,
}

impl Preset {
    /// Every preset, from small to large.
    pub const ALL: [Self; 4] = [Self::Nano, Self::Tabletop, Self::Small, Self::Base];

    /// The preset's model for a robot with these features.
    pub fn config(self, features: FeatureSpec) -> ModelConfig {
        let sizes = self.sizes();
        ModelConfig {
            features,
            vision: sizes.vision,
            text: sizes.text,
            connector: sizes.connector,
            backbone: BackboneConfig::Mamba(sizes.backbone),
            action_head: ActionHeadConfig::new(sizes.head, sizes.chunk_size),
            confidence_head: ConfidenceHeadConfig { hidden_size: sizes.head / 2 },
        }
    }

    fn sizes(self) -> Sizes {
        match self {
            Self::Nano => Sizes {
                vision: vit(Squares { image: 32, patch: 8 }, 32, 2, 2),
                text: bert(128, 32, 2, 2),
                connector: connector(32, 4, 1, 2),
                backbone: MambaConfig { d_state: 8, ..MambaConfig::new(48, 2) },
                head: 32,
                chunk_size: 4,
            },
            Self::Tabletop => Sizes {
                vision: vit(Squares { image: 96, patch: 12 }, 128, 4, 4),
                text: bert(512, 128, 2, 4),
                connector: connector(128, 8, 2, 4),
                backbone: MambaConfig::new(192, 6),
                head: 256,
                chunk_size: 8,
            },
            Self::Small => Sizes {
                vision: vit(Squares { image: 224, patch: 16 }, 384, 12, 6),
                text: bert(30_522, 384, 6, 12),
                connector: connector(384, 8, 2, 6),
                backbone: MambaConfig::new(384, 24),
                head: 512,
                chunk_size: 16,
            },
            Self::Base => Sizes {
                vision: vit(Squares { image: 224, patch: 16 }, 768, 12, 12),
                text: bert(30_522, 768, 12, 12),
                connector: connector(768, 8, 2, 12),
                backbone: MambaConfig::new(768, 24),
                head: 1024,
                chunk_size: 16,
            },
        }
    }
}

impl fmt::Display for Preset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nano => "nano",
            Self::Tabletop => "tabletop",
            Self::Small => "small",
            Self::Base => "base",
        })
    }
}

impl FromStr for Preset {
    type Err = ModelError;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|preset| preset.to_string() == name)
            .ok_or_else(|| ModelError::config("preset", "one of nano, tabletop, small, base", format!("`{name}`")))
    }
}

struct Sizes {
    vision: VisionConfig,
    text: TextConfig,
    connector: ConnectorConfig,
    backbone: MambaConfig,
    head: usize,
    chunk_size: usize,
}

/// Sides of the encoder's input and of a patch in pixels.
struct Squares {
    image: usize,
    patch: usize,
}

/// A ViT with the usual MLP ratio of 4 and inputs scaled to [-1, 1], as in `google/vit-base-patch16-224`.
fn vit(squares: Squares, hidden_size: usize, n_layer: usize, n_head: usize) -> VisionConfig {
    VisionConfig {
        kind: VisionKind::Vit,
        image_size: squares.image,
        patch_size: squares.patch,
        hidden_size,
        num_hidden_layers: n_layer,
        num_attention_heads: n_head,
        intermediate_size: 4 * hidden_size,
        layer_norm_eps: 1e-12,
        image_mean: [0.5; 3],
        image_std: [0.5; 3],
    }
}

fn bert(vocab_size: usize, hidden_size: usize, n_layer: usize, n_head: usize) -> TextConfig {
    TextConfig {
        vocab_size,
        hidden_size,
        num_hidden_layers: n_layer,
        num_attention_heads: n_head,
        intermediate_size: 4 * hidden_size,
        max_position_embeddings: if vocab_size > 10_000 { 512 } else { 128 },
        type_vocab_size: 2,
        layer_norm_eps: 1e-12,
    }
}

fn connector(hidden_size: usize, n_query: usize, n_layer: usize, n_head: usize) -> ConnectorConfig {
    ConnectorConfig {
        hidden_size,
        n_query,
        num_hidden_layers: n_layer,
        num_attention_heads: n_head,
        intermediate_size: 2 * hidden_size,
        layer_norm_eps: 1e-5,
    }
}
