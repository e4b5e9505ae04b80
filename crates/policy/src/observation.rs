//! What a robot sees at one control step.

use std::sync::Arc;

use crate::PolicyError;

/// An RGB image, `u8 [height, width, 3]`, rows from top to bottom, sRGB.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    height: usize,
    width: usize,
    data: Vec<u8>,
}

impl Image {
    /// Number of channels of every image.
    pub const CHANNELS: usize = 3;

    /// Wraps `data`, `[height, width, 3]` row-major.
    ///
    /// # Errors
    /// When `data` does not hold exactly `height * width * 3` bytes.
    pub fn from_rgb(height: usize, width: usize, data: Vec<u8>) -> Result<Self, PolicyError> {
        let expected = height * width * Self::CHANNELS;
        if data.len() != expected {
            return Err(PolicyError::ImageBytes { height, width, expected, found: data.len() });
        }
        Ok(Self { height, width, data })
    }

    /// A black image of the given size.
    pub fn black(height: usize, width: usize) -> Self {
        Self { height, width, data: vec![0; height * width * Self::CHANNELS] }
    }

    /// Rows.
    pub fn height(&self) -> usize {
        self.height
    }

    /// Columns.
    pub fn width(&self) -> usize {
        self.width
    }

    /// The pixels, `[height, width, 3]` row-major.
    pub fn data(&self) -> &[u8] {
        &self.data
    }

    /// The pixels for in-place drawing, `[height, width, 3]` row-major.
    pub fn data_mut(&mut self) -> &mut [u8] {
        &mut self.data
    }
}

/// Everything a policy may look at in one control step.
#[derive(Clone, Debug, PartialEq)]
pub struct Observation {
    /// One image per camera, in the order of [`FeatureSpec::cameras`](crate::FeatureSpec), with its name
    /// (`observation.images.*`).
    pub images: Vec<(Arc<str>, Image)>,
    /// Proprioception, `[state_dim]`, in the units that the robot's [`FeatureSpec`](crate::FeatureSpec) names.
    pub state: Vec<f32>,
    /// The instruction, in words.
    pub instruction: Arc<str>,
    /// Time of the observation on the robot's clock, in nanoseconds.
    pub timestamp_ns: u64,
}

impl Observation {
    /// The image of the camera called `name`, if there is one.
    pub fn image(&self, name: &str) -> Option<&Image> {
        self.images.iter().find(|(camera, _)| &**camera == name).map(|(_, image)| image)
    }
}
