//! Images as PNG, and bytes as text inside HTML and JSON.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use robomamba_policy::Image;

use crate::EvalError;

/// Encodes `image` as PNG, 8-bit RGB.
///
/// # Errors
/// When it has no pixels.
pub(crate) fn encode_png(image: &Image) -> Result<Vec<u8>, EvalError> {
    let (height, width) = (image.height(), image.width());
    let encode = || -> Result<Vec<u8>, png::EncodingError> {
        let mut bytes = Vec::new();
        let mut encoder = png::Encoder::new(&mut bytes, width as u32, height as u32);
        encoder.set_color(png::ColorType::Rgb);
        encoder.write_header()?.write_image_data(image.data())?;
        Ok(bytes)
    };
    encode().map_err(|source| EvalError::Png { height, width, source })
}

/// Base64 with padding (RFC 4648, section 4).
pub(crate) fn base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}
