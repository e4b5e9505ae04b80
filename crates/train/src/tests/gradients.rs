//! The gradient of the whole model against central differences, tensor by tensor.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use robomamba_kernels::{Bf16Products, KernelChoice};
use robomamba_model::{BackboneConfig, ModelConfig, Preset, VisionKind, Weights};
use robomamba_policy::{CameraSpec, FeatureSpec, VectorSpec};

use super::COMPUTE;
use crate::learner::{Labels, Learner, LossConfig, Losses};
use crate::modules::{Batch, Frames, PolicyModel};
use crate::ops::Compute;
use crate::ops::grounding::Pointer;
use crate::ops::recognition::Thing;
use crate::throughput::random_batch;
use crate::{OptimiserConfig, Parameters, Precision, TrainError, TrainingHeads};

const HEADS: TrainingHeads = TrainingHeads { n_auxiliary: 3, recognition: true, n_pointing: 4, n_naming: 16 };

pub(super) fn features(n_camera: usize) -> FeatureSpec {
    let camera = |i| CameraSpec { name: format!("observation.images.camera{i}"), height: 32, width: 32 };
    FeatureSpec {
        cameras: (0..n_camera).map(camera).collect(),
        state: VectorSpec::new(["x_m", "y_m", "gripper_opening"]),
        action: VectorSpec::new(["dx", "dy", "grip"]),
        fps: 20,
    }
}

/// A small model whose parameters are all away from their special initial values, so that every one matters.
fn learner(config: &ModelConfig, compute: Compute) -> Learner {
    let mut parameters = Parameters::new(config, &Weights::random(config, 3), HEADS).unwrap();
    let mut rng = ChaCha8Rng::seed_from_u64(5);
    for value in parameters.list.iter_mut().flat_map(|parameter| &mut parameter.values) {
        *value += rng.random_range(-0.15..0.15);
    }
    let loss = LossConfig {
        action_beta: 100.0,
        action_quantiles: [("grip".to_string(), 0.7)].into(),
        // The weights below are a hundred times as large, so the errors are as small.
        mode_temperature: 0.005,
        confidence: 1.0,
        auxiliary: 1.0,
        grounding: 1.0,
        recognition: 1.0,
        pointing: 1.0,
        naming: 1.0,
    };
    Learner::new(PolicyModel::new(config, HEADS, compute), parameters, loss, OptimiserConfig::default()).unwrap()
}

#[test]
fn every_gradient_agrees_with_central_differences() {
    let kinds = [VisionKind::Vit, VisionKind::Clip, VisionKind::Siglip, VisionKind::Dinov2];
    for (i, kind) in kinds.into_iter().enumerate() {
        let mut config = Preset::Nano.config(features(1 + i % 2));
        config.vision.kind = kind;
        config.action_head.n_mode = 1 + i;
        if i == 3 {
            config.backbone = BackboneConfig::Transformer(config.backbone.to_transformer(64));
        }
        // So many episodes that several share a thread.
        let size = if i == 0 { (20, 2) } else { (3, 5) };
        check(&config, size);
    }
}

#[test]
fn gradients_do_not_depend_on_the_number_of_threads() {
    let config = Preset::Nano.config(features(1));
    let (batch, labels) = inputs(&config, (20, 2), &mut ChaCha8Rng::seed_from_u64(2));
    for precision in [Precision::F32, Precision::Bf16] {
        let gradients = |threads: usize| {
            let mut learner = learner(&config, Compute { lanes: threads, precision });
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| learner.gradients(batch.clone(), &labels, &[]).unwrap().1)
        };
        let alone = gradients(1);
        assert!(alone == gradients(2), "{precision:?}");
        assert!(alone == gradients(5), "{precision:?}");
    }
}

#[test]
fn gradients_in_bf16_are_those_in_f32_but_for_rounding() {
    for (seed, is_transformer) in [(4, false), (5, true)] {
        let mut config = Preset::Nano.config(features(2));
        if is_transformer {
            config.backbone = BackboneConfig::Transformer(config.backbone.to_transformer(64));
        }
        let (batch, labels) = inputs(&config, (20, 6), &mut ChaCha8Rng::seed_from_u64(seed));
        let gradients = |precision| {
            let mut learner = learner(&config, Compute { precision, ..COMPUTE });
            let (losses, gradients, _) = learner.gradients(batch.clone(), &labels, &[]).unwrap();
            let names = learner.parameters.list.into_iter().map(|parameter| parameter.spec.name);
            (losses, names.zip(gradients).collect::<Vec<_>>())
        };
        let ((exact, expected), (rounded, found)) = (gradients(Precision::F32), gradients(Precision::Bf16));
        assert!((exact.total - rounded.total).abs() < 0.01 * exact.total, "{} and {}", exact.total, rounded.total);
        let norm = |values: &[f32]| values.iter().map(|x| f64::from(x * x)).sum::<f64>().sqrt();
        let largest = expected.iter().map(|(_, values)| norm(values)).fold(0.0, f64::max);
        let mut differing = 0;
        for ((name, expected), (_, found)) in expected.iter().zip(&found) {
            let difference: Vec<f32> = expected.iter().zip(found).map(|(a, b)| a - b).collect();
            // Values have 8 bits, so errors of some hundredths where many layers lie between; what cancels out has larger ones.
            let (error, size) = (norm(&difference), norm(expected));
            assert!(error < 0.06 * size + 1e-3 * largest, "{name}: error {error} of {size}");
            differing += usize::from(error > 0.0);
        }
        match KernelChoice::current().bf16 {
            Bf16Products::Native => {
                assert!(differing * 10 > 9 * found.len(), "{differing} of {} gradients differ from f32", found.len());
            }
            Bf16Products::AsF32 => assert_eq!(differing, 0, "where bf16 is slow, training computes in f32"),
        }
    }
}

