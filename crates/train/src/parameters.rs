//! The trained values: master copies on the host, and leaves of the tape for one step.

use std::collections::BTreeMap;

use burn::tensor::{Gradients, Tensor};
use robomamba_model::{ModelConfig, ParamSpec, Part, Weights, param_specs};

use crate::ops::recognition::OUTPUTS;
use crate::ops::{self, Input};
use crate::{Result, TrainError};

/// Name of the auxiliary head's matrix, which training adds to the model's parameters and never exports.
pub(crate) const AUXILIARY_WEIGHT: &str = "auxiliary.weight";
/// Name of the auxiliary head's bias.
pub(crate) const AUXILIARY_BIAS: &str = "auxiliary.bias";
/// Names of the classifier of patch tokens, another such addition.
pub(crate) const RECOGNITION: [&str; 2] = ["recognition.weight", "recognition.bias"];

/// Names of the head that reads the named places off the token of a frame, another.
pub(crate) const POINTING: [&str; 2] = ["pointing.weight", "pointing.bias"];

/// What training adds to the model's parameters and never exports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TrainingHeads {
    /// Outputs of the head that predicts the privileged state; 0 for none.
    pub n_auxiliary: usize,
    /// Whether there is a classifier of patch tokens.
    pub recognition: bool,
    /// Outputs of the head that reads the named places off the token of a frame; 0 for none.
    pub n_pointing: usize,
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
        let mut list = Vec::with_capacity(specs.len() + 6);
        for spec in specs {
            let values = weights.get(&spec.name)?.to_vec();
            list.push(Parameter { spec, values, frozen: false });
        }
        let TrainingHeads { n_auxiliary, recognition, n_pointing } = heads;
        if n_auxiliary > 0 {
            list.push(zeros(AUXILIARY_WEIGHT, vec![n_auxiliary, config.backbone.d_model()], Part::Heads));
            list.push(zeros(AUXILIARY_BIAS, vec![n_auxiliary], Part::Heads));
        }
        if recognition {
            list.push(zeros(RECOGNITION[0], vec![OUTPUTS, config.vision.hidden_size], Part::Vision));
            list.push(zeros(RECOGNITION[1], vec![OUTPUTS], Part::Vision));
        }
        if n_pointing > 0 {
            list.push(zeros(POINTING[0], vec![n_pointing, config.backbone.d_model()], Part::Connector));
            list.push(zeros(POINTING[1], vec![n_pointing], Part::Connector));
        }
        Ok(Self { list })
    }

    /// Freezes everything below the names in `parts`, such as `vision` or `head.confidence`.
    ///
    /// # Errors
    /// [`TrainError::Setting`] for a name that nothing is below.
    pub(crate) fn freeze(&mut self, parts: &[String]) -> Result<()> {
        for part in parts {
            let below = |name: &str| name.strip_prefix(part.as_str()).is_some_and(|rest| rest.starts_with('.'));
            let mut found = self.list.iter_mut().filter(|parameter| below(&parameter.spec.name)).peekable();
            if found.peek().is_none() {
                let expected = "names of parts, such as vision, text, connector, backbone or head.action".into();
                return Err(TrainError::Setting { field: "frozen", expected, found: format!("`{part}`") });
            }
            found.for_each(|parameter| parameter.frozen = true);
        }
        Ok(())
    }

    /// The exported tensors: all but the heads of training.
    ///
    /// # Errors
    /// Only by a bug: every tensor fills its shape.
    pub fn to_weights(&self) -> Result<Weights> {
        let mut weights = Weights::new();
        for Parameter { spec, values, .. } in self.list.iter().filter(|p| !is_added(&p.spec.name)) {
            weights.insert(spec.name.clone(), spec.shape.clone(), values.clone())?;
        }
        Ok(weights)
    }

    /// Number of values.
    pub fn numel(&self) -> usize {
        self.list.iter().map(|parameter| parameter.values.len()).sum()
    }

    /// Puts the present values on the tape.
    pub(crate) fn leaves(&self) -> Leaves {
        let leaf = |p: &Parameter| {
            let tensor = ops::constant(p.values.clone(), [p.values.len()]);
            (p.spec.name.clone(), if p.frozen { tensor } else { tensor.require_grad() })
        };
        Leaves { tensors: self.list.iter().map(leaf).collect() }
    }

    /// The gradient of every tensor, in order; zeros for those that are frozen or that the loss does not depend on.
    pub(crate) fn gradients(&self, leaves: &Leaves, mut gradients: Gradients) -> Vec<Vec<f32>> {
        let gradient = |p: &Parameter| {
            let leaf = Some(&leaves.tensors[&p.spec.name]).filter(|_| !p.frozen);
            let found = leaf.and_then(|leaf| leaf.grad_remove(&mut gradients));
            found.map_or_else(|| vec![0.0; p.values.len()], ops::values)
        };
        self.list.iter().map(gradient).collect()
    }
}

fn is_added(name: &str) -> bool {
    [AUXILIARY_WEIGHT, AUXILIARY_BIAS].contains(&name) || RECOGNITION.contains(&name) || POINTING.contains(&name)
}

fn zeros(name: &str, shape: Vec<usize>, part: Part) -> Parameter {
    let values = vec![0.0; shape.iter().product()];
    Parameter { spec: ParamSpec { name: name.into(), shape, part }, values, frozen: false }
}

/// The parameters as flat leaves of burn's tape, by name.
#[derive(Debug)]
pub(crate) struct Leaves {
    tensors: BTreeMap<String, Tensor<1>>,
}

impl Leaves {
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
    leaves: &'a Leaves,
    prefix: String,
}

impl Scope<'_> {
    /// The scope one level down.
    pub(crate) fn under(&self, name: &str) -> Self {
        Self { leaves: self.leaves, prefix: format!("{}{name}.", self.prefix) }
    }

    /// The flat tensor called `name` here.
    pub(crate) fn tensor(&self, name: &str) -> Tensor<1> {
        let name = format!("{}{name}", self.prefix);
        self.leaves.tensors.get(&name).unwrap_or_else(|| panic!("the model crate lists no parameter `{name}`")).clone()
    }

    /// The same, ready for an operation.
    pub(crate) fn input(&self, name: &str) -> Input {
        ops::input(&self.tensor(name))
    }
}
