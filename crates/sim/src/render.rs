//! The image: the table from above, drawn in software, anti-aliased so that sub-pixel motion shows.
//!
//! Paths are unit shapes, made once; only transforms and colours change from frame to frame. The background (table,
//! zones, buttons, containers, lamp) rarely changes, so it is cached.

use robomamba_policy::Image;
use tiny_skia::{Color, FillRule, Paint, Path, PathBuilder, Pixmap, Point, Rect, Transform};

use crate::error::SimError;
use crate::geometry::Vec2;
use crate::physics::{PUSHER_RADIUS_M, RIM_M};
use crate::things::{Block, Button, Container, Lamp, Lid, Light, Shape, Zone};
use crate::world::{Hand, World};

/// The image shows this distance from the middle to the nearer edges.
const VIEW_HALF_M: f32 = 0.32;
/// Largest image side in pixels.
const SIDE_MAX: usize = 4096;
/// Foot of the arm, outside the image.
const ARM_BASE: Vec2 = Vec2::new(0.0, -0.42);
/// Length of both arm links.
const ARM_LINK_M: f32 = 0.41;

type Rgb = [u8; 3];
const TABLE: Rgb = [222, 216, 204];
const RIM: Rgb = [146, 134, 118];
const INK: Rgb = [36, 38, 44];
const STEEL: Rgb = [96, 102, 114];
const WHITE: Rgb = [255, 255, 255];
const WOOD: Rgb = [150, 104, 62];
const ALARM: Rgb = [190, 16, 40];
const RELIEF: Rgb = [120, 230, 140];

/// Outlines of radius or half side 1.
#[derive(Clone)]
struct UnitShapes {
    square: Path,
    disc: Path,
    triangle: Path,
    cross: Path,
}

impl UnitShapes {
    /// `None` never happens: the outlines are constant and not empty.
    fn new() -> Option<Self> {
        Some(Self {
            square: PathBuilder::from_rect(Rect::from_ltrb(-1.0, -1.0, 1.0, 1.0)?),
            disc: PathBuilder::from_circle(0.0, 0.0, 1.0)?,
            triangle: polygon(Shape::Triangle)?,
            cross: polygon(Shape::Cross)?,
        })
    }
}

fn polygon(shape: Shape) -> Option<Path> {
    let mut builder = PathBuilder::new();
    for (i, corner) in shape.corners().into_iter().enumerate() {
        let at = corner / shape.radius_m();
        if i == 0 { builder.move_to(at.x, at.y) } else { builder.line_to(at.x, at.y) }
    }
    builder.close();
    builder.finish()
}

/// What the cached background shows.
#[derive(Clone, PartialEq)]
struct BackgroundKey {
    downs: Vec<bool>,
    lids: Vec<Lid>,
    light: Option<Light>,
}

impl BackgroundKey {
    fn matches(&self, world: &World) -> bool {
        self.light == world.lamp.map(|lamp| lamp.light)
            && self.downs.iter().copied().eq(world.buttons.iter().map(|button| button.down))
            && self.lids.iter().copied().eq(world.containers.iter().map(|container| container.lid))
    }

    fn of(world: &World) -> Self {
        Self {
            downs: world.buttons.iter().map(|button| button.down).collect(),
            lids: world.containers.iter().map(|container| container.lid).collect(),
            light: world.lamp.map(|lamp| lamp.light),
        }
    }
}

/// Draws worlds at one size.
#[derive(Clone)]
pub(crate) struct Renderer {
    unit: UnitShapes,
    /// From metres on the table to pixels.
    to_pixels: Transform,
    background: Pixmap,
    frame: Pixmap,
    cached: Option<BackgroundKey>,
}

