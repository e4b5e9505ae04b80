//! What a policy remembers from control step to control step: a plain value that can be cloned (forked),
//! compared, saved and restored.

use std::fmt;

use robomamba_model::{BackboneConfig, MambaConfig, TransformerConfig};

use crate::RuntimeError;

/// The recurrent state of a backbone.
#[derive(Clone, Debug, PartialEq)]
pub enum State {
    /// Of a Mamba backbone; its size never changes.
    Mamba(MambaState),
    /// Of a Transformer backbone; it grows until the context is full.
    Transformer(KvCache),
}

/// The state of all Mamba blocks.
#[derive(Clone, Debug, PartialEq)]
pub struct MambaState {
    /// The last inputs of the convolutions, `[n_layer, d_inner, d_conv - 1]`, oldest first.
    pub(crate) conv: Vec<f32>,
    /// The state-space models, `[n_layer, d_inner, d_state]`.
    pub(crate) ssm: Vec<f32>,
    pub(crate) n_layer: usize,
    pub(crate) d_inner: usize,
    pub(crate) d_conv: usize,
    pub(crate) d_state: usize,
}

/// Keys and values of the last `context_len` steps of all Transformer blocks.
///
/// The memory is a ring: step `n` is kept in row `n % context_len`. Keys are rotated to their absolute
/// position before they are stored, so that attention does not care for the order of the rows.
#[derive(Clone, Debug)]
pub struct KvCache {
    /// `[n_layer, context_len, d_model]`.
    pub(crate) keys: Vec<f32>,
    /// `[n_layer, context_len, d_model]`.
    pub(crate) values: Vec<f32>,
    /// Steps since the start of the episode.
    pub(crate) n_step: usize,
    pub(crate) n_layer: usize,
    pub(crate) context_len: usize,
    pub(crate) d_model: usize,
}

impl State {
    /// The state at the start of an episode.
    pub fn zeros(config: &BackboneConfig) -> Self {
        match config {
            BackboneConfig::Mamba(mamba) => Self::Mamba(MambaState::zeros(mamba)),
            BackboneConfig::Transformer(transformer) => Self::Transformer(KvCache::zeros(transformer)),
        }
    }

    /// Back to the start of an episode.
    pub fn reset(&mut self) {
        match self {
            Self::Mamba(state) => state.reset(),
            Self::Transformer(cache) => cache.reset(),
        }
    }

    /// Takes over the values of `other` without allocating.
    ///
    /// # Errors
    /// When `other` belongs to another model; nothing is changed then.
    pub fn copy_from(&mut self, other: &Self) -> Result<(), RuntimeError> {
        self.check_layout(&other.layout())?;
        match (self, other) {
            (Self::Mamba(state), Self::Mamba(other)) => {
                state.conv.copy_from_slice(&other.conv);
                state.ssm.copy_from_slice(&other.ssm);
            }
            (Self::Transformer(cache), Self::Transformer(other)) => {
                cache.n_step = other.n_step;
                cache.keys.copy_from_slice(&other.keys);
                cache.values.copy_from_slice(&other.values);
            }
            _ => {}
        }
        Ok(())
    }

    /// Checks that `other` belongs to the same model.
    pub(crate) fn check_same_layout(&self, other: &Self) -> Result<(), RuntimeError> {
        self.check_layout(&other.layout())
    }

    /// Bytes that must be kept to continue: constant for Mamba, growing with the history for the Transformer.
    pub fn bytes(&self) -> usize {
        let values = match self {
            Self::Mamba(state) => state.conv.len() + state.ssm.len(),
            Self::Transformer(cache) => 2 * cache.n_layer * cache.len() * cache.d_model,
        };
        values * size_of::<f32>()
    }

    /// Largest absolute difference between two states.
    ///
    /// # Errors
    /// When `other` belongs to another model or, with a KV cache, to another step.
    pub fn max_abs_diff(&self, other: &Self) -> Result<f32, RuntimeError> {
        let differences = self.differences(other)?;
        Ok(differences.fold(0.0, |max, difference| if difference.abs() > max { difference.abs() } else { max }))
    }

