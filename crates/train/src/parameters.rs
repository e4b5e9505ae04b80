//! The trained values: master copies on the host, and leaves of the tape for one step.

use std::collections::BTreeMap;

use burn::tensor::{Gradients, Tensor};
use robomamba_model::{ModelConfig, ParamSpec, Part, Weights, param_specs};

use crate::gemm::Precision;
use crate::ops::{self, Input};
use crate::{Result, TrainError};

/// A linear layer that an auxiliary objective adds to the model's parameters. It is never exported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrainingHead {
    /// First part of the names of its weight and bias.
    pub name: &'static str,
    /// The part of the model whose output it reads: patch tokens, tokens of frames, or the backbone's output.
    pub part: Part,
    /// Number of outputs, at least one.
    pub n_output: usize,
}

impl TrainingHead {
    /// A head with these outputs; `None` without any.
    pub fn new(name: &'static str, part: Part, n_output: usize) -> Option<Self> {
        (n_output > 0).then_some(Self { name, part, n_output })
    }

    /// Weight `[n_output, n_in]` and bias `[n_output]`, which start at zero.
    fn parameters(self, config: &ModelConfig) -> [Parameter; 2] {
        let Self { name, part, n_output } = self;
        let n_in = if part == Part::Vision { config.vision.hidden_size } else { config.backbone.d_model() };
        let zeros = |name: String, shape: Vec<usize>| {
            let values = vec![0.0; shape.iter().product()];
            Parameter { spec: ParamSpec { name, shape, part }, values, frozen: false, exported: false }
        };
        [zeros(format!("{name}.weight"), vec![n_output, n_in]), zeros(format!("{name}.bias"), vec![n_output])]
    }
}

/// One trained tensor.
#[derive(Clone, Debug, PartialEq)]
pub struct Parameter {
    /// Name, shape, and the part of the model that it belongs to.
    pub spec: ParamSpec,
    /// The values, row-major.
    pub values: Vec<f32>,
    /// Whether it keeps its value: no gradient is computed for it.
    pub frozen: bool,
    /// Whether it belongs to the policy; the heads of auxiliary objectives do not.
    pub exported: bool,
}

impl Parameter {
    /// Whether AdamW decays it: matrices only, and neither embeddings nor the parameters of the state-space
    /// model, as in upstream's `_no_weight_decay`.
    pub fn decays(&self) -> bool {
        let name = self.spec.name.as_str();
        let spared = ["A_log", "embedding", "cls_token", "conv1d", "connector.query"];
        self.spec.shape.len() >= 2 && (name.contains("projection") || !spared.iter().any(|part| name.contains(part)))
    }
}

/// All trained tensors of a model, in the order of [`param_specs`], then the heads of auxiliary objectives.
#[derive(Clone, Debug, PartialEq)]
pub struct Parameters {
    /// The tensors.
    pub list: Vec<Parameter>,
}

impl Parameters {
    /// The model's weights, and the `heads` of auxiliary objectives.
    ///
    /// # Errors
    /// When a tensor of `config` is missing or has another shape.
    pub fn new(config: &ModelConfig, weights: &Weights, heads: &[TrainingHead]) -> Result<Self> {
        let specs = param_specs(config);
        weights.check(&specs)?;
        let mut list = Vec::with_capacity(specs.len() + 2 * heads.len());
        for spec in specs {
            let values = weights.get(&spec.name)?.to_vec();
            list.push(Parameter { spec, values, frozen: false, exported: true });
        }
        list.extend(heads.iter().flat_map(|head| head.parameters(config)));
        Ok(Self { list })
    }

    /// Freezes the parameters `parts` and all below these names, such as `vision` or `head.confidence`.
    ///
    /// # Errors
    /// [`TrainError::Setting`] for a name that no parameter has or is below.
    pub(crate) fn freeze(&mut self, parts: &[String]) -> Result<()> {
        for part in parts {
            let below = |name: &str| {
                name.strip_prefix(part.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
            };
            let mut found = self.list.iter_mut().filter(|parameter| below(&parameter.spec.name)).peekable();
            if found.peek().is_none() {
                let expected = "names of parts, such as vision, text, connector, backbone or head.action".into();
                return Err(TrainError::Setting { field: "frozen".into(), expected, found: format!("`{part}`") });
            }
            found.for_each(|parameter| parameter.frozen = true);
        }
        Ok(())
    }

    /// Whether encoders and connector are frozen, so that tokens do not change.
    pub(crate) fn encoders_are_frozen(&self) -> bool {
        self.list.iter().filter(|parameter| is_of_encoders(&parameter.spec.name)).all(|parameter| parameter.frozen)
    }

    /// The exported tensors: all but the heads of auxiliary objectives.
    ///
    /// # Errors
    /// Only by a bug: every tensor fills its shape.
    pub fn to_weights(&self) -> Result<Weights> {
        let mut weights = Weights::new();
        for Parameter { spec, values, .. } in self.list.iter().filter(|parameter| parameter.exported) {
            weights.insert(spec.name.clone(), spec.shape.clone(), values.clone())?;
        }
        Ok(weights)
    }

    /// Number of values.
    pub fn numel(&self) -> usize {
        self.list.iter().map(|parameter| parameter.values.len()).sum()
    }

    /// Lends the values to the tape; dropping the leaves returns them. Linear layers are computed in `precision`.
    pub(crate) fn lend(&mut self, precision: Precision) -> Leaves<'_> {
        let names = self.list.iter().enumerate().map(|(index, parameter)| (parameter.spec.name.clone(), index));
        Leaves { index: names.collect(), precision, list: self.list.iter_mut().map(Leaf::of).collect() }
    }
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
    /// A leaf of burn's tape, and the place that its values return to.
    Learning { tensor: Box<Tensor<1>>, home: &'a mut Vec<f32> },
    /// Copied on use only, because frozen encoders with known tokens are never used.
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
    /// The gradient of every parameter, in order: zeros where the loss does not depend on it, empty if it is frozen.
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

    /// Number format of linear layers.
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

/// Whether the parameter belongs to encoders or connector, which make the token of a control step.
pub(crate) fn is_of_encoders(name: &str) -> bool {
    ["vision.", "text.", "connector."].iter().any(|part| name.starts_with(part))
}
