//! Our parameter names in the words of `transformers`.

use super::source::Source;
use crate::{ParamSpec, VisionKind};

/// The naming of one family of models.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Naming {
    Mamba,
    Bert,
    Vision(VisionKind),
}

/// From ours (which is ViT's) to DINOv2's. The first pattern that fits within a name is replaced.
const DINOV2: [(&str, &str); 5] = [
    (".layernorm_before.", ".norm1."),
    (".layernorm_after.", ".norm2."),
    (".attention.output.dense.", ".attention.output.dense."),
    (".intermediate.dense.", ".mlp.fc1."),
    (".output.dense.", ".mlp.fc2."),
];

/// From ours to CLIP's and SigLIP's.
const CLIP: [(&str, &str); 13] = [
    ("embeddings.cls_token", "embeddings.class_embedding"),
    ("embeddings.patch_embeddings.projection.", "embeddings.patch_embedding."),
    ("embeddings.position_embeddings", "embeddings.position_embedding.weight"),
    ("pre_layernorm.", "pre_layrnorm."),
    (".layernorm_before.", ".layer_norm1."),
    (".layernorm_after.", ".layer_norm2."),
    (".attention.attention.query.", ".self_attn.q_proj."),
    (".attention.attention.key.", ".self_attn.k_proj."),
    (".attention.attention.value.", ".self_attn.v_proj."),
    (".attention.output.dense.", ".self_attn.out_proj."),
    (".intermediate.dense.", ".mlp.fc1."),
    (".output.dense.", ".mlp.fc2."),
    ("layernorm.", "post_layernorm."),
];

impl Naming {
    /// The upstream name of our parameter `name`, without the prefix of the model around it.
    pub(crate) fn upstream(self, name: &str) -> String {
        let name = name.split_once('.').map_or(name, |(_, name)| name);
        match self {
            Self::Mamba | Self::Bert | Self::Vision(VisionKind::Vit) => name.into(),
            Self::Vision(VisionKind::Dinov2) => replace_first(name, &DINOV2),
            Self::Vision(VisionKind::Clip | VisionKind::Siglip) => {
                replace_first(name, &CLIP).replace("encoder.layer.", "encoder.layers.")
            }
        }
    }

    /// What stands before the names: nothing in the bare model, its attribute in a model around it.
    pub(crate) fn find_prefix(self, specs: &[ParamSpec], source: &Source) -> &'static str {
        let found = |prefix: &&str| {
            let name = |spec: &ParamSpec| format!("{prefix}{}", self.upstream(&spec.name));
            specs.iter().any(|spec| source.contains(&name(spec)))
        };
        self.prefixes().iter().copied().find(found).unwrap_or_default()
    }

    fn prefixes(self) -> &'static [&'static str] {
        match self {
            Self::Mamba => &["backbone.", ""],
            Self::Bert => &["bert.", ""],
            Self::Vision(VisionKind::Vit) => &["vit.", ""],
            Self::Vision(VisionKind::Dinov2) => &["dinov2.", ""],
            Self::Vision(VisionKind::Clip | VisionKind::Siglip) => &["vision_model.", ""],
        }
    }

    /// Whether an upstream name belongs to a block of the part, where every parameter counts.
    pub(crate) fn is_in_block(self, name: &str, prefix: &str) -> bool {
        let blocks = if self == Self::Mamba { "layers." } else { "encoder." };
        name.strip_prefix(prefix).is_some_and(|name| name.starts_with(blocks))
    }
}

fn replace_first(name: &str, pairs: &[(&str, &str)]) -> String {
    let pair = pairs.iter().find(|(ours, _)| name.contains(ours));
    pair.map_or_else(|| name.into(), |(ours, theirs)| name.replacen(ours, theirs, 1))
}
