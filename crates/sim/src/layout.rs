//! Puts things on the table without overlaps and with room for what the task needs.

use rand::RngExt;
use rand::seq::{IndexedRandom, SliceRandom};
use rand_chacha::ChaCha8Rng;

use crate::geometry::Vec2;
use crate::physics::Physics;
use crate::scenario::{Purpose, Scenario};
use crate::things::{Block, Button, Colour, Container, Lamp, Lid, Light, Manner, Shape, Zone};
use crate::world::{CONTROL_PERIOD_S, HAND_RANGE_M, Hand, World};

/// Where the hand rests.
pub(crate) const HOME: Vec2 = Vec2::new(0.0, -0.25);
/// Start poses lie within this distance of [`HOME`], in x and y.
const START_SPREAD: Vec2 = Vec2::new(0.08, 0.035);
/// Centres of things lie in this part of the table.
const AREA_MIN: Vec2 = Vec2::new(-0.215, -0.165);
const AREA_MAX: Vec2 = Vec2::new(0.215, 0.215);
/// Candidates that are tried for each thing.
const TRIES: usize = 200;
/// Free space between the outlines of two things.
const GAP_M: f32 = 0.012;
/// How far behind a block the hand comes down to push it.
pub(crate) const STANDOFF_M: f32 = 0.072;
/// Half of the width of a lane that must be free of blocks for pushing along it.
pub(crate) const LANE_HALF_M: f32 = 0.075;
/// Lamps stand here, above the area of the other things.
pub(crate) const LAMP_SPOT: Vec2 = Vec2::new(0.0, 0.265);

/// A straight path that a block is pushed along, from where the hand comes down to the zone.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lane {
    pub from: Vec2,
    pub to: Vec2,
}

impl Lane {
    /// The lane for pushing a block from `block` to `zone`.
    pub fn new(block: Vec2, zone: Vec2) -> Self {
        let direction = (zone - block).normalize_or_zero();
        Self { from: block - direction * STANDOFF_M, to: zone }
    }

    /// Distance of a point from the lane.
    pub fn distance(&self, point: Vec2) -> f32 {
        let along = self.to - self.from;
        let t = (point - self.from).dot(along) / along.length_squared().max(1e-9);
        (self.from + along * t.clamp(0.0, 1.0)).distance(point)
    }

    /// Whether the hand can come down at the start.
    pub fn reachable(&self) -> bool {
        self.from.abs().max_element() < HAND_RANGE_M - 0.01
    }
}

/// Builds a scene thing by thing; later things respect the space of earlier ones.
pub(crate) struct Layout {
    pub rng: ChaCha8Rng,
    pub world: World,
    /// Centre and radius of what is taken.
    taken: Vec<(Vec2, f32)>,
    lanes: Vec<Lane>,
}

impl Layout {
    /// An empty table for `scenario`, with the hand at its start pose.
    pub fn new(scenario: &Scenario) -> Self {
        let mut rng = scenario.rng(Purpose::Scene);
        let mut attempt = scenario.rng(Purpose::Attempt);
        let mut offset = |spread: f32| attempt.random_range(-spread..=spread);
        let start = HOME + Vec2::new(offset(START_SPREAD.x), offset(START_SPREAD.y));
        let tint = std::array::from_fn(|_| rng.random_range(-1.0..=1.0));
        let world = World {
            hand: Hand::at(start),
            blocks: Vec::new(),
            zones: Vec::new(),
            buttons: Vec::new(),
            containers: Vec::new(),
            lamp: None,
            tint,
            physics: Physics::new(CONTROL_PERIOD_S),
        };
        Self { rng, world, taken: Vec::new(), lanes: Vec::new() }
    }

    /// A zone of a new colour; returns its index.
    pub fn zone(&mut self) -> usize {
        let colour = self.new_colour(|world, colour| world.zones.iter().any(|zone| zone.colour == colour));
        let centre = self.spot(0.078);
        self.world.zones.push(Zone { colour, centre });
        self.world.zones.len() - 1
    }

    /// A button of a new colour; returns its index.
    pub fn button(&mut self) -> usize {
        let colour = self.new_colour(|world, colour| world.buttons.iter().any(|button| button.colour == colour));
        self.button_of(colour)
    }

    /// A button of this colour; returns its index.
    pub fn button_of(&mut self, colour: Colour) -> usize {
        let centre = self.spot(0.05);
        self.world.buttons.push(Button { colour, centre, down: false });
        self.world.buttons.len() - 1
    }

    /// A block of new looks; returns its index.
    pub fn block(&mut self) -> usize {
        let (colour, shape) = self.new_looks();
        let centre = self.spot(shape.radius_m());
        self.add_block(colour, shape, centre)
    }