#[test]
fn lent_values_come_back_where_they_were() {
    let config = Preset::Nano.config(features(1));
    let (batch, mut labels) = inputs(&config, (20, 2), &mut ChaCha8Rng::seed_from_u64(6));
    let mut learner = learner(&config, COMPUTE);
    learner.parameters.freeze(&["text".into()]).unwrap();
    let before = learner.parameters.clone();
    let homes = |learner: &Learner| -> Vec<_> { learner.parameters.list.iter().map(|p| p.values.as_ptr()).collect() };
    let expected = homes(&learner);
    learner.gradients(batch.clone(), &labels, &[]).unwrap();
    assert!(learner.parameters == before);
    assert_eq!(homes(&learner), expected, "values were copied");
    // Training that diverges loses nothing either.
    labels.confidence.weights = vec![f32::NAN; 40].into();
    let error = learner.gradients(batch, &labels, &[]).unwrap_err();
    assert!(matches!(error, TrainError::Diverged { .. }), "{error}");
    assert!(learner.parameters == before);
}

/// Random inputs and labels for every loss.
fn inputs(config: &ModelConfig, size: (usize, usize), rng: &mut ChaCha8Rng) -> (Batch, Labels) {
    let (mut batch, mut labels) = random_batch(config, size, HEADS, rng);
    let grid = config.vision.grid();
    let last_camera = (config.features.cameras.len() - 1) * config.vision.n_patch();
    let pointer = |frame: usize| {
        let point = [0.3 + 0.02 * frame as f32, 0.9 - 0.05 * frame as f32];
        Pointer::at(frame, frame % config.connector.n_query, point, grid, last_camera * (frame % 2))
    };
    let Frames::Pictures(pictures) = &mut batch.frames else { panic!("the batch is of pictures") };
    pictures.pointers = (0..12).map(pointer).collect();
    let thing = |image: usize| Thing::at(image, [0.8 - 0.06 * image as f32, 0.35], grid, [image % 8, (3 * image) % 8]);
    pictures.things = (0..12).map(thing).collect();
    // A quadratic loss of a hundred times the weight is as large as a plain one.
    labels.actions.weights = labels.actions.weights.iter().map(|w| w * 100.0).collect();
    (batch, labels)
}

fn check(config: &ModelConfig, size: (usize, usize)) {
    let mut rng = ChaCha8Rng::seed_from_u64(9);
    let (batch, labels) = inputs(config, size, &mut rng);
    let mut learner = learner(config, COMPUTE);
    let (_, gradients, _) = learner.gradients(batch.clone(), &labels, &[]).unwrap();
    for (i, gradient) in gradients.iter().enumerate() {
        let name = learner.parameters.list[i].spec.name.clone();
        let direction: Vec<f32> = gradient.iter().map(|_| rng.random_range(-1.0..1.0)).collect();
        let expected: f64 = gradient.iter().zip(&direction).map(|(g, d)| f64::from(g * d)).sum();
        let size = gradient.iter().map(|g| f64::from(g * g)).sum::<f64>().sqrt();
        let original = learner.parameters.list[i].values.clone();
        let step = 2e-3;
        let mut loss_at = |sign: f32| {
            let moved = original.iter().zip(&direction).map(|(value, d)| value + sign * step * d);
            learner.parameters.list[i].values = moved.collect();
            let (losses, _, _) = learner.gradients(batch.clone(), &labels, &[]).unwrap();
            let Losses { action, confidence, auxiliary, grounding, recognition, pointing, naming, .. } = losses;
            // All weigh the same, and their sum in f32 would be coarser than they are.
            [action, confidence, auxiliary, grounding, recognition, pointing, naming].map(f64::from).iter().sum::<f64>()
        };
        let found = (loss_at(1.0) - loss_at(-1.0)) / (2.0 * f64::from(step));
        learner.parameters.list[i].values = original;
        // A loss is about 1, and f32 leaves seven digits of it.
        let tolerance = 0.02 * size + 3e-4;
        assert!((found - expected).abs() < tolerance, "{name}: difference {found}, gradient {expected}, norm {size}");
    }
}
