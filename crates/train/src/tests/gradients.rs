//! The gradient of the whole model against central differences, tensor by tensor.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use robomamba_kernels::{Bf16Products, KernelChoice};
use robomamba_model::{BackboneConfig, ModelConfig, Preset, VisionKind, Weights};
use robomamba_policy::{CameraSpec, FeatureSpec, VectorSpec};

use super::COMPUTE;
use crate::classes::Classes;
use crate::corpus::Knowledge;
use crate::learner::{Learner, Lesson, Pass};
use crate::losses::{LossConfig, Losses};
use crate::modules::policy::PolicyModel;
use crate::objectives::grounding::{self, Pointer};
use crate::objectives::recognition::{self, PicturePoint, Thing};
use crate::objectives::{self, confidence, naming, patches, pointing};
use crate::ops::Compute;
use crate::ops::loss::Target;
use crate::throughput::{random_batch, random_labels, random_target};
use crate::{OptimiserConfig, Parameters, Precision, TrainError};

const CLASSES: Classes = Classes { kinds: 8, colours: 7 };
const KNOWLEDGE: Knowledge = Knowledge { n_environment: 3, n_point: 2, classes: Some(CLASSES) };

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
    let mut loss = LossConfig::default();
    loss.action_beta = 100.0;
    loss.action_quantiles = [("grip".to_string(), 0.7)].into();
    // The weights of the labels are a hundred times as large, so the errors are as small.
    loss.mode_temperature = 0.005;
    objectives::names().for_each(|name| loss.set_weight(name, 1.0).unwrap());
    let heads = loss.weights().heads(&KNOWLEDGE);
    let mut parameters = Parameters::new(config, &Weights::random(config, 3), &heads).unwrap();
    let mut rng = ChaCha8Rng::seed_from_u64(5);
    for value in parameters.list.iter_mut().flat_map(|parameter| &mut parameter.values) {
        *value += rng.random_range(-0.15..0.15);
    }
    Learner::new(PolicyModel::new(config, compute), parameters, &loss, OptimiserConfig::default()).unwrap()
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
        // Twenty episodes, so that several share a thread.
        let lengths = if i == 0 { vec![2; 20] } else { vec![5; 3] };
        check(&config, &lengths);
    }
}

#[test]
fn gradients_do_not_depend_on_the_number_of_threads() {
    let config = Preset::Nano.config(features(1));
    let lesson = lesson(&config, &[2; 20], &mut ChaCha8Rng::seed_from_u64(2));
    for precision in [Precision::F32, Precision::Bf16] {
        let gradients = |threads: usize| {
            let mut learner = learner(&config, Compute { lanes: threads, precision });
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| learner.gradients(lesson.clone()).unwrap().gradients)
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
        let lesson = lesson(&config, &[6; 20], &mut ChaCha8Rng::seed_from_u64(seed));
        let gradients = |precision| {
            let mut learner = learner(&config, Compute { precision, ..COMPUTE });
            let Pass { losses, gradients, .. } = learner.gradients(lesson.clone()).unwrap();
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
            // Rounding to 8 bits accumulates over layers to some percent; cancelled gradients have larger errors.
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
    let mut lesson = lesson(&config, &[2; 20], &mut ChaCha8Rng::seed_from_u64(6));
    let mut learner = learner(&config, COMPUTE);
    learner.parameters.freeze(&["text".into()]).unwrap();
    let before = learner.parameters.clone();
    let homes = |learner: &Learner| -> Vec<_> { learner.parameters.list.iter().map(|p| p.values.as_ptr()).collect() };
    let expected = homes(&learner);
    learner.gradients(lesson.clone()).unwrap();
    assert!(learner.parameters == before);
    assert_eq!(homes(&learner), expected, "values were copied");
    // Training that diverges loses nothing either.
    let target = Target { values: vec![0.0; 40].into(), weights: vec![f32::NAN; 40].into() };
    lesson.labels.terms.set("confidence", confidence::term(target));
    let error = learner.gradients(lesson).map(|_| ()).unwrap_err();
    assert!(matches!(error, TrainError::Diverged { .. }), "{error}");
    assert!(learner.parameters == before);
}

/// Random inputs of episodes of these lengths, with labels for every loss.
fn lesson(config: &ModelConfig, lengths: &[usize], rng: &mut ChaCha8Rng) -> Lesson {
    let rows = lengths.iter().sum();
    let (grid, n_patch, n_camera) = (config.vision.grid(), config.vision.n_patch(), config.features.cameras.len());
    let batch = random_batch(config, lengths, rng);
    let mut labels = random_labels(config, rows, KNOWLEDGE, rng);
    // A quadratic loss of a hundred times the weight is as large as a plain one.
    labels.actions.weights = labels.actions.weights.iter().map(|w| w * 100.0).collect();
    let pointer = |frame: usize| {
        let point = [0.3 + 0.02 * frame as f32, 0.9 - 0.05 * frame as f32];
        let keys = patches::shares(point, grid, (n_camera - 1) * n_patch * (frame % 2));
        Pointer { frame, query: frame % config.connector.n_query, keys }
    };
    let thing = |picture: usize| {
        let at = PicturePoint { picture, point: [0.8 - 0.06 * picture as f32, 0.35] };
        Thing::at(at, grid, [picture % 8, (3 * picture) % 7])
    };
    let terms = &mut labels.terms;
    terms.set("grounding", grounding::term((0..12).map(pointer).collect()).unwrap());
    terms.set("recognition", recognition::term((0..12).map(thing).collect(), CLASSES).unwrap());
    terms.set("pointing", pointing::term(random_target(rows * 2 * KNOWLEDGE.n_point, rng)));
    terms.set("naming", naming::term(random_target(rows * KNOWLEDGE.n_point * CLASSES.colours, rng)));
    Lesson { batch, labels, initial: Vec::new() }
}

fn check(config: &ModelConfig, lengths: &[usize]) {
    let mut rng = ChaCha8Rng::seed_from_u64(9);
    let lesson = lesson(config, lengths, &mut rng);
    let mut learner = learner(config, COMPUTE);
    let gradients = learner.gradients(lesson.clone()).unwrap().gradients;
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
            let losses: Losses = learner.gradients(lesson.clone()).unwrap().losses;
            // All have the same weight, and their sum in f32 is less precise than they are.
            f64::from(losses.action) + losses.objectives().map(|(_, loss)| f64::from(loss)).sum::<f64>()
        };
        let found = (loss_at(1.0) - loss_at(-1.0)) / (2.0 * f64::from(step));
        learner.parameters.list[i].values = original;
        // A loss is about 1, and f32 leaves seven digits of it.
        let tolerance = 0.02 * size + 3e-4;
        assert!((found - expected).abs() < tolerance, "{name}: difference {found}, gradient {expected}, norm {size}");
    }
}