impl Renderer {
    /// A renderer for images of `height` x `width` pixels.
    ///
    /// # Errors
    /// When a side is 0 or larger than 4096.
    pub fn new(height: usize, width: usize) -> Result<Self, SimError> {
        let wrong_size = || SimError::PictureSize { height, width, max: SIDE_MAX };
        if height.max(width) > SIDE_MAX {
            return Err(wrong_size());
        }
        let (h, w) = (height as u32, width as u32);
        let background = Pixmap::new(w, h).ok_or_else(wrong_size)?;
        let frame = background.clone();
        let unit = UnitShapes::new().ok_or_else(wrong_size)?;
        let scale = height.min(width) as f32 / (2.0 * VIEW_HALF_M);
        let to_pixels = Transform::from_row(scale, 0.0, 0.0, -scale, width as f32 / 2.0, height as f32 / 2.0);
        Ok(Self { unit, to_pixels, background, frame, cached: None })
    }

    /// Forgets the cached background; needed when another scene begins.
    pub fn reset(&mut self) {
        self.cached = None;
    }

    /// Where a place on the table is in the image, as fractions of its width and height from the upper left corner.
    pub fn fractions(&self, at: Vec2) -> [f32; 2] {
        let mut point = Point::from_xy(at.x, at.y);
        self.to_pixels.map_point(&mut point);
        [point.x / self.frame.width() as f32, point.y / self.frame.height() as f32]
    }

    /// Draws `world` into `image`, which must have the renderer's size.
    pub fn draw(&mut self, world: &World, image: &mut Image) {
        self.update_background(world);
        self.frame.data_mut().copy_from_slice(self.background.data());
        let mut canvas = Canvas { unit: &self.unit, pixels: &mut self.frame, to_pixels: self.to_pixels };
        canvas.blocks(world);
        canvas.arm(&world.hand);
        for (rgb, rgba) in image.data_mut().chunks_exact_mut(3).zip(self.frame.data().chunks_exact(4)) {
            rgb.copy_from_slice(&rgba[..3]);
        }
    }

    fn update_background(&mut self, world: &World) {
        if self.cached.as_ref().is_some_and(|key| key.matches(world)) {
            return;
        }
        self.cached = Some(BackgroundKey::of(world));
        let mut canvas = Canvas { unit: &self.unit, pixels: &mut self.background, to_pixels: self.to_pixels };
        canvas.table(world.tint);
        world.zones.iter().for_each(|zone| canvas.zone(zone));
        world.buttons.iter().for_each(|button| canvas.button(button));
        world.containers.iter().for_each(|container| canvas.container(container));
        world.lamp.iter().for_each(|lamp| canvas.lamp(lamp));
    }
}

/// A shape, where and how large it is, in metres and radians.
#[derive(Clone, Copy)]
struct Spot {
    centre: Vec2,
    half: Vec2,
    angle_rad: f32,
}

impl Spot {
    fn round(centre: Vec2, radius: f32) -> Self {
        Self { centre, half: Vec2::splat(radius), angle_rad: 0.0 }
    }

    fn rect(centre: Vec2, half_x: f32, half_y: f32) -> Self {
        Self { centre, half: Vec2::new(half_x, half_y), angle_rad: 0.0 }
    }

    fn turned(self, angle_rad: f32) -> Self {
        Self { angle_rad, ..self }
    }

    /// A bar from `a` to `b`.
    fn bar(a: Vec2, b: Vec2, half_width: f32) -> Self {
        let along = b - a;
        Self::rect((a + b) / 2.0, along.length() / 2.0 + half_width, half_width).turned(along.y.atan2(along.x))
    }

    fn transform(self, to_pixels: Transform) -> Transform {
        let (sin, cos) = self.angle_rad.sin_cos();
        let Vec2 { x: hx, y: hy } = self.half;
        let own = Transform::from_row(cos * hx, sin * hx, -sin * hy, cos * hy, self.centre.x, self.centre.y);
        own.post_concat(to_pixels)
    }
}

/// An image in the making.
struct Canvas<'a> {
    unit: &'a UnitShapes,
    pixels: &'a mut Pixmap,
    to_pixels: Transform,
}

