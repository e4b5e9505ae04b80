//! Random changes of the images.

use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use robomamba_policy::{CameraSpec, Image};
use serde::{Deserialize, Serialize};

/// Sizes of the random changes, which are the same for all frames of an episode.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AugmentConfig {
    /// Largest relative change of contrast.
    pub contrast: f32,
    /// Largest change of brightness, as a fraction of the full range.
    pub brightness: f32,
    /// Largest relative change of each colour channel.
    pub colour: f32,
    /// Largest shift in pixels, edges repeated.
    pub shift_px: usize,
}

/// The change of an episode's images: `y = x * gain + bias` per channel on values in `[0, 1]`, and a shift.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Look {
    gain: [f32; 3],
    bias: f32,
    /// Rows and columns in pixels.
    shift: (isize, isize),
}

impl Look {
    /// Draws the changes of one episode.
    pub(crate) fn random(augment: &AugmentConfig, rng: &mut ChaCha8Rng) -> Self {
        let mut around = |size: f32| if size > 0.0 { rng.random_range(-size..=size) } else { 0.0 };
        let contrast = 1.0 + around(augment.contrast);
        let gain = [(); 3].map(|()| contrast * (1.0 + around(augment.colour)));
        let bias = around(augment.brightness) + 0.5 * (1.0 - contrast);
        let reach = augment.shift_px as i32;
        let mut shift = || if reach > 0 { rng.random_range(-reach..=reach) } else { 0 };
        Self { gain, bias, shift: (shift() as isize, shift() as isize) }
    }

    /// Where a point of the picture is after the shift.
    pub(crate) fn place(&self, point: [f32; 2], camera: &CameraSpec) -> [f32; 2] {
        [point[0] - self.shift.1 as f32 / camera.width as f32, point[1] - self.shift.0 as f32 / camera.height as f32]
    }

    /// The changed image.
    pub(crate) fn apply(&self, mut image: Image) -> Image {
        if self.gain != [1.0; 3] || self.bias != 0.0 {
            let tables: [[u8; 256]; 3] = self.gain.map(|gain| {
                std::array::from_fn(|byte| (byte as f32 * gain + self.bias * 255.0).round().clamp(0.0, 255.0) as u8)
            });
            for pixel in image.data_mut().chunks_exact_mut(3) {
                pixel.iter_mut().zip(&tables).for_each(|(byte, table)| *byte = table[usize::from(*byte)]);
            }
        }
        if self.shift == (0, 0) { image } else { self.moved(&image) }
    }

    fn moved(&self, image: &Image) -> Image {
        let (height, width) = (image.height(), image.width());
        let mut moved = Image::black(height, width);
        let source = |i: usize, shift: isize, len: usize| i.saturating_add_signed(shift).min(len - 1);
        for (row, pixels) in moved.data_mut().chunks_exact_mut(width * 3).enumerate() {
            let from = source(row, self.shift.0, height) * width;
            for (column, pixel) in pixels.chunks_exact_mut(3).enumerate() {
                pixel.copy_from_slice(&image.data()[(from + source(column, self.shift.1, width)) * 3..][..3]);
            }
        }
        moved
    }
}
