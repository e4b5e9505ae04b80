//! The trained values: master copies on the host, and leaves of the tape for one step.

use std::collections::BTreeMap;

use burn::tensor::{Gradients, Tensor};
use robomamba_model::{ModelConfig, ParamSpec, Part, Weights, param_specs};

use crate::gemm::Precision;
use crate::ops::recognition::OUTPUTS;
use crate::ops::{self, Input};
use crate::{Result, TrainError};

/// First parts of the names of what [`TrainingHeads`] adds: a linear layer each.
const ADDED: [&str; 4] = ["auxiliary", "recognition", "pointing", "naming"];

/// What training adds to the model's parameters and never exports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TrainingHeads {
    /// Outputs of the head that predicts the privileged state; 0 for none.
    pub n_auxiliary: usize,
    /// Whether there is a classifier of patch tokens.
    pub recognition: bool,
    /// Outputs of the head that reads the named places off the token of a frame; 0 for none.
    pub n_pointing: usize,
    /// Outputs of the head that reads the colours of the named things off the token of a frame; 0 for none.
    pub n_naming: usize,
}

/// One trained tensor.
#[derive(Clone, Debug, PartialEq)]
pub struct Parameter {
    /// Name and shape; the part is that of the model it belongs to.
    pub spec: ParamSpec,
    /// The values, row-major.
    pub values: Vec<f32>,
    /// Whether it keeps its value: no gradient is computed for it.
    pub frozen: bool,
}

impl Parameter {
    /// Whether it belongs to a head that training adds.
    pub(crate) fn is_of_training(&self) -> bool {
        self.spec.name.split('.').next().is_some_and(|first| ADDED.contains(&first))
    }

    /// Whether AdamW decays it: matrices only, and neither embeddings nor the parameters of the state-space
    /// model, as in upstream's `_no_weight_decay`.
    pub fn decays(&self) -> bool {
        let name = self.spec.name.as_str();
        let spared = ["A_log", "embedding", "cls_token", "conv1d", "connector.query"];
        self.spec.shape.len() >= 2 && (name.contains("projection") || !spared.iter().any(|part| name.contains(part)))
    }
}

/// All trained tensors of a model, in the order of [`param_specs`], the heads of training last.
#[derive(Clone, Debug, PartialEq)]
pub struct Parameters {
    /// The tensors.
    pub list: Vec<Parameter>,
}

impl Parameters {
    /// Takes `weights` over and adds `heads`, which start at zero.
    ///
    /// # Errors
    /// When a tensor of `config` is missing or has another shape.
    pub fn new(config: &ModelConfig, weights: &Weights, heads: TrainingHeads) -> Result<Self> {
        let specs = param_specs(config);
        weights.check(&specs)?;
        let mut list = Vec::with_capacity(specs.len() + 2 * ADDED.len());
        for spec in specs {
            let values = weights.get(&spec.name)?.to_vec();
            list.push(Parameter { spec, values, frozen: false });
        }
        let (d_model, hidden_size) = (config.backbone.d_model(), config.vision.hidden_size);
        let n_recognition = if heads.recognition { OUTPUTS } else { 0 };
        let added = [
            (heads.n_auxiliary, d_model, Part::Heads),
            (n_recognition, hidden_size, Part::Vision),
            (heads.n_pointing, d_model, Part::Connector),
            (heads.n_naming, d_model, Part::Connector),
        ];
        for (name, (n_out, n_in, part)) in ADDED.into_iter().zip(added).filter(|(_, (n_out, ..))| *n_out > 0) {
            list.push(zeros(format!("{name}.weight"), vec![n_out, n_in], part));
            list.push(zeros(format!("{name}.bias"), vec![n_out], part));
        }
        Ok(Self { list })
    }

    /// Freezes the parameters named in `parts` and everything below these names, such as `vision` or `head.confidence`.
    ///
    /// # Errors
    /// [`TrainError::Setting`] for a name that nothing is below.
    pub(crate) fn freeze(&mut self, parts: &[String]) -> Result<()> {
        for part in parts {
            let below = |name: &str| {
                name.strip_prefix(part.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
            };
            let mut found = self.list.iter_mut().filter(|parameter| below(&parameter.spec.name)).peekable();
            if found.peek().is_none() {
                let expected = "names of parts, such as vision, text, connector, backbone or head.action".into();
                return Err(TrainError::Setting { field: "frozen", expected, found: format!("`{part}`") });
            }
            found.for_each(|parameter| parameter.frozen = true);
        }
        Ok(())
    }

    /// Whether all that makes the token of a control step keeps its values.
    pub(crate) fn encoders_are_frozen(&self) -> bool {
        self.list.iter().filter(|parameter| is_of_encoders(&parameter.spec.name)).all(|parameter| parameter.frozen)
    }

    /// The exported tensors: all but the heads of training.
    ///
    /// # Errors
    /// Only by a bug: every tensor fills its shape.
    pub fn to_weights(&self) -> Result<Weights> {
        let mut weights = Weights::new();
        for Parameter { spec, values, .. } in self.list.iter().filter(|p| !p.is_of_training()) {
            weights.insert(spec.name.clone(), spec.shape.clone(), values.clone())?;
        }
        Ok(weights)
    }

    /// Number of values.
    pub fn numel(&self) -> usize {
        self.list.iter().map(|parameter| parameter.values.len()).sum()
    }

    /// Lends the present values to the tape, for linear layers that are computed in `precision`; they are back when the leaves are dropped.
    pub(crate) fn lend(&mut self, precision: Precision) -> Leaves<'_> {
        let names = self.list.iter().enumerate().map(|(index, parameter)| (parameter.spec.name.clone(), index));
        Leaves { index: names.collect(), precision, list: self.list.iter_mut().map(Leaf::of).collect() }
    }
}

