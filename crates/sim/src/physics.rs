//! Rigid bodies on the table: rapier2d without gravity, the friction of the table as damping.

use rapier2d::prelude::*;

use crate::geometry::Vec2;
use crate::things::{CROSS_LONG_M, CROSS_SHORT_M, Shape};

/// Physics steps per control step.
const SUBSTEPS: usize = 4;
/// Radius of the closed fingers at table level.
pub(crate) const PUSHER_RADIUS_M: f32 = 0.014;
/// Blocks stay within this distance of the middle, in x and y: the rim of the table, which the hand reaches over.
pub(crate) const RIM_M: f32 = 0.27;
/// Friction of the table: a pushed block coasts about `v / TABLE_DAMPING`.
const TABLE_DAMPING: f32 = 30.0;
/// Below this speed (m/s, and rad/s times ten) static friction holds a block.
const STATIC_SPEED: f32 = 2e-3;

/// Handles of one block.
#[derive(Clone, Copy)]
struct BlockBody {
    body: RigidBodyHandle,
    collider: ColliderHandle,
}

/// All rigid bodies. A clone continues exactly as the original: what is not cloned is only workspace.
pub(crate) struct Physics {
    parameters: IntegrationParameters,
    islands: IslandManager,
    broad_phase: BroadPhaseBvh,
    narrow_phase: NarrowPhase,
    bodies: RigidBodySet,
    colliders: ColliderSet,
    impulse_joints: ImpulseJointSet,
    multibody_joints: MultibodyJointSet,
    soft_bodies: SoftBodySet,
    pipeline: PhysicsPipeline,
    ccd_solver: CCDSolver,
    pusher: RigidBodyHandle,
    pusher_collider: ColliderHandle,
    pusher_down: bool,
    blocks: Vec<BlockBody>,
    /// Whether any block moved in the last step; a still table needs no physics.
    moving: bool,
}

impl Clone for Physics {
    fn clone(&self) -> Self {
        Self {
            parameters: self.parameters,
            islands: self.islands.clone(),
            broad_phase: self.broad_phase.clone(),
            narrow_phase: self.narrow_phase.clone(),
            bodies: self.bodies.clone(),
            colliders: self.colliders.clone(),
            impulse_joints: self.impulse_joints.clone(),
            multibody_joints: self.multibody_joints.clone(),
            soft_bodies: self.soft_bodies.clone(),
            pipeline: PhysicsPipeline::new(),
            ccd_solver: CCDSolver::new(),
            pusher: self.pusher,
            pusher_collider: self.pusher_collider,
            pusher_down: self.pusher_down,
            blocks: self.blocks.clone(),
            moving: self.moving,
        }
    }
}

impl Physics {
    /// An empty table with its rim and the raised pusher.
    pub fn new(control_period_s: f32) -> Self {
        let mut bodies = RigidBodySet::new();
        let mut colliders = ColliderSet::new();
        for normal in [Vec2::X, Vec2::NEG_X, Vec2::Y, Vec2::NEG_Y] {
            let half = if normal.x != 0.0 { Vec2::new(0.05, 1.0) } else { Vec2::new(1.0, 0.05) };
            let wall = ColliderBuilder::cuboid(half.x, half.y).translation(normal * (RIM_M + 0.05)).friction(0.1);
            colliders.insert(wall);
        }
        let pusher = bodies.insert(RigidBodyBuilder::kinematic_position_based());
        let finger = ColliderBuilder::ball(PUSHER_RADIUS_M).friction(0.6).enabled(false);
        let pusher_collider = colliders.insert_with_parent(finger, pusher, &mut bodies);
        let parameters = IntegrationParameters {
            dt: control_period_s / SUBSTEPS as f32,
            length_unit: 0.05,
            ..IntegrationParameters::default()
        };
        Self {
            parameters,
            islands: IslandManager::new(),
            broad_phase: BroadPhaseBvh::default(),
            narrow_phase: NarrowPhase::new(),
            bodies,
            colliders,
            impulse_joints: ImpulseJointSet::new(),
            multibody_joints: MultibodyJointSet::new(),
            soft_bodies: SoftBodySet::new(),
            pipeline: PhysicsPipeline::new(),
            ccd_solver: CCDSolver::new(),
            pusher,
            pusher_collider,
            pusher_down: false,
            blocks: Vec::new(),
            moving: false,
        }
    }

