//! From camera pixels to the patches that the vision encoder projects.
//!
//! The resampling equals Pillow's `Image.resize(..., BILINEAR)` to the bit (`src/libImaging/Resample.c`). It is a
//! triangle filter as wide as the shrinking factor, so it antialiases. The first pass runs along rows, the second along
//! columns. Each computes in fixed point with [`PRECISION_BITS`] bits and rounds to 8 bits.

use crate::{ModelError, VisionConfig};

/// Fractional bits of a filter weight: 32 minus 8 for the pixel and 2 for sign and overshoot.
const PRECISION_BITS: u32 = 32 - 8 - 2;
const CHANNELS: usize = 3;

/// Resizes an RGB image to the encoder's square input, normalises it and cuts it into patches.
///
/// The aspect ratio is not kept, as in `ViTImageProcessor`. Mean and standard deviation are the encoder's. Tables are
/// computed once; [`ImageTransform::apply`] allocates nothing.
#[derive(Clone, Debug)]
pub struct ImageTransform {
    height: usize,
    width: usize,
    image_size: usize,
    patch_size: usize,
    /// Along a row; `None` for images of the encoder's width.
    horizontal: Option<Filter>,
    /// Along a column; `None` for images of the encoder's height.
    vertical: Option<Filter>,
    /// `(v / 255 - mean) / std` of every byte, per channel.
    normalised: [[f32; 256]; CHANNELS],
}

/// Buffers of [`ImageTransform::apply`], made by [`ImageTransform::scratch`].
#[derive(Clone, Debug, Default)]
pub struct ImageScratch {
    /// `[height, image_size, 3]`
    rows: Vec<u8>,
    /// `[image_size, image_size, 3]`
    square: Vec<u8>,
    /// `[image_size, 3]`
    sums: Vec<i32>,
}

impl ImageTransform {
    /// A transform of images of `height` x `width` pixels.
    ///
    /// # Errors
    /// [`ModelError::Config`] when a size is zero or the input is not a multiple of the patch.
    pub fn new(config: &VisionConfig, height: usize, width: usize) -> Result<Self, ModelError> {
        for (field, value) in
            [("camera height", height), ("camera width", width), ("vision.patch_size", config.patch_size)]
        {
            if value == 0 {
                return Err(ModelError::config(field, "at least 1", value));
            }
        }
        if config.image_size == 0 || !config.image_size.is_multiple_of(config.patch_size) {
            let expected = format!("a multiple of vision.patch_size = {}", config.patch_size);
            return Err(ModelError::config("vision.image_size", expected, config.image_size));
        }
        let filter = |size: usize| (size != config.image_size).then(|| Filter::new(size, config.image_size));
        let normalise = |channel: usize, byte: usize| {
            (byte as f32 / 255.0 - config.image_mean[channel]) / config.image_std[channel]
        };
        Ok(Self {
            height,
            width,
            image_size: config.image_size,
            patch_size: config.patch_size,
            horizontal: filter(width),
            vertical: filter(height),
            normalised: std::array::from_fn(|channel| std::array::from_fn(|byte| normalise(channel, byte))),
        })
    }

    /// Buffers for [`ImageTransform::apply`].
    pub fn scratch(&self) -> ImageScratch {
        let size = self.image_size;
        let bytes =
            |filter: &Option<Filter>, n: usize| if filter.is_some() { vec![0; n * CHANNELS] } else { Vec::new() };
        ImageScratch {
            rows: bytes(&self.horizontal, self.height * size),
            square: bytes(&self.vertical, size * size),
            sums: if self.vertical.is_some() { vec![0; size * CHANNELS] } else { Vec::new() },
        }
    }

    /// Values that [`ImageTransform::apply`] writes: `n_patch * 3 * patch_size^2`.
    pub fn patches_len(&self) -> usize {
        self.image_size * self.image_size * CHANNELS
    }

    /// Writes the patches of `rgb`, `[height, width, 3]`, to `patches`, `[n_patch, 3 * patch_size^2]`.
    ///
    /// Patches follow row by row. The order inside a patch is channel, row, column, as in the projection's weight
    /// `[d, 3, patch_size, patch_size]`.
    ///
    /// # Errors
    /// [`ModelError::Buffer`] when the size of a buffer is not that of this transform.
    pub fn apply(&self, rgb: &[u8], scratch: &mut ImageScratch, patches: &mut [f32]) -> Result<(), ModelError> {
        check_len("an RGB image", rgb.len(), self.height * self.width * CHANNELS)?;
        check_len("the patches of an image", patches.len(), self.patches_len())?;
        let square = self.resize(rgb, scratch)?;
        self.cut(square, patches);
        Ok(())
    }

