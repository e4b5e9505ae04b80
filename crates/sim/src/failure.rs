//! The mistakes that end an episode of `tabletop`.

/// A mistake that cannot be repaired within the episode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The hand settled on, or moved, an object that was not named.
    WrongObject,
    /// A button that was never asked for was pressed.
    WrongButton,
    /// A later sub-goal was done before its turn.
    WrongOrder,
    /// The hand acted before the go signal.
    TooEarly,
    /// The button was pressed too often or too seldom.
    WrongCount,
    /// The container that does not open was tried.
    WrongContainer,
    /// A glued block was lifted, or a fragile one pushed.
    WrongManner,
    /// The hand left its start in the wrong direction.
    WrongDirection,
}

impl Failure {
    /// The reason in an [`Outcome::Failed`](robomamba_policy::Outcome), in snake case.
    pub fn reason(self) -> &'static str {
        match self {
            Failure::WrongObject => "wrong_object",
            Failure::WrongButton => "wrong_button",
            Failure::WrongOrder => "wrong_order",
            Failure::TooEarly => "too_early",
            Failure::WrongCount => "wrong_count",
            Failure::WrongContainer => "wrong_container",
            Failure::WrongManner => "wrong_manner",
            Failure::WrongDirection => "wrong_direction",
        }
    }
}
