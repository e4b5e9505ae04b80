//! Names of the columns that training reads, beside those of `robomamba_data`.

pub(crate) use robomamba_data::{ACTION, STATE};

/// Privileged state of the simulator or the laboratory, a target of training and never an input of a policy.
pub(crate) const ENVIRONMENT_STATE: &str = "observation.environment_state";
/// Whether the action of a step is a demonstration; absent means yes.
pub(crate) const IS_DEMONSTRATION: &str = "is_demonstration";

/// Column with x and y of every point that the instruction names, in the pictures of `camera`:
/// `observation.grounding.top` for `observation.images.top`.
pub(crate) fn grounding(camera: &str) -> String {
    format!("observation.grounding.{}", short_name(camera))
}

/// Column with x, y, kind and colour of every thing in the pictures of `camera`.
pub(crate) fn things(camera: &str) -> String {
    format!("observation.things.{}", short_name(camera))
}

fn short_name(camera: &str) -> &str {
    camera.strip_prefix("observation.images.").unwrap_or(camera)
}
