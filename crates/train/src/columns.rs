//! Names of the columns that training reads, beside those of `robomamba_data`.

pub(crate) use robomamba_data::{ACTION, STATE};

/// Privileged state of the simulator or the laboratory, a target of training and never an input of a policy.
pub(crate) const ENVIRONMENT_STATE: &str = "observation.environment_state";
/// Whether the action of a step is a demonstration; absent means yes.
pub(crate) const IS_DEMONSTRATION: &str = "is_demonstration";
/// Column with x and y of every point that the instruction names, for each camera.
pub(crate) const GROUNDING: &str = "observation.grounding";
/// Column with x, y, kind and colour of every thing in the picture, for each camera.
pub(crate) const THINGS: &str = "observation.things";

/// The column `knowledge` of a camera: `observation.grounding.top` for `observation.images.top`.
pub(crate) fn of_camera(knowledge: &str, camera: &str) -> String {
    match camera.strip_prefix("observation.images") {
        Some(name) => format!("{knowledge}{name}"),
        None => camera.to_string(),
    }
}
