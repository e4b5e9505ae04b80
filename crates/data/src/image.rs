//! Camera frames as PNG.

use std::io::Cursor;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::buffer::Buffer;
use arrow::datatypes::DataType;
use png::{BitDepth, ColorType, Compression, Decoder, Encoder, Transformations};
use robomamba_policy::Image;

use crate::column::Mismatch;
use crate::{DataError, Result};

/// Encodes an image as 8-bit RGB PNG, for speed rather than size; equal pixels give equal bytes.
///
/// # Errors
/// When the image is empty or wider than PNG allows; `place` names it in the message.
pub fn encode_png(image: &Image, place: &str) -> Result<Vec<u8>> {
    let side = |pixels: usize| u32::try_from(pixels).map_err(|error| image_error(place, error));
    let mut bytes = Vec::with_capacity(4096);
    let mut encoder = Encoder::new(&mut bytes, side(image.width())?, side(image.height())?);
    encoder.set_color(ColorType::Rgb);
    encoder.set_depth(BitDepth::Eight);
    encoder.set_compression(Compression::Fast);
    let mut writer = encoder.write_header().map_err(|error| image_error(place, error))?;
    writer.write_image_data(image.data()).map_err(|error| image_error(place, error))?;
    writer.finish().map_err(|error| image_error(place, error))?;
    Ok(bytes)
}

/// Decodes any PNG to RGB: grey is repeated, alpha dropped, 16 bits cut to 8. Checksums are verified.
///
/// # Errors
/// When the bytes are damaged; `place` names the image in the message.
pub fn decode_png(bytes: &[u8], place: &str) -> Result<Image> {
    let mut decoder = Decoder::new(Cursor::new(bytes));
    decoder.ignore_checksums(false);
    decoder.set_transformations(Transformations::normalize_to_color8());
    let mut reader = decoder.read_info().map_err(|error| image_error(place, error))?;
    let size = reader.output_buffer_size().ok_or_else(|| image_error(place, "is too large"))?;
    let mut pixels = vec![0; size];
    let frame = reader.next_frame(&mut pixels).map_err(|error| image_error(place, error))?;
    reader.finish().map_err(|error| image_error(place, error))?;
    pixels.truncate(frame.buffer_size());
    let rgb = match frame.color_type {
        ColorType::Rgb => pixels,
        ColorType::Rgba => pixels.chunks_exact(4).flat_map(|pixel| [pixel[0], pixel[1], pixel[2]]).collect(),
        ColorType::Grayscale => pixels.iter().flat_map(|&grey| [grey; 3]).collect(),
        ColorType::GrayscaleAlpha => pixels.chunks_exact(2).flat_map(|pixel| [pixel[0]; 3]).collect(),
        ColorType::Indexed => return Err(image_error(place, "palette was not expanded")),
    };
    Image::from_rgb(frame.height as usize, frame.width as usize, rgb).map_err(|error| image_error(place, error))
}

fn image_error(place: &str, reason: impl ToString) -> DataError {
    DataError::Image { place: place.into(), reason: reason.to_string() }
}

/// The frames of one camera over an episode, still encoded; the bytes are shared, not copied.
#[derive(Clone, Debug)]
pub struct EncodedFrames {
    bytes: Buffer,
    offsets: Vec<usize>,
}

impl EncodedFrames {
    /// Number of frames.
    pub fn len(&self) -> usize {
        self.offsets.len() - 1
    }

    /// Whether there is no frame.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// PNG bytes of frame `index`.
    ///
    /// # Errors
    /// When there is no such frame.
    pub fn png(&self, index: usize) -> Result<&[u8]> {
        if index >= self.len() {
            return Err(DataError::NoFrame { index, total: self.len() });
        }
        Ok(&self.bytes[self.offsets[index]..self.offsets[index + 1]])
    }

    /// Whether frame `index` is byte for byte the one before, so that its decoded pixels can be used again.
    pub fn repeats_previous(&self, index: usize) -> bool {
        let Some(previous) = index.checked_sub(1) else { return false };
        matches!((self.png(previous), self.png(index)), (Ok(a), Ok(b)) if a == b)
    }

    /// Reads a struct column `{bytes, path}` (Hugging Face's `Image` feature).
    pub(crate) fn from_arrow(array: &ArrayRef) -> Result<Self, Mismatch> {
        let expected = || "a struct {bytes: binary, path: string} with embedded PNG bytes".to_string();
        let DataType::Struct(_) = array.data_type() else {
            return Err(Mismatch { expected: expected(), found: array.data_type().to_string() });
        };
        let Some(bytes) = array.as_struct().column_by_name("bytes") else {
            return Err(Mismatch { expected: expected(), found: array.data_type().to_string() });
        };
        if array.null_count() + bytes.null_count() > 0 {
            return Err(Mismatch { expected: expected(), found: "images without bytes".into() });
        }
        match bytes.data_type() {
            DataType::Binary => {
                let binary = bytes.as_binary::<i32>();
                let offsets = binary.value_offsets().iter().map(|&offset| offset as usize).collect();
                Ok(Self { bytes: binary.values().clone(), offsets })
            }
            DataType::LargeBinary => {
                let binary = bytes.as_binary::<i64>();
                let offsets = binary.value_offsets().iter().map(|&offset| offset as usize).collect();
                Ok(Self { bytes: binary.values().clone(), offsets })
            }
            other => Err(Mismatch { expected: expected(), found: format!("bytes of type {other}") }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(height: usize, width: usize) -> Image {
        let mut state = 1u32;
        let data = (0..height * width * 3)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 24) as u8
            })
            .collect();
        Image::from_rgb(height, width, data).unwrap()
    }

    #[test]
    fn png_is_lossless_for_noise_and_flat_colour() {
        for image in [noise(1, 1), noise(7, 300), noise(96, 96), Image::black(224, 224)] {
            assert_eq!(decode_png(&encode_png(&image, "test").unwrap(), "test").unwrap(), image);
        }
    }

    #[test]
    fn every_flipped_or_missing_byte_is_an_error_or_harmless() {
        let image = noise(5, 9);
        let good = encode_png(&image, "test").unwrap();
        for index in 0..good.len() {
            let mut bad = good.clone();
            bad[index] ^= 0x40;
            if let Ok(decoded) = decode_png(&bad, "top of frame 3") {
                assert_eq!(decoded, image, "byte {index}");
            }
            let cut = decode_png(&good[..index], "top of frame 3").unwrap_err();
            assert!(cut.to_string().starts_with("top of frame 3: "), "{cut}");
        }
    }
}
