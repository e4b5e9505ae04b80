//! Points and directions on the table.

/// A point or direction on the table, in metres.
pub(crate) type Vec2 = rapier2d::prelude::Vector;
