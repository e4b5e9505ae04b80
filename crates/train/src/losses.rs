//! Weights of the losses in the configuration, and their values in the metrics.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::LazyLock;

use serde::de::{Error, MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::objectives::{self, PerObjective};
use crate::{Result, TrainError};

/// How the losses are weighed against each other: the table `loss` of the configuration.
///
/// Beside the keys of the imitation loss it has one key per auxiliary objective, its weight; 0 does without it.
///
/// | key | auxiliary objective | needs |
/// |---|---|---|
/// | `confidence` | success of the episode, from the backbone's output | - |
/// | `auxiliary` | the privileged state, from the backbone's output | `observation.environment_state` |
/// | `grounding` | the connector's attention on the points that the instruction names | `observation.grounding.*` |
/// | `recognition` | kind, colour and place of every thing, from the patch tokens | `observation.things.*` |
/// | `pointing` | the named points, from the token of a frame | `observation.grounding.*` |
/// | `naming` | the colours of the named things, from the token of a frame | both of these |
#[derive(Clone, Debug, PartialEq)]
pub struct LossConfig {
    /// Transition of the imitation loss from quadratic to linear, in normalised units; 0 is the L1 loss.
    pub action_beta: f32,
    /// Quantile of the labels that a dimension of the action is drawn to, by its name; the median, 0.5, for the others.
    /// Where two answers are about equally likely, such as closing a gripper or not, it says which mistake is cheaper.
    pub action_quantiles: BTreeMap<String, f32>,
    /// Temperature of the mixture, in normalised units, where the action head has several modes: the mean error at
    /// which a chunk still counts as a mode's own. A label belongs to the modes in proportion to `p exp(-error /
    /// temperature)`, with their probabilities `p`. Chunks that are nearer to each other than this become one.
    pub mode_temperature: f32,
    weights: PerObjective,
}

impl Default for LossConfig {
    fn default() -> Self {
        Self {
            action_beta: 0.02,
            action_quantiles: BTreeMap::new(),
            mode_temperature: 0.1,
            weights: PerObjective::default_weights(),
        }
    }
}

impl LossConfig {
    /// Weight of the auxiliary objective `name`; `None` if there is no such objective.
    pub fn weight(&self, name: &str) -> Option<f32> {
        self.weights.get(name)
    }

    /// Changes the weight of the auxiliary objective `name`.
    ///
    /// # Errors
    /// [`TrainError::Setting`] if there is no such objective.
    pub fn set_weight(&mut self, name: &str, weight: f32) -> Result<()> {
        let Some(entry) = self.weights.get_mut(name) else {
            let expected = format!("one of {}", objectives::names().collect::<Vec<_>>().join(", "));
            return Err(TrainError::Setting { field: "loss".into(), expected, found: format!("`{name}`") });
        };
        *entry = weight;
        Ok(())
    }

    /// The weights of all auxiliary objectives.
    pub(crate) fn weights(&self) -> &PerObjective {
        &self.weights
    }
}

/// All keys of [`LossConfig`].
static KEYS: LazyLock<Vec<&str>> = LazyLock::new(|| {
    ["action_beta", "action_quantiles", "mode_temperature"].into_iter().chain(objectives::names()).collect()
});

impl Serialize for LossConfig {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(KEYS.len()))?;
        map.serialize_entry("action_beta", &self.action_beta)?;
        map.serialize_entry("action_quantiles", &self.action_quantiles)?;
        map.serialize_entry("mode_temperature", &self.mode_temperature)?;
        self.weights.iter().try_for_each(|(name, weight)| map.serialize_entry(name, &weight))?;
        map.end()
    }
}

impl<'de> Deserialize<'de> for LossConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Keys;
        impl<'de> Visitor<'de> for Keys {
            type Value = LossConfig;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a table of weights")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<LossConfig, A::Error> {
                let mut loss = LossConfig::default();
                while let Some(key) = map.next_key::<String>()? {
                    match key.as_str() {
                        "action_beta" => loss.action_beta = map.next_value()?,
                        "action_quantiles" => loss.action_quantiles = map.next_value()?,
                        "mode_temperature" => loss.mode_temperature = map.next_value()?,
                        name => match loss.weights.get_mut(name) {
                            Some(weight) => *weight = map.next_value()?,
                            None => return Err(A::Error::unknown_field(name, &KEYS)),
                        },
                    }
                }
                Ok(loss)
            }
        }
        deserializer.deserialize_map(Keys)
    }
}

/// Losses of one step, or their means over several.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Losses {
    /// The weighted sum that is minimised.
    pub total: f32,
    /// Imitation loss.
    pub action: f32,
    #[serde(flatten)]
    objectives: PerObjective,
    /// Global norm of the gradient before clipping.
    pub gradient_norm: f32,
}

impl Losses {
    pub(crate) fn new(action: f32) -> Self {
        Self { action, ..Self::default() }
    }

    /// Loss of the auxiliary objective `name`, 0 where it took no part; `None` if there is no such objective.
    pub fn objective(&self, name: &str) -> Option<f32> {
        self.objectives.get(name)
    }

    /// Names and losses of all auxiliary objectives.
    pub fn objectives(&self) -> impl Iterator<Item = (&'static str, f32)> {
        self.objectives.iter()
    }

    /// Sets the loss of the objective at `place` of the list.
    pub(crate) fn set_objective(&mut self, place: usize, loss: f32) {
        self.objectives.set_at(place, loss);
    }

    /// Combines two sets of losses one by one.
    pub(crate) fn zip(self, other: Self, f: impl Fn(f32, f32) -> f32) -> Self {
        Self {
            total: f(self.total, other.total),
            action: f(self.action, other.action),
            objectives: self.objectives.zip(other.objectives, &f),
            gradient_norm: f(self.gradient_norm, other.gradient_norm),
        }
    }
}

impl Serialize for PerObjective {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter())
    }
}

/// Objectives that a log does not have are 0.
impl<'de> Deserialize<'de> for PerObjective {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let named = BTreeMap::<String, serde_json::Value>::deserialize(deserializer)?;
        let mut all = Self::default();
        for (name, value) in named {
            if let Some(entry) = all.get_mut(&name) {
                *entry = serde_json::from_value(value).map_err(D::Error::custom)?;
            }
        }
        Ok(all)
    }
}
