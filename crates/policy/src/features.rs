//! Which cameras, states and actions a robot has.

use serde::{Deserialize, Serialize};

use crate::{Observation, PolicyError};

/// One camera: its feature name (`observation.images.*`) and the size of its images in pixels.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CameraSpec {
    /// Feature name, for example `observation.images.top`.
    pub name: String,
    /// Rows in pixels.
    pub height: usize,
    /// Columns in pixels.
    pub width: usize,
}

/// A vector feature: one name, with its unit, per dimension (`x_m`, `dx`, `gripper_opening`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VectorSpec {
    /// Name of each dimension, in order.
    pub names: Vec<String>,
}

impl VectorSpec {
    /// A vector with these dimensions.
    pub fn new<S: Into<String>>(names: impl IntoIterator<Item = S>) -> Self {
        Self { names: names.into_iter().map(Into::into).collect() }
    }

    /// Number of dimensions.
    pub fn dim(&self) -> usize {
        self.names.len()
    }
}

/// The interface of one robot, as a policy and a data set describe it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FeatureSpec {
    /// Cameras, in the order in which the model sees them.
    pub cameras: Vec<CameraSpec>,
    /// The robot's own state, [`FeatureSpec::STATE`].
    pub state: VectorSpec,
    /// What the robot is asked to do, [`FeatureSpec::ACTION`].
    pub action: VectorSpec,
    /// Control rate in Hz.
    pub fps: u32,
}

impl FeatureSpec {
    /// Feature name of [`FeatureSpec::state`] in data sets and checkpoints (LeRobot: `OBS_STATE`).
    pub const STATE: &str = "observation.state";
    /// Feature name of [`FeatureSpec::action`] in data sets and checkpoints (LeRobot: `ACTION`).
    pub const ACTION: &str = "action";

    /// Checks that `observation` has exactly the cameras, image sizes and finite state of this spec.
    ///
    /// # Errors
    /// Names the first feature that does not fit, what was expected and what was found.
    pub fn check(&self, observation: &Observation) -> Result<(), PolicyError> {
        for camera in &self.cameras {
            let image = observation.image(&camera.name).ok_or_else(|| PolicyError::MissingCamera {
                expected: camera.name.clone(),
                found: observation.images.iter().map(|(name, _)| name.to_string()).collect::<Vec<_>>().join(", "),
            })?;
            if (image.height(), image.width()) != (camera.height, camera.width) {
                return Err(PolicyError::ImageSize {
                    camera: camera.name.clone(),
                    expected: (camera.height, camera.width),
                    found: (image.height(), image.width()),
                });
            }
        }
        if observation.state.len() != self.state.dim() {
            return Err(PolicyError::StateLength {
                expected: self.state.dim(),
                names: self.state.names.join(", "),
                found: observation.state.len(),
            });
        }
        if let Some(index) = observation.state.iter().position(|value| !value.is_finite()) {
            return Err(PolicyError::StateNotFinite {
                name: self.state.names[index].clone(),
                index,
                found: observation.state[index],
            });
        }
        Ok(())
    }
    /// Checks that `action` has the robot's number of dimensions and is finite.
    ///
    /// # Errors
    /// Names what was expected and what was found.
    pub fn check_action(&self, action: &[f32]) -> Result<(), PolicyError> {
        let names = &self.action.names;
        if action.len() != names.len() {
            let (expected, found) = (names.len(), action.len());
            return Err(PolicyError::ActionLength { expected, names: names.join(", "), found });
        }
        match action.iter().position(|value| !value.is_finite()) {
            Some(index) => {
                Err(PolicyError::ActionNotFinite { name: names[index].clone(), index, found: action[index] })
            }
            None => Ok(()),
        }
    }
}