fn zeros(name: String, shape: Vec<usize>, part: Part) -> Parameter {
    let values = vec![0.0; shape.iter().product()];
    Parameter { spec: ParamSpec { name, shape, part }, values, frozen: false }
}

/// The parameters of one step.
#[derive(Debug)]
pub(crate) struct Leaves<'a> {
    /// In the order of the parameters.
    list: Vec<Leaf<'a>>,
    /// By name.
    index: BTreeMap<String, usize>,
    precision: Precision,
}

#[derive(Debug)]
enum Leaf<'a> {
    /// A leaf of burn's tape, and where its values come back to.
    Learning { tensor: Box<Tensor<1>>, home: &'a mut Vec<f32> },
    /// Copied only where it is asked for, which frozen encoders are not once their tokens are known.
    Frozen(&'a [f32]),
}

impl<'a> Leaf<'a> {
    fn of(parameter: &'a mut Parameter) -> Self {
        let home = &mut parameter.values;
        if parameter.frozen {
            return Self::Frozen(home);
        }
        let shape = [home.len()];
        Self::Learning { tensor: Box::new(ops::constant(std::mem::take(home), shape).require_grad()), home }
    }
}

impl Drop for Leaves<'_> {
    fn drop(&mut self) {
        for leaf in std::mem::take(&mut self.list) {
            if let Leaf::Learning { tensor, home } = leaf {
                *home = ops::values(*tensor);
            }
        }
    }
}

impl Leaves<'_> {
    /// The gradient of every parameter, in order: zeros where the loss does not depend on it, nothing where it is frozen.
    pub(crate) fn gradients(&self, mut gradients: Gradients) -> Vec<Vec<f32>> {
        let gradient = |leaf: &Leaf| match leaf {
            Leaf::Frozen(_) => Vec::new(),
            Leaf::Learning { tensor, .. } => {
                tensor.grad_remove(&mut gradients).map_or_else(|| vec![0.0; tensor.shape().num_elements()], ops::values)
            }
        };
        self.list.iter().map(gradient).collect()
    }

    /// All parameters.
    pub(crate) fn root(&self) -> Scope<'_> {
        Scope { leaves: self, prefix: String::new() }
    }

    /// The parameters whose names start with `prefix` and a dot.
    pub(crate) fn under(&self, prefix: &str) -> Scope<'_> {
        self.root().under(prefix)
    }
}

/// Parameters below one prefix.
#[derive(Clone, Debug)]
pub(crate) struct Scope<'a> {
    leaves: &'a Leaves<'a>,
    prefix: String,
}

impl Scope<'_> {
    /// The scope one level down.
    pub(crate) fn under(&self, name: &str) -> Self {
        Self { leaves: self.leaves, prefix: format!("{}{name}.", self.prefix) }
    }

    /// Numbers in which linear layers are computed.
    pub(crate) fn precision(&self) -> Precision {
        self.leaves.precision
    }

    /// The flat tensor called `name` here.
    pub(crate) fn tensor(&self, name: &str) -> Tensor<1> {
        let name = format!("{}{name}", self.prefix);
        match self.leaves.index.get(&name).map(|&index| &self.leaves.list[index]) {
            Some(Leaf::Learning { tensor, .. }) => Tensor::clone(tensor),
            Some(Leaf::Frozen(values)) => ops::constant(values.to_vec(), [values.len()]),
            None => panic!("the model crate lists no parameter `{name}`"),
        }
    }

    /// The same, ready for an operation.
    pub(crate) fn input(&self, name: &str) -> Input {
        ops::input(&self.tensor(name))
    }
}

/// Whether the parameter is one of those that make the token of a control step.
pub(crate) fn is_of_encoders(name: &str) -> bool {
    ["vision.", "text.", "connector."].iter().any(|part| name.starts_with(part))
}
