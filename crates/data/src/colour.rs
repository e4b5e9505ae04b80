//! YCbCr pictures become 8-bit RGB, as FFmpeg's `swscale` does it.
//!
//! Glossary (ITU-R BT.601-7, BT.709-6, H.273):
//!
//! - `kr` and `kb` are the weights of red and blue in luma.
//! - Limited range puts luma in `[16, 235]` and chroma in `[16, 240]`; full range puts both in `[0, 255]`.
//! - Chroma is centred at 128.
//!
//! ```text
//! y = (Y - offset) * scale_y          R = y + 2 (1 - kr) cr
//! cb = (Cb - 128) * scale_c           B = y + 2 (1 - kb) cb
//! cr = (Cr - 128) * scale_c           G = (y - kr R - kb B) / (1 - kr - kb)
//! ```
//!
//! A picture without a named matrix is taken as BT.601: that is the default of `swscale`, and so of LeRobot's reader.
//! Subsampled chroma is repeated, not interpolated, as in `swscale`'s unscaled conversion.

/// Weights of red and blue.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Matrix {
    pub(crate) kr: f64,
    pub(crate) kb: f64,
}

impl Matrix {
    pub(crate) const BT601: Self = Self { kr: 0.299, kb: 0.114 };
    pub(crate) const BT709: Self = Self { kr: 0.2126, kb: 0.0722 };
    pub(crate) const BT2020: Self = Self { kr: 0.2627, kb: 0.0593 };
    pub(crate) const SMPTE240: Self = Self { kr: 0.212, kb: 0.087 };
    pub(crate) const FCC: Self = Self { kr: 0.3, kb: 0.11 };
}

/// Which codes the samples use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Range {
    /// Luma 16 to 235, chroma 16 to 240 (at 8 bits).
    Limited,
    /// 0 to 255.
    Full,
}

/// Integer conversion with 16 fractional bits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Converter {
    offset: i32,
    y: i32,
    cr_to_r: i32,
    cb_to_g: i32,
    cr_to_g: i32,
    cb_to_b: i32,
}

const ONE: f64 = 65536.0;

impl Converter {
    pub(crate) fn new(matrix: Matrix, range: Range) -> Self {
        let Matrix { kr, kb } = matrix;
        let (offset, scale_y, scale_c) = match range {
            Range::Limited => (16, 255.0 / 219.0, 255.0 / 224.0),
            Range::Full => (0, 1.0, 1.0),
        };
        let (red, blue, green) = (2.0 * (1.0 - kr), 2.0 * (1.0 - kb), 1.0 - kr - kb);
        let fixed = |value: f64| (value * ONE).round() as i32;
        Self {
            offset,
            y: fixed(scale_y),
            cr_to_r: fixed(red * scale_c),
            cb_to_g: fixed(-kb * blue / green * scale_c),
            cr_to_g: fixed(-kr * red / green * scale_c),
            cb_to_b: fixed(blue * scale_c),
        }
    }

    /// One pixel, all samples scaled to 8 bits.
    #[inline]
    pub(crate) fn rgb(&self, y: u8, cb: u8, cr: u8) -> [u8; 3] {
        let y = (i32::from(y) - self.offset) * self.y + (1 << 15);
        let (cb, cr) = (i32::from(cb) - 128, i32::from(cr) - 128);
        let clip = |value: i32| (value >> 16).clamp(0, 255) as u8;
        [clip(y + self.cr_to_r * cr), clip(y + self.cb_to_g * cb + self.cr_to_g * cr), clip(y + self.cb_to_b * cb)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The forward direction of the glossary, in `f64`.
    fn encode(rgb: [f64; 3], matrix: Matrix, range: Range) -> [u8; 3] {
        let y = matrix.kr * rgb[0] + (1.0 - matrix.kr - matrix.kb) * rgb[1] + matrix.kb * rgb[2];
        let (cb, cr) = ((rgb[2] - y) / (2.0 * (1.0 - matrix.kb)), (rgb[0] - y) / (2.0 * (1.0 - matrix.kr)));
        let (offset, scale_y, scale_c) = match range {
            Range::Limited => (16.0, 219.0 / 255.0, 224.0 / 255.0),
            Range::Full => (0.0, 1.0, 1.0),
        };
        [y * scale_y + offset, cb * scale_c + 128.0, cr * scale_c + 128.0]
            .map(|value| value.round().clamp(0.0, 255.0) as u8)
    }

    #[test]
    fn colours_survive_the_way_there_and_back() {
        let colours = [[0, 0, 0], [255, 255, 255], [255, 0, 0], [0, 255, 0], [0, 0, 255], [200, 40, 40], [12, 99, 180]];
        for matrix in [Matrix::BT601, Matrix::BT709, Matrix::BT2020, Matrix::SMPTE240, Matrix::FCC] {
            for range in [Range::Limited, Range::Full] {
                for rgb in colours {
                    let [y, cb, cr] = encode(rgb.map(f64::from), matrix, range);
                    let back = Converter::new(matrix, range).rgb(y, cb, cr);
                    let error = rgb.iter().zip(back).map(|(a, b)| (a - i32::from(b)).abs()).max().unwrap();
                    assert!(error <= 2, "{rgb:?} -> {back:?} with {matrix:?} {range:?}");
                }
            }
        }
    }
}