    /// Euclidean distance between two states.
    ///
    /// # Errors
    /// When `other` belongs to another model or, with a KV cache, to another step.
    pub fn distance(&self, other: &Self) -> Result<f32, RuntimeError> {
        let differences = self.differences(other)?;
        Ok(differences.map(|difference| f64::from(difference).powi(2)).sum::<f64>().sqrt() as f32)
    }

    /// Whether every value is finite.
    pub fn is_finite(&self) -> bool {
        self.values().iter().all(|values| values.iter().all(|value| value.is_finite()))
    }

    /// Kind and sizes.
    pub(crate) fn layout(&self) -> StateLayout {
        match self {
            Self::Mamba(state) => state.layout(),
            Self::Transformer(cache) => cache.layout(),
        }
    }

    /// The values in use: those of the convolutions and the scans, or keys and values layer by layer.
    pub(crate) fn values(&self) -> Vec<&[f32]> {
        match self {
            Self::Mamba(state) => vec![&state.conv, &state.ssm],
            Self::Transformer(cache) => {
                let (len, used) = cache.layer_sizes();
                let layers = cache.keys.chunks_exact(len).chain(cache.values.chunks_exact(len));
                layers.map(|layer| &layer[..used]).collect()
            }
        }
    }

    /// Like [`State::values`], writable.
    pub(crate) fn values_mut(&mut self) -> Vec<&mut [f32]> {
        match self {
            Self::Mamba(state) => vec![&mut state.conv, &mut state.ssm],
            Self::Transformer(cache) => {
                let (len, used) = cache.layer_sizes();
                let layers = cache.keys.chunks_exact_mut(len).chain(cache.values.chunks_exact_mut(len));
                layers.map(|layer| &mut layer[..used]).collect()
            }
        }
    }

    /// Checks that this state fits a model whose states have this layout.
    pub(crate) fn check_layout(&self, expected: &StateLayout) -> Result<(), RuntimeError> {
        let found = self.layout();
        if found == *expected { Ok(()) } else { Err(expected.mismatch(&found)) }
    }

    fn differences<'a>(&'a self, other: &'a Self) -> Result<impl Iterator<Item = f32>, RuntimeError> {
        other.check_layout(&self.layout())?;
        if let (Self::Transformer(ours), Self::Transformer(theirs)) = (self, other)
            && ours.n_step != theirs.n_step
        {
            let describe = |cache: &KvCache| format!("{} at step {}", self.layout(), cache.n_step);
            return Err(RuntimeError::StateShape { expected: describe(ours), found: describe(theirs) });
        }
        let pairs = self.values().into_iter().zip(other.values());
        Ok(pairs.flat_map(|(ours, theirs)| ours.iter().zip(theirs).map(|(a, b)| a - b)))
    }
}

impl MambaState {
    /// The state at the start of an episode.
    pub fn zeros(config: &MambaConfig) -> Self {
        let (n_layer, d_inner) = (config.n_layer, config.d_inner());
        Self {
            conv: vec![0.0; n_layer * d_inner * (config.d_conv - 1)],
            ssm: vec![0.0; n_layer * d_inner * config.d_state],
            n_layer,
            d_inner,
            d_conv: config.d_conv,
            d_state: config.d_state,
        }
    }

    /// Back to the start of an episode.
    pub fn reset(&mut self) {
        self.conv.fill(0.0);
        self.ssm.fill(0.0);
    }

    /// The last inputs of the convolutions, `[n_layer, d_inner, d_conv - 1]`, oldest first.
    pub fn conv(&self) -> &[f32] {
        &self.conv
    }

    /// The states of the state-space models, `[n_layer, d_inner, d_state]`.
    pub fn ssm(&self) -> &[f32] {
        &self.ssm
    }

    /// Writable [`MambaState::ssm`], for the injection of remembered experience.
    pub fn ssm_mut(&mut self) -> &mut [f32] {
        &mut self.ssm
    }

    /// Writable [`MambaState::conv`].
    pub fn conv_mut(&mut self) -> &mut [f32] {
        &mut self.conv
    }

