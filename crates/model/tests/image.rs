//! The image transform against Pillow, and its layout.

mod common;

use robomamba_model::{ImageTransform, ModelError, VisionConfig};
use safetensors::SafeTensors;

fn vision(image_size: usize, patch_size: usize) -> VisionConfig {
    VisionConfig { image_size, patch_size, image_mean: [0.0; 3], image_std: [1.0 / 255.0; 3], ..common::nano().vision }
}

#[test]
fn resizes_as_pillow_does_to_the_bit() {
    let golden =
        std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden/images/resize.safetensors")).unwrap();
    let golden = SafeTensors::deserialize(&golden).unwrap();
    assert_eq!(golden.len(), 16);
    for case in 0..golden.len() / 2 {
        let input = golden.tensor(&format!("input.{case}")).unwrap();
        let output = golden.tensor(&format!("output.{case}")).unwrap();
        let side = output.shape()[0];
        let transform = ImageTransform::new(&vision(side, side), input.shape()[0], input.shape()[1]).unwrap();
        let mut scratch = transform.scratch();
        let resized = transform.resize(input.data(), &mut scratch).unwrap();
        assert!(resized == output.data(), "case {case}: {:?} to {side}", input.shape());
    }
}

#[test]
fn patches_are_channel_row_column_within_patch_row_and_patch_column() {
    let (side, p) = (6, 2);
    let transform = ImageTransform::new(&vision(side, p), side, side).unwrap();
    let rgb: Vec<u8> = (0..side * side * 3).map(|i| i as u8).collect();
    let mut patches = vec![0.0; transform.patches_len()];
    transform.apply(&rgb, &mut transform.scratch(), &mut patches).unwrap();
    let grid = side / p;
    for (i, &value) in patches.iter().enumerate() {
        let (patch, channel, row, column) = (i / 12, i / 4 % 3, i / 2 % 2, i % 2);
        let (y, x) = (patch / grid * p + row, patch % grid * p + column);
        let expected = f32::from(rgb[(y * side + x) * 3 + channel]);
        assert!((value - expected).abs() < 1e-3, "patch {patch} channel {channel} row {row} column {column}");
    }
}

#[test]
fn normalises_each_channel_with_its_own_mean_and_deviation() {
    let config = VisionConfig { image_mean: [0.5, 0.25, 0.0], image_std: [0.5, 0.25, 2.0], ..vision(2, 2) };
    let transform = ImageTransform::new(&config, 2, 2).unwrap();
    let mut patches = vec![0.0; 12];
    transform.apply(&[255; 12], &mut transform.scratch(), &mut patches).unwrap();
    assert_eq!(patches, [1.0, 1.0, 1.0, 1.0, 3.0, 3.0, 3.0, 3.0, 0.5, 0.5, 0.5, 0.5]);
}

#[test]
fn wrong_sizes_are_errors_that_name_them() {
    let transform = ImageTransform::new(&vision(8, 4), 10, 12).unwrap();
    let (mut scratch, mut patches) = (transform.scratch(), vec![0.0; transform.patches_len()]);
    let error = transform.apply(&[0; 10 * 12 * 4], &mut scratch, &mut patches).unwrap_err();
    assert_eq!(
        error.to_string(),
        "an RGB image must have 360 values, found 480; make the buffers with the transform's own sizes"
    );
    let rgb = [0; 10 * 12 * 3];
    assert!(matches!(
        transform.apply(&rgb, &mut scratch, &mut patches[1..]),
        Err(ModelError::Buffer { found: 191, .. })
    ));
    assert!(matches!(transform.apply(&rgb, &mut Default::default(), &mut patches), Err(ModelError::Buffer { .. })));
    for (config, height, field) in [
        (vision(8, 4), 0, "camera height"),
        (vision(8, 3), 8, "vision.image_size"),
        (vision(8, 0), 8, "vision.patch_size"),
        (vision(0, 4), 8, "vision.image_size"),
    ] {
        let error = ImageTransform::new(&config, height, 8).unwrap_err();
        assert!(matches!(&error, ModelError::Config { field: found, .. } if found == field), "{error}");
    }
}