    /// Puts a block of `shape` on the table and returns its index.
    pub fn add_block(&mut self, shape: Shape, position: Vec2, angle_rad: f32) -> usize {
        let body = RigidBodyBuilder::dynamic()
            .translation(position)
            .rotation(angle_rad)
            .linear_damping(TABLE_DAMPING)
            .angular_damping(TABLE_DAMPING);
        let collider = outline(shape).friction(0.4);
        let body = self.bodies.insert(body);
        let collider = self.colliders.insert_with_parent(collider, body, &mut self.bodies);
        self.blocks.push(BlockBody { body, collider });
        self.blocks.len() - 1
    }

    /// Centre of a block.
    pub fn position(&self, block: usize) -> Vec2 {
        self.bodies[self.blocks[block].body].translation()
    }

    /// Orientation of a block in radians.
    pub fn angle_rad(&self, block: usize) -> f32 {
        self.bodies[self.blocks[block].body].rotation().angle()
    }

    /// Speed of a block's centre in m/s.
    pub fn speed_m_s(&self, block: usize) -> f32 {
        self.bodies[self.blocks[block].body].linvel().length()
    }

    /// Takes a block off the table: it collides with nothing until it is put down.
    pub fn lift(&mut self, block: usize) {
        let BlockBody { body, collider } = self.blocks[block];
        self.colliders[collider].set_enabled(false);
        self.stop(body);
    }

    /// Moves a lifted block.
    pub fn carry(&mut self, block: usize, position: Vec2) {
        self.bodies[self.blocks[block].body].set_translation(position, true);
    }

    /// Puts a lifted block back on the table, at rest.
    pub fn put_down(&mut self, block: usize) {
        let BlockBody { body, collider } = self.blocks[block];
        self.colliders[collider].set_enabled(true);
        self.stop(body);
        self.moving = true;
    }

    /// Moves the hand from `from` to `to` during one control step; at table level it pushes what is in its way.
    pub fn step(&mut self, from: Vec2, to: Vec2, pusher_down: bool) {
        self.set_pusher(from, pusher_down);
        if !pusher_down && !self.moving {
            return;
        }
        for substep in 1..=SUBSTEPS {
            let at = from.lerp(to, substep as f32 / SUBSTEPS as f32);
            self.bodies[self.pusher].set_next_kinematic_translation(at);
            self.substep();
        }
        self.settle();
    }

    fn substep(&mut self) {
        self.pipeline.step(
            Vec2::ZERO,
            &self.parameters,
            &mut self.islands,
            &mut self.broad_phase,
            &mut self.narrow_phase,
            &mut self.bodies,
            &mut self.colliders,
            &mut self.impulse_joints,
            &mut self.multibody_joints,
            &mut self.soft_bodies,
            &mut self.ccd_solver,
            &(),
            &(),
        );
    }

    fn set_pusher(&mut self, at: Vec2, down: bool) {
        if down != self.pusher_down {
            self.bodies[self.pusher].set_translation(at, true);
            self.colliders[self.pusher_collider].set_enabled(down);
            self.pusher_down = down;
        }
    }

    /// Static friction: blocks that hardly move stand still.
    fn settle(&mut self) {
        self.moving = false;
        for i in 0..self.blocks.len() {
            let handle = self.blocks[i].body;
            let body = &self.bodies[handle];
            if body.linvel().length() > STATIC_SPEED || body.angvel().abs() > 10.0 * STATIC_SPEED {
                self.moving = true;
            } else if body.linvel() != Vec2::ZERO || body.angvel() != 0.0 {
                self.stop(handle);
            }
        }
    }

    fn stop(&mut self, body: RigidBodyHandle) {
        let body = &mut self.bodies[body];
        body.set_linvel(Vec2::ZERO, false);
        body.set_angvel(0.0, false);
    }
}

/// The collision shape of a block, which is the one that is drawn.
fn outline(shape: Shape) -> ColliderBuilder {
    let bar = |x: f32, y: f32| (Pose::IDENTITY, SharedShape::cuboid(x, y));
    match shape {
        Shape::Cross => {
            ColliderBuilder::compound(vec![bar(CROSS_LONG_M, CROSS_SHORT_M), bar(CROSS_SHORT_M, CROSS_LONG_M)])
        }
        Shape::Square | Shape::Triangle => {
            let disc = || ColliderBuilder::ball(shape.radius_m());
            ColliderBuilder::convex_hull(&shape.corners()).unwrap_or_else(disc)
        }
        Shape::Disc => ColliderBuilder::ball(shape.radius_m()),
    }
}