impl Canvas<'_> {
    fn fill(&mut self, path: &Path, spot: Spot, [r, g, b]: Rgb, alpha: u8) {
        let mut paint = Paint::default();
        paint.set_color_rgba8(r, g, b, alpha);
        self.pixels.fill_path(path, &paint, FillRule::Winding, spot.transform(self.to_pixels), None);
    }

    fn disc(&mut self, centre: Vec2, radius: f32, rgb: Rgb) {
        let unit = self.unit;
        self.fill(&unit.disc, Spot::round(centre, radius), rgb, 255);
    }

    fn square(&mut self, spot: Spot, rgb: Rgb) {
        let unit = self.unit;
        self.fill(&unit.square, spot, rgb, 255);
    }

    fn table(&mut self, tint: [f32; 3]) {
        let [r, g, b] = tinted(RIM, tint);
        self.pixels.fill(Color::from_rgba8(r, g, b, 255));
        self.square(Spot::rect(Vec2::ZERO, RIM_M + 0.028, RIM_M + 0.028), tinted(TABLE, tint));
    }

    fn zone(&mut self, zone: &Zone) {
        let colour = zone.colour.rgb();
        self.square(Spot::rect(zone.centre, Zone::HALF_M, Zone::HALF_M), mix(colour, WHITE, 0.1));
        let inner = Zone::HALF_M - 0.009;
        self.square(Spot::rect(zone.centre, inner, inner), mix(colour, WHITE, 0.68));
    }

    fn button(&mut self, button: &Button) {
        let colour = button.colour.rgb();
        let (plate, cap) = if button.down { (WHITE, 0.019) } else { (STEEL, 0.0265) };
        self.square(Spot::rect(button.centre, 0.036, 0.036), INK);
        self.disc(button.centre, 0.0335, plate);
        self.disc(button.centre, cap + 0.004, INK);
        self.disc(button.centre, cap, colour);
    }

    fn container(&mut self, container: &Container) {
        let at = container.centre;
        let half = Container::HALF_M;
        self.square(Spot::rect(at, half, half), mix(WOOD, INK, 0.6));
        let inside = match container.lid {
            Lid::Closed => WOOD,
            Lid::Open => RELIEF,
            Lid::Jammed => ALARM,
        };
        self.square(Spot::rect(at, half - 0.008, half - 0.008), inside);
        match container.lid {
            Lid::Closed => self.square(Spot::rect(at, half - 0.016, 0.005), mix(WOOD, INK, 0.4)),
            Lid::Open => self.disc(at, 0.018, WHITE),
            Lid::Jammed => self.cross(at, 0.026),
        }
    }

    fn cross(&mut self, at: Vec2, reach: f32) {
        for diagonal in [Vec2::ONE, Vec2::new(1.0, -1.0)] {
            self.square(Spot::bar(at - diagonal * reach, at + diagonal * reach, 0.005), INK);
        }
    }

    fn lamp(&mut self, lamp: &Lamp) {
        let at = lamp.centre;
        let (glow, bulb) = match lamp.light {
            Light::Dark => (INK, [74, 76, 82]),
            Light::Lit(colour) => (colour.rgb(), colour.rgb()),
            Light::Go => (WHITE, WHITE),
        };
        self.square(Spot::rect(at, 0.060, 0.036), INK);
        self.square(Spot::rect(at, 0.054, 0.030), mix(glow, INK, 0.35));
        self.disc(at, 0.027, bulb);
    }

    /// Blocks on the table first, so that a carried one is drawn above them.
    fn blocks(&mut self, world: &World) {
        for (i, block) in world.blocks.iter().enumerate() {
            if world.hand.held != Some(i) {
                self.block(block, world.physics.position(i), world.physics.angle_rad(i));
            }
        }
        if let Some(i) = world.hand.held {
            let (at, angle_rad) = (world.physics.position(i), world.physics.angle_rad(i));
            self.shadow(world.blocks[i].shape, at + Vec2::new(0.012, -0.012), angle_rad);
            self.block(&world.blocks[i], at, angle_rad);
        }
    }

    fn block(&mut self, block: &Block, at: Vec2, angle_rad: f32) {
        let (path, radius) = shape_path(self.unit, block.shape);
        let colour = block.colour.rgb();
        let edge = if block.spoiled { INK } else { mix(colour, INK, 0.55) };
        let spot = Spot::round(at, radius).turned(angle_rad);
        self.fill(path, spot, edge, 255);
        let shrink = if block.shape == Shape::Cross { 0.86 } else { 0.8 };
        let inner = Spot::round(at, radius * shrink).turned(angle_rad);
        self.fill(path, inner, if block.spoiled { mix(colour, INK, 0.45) } else { colour }, 255);
        if block.spoiled {
            self.cross(at, 0.018);
        }
    }

    fn shadow(&mut self, shape: Shape, at: Vec2, angle_rad: f32) {
        let (path, radius) = shape_path(self.unit, shape);
        self.fill(path, Spot::round(at, radius).turned(angle_rad), INK, 90);
    }

    /// The slim arm with two links, then the gripper.
    fn arm(&mut self, hand: &Hand) {
        let unit = self.unit;
        let wrist = hand.position + Vec2::new(0.0, -0.030);
        let elbow = elbow(wrist);
        for spot in [Spot::bar(ARM_BASE, elbow, 0.009), Spot::bar(elbow, wrist, 0.007)] {
            self.fill(&unit.square, spot, STEEL, 150);
        }
        self.fill(&unit.disc, Spot::round(elbow, 0.013), INK, 170);
        self.gripper(hand);
    }

    /// Two fingers whose distance shows the opening, on a slim palm. Closed and down it is a dark tip.
    fn gripper(&mut self, hand: &Hand) {
        let unit = self.unit;
        let spread = 0.010 + 0.040 * hand.opening;
        let rgb = if hand.opening <= crate::world::OPENING_GRASP { INK } else { mix(STEEL, INK, 0.5) };
        let palm = hand.position + Vec2::new(0.0, -0.030);
        self.fill(&unit.square, Spot::rect(palm, spread + 0.006, 0.006), rgb, 255);
        for side in [-1.0, 1.0] {
            let finger = hand.position + Vec2::new(side * spread, -0.006);
            self.fill(&unit.square, Spot::rect(finger, 0.006, 0.026), rgb, 255);
        }
        if hand.down {
            self.disc(hand.position, PUSHER_RADIUS_M + 0.004, WHITE);
            self.disc(hand.position, PUSHER_RADIUS_M, INK);
        }
    }
}

