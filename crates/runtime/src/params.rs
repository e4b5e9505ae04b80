//! Takes parameters out of a checkpoint by name and packs them for the kernels.

use std::borrow::Cow;

use robomamba_kernels::matmul::{Format, PackedMatrix};
use robomamba_kernels::norm::{Norm, NormKind};
use robomamba_model::Tensors;

use crate::RuntimeError;

/// Whether a linear layer or a norm has a bias.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bias {
    With,
    Without,
}

/// The parameters below one prefix, as `VarBuilder::pp` has it in candle.
#[derive(Clone)]
pub(crate) struct Params<'a> {
    weights: &'a dyn Tensors,
    prefix: String,
    format: Format,
}

impl<'a> Params<'a> {
    /// All parameters below `prefix`, whose linear layers are packed in `format`.
    pub fn new(format: Format, weights: &'a dyn Tensors, prefix: &str) -> Self {
        Self { weights, prefix: prefix.to_owned(), format }
    }

    /// The same parameters for layers that are small and lose much in 8 bits: those stay in 16.
    pub fn fine(&self) -> Self {
        let format = if self.format == Format::Int8 { Format::Bf16 } else { self.format };
        Self { format, ..self.clone() }
    }

    /// How linear layers are packed.
    pub fn format(&self) -> Format {
        self.format
    }

    /// The parameters one level further down.
    pub fn under(&self, name: impl AsRef<str>) -> Self {
        Self { prefix: self.full(name.as_ref()), ..*self }
    }

    /// The values of one parameter of exactly this shape.
    pub fn get(&self, name: &str, shape: &[usize]) -> Result<Cow<'a, [f32]>, RuntimeError> {
        Ok(self.weights.values(&self.full(name), shape)?)
    }

    /// Like [`Params::get`], as a vector of its own.
    pub fn vec(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, RuntimeError> {
        Ok(self.get(name, shape)?.into_owned())
    }

    /// The linear layer `name` from `n_in` to `n_out` values.
    pub fn linear(&self, name: &str, (n_out, n_in): (usize, usize), bias: Bias) -> Result<PackedMatrix, RuntimeError> {
        self.stacked(&[name], (n_out, n_in), bias)
    }

    /// Several linear layers of the same input as one, their outputs side by side; each has `n_out` outputs.
    pub fn stacked(
        &self,
        names: &[&str],
        (n_out, n_in): (usize, usize),
        bias: Bias,
    ) -> Result<PackedMatrix, RuntimeError> {
        let mut weight = Vec::with_capacity(names.len() * n_out * n_in);
        let mut biases = Vec::with_capacity(names.len() * n_out);
        for name in names {
            weight.extend_from_slice(&self.get(&format!("{name}.weight"), &[n_out, n_in])?);
            if bias == Bias::With {
                biases.extend_from_slice(&self.get(&format!("{name}.bias"), &[n_out])?);
            }
        }
        let bias = (bias == Bias::With).then_some(biases.as_slice());
        Ok(PackedMatrix::new(self.format, (names.len() * n_out, n_in), &weight, bias)?)
    }

    /// The linear layer `name` followed by an elementwise `scale` `[n_out]`, multiplied into its rows.
    pub fn scaled(
        &self,
        name: &str,
        (n_out, n_in): (usize, usize),
        scale: &[f32],
    ) -> Result<PackedMatrix, RuntimeError> {
        let mut weight = self.vec(&format!("{name}.weight"), &[n_out, n_in])?;
        let mut bias = self.vec(&format!("{name}.bias"), &[n_out])?;
        for ((row, bias), &scale) in weight.chunks_exact_mut(n_in).zip(&mut bias).zip(scale) {
            row.iter_mut().for_each(|value| *value *= scale);
            *bias *= scale;
        }
        Ok(PackedMatrix::new(self.format, (n_out, n_in), &weight, Some(&bias))?)
    }

    /// The LayerNorm `name` over rows of `width`.
    pub fn layer_norm(&self, name: &str, width: usize, eps: f32) -> Result<NormParams, RuntimeError> {
        let bias = Some(self.vec(&format!("{name}.bias"), &[width])?);
        Ok(NormParams { kind: NormKind::Layer, weight: self.vec(&format!("{name}.weight"), &[width])?, bias, eps })
    }

    /// The RMSNorm `name` over rows of `width`.
    pub fn rms_norm(&self, name: &str, width: usize, eps: f32) -> Result<NormParams, RuntimeError> {
        let weight = self.vec(&format!("{name}.weight"), &[width])?;
        Ok(NormParams { kind: NormKind::Rms, weight, bias: None, eps })
    }

    fn full(&self, name: &str) -> String {
        if self.prefix.is_empty() { name.to_owned() } else { format!("{}.{name}", self.prefix) }
    }
}

/// A norm that owns its parameters.
#[derive(Clone, Debug)]
pub(crate) struct NormParams {
    kind: NormKind,
    weight: Vec<f32>,
    bias: Option<Vec<f32>>,
    eps: f32,
}

impl NormParams {
    /// Values of a row.
    pub fn width(&self) -> usize {
        self.weight.len()
    }

    /// The norm as the kernels take it.
    pub fn view(&self) -> Norm<'_> {
        Norm { kind: self.kind, weight: &self.weight, bias: self.bias.as_deref(), eps: self.eps }
    }
}