    /// Kind and sizes.
    pub(crate) fn layout(&self) -> StateLayout {
        let Self { n_layer, d_inner, d_conv, d_state, .. } = *self;
        StateLayout::Mamba { n_layer, d_inner, d_conv, d_state }
    }

    /// Convolution `[d_inner, d_conv - 1]` and state-space model `[d_inner, d_state]` of one block.
    pub(crate) fn layer_mut(&mut self, layer: usize) -> (&mut [f32], &mut [f32]) {
        let (conv_len, ssm_len) = (self.d_inner * (self.d_conv - 1), self.d_inner * self.d_state);
        (&mut self.conv[layer * conv_len..][..conv_len], &mut self.ssm[layer * ssm_len..][..ssm_len])
    }
}

impl KvCache {
    /// The empty cache at the start of an episode.
    pub fn zeros(config: &TransformerConfig) -> Self {
        let values = config.n_layer * config.context_len * config.d_model;
        Self {
            keys: vec![0.0; values],
            values: vec![0.0; values],
            n_step: 0,
            n_layer: config.n_layer,
            context_len: config.context_len,
            d_model: config.d_model,
        }
    }

    /// Back to the start of an episode.
    pub fn reset(&mut self) {
        self.n_step = 0;
    }

    /// Steps since the start of the episode.
    pub fn n_step(&self) -> usize {
        self.n_step
    }

    /// Steps that are kept.
    pub fn len(&self) -> usize {
        self.n_step.min(self.context_len)
    }

    /// Whether no step is kept yet.
    pub fn is_empty(&self) -> bool {
        self.n_step == 0
    }

    /// Kind and sizes.
    pub(crate) fn layout(&self) -> StateLayout {
        let Self { n_layer, context_len, d_model, .. } = *self;
        StateLayout::Transformer { n_layer, context_len, d_model }
    }

    /// Values of one layer's keys: reserved and in use.
    fn layer_sizes(&self) -> (usize, usize) {
        ((self.context_len * self.d_model).max(1), self.len() * self.d_model)
    }
}

/// Rows that a reset left behind do not count.
impl PartialEq for KvCache {
    fn eq(&self, other: &Self) -> bool {
        let (len, used) = self.layer_sizes();
        let same = |ours: &[f32], theirs: &[f32]| {
            let layers = ours.chunks_exact(len).zip(theirs.chunks_exact(len));
            ours.len() == theirs.len() && layers.into_iter().all(|(ours, theirs)| ours[..used] == theirs[..used])
        };
        (self.n_step, self.n_layer, self.context_len, self.d_model)
            == (other.n_step, other.n_layer, other.context_len, other.d_model)
            && same(&self.keys, &other.keys)
            && same(&self.values, &other.values)
    }
}

/// Kind and sizes of a state; states of equal layout can be exchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StateLayout {
    Mamba { n_layer: usize, d_inner: usize, d_conv: usize, d_state: usize },
    Transformer { n_layer: usize, context_len: usize, d_model: usize },
}

impl StateLayout {
    /// Layout of the states of such a backbone.
    pub fn of(config: &BackboneConfig) -> Self {
        match config {
            BackboneConfig::Mamba(mamba) => Self::Mamba {
                n_layer: mamba.n_layer,
                d_inner: mamba.d_inner(),
                d_conv: mamba.d_conv,
                d_state: mamba.d_state,
            },
            BackboneConfig::Transformer(transformer) => Self::Transformer {
                n_layer: transformer.n_layer,
                context_len: transformer.context_len,
                d_model: transformer.d_model,
            },
        }
    }

    /// The error for a state of layout `found` that meets a model of this layout.
    pub fn mismatch(&self, found: &Self) -> RuntimeError {
        RuntimeError::StateShape { expected: self.to_string(), found: found.to_string() }
    }
}

impl fmt::Display for StateLayout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mamba { n_layer, d_inner, d_conv, d_state } => {
                write!(f, "mamba (n_layer {n_layer}, d_inner {d_inner}, d_conv {d_conv}, d_state {d_state})")
            }
            Self::Transformer { n_layer, context_len, d_model } => {
                write!(f, "transformer (n_layer {n_layer}, context_len {context_len}, d_model {d_model})")
            }
        }
    }
}