    /// A block that is easily confused with `other`: the same colour or the same shape, not both.
    pub fn lookalike(&mut self, other: usize) -> usize {
        let Block { colour, shape, .. } = self.world.blocks[other];
        let mut looks: Vec<_> = Colour::ALL.into_iter().map(|colour| (colour, shape)).collect();
        looks.extend(Shape::ALL.map(|shape| (colour, shape)));
        looks.retain(|&(colour, shape)| self.is_new(colour, shape));
        let (colour, shape) = looks.choose(&mut self.rng).copied().unwrap_or((colour, shape));
        let centre = self.spot(shape.radius_m());
        self.add_block(colour, shape, centre)
    }

    /// A block with a free lane to `zone`; returns its index.
    pub fn block_to_push(&mut self, zone: usize) -> usize {
        let (colour, shape) = self.new_looks();
        let to = self.world.zones[zone].centre;
        let taken = self.taken.clone();
        let others: Vec<_> = taken.into_iter().filter(|&(centre, _)| centre != to).collect();
        let fits = |at: Vec2| {
            let lane = Lane::new(at, to);
            lane.reachable()
                && (0.13..0.32).contains(&at.distance(to))
                && others.iter().all(|&(centre, radius)| lane.distance(centre) > LANE_HALF_M.max(radius + 0.03))
        };
        let centre = self.spot_where(shape.radius_m(), fits);
        self.lanes.push(Lane::new(centre, to));
        self.add_block(colour, shape, centre)
    }

    /// A block at least 12 cm to the left or right of `x_m`; returns its index.
    pub fn block_aside(&mut self, x_m: f32) -> usize {
        let (colour, shape) = self.new_looks();
        let centre = self.spot_where(shape.radius_m(), |at| (at.x - x_m).abs() > 0.12);
        self.add_block(colour, shape, centre)
    }

    /// A closed container; returns its index.
    pub fn container(&mut self) -> usize {
        let centre = self.spot(0.065);
        self.world.containers.push(Container { centre, lid: Lid::Closed });
        self.world.containers.len() - 1
    }

    /// A dark lamp at the far edge.
    pub fn lamp(&mut self) {
        self.world.lamp = Some(Lamp { centre: LAMP_SPOT, light: Light::Dark });
        self.taken.push((LAMP_SPOT, 0.05));
    }

    /// `count` different colours in random order.
    pub fn colours(&mut self, count: usize) -> Vec<Colour> {
        let mut colours = Colour::ALL.to_vec();
        colours.shuffle(&mut self.rng);
        colours.truncate(count);
        colours
    }

    fn add_block(&mut self, colour: Colour, shape: Shape, centre: Vec2) -> usize {
        let angle_rad = self.rng.random_range(-0.4..=0.4);
        self.world.physics.add_block(shape, centre, angle_rad);
        self.world.blocks.push(Block { colour, shape, manner: Manner::Any, spoiled: false });
        self.world.blocks.len() - 1
    }

    fn new_colour(&mut self, used: impl Fn(&World, Colour) -> bool) -> Colour {
        let colours = self.colours(Colour::ALL.len());
        colours.iter().copied().find(|&colour| !used(&self.world, colour)).unwrap_or(colours[0])
    }

    fn new_looks(&mut self) -> (Colour, Shape) {
        let mut looks = Vec::new();
        for colour in Colour::ALL {
            looks.extend(Shape::ALL.map(|shape| (colour, shape)));
        }
        looks.retain(|&(colour, shape)| self.is_new(colour, shape));
        looks.choose(&mut self.rng).copied().unwrap_or((Colour::Red, Shape::Square))
    }

    fn is_new(&self, colour: Colour, shape: Shape) -> bool {
        self.world.blocks.iter().all(|block| (block.colour, block.shape) != (colour, shape))
    }

    fn spot(&mut self, radius_m: f32) -> Vec2 {
        self.spot_where(radius_m, |_| true)
    }

    /// A free place for a thing of `radius_m` that `fits`; on a crowded table the roomiest of those tried.
    fn spot_where(&mut self, radius_m: f32, fits: impl Fn(Vec2) -> bool) -> Vec2 {
        let mut best = (f32::NEG_INFINITY, Vec2::ZERO);
        for _ in 0..TRIES {
            let x = self.rng.random_range(AREA_MIN.x..AREA_MAX.x);
            let at = Vec2::new(x, self.rng.random_range(AREA_MIN.y..AREA_MAX.y));
            let room = self.room(at, radius_m) - if fits(at) { 0.0 } else { 1.0 };
            if room > best.0 {
                best = (room, at);
            }
            if room >= GAP_M {
                break;
            }
        }
        self.taken.push((best.1, radius_m));
        best.1
    }

    /// Distance between a thing at `at` and the nearest other thing or lane.
    fn room(&self, at: Vec2, radius_m: f32) -> f32 {
        let things = self.taken.iter().map(|&(centre, radius)| centre.distance(at) - radius - radius_m);
        let lanes = self.lanes.iter().map(|lane| lane.distance(at) - LANE_HALF_M.max(radius_m + 0.03));
        things.chain(lanes).fold(f32::INFINITY, f32::min)
    }
}
