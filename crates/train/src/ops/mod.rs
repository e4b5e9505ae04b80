//! Fused differentiable operations: one node of burn's tape each, with a forward and a backward pass
//! written on plain slices.
//!
//! Burn supplies the tape ([`Autodiff`]) and the tensors; an operation implements [`FusedOp`] and is
//! put on the tape by [`apply`]. Activations are rank-2 tensors `[rows, width]` throughout, parameters
//! are flat rank-1 tensors whose shape the operation knows.

pub(crate) mod attention;
pub(crate) mod encoder;
pub(crate) mod linear;
pub(crate) mod loss;
pub(crate) mod mixer;
pub(crate) mod mixture;
pub(crate) mod norm;
pub(crate) mod pointwise;
pub(crate) mod rows;

use std::fmt::Debug;

use burn::backend::autodiff::{
    checkpoint::{base::Checkpointer, strategy::NoCheckpointing},
    grads::Gradients,
    ops::{Backward, Ops, OpsKind},
};
use burn::backend::ops::FloatTensorOps;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Flex, FlexDevice};
use burn::tensor::{Device, Tensor, TensorData};
use robomamba_kernels::Kernels;

use crate::gemm::Precision;

/// The burn backend that training runs on.
pub(crate) type Backend = Autodiff<Flex>;

/// A tensor on the tape without its rank.
pub(crate) type Input = FloatTensor<Backend>;

/// How a model is computed in training.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Compute {
    /// Threads of the vision encoder.
    pub lanes: usize,
    /// Of the products of linear layers.
    pub precision: Precision,
}

/// The kernels of this processor on the current rayon pool.
pub(crate) fn kernels() -> Kernels {
    Kernels::detect()
}

/// What a forward pass hands back.
pub(crate) struct Forward<const D: usize, S> {
    /// The output, row-major.
    pub output: Vec<f32>,
    /// Its shape.
    pub shape: [usize; D],
    /// Whatever the backward pass needs beside the inputs.
    pub saved: S,
}

/// An operation of `N` inputs and an output of rank `D`.
pub(crate) trait FusedOp<const N: usize, const D: usize>: Clone + Debug + Send + 'static {
    /// Kept between the forward and the backward pass, beside the inputs.
    type Saved: Clone + Debug + Send + 'static;

    /// Computes the output.
    fn forward(&self, inputs: [&[f32]; N]) -> Forward<D, Self::Saved>;

    /// Gradients with respect to the inputs where `wanted`, from the one with respect to the output.
    fn backward(
        &self,
        inputs: [&[f32]; N],
        saved: &Self::Saved,
        grad: &[f32],
        wanted: [bool; N],
    ) -> [Option<Vec<f32>>; N];
}

/// Takes a tensor off burn's front end.
pub(crate) fn input<const D: usize>(tensor: &Tensor<D>) -> Input {
    tensor.clone().try_into_primitive::<Backend>().expect("training tensors live on the autodiff flex backend")
}

/// Runs `op` and records it on the tape.
pub(crate) fn apply<O, const N: usize, const D: usize>(op: O, inputs: [Input; N]) -> Tensor<D>
where
    O: FusedOp<N, D>,
{
    let guards = inputs.each_ref().map(|input| input.node());
    let values = inputs.map(|input| contiguous(input.into_primitive()));
    let Forward { output, shape, saved } = op.forward(values.each_ref().map(slice));
    let output = primitive(output, &shape);
    let prepared = StepOf::<O, D>(op).prepare::<NoCheckpointing>(guards).compute_bound().stateful();
    let output = match prepared {
        OpsKind::Tracked(prepared) => prepared.finish(State { inputs: values, saved }, output),
        OpsKind::UnTracked(prepared) => prepared.finish(output),
    };
    Tensor::from_primitive::<Backend>(output)
}

/// The device that training runs on: burn's CPU backend with its tape.
fn device() -> Device {
    Device::flex().autodiff()
}

/// A constant on the training device.
pub(crate) fn constant<const D: usize>(values: Vec<f32>, shape: [usize; D]) -> Tensor<D> {
    Tensor::from_data(TensorData::new(values, shape), &device())
}

/// The values of a tensor, row-major.
pub(crate) fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().try_into_vec().expect("training tensors are f32")
}

type Value = FloatTensor<Flex>;

#[derive(Clone, Debug)]
struct StepOf<O, const D: usize>(O);

#[derive(Clone, Debug)]
struct State<S, const N: usize> {
    inputs: [Value; N],
    saved: S,
}

impl<O, const N: usize, const D: usize> Backward<Flex, N> for StepOf<O, D>
where
    O: FusedOp<N, D>,
{
    type State = State<O::Saved, N>;

    fn backward(self, ops: Ops<Self::State, N>, grads: &mut Gradients, _: &mut Checkpointer) {
        let grad = contiguous(grads.consume::<Flex>(&ops.node));
        let wanted = ops.parents.each_ref().map(Option::is_some);
        let State { inputs, saved } = ops.state;
        let results = self.0.backward(inputs.each_ref().map(slice), &saved, slice(&grad), wanted);
        for ((parent, value), result) in ops.parents.into_iter().zip(&inputs).zip(results) {
            if let (Some(parent), Some(result)) = (parent, result) {
                let shape: Vec<usize> = value.layout().shape().to_vec();
                grads.register::<Flex>(parent.id, primitive(result, &shape));
            }
        }
    }
}

fn contiguous(value: Value) -> Value {
    if value.is_contiguous() { value } else { value.to_contiguous() }
}

fn slice(value: &Value) -> &[f32] {
    value.as_slice::<f32>().expect("inputs were made contiguous f32")
}

fn primitive(values: Vec<f32>, shape: &[usize]) -> Value {
    Flex::float_from_data(TensorData::new(values, shape.to_vec()), &FlexDevice)
}