fn shape_path(unit: &UnitShapes, shape: Shape) -> (&Path, f32) {
    match shape {
        // The unit square has half side 1, its corners are farther away.
        Shape::Square => (&unit.square, shape.radius_m() * std::f32::consts::FRAC_1_SQRT_2),
        Shape::Disc => (&unit.disc, shape.radius_m()),
        Shape::Triangle => (&unit.triangle, shape.radius_m()),
        Shape::Cross => (&unit.cross, shape.radius_m()),
    }
}

/// Where the elbow is when the arm reaches to `wrist`: inverse kinematics of two equal links, elbow to the right.
fn elbow(wrist: Vec2) -> Vec2 {
    let half = (wrist - ARM_BASE) / 2.0;
    let height = (ARM_LINK_M * ARM_LINK_M - half.length_squared()).max(0.0).sqrt();
    let side = half.normalize_or_zero();
    ARM_BASE + half + Vec2::new(side.y, -side.x) * height
}

/// `share` of `b` in `a`.
fn mix(a: Rgb, b: Rgb, share: f32) -> Rgb {
    std::array::from_fn(|i| (a[i] as f32 * (1.0 - share) + b[i] as f32 * share).round() as u8)
}

fn tinted(rgb: Rgb, tint: [f32; 3]) -> Rgb {
    std::array::from_fn(|i| (rgb[i] as f32 + 5.0 * tint[i]).round() as u8)
}
