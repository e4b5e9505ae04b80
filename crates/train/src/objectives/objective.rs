//! What an auxiliary objective is, and what its labels are made from.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use burn::tensor::Tensor;
use robomamba_model::ModelConfig;
use robomamba_policy::{NormStats, VectorStats};

use crate::augment::Look;
use crate::corpus::{Knowledge, Recorded};
use crate::modules::batch::Taps;
use crate::ops::loss::Target;
use crate::parameters::{Scope, TrainingHead};

/// An auxiliary objective: a loss beside the imitation loss, with its labels, its head and its metric.
pub(crate) trait Objective: Sync {
    /// Key of its weight below `loss` in the configuration, column of the metrics, and first part of its head's names.
    fn name(&self) -> &'static str;

    /// Weight where the configuration names none.
    fn default_weight(&self) -> f32 {
        0.0
    }

    /// Colour of its curve in `loss.svg`.
    fn colour(&self) -> &'static str;

    /// Where it attaches.
    fn stage(&self) -> Stage;

    /// Columns, one per camera, without which it cannot be trained.
    fn needs(&self) -> &'static [Need] {
        &[]
    }

    /// The linear layer that training adds for it; `None` if it adds none for these labels.
    fn head(&self, _: &Knowledge) -> Option<TrainingHead> {
        None
    }

    /// Whether its loss is computed at this weight.
    fn is_active(&self, weight: f32) -> bool {
        weight > 0.0
    }

    /// Its loss on one batch, with the labels of the batch; `None` where the batch has nothing to learn from.
    fn term(&self, sample: &Sample) -> Option<Term>;
}

/// The part of the model whose output an objective attaches to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Encoders and connector: it needs images, so it has no effect once they are frozen.
    Encoders,
    /// The backbone's output.
    Backbone,
}

/// Labels that an objective cannot do without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// Points that the instruction names.
    Grounding,
    /// Things in the picture.
    Things,
}

/// The loss of one objective on one batch `[1]`, as a function of the model's features and parameters.
#[derive(Clone)]
pub(crate) struct Term(Arc<Loss>);

type Loss = dyn Fn(&Taps, &Scope) -> Option<Tensor<1>> + Send + Sync;

impl Term {
    pub(crate) fn new(loss: impl Fn(&Taps, &Scope) -> Option<Tensor<1>> + Send + Sync + 'static) -> Self {
        Self(Arc::new(loss))
    }

    /// The loss; `None` where the features that it needs are absent. The scope holds all parameters.
    pub(crate) fn loss(&self, taps: &Taps, parameters: &Scope) -> Option<Tensor<1>> {
        (self.0)(taps, parameters)
    }
}

impl fmt::Debug for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Term")
    }
}

/// The steps and frames of a batch, from which labels are made.
#[derive(Debug)]
pub(crate) struct Sample<'a> {
    /// The model.
    pub model: &'a ModelConfig,
    /// Normalisation of state and action.
    pub stats: &'a NormStats,
    /// Normalisation of the privileged state, if the data sets have it.
    pub environment: Option<&'a VectorStats>,
    /// Sizes of the labels.
    pub knowledge: Knowledge,
    /// Weight of a step whose frame repeats the previous one.
    pub repeat_weight: f32,
    /// Episode and steps of every segment.
    pub segments: Vec<(&'a Recorded, Range<usize>)>,
    /// The distinct frames in order; `None` where tokens stand in for them.
    pub frames: Option<Vec<Frame<'a>>>,
}

/// A distinct frame of the batch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Frame<'a> {
    /// Its episode.
    pub recorded: &'a Recorded,
    /// Its step in the episode.
    pub step: usize,
    /// How its images were augmented.
    pub look: Look,
}

/// A step of the batch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Step<'a> {
    /// Its episode.
    pub recorded: &'a Recorded,
    /// Its index in the episode.
    pub step: usize,
    /// Weight of its labels.
    pub weight: f32,
}

impl Sample<'_> {
    /// All steps, segment by segment: the rows of the batch.
    pub(crate) fn steps(&self) -> impl Iterator<Item = Step<'_>> {
        self.segments.iter().flat_map(move |(recorded, steps)| {
            steps.clone().map(move |step| {
                let fresh = step == 0 || recorded.starts_run(step);
                Step { recorded, step, weight: if fresh { 1.0 } else { self.repeat_weight } }
            })
        })
    }

    /// Where `point` of a frame's camera is after augmentation.
    pub(crate) fn place(&self, frame: &Frame, camera: usize, point: [f32; 2]) -> [f32; 2] {
        frame.look.place(point, &self.model.features.cameras[camera])
    }
}

/// Target values and weights that are collected row by row.
#[derive(Debug, Default)]
pub(crate) struct Collected {
    values: Vec<f32>,
    weights: Vec<f32>,
}

impl Collected {
    /// Adds values of one weight.
    pub(crate) fn push(&mut self, values: &[f32], weight: f32) {
        self.values.extend_from_slice(values);
        self.weights.extend(std::iter::repeat_n(weight, values.len()));
    }

    /// Adds `len` values of weight 0, which [`Collected::set`] may change.
    pub(crate) fn push_absent(&mut self, len: usize) -> usize {
        let start = self.values.len();
        self.push(&vec![0.0; len], 0.0);
        start
    }

    /// Overwrites the values from `at` on with `values` of weight 1.
    pub(crate) fn set(&mut self, at: usize, values: &[f32]) {
        self.values[at..at + values.len()].copy_from_slice(values);
        self.weights[at..at + values.len()].fill(1.0);
    }

    /// Scales the weights to a sum of one, unless all are zero.
    pub(crate) fn finish(mut self) -> Target {
        let total: f64 = self.weights.iter().map(|&weight| f64::from(weight)).sum();
        if total > 0.0 {
            let scale = (1.0 / total) as f32;
            self.weights.iter_mut().for_each(|weight| *weight *= scale);
        }
        Target { values: self.values.into(), weights: self.weights.into() }
    }
}