    /// The image at the encoder's size, `[image_size, image_size, 3]`.
    ///
    /// # Errors
    /// [`ModelError::Buffer`] when the size of a buffer is not that of this transform.
    pub fn resize<'a>(&self, rgb: &'a [u8], scratch: &'a mut ImageScratch) -> Result<&'a [u8], ModelError> {
        let row = self.image_size * CHANNELS;
        let rows = match &self.horizontal {
            Some(filter) => {
                check_len("the row buffer of an image scratch", scratch.rows.len(), self.height * row)?;
                filter.along_rows(rgb, self.width, &mut scratch.rows);
                scratch.rows.as_slice()
            }
            None => rgb,
        };
        match &self.vertical {
            Some(filter) => {
                check_len("the square buffer of an image scratch", scratch.square.len(), self.image_size * row)?;
                filter.along_columns(rows, &mut scratch.sums, &mut scratch.square);
                Ok(&scratch.square)
            }
            None => Ok(rows),
        }
    }

    fn cut(&self, square: &[u8], patches: &mut [f32]) {
        let (p, grid) = (self.patch_size, self.image_size / self.patch_size);
        let row_len = self.image_size * CHANNELS;
        for (patch, values) in patches.chunks_exact_mut(CHANNELS * p * p).enumerate() {
            let corner = (patch / grid) * p * row_len + (patch % grid) * p * CHANNELS;
            for row in 0..p {
                let pixels = &square[corner + row * row_len..][..p * CHANNELS];
                for (column, pixel) in pixels.chunks_exact(CHANNELS).enumerate() {
                    for (channel, &byte) in pixel.iter().enumerate() {
                        values[(channel * p + row) * p + column] = self.normalised[channel][usize::from(byte)];
                    }
                }
            }
        }
    }
}

fn check_len(what: &'static str, found: usize, expected: usize) -> Result<(), ModelError> {
    if found == expected { Ok(()) } else { Err(ModelError::Buffer { what, expected, found }) }
}

/// A resampling from one length to another: output `i` is the sum of
/// `weights[i * n_tap + k] * input[starts[i] + k]` over `k < lens[i]`.
#[derive(Clone, Debug)]
struct Filter {
    starts: Vec<usize>,
    lens: Vec<usize>,
    n_tap: usize,
    weights: Vec<i32>,
}

impl Filter {
    /// `precompute_coeffs` and `normalize_coeffs_8bpc` of Pillow with its bilinear filter.
    fn new(input: usize, output: usize) -> Self {
        let scale = input as f64 / output as f64;
        let support = scale.max(1.0);
        let n_tap = support.ceil() as usize * 2 + 1;
        let mut filter = Self { starts: Vec::new(), lens: Vec::new(), n_tap, weights: vec![0; output * n_tap] };
        for (i, weights) in filter.weights.chunks_exact_mut(n_tap).enumerate() {
            let center = (i as f64 + 0.5) * scale;
            let start = (center - support + 0.5).max(0.0) as usize;
            let end = ((center + support + 0.5) as usize).min(input);
            let tap = |x: usize| (1.0 - ((x as f64 - center + 0.5) / support).abs()).max(0.0);
            let sum: f64 = (start..end).map(tap).sum();
            for (weight, x) in weights.iter_mut().zip(start..end) {
                *weight = (tap(x) / sum * f64::from(1 << PRECISION_BITS) + 0.5) as i32;
            }
            filter.starts.push(start);
            filter.lens.push(end - start);
        }
        filter
    }

    fn taps(&self, i: usize) -> (usize, &[i32]) {
        (self.starts[i], &self.weights[i * self.n_tap..][..self.lens[i]])
    }

    /// `source [rows, width, 3]` to `target [rows, output, 3]`.
    fn along_rows(&self, source: &[u8], width: usize, target: &mut [u8]) {
        let output = self.starts.len() * CHANNELS;
        for (source, target) in source.chunks_exact(width * CHANNELS).zip(target.chunks_exact_mut(output)) {
            for (i, pixel) in target.chunks_exact_mut(CHANNELS).enumerate() {
                let (start, weights) = self.taps(i);
                let mut sums = [1 << (PRECISION_BITS - 1); CHANNELS];
                for (input, &weight) in source[start * CHANNELS..].chunks_exact(CHANNELS).zip(weights) {
                    for (sum, &byte) in sums.iter_mut().zip(input) {
                        *sum += i32::from(byte) * weight;
                    }
                }
                for (byte, sum) in pixel.iter_mut().zip(sums) {
                    *byte = to_byte(sum);
                }
            }
        }
    }

    /// `source [height, row]` to `target [output, row]`, with `sums [row]`.
    fn along_columns(&self, source: &[u8], sums: &mut [i32], target: &mut [u8]) {
        let row_len = sums.len();
        for (i, target) in target.chunks_exact_mut(row_len).enumerate() {
            let (start, weights) = self.taps(i);
            sums.fill(1 << (PRECISION_BITS - 1));
            for (row, &weight) in source[start * row_len..].chunks_exact(row_len).zip(weights) {
                for (sum, &byte) in sums.iter_mut().zip(row) {
                    *sum += i32::from(byte) * weight;
                }
            }
            for (byte, &sum) in target.iter_mut().zip(&*sums) {
                *byte = to_byte(sum);
            }
        }
    }
}

fn to_byte(sum: i32) -> u8 {
    (sum >> PRECISION_BITS).clamp(0, 255) as u8
}
