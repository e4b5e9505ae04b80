//! The things on the table.

use crate::geometry::Vec2;

/// The colours of things; each is a word of the instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Colour {
    Red,
    Green,
    Blue,
    Yellow,
    Purple,
    Orange,
}

impl Colour {
    pub const ALL: [Colour; 6] =
        [Colour::Red, Colour::Green, Colour::Blue, Colour::Yellow, Colour::Purple, Colour::Orange];

    pub fn word(self) -> &'static str {
        match self {
            Colour::Red => "red",
            Colour::Green => "green",
            Colour::Blue => "blue",
            Colour::Yellow => "yellow",
            Colour::Purple => "purple",
            Colour::Orange => "orange",
        }
    }

    /// The colour in sRGB.
    pub fn rgb(self) -> [u8; 3] {
        match self {
            Colour::Red => [214, 40, 40],
            Colour::Green => [38, 158, 68],
            Colour::Blue => [38, 96, 224],
            Colour::Yellow => [246, 212, 32],
            Colour::Purple => [148, 58, 186],
            Colour::Orange => [244, 124, 22],
        }
    }
}

/// The outlines of blocks; each is a word of the instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    Square,
    Disc,
    Triangle,
    Cross,
}

impl Shape {
    pub const ALL: [Shape; 4] = [Shape::Square, Shape::Disc, Shape::Triangle, Shape::Cross];

    pub fn word(self) -> &'static str {
        match self {
            Shape::Square => "square",
            Shape::Disc => "disc",
            Shape::Triangle => "triangle",
            Shape::Cross => "cross",
        }
    }

    /// Distance from the centre to the farthest point, in metres.
    pub fn radius_m(self) -> f32 {
        match self {
            Shape::Square => 0.0395,
            Shape::Disc => 0.030,
            Shape::Triangle => 0.042,
            Shape::Cross => CROSS_LONG_M.hypot(CROSS_SHORT_M),
        }
    }

    /// Corners of the outline in metres, in order; none for the disc.
    pub fn corners(self) -> Vec<Vec2> {
        match self {
            Shape::Square => ring(4, std::f32::consts::FRAC_PI_4, self.radius_m()),
            Shape::Disc => Vec::new(),
            Shape::Triangle => ring(3, std::f32::consts::FRAC_PI_2, self.radius_m()),
            Shape::Cross => cross(),
        }
    }
}

/// Half length and half width of the two bars of a cross.
pub(crate) const CROSS_LONG_M: f32 = 0.034;
pub(crate) const CROSS_SHORT_M: f32 = 0.0125;

/// `count` points on a circle around the origin, the first at `first_rad`.
fn ring(count: usize, first_rad: f32, radius_m: f32) -> Vec<Vec2> {
    (0..count)
        .map(|i| first_rad + std::f32::consts::TAU * i as f32 / count as f32)
        .map(|angle| Vec2::new(angle.cos(), angle.sin()) * radius_m)
        .collect()
}

/// The twelve corners of a cross: three per quadrant, anticlockwise.
fn cross() -> Vec<Vec2> {
    let (long, short) = (CROSS_LONG_M, CROSS_SHORT_M);
    let quadrant = [Vec2::new(long, short), Vec2::new(short, short), Vec2::new(short, long)];
    let turns = [(Vec2::X, Vec2::Y), (Vec2::Y, Vec2::NEG_X), (Vec2::NEG_X, Vec2::NEG_Y), (Vec2::NEG_Y, Vec2::X)];
    turns.iter().flat_map(|&(x, y)| quadrant.map(|corner| x * corner.x + y * corner.y)).collect()
}

/// How a block can be handled; a hidden property of `retry`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manner {
    /// May be lifted and pushed.
    Any,
    /// Cannot be lifted; can be pushed.
    Glued,
    /// Tips over when it is pushed; can be lifted.
    Fragile,
}

/// A block: a rigid body that can be pushed, grasped and carried. Its pose lives in the physics.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Block {
    pub colour: Colour,
    pub shape: Shape,
    pub manner: Manner,
    /// Whether it visibly broke or stuck.
    pub spoiled: bool,
}

/// A square area on the table that blocks are brought to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Zone {
    pub colour: Colour,
    pub centre: Vec2,
}

impl Zone {
    /// Half of a side.
    pub const HALF_M: f32 = 0.065;
    /// A block is in the zone when its centre is nearer than this to the zone's centre.
    pub const RADIUS_M: f32 = 0.05;
}

/// A push button. It springs back, so its appearance does not show how often it was pressed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Button {
    pub colour: Colour,
    pub centre: Vec2,
    /// Held down by the hand at the moment.
    pub down: bool,
}

impl Button {
    /// The hand presses the button when it closes nearer than this to the centre.
    pub const RADIUS_M: f32 = 0.03;
}

/// A lamp that shows signals.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lamp {
    pub centre: Vec2,
    pub light: Light,
}

/// What a lamp shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Light {
    Dark,
    Lit(Colour),
    /// White: the signal to act.
    Go,
}

/// A box with a lid; whether it opens is not visible from outside.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Container {
    pub centre: Vec2,
    pub lid: Lid,
}

/// State of a container's lid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lid {
    Closed,
    Open,
    Jammed,
}

impl Container {
    /// Half of a side.
    pub const HALF_M: f32 = 0.045;
    /// The hand tries the lid when it closes nearer than this to the centre.
    pub const RADIUS_M: f32 = 0.035;
}
