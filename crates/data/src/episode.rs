//! One episode in memory: numbers as plain vectors, images still encoded.

use std::sync::Arc;

use robomamba_policy::{Image, Observation};

use crate::column::Column;
use crate::columns::{ACTION, STATE, SUCCESS};
use crate::image::{EncodedFrames, decode_png};
use crate::video::VideoClip;
use crate::{DataError, Result};

/// All frames of one camera over an episode; decoded only when asked for.
#[derive(Clone, Debug)]
pub struct Camera {
    pub(crate) name: Arc<str>,
    pub(crate) episode: usize,
    pub(crate) size: (usize, usize),
    pub(crate) frames: Frames,
}

/// How the frames are stored.
#[derive(Clone, Debug)]
pub(crate) enum Frames {
    Png(EncodedFrames),
    Av1(VideoClip),
}

impl Camera {
    /// Feature name (`observation.images.*`).
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Number of frames.
    pub fn len(&self) -> usize {
        match &self.frames {
            Frames::Png(frames) => frames.len(),
            Frames::Av1(clip) => clip.len(),
        }
    }

    /// Whether there is no frame.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The encoded frames, if the camera is stored as images; None for video.
    pub fn encoded(&self) -> Option<&EncodedFrames> {
        match &self.frames {
            Frames::Png(frames) => Some(frames),
            Frames::Av1(_) => None,
        }
    }

    /// Whether frame `index` is known to be equal to the one before without decoding it; never for video.
    pub fn repeats_previous(&self, index: usize) -> bool {
        self.encoded().is_some_and(|frames| frames.repeats_previous(index))
    }

    /// Decodes frame `index`. For video the decoder starts at the key frame before it; [`Camera::images`] is faster
    /// for many frames.
    ///
    /// # Errors
    /// When there is no such frame, it is damaged, or its size is not the one of `info.json`.
    pub fn decode(&self, index: usize) -> Result<Image> {
        let total = self.len();
        if index >= total {
            return Err(DataError::NoFrame { index, total });
        }
        let image = match &self.frames {
            Frames::Png(frames) => decode_png(frames.png(index)?, &self.place(index))?,
            Frames::Av1(clip) => clip.decode(index).map_err(|reason| self.damaged(index, reason))?,
        };
        self.check_size(image, index)
    }

    /// Decodes all frames in order. After an error the remaining frames of a video may be wrong.
    pub fn images(&self) -> Box<dyn Iterator<Item = Result<Image>> + '_> {
        match &self.frames {
            Frames::Png(_) => Box::new((0..self.len()).map(|index| self.decode(index))),
            Frames::Av1(clip) => Box::new(
                clip.images()
                    .enumerate()
                    .map(|(index, image)| self.check_size(image.map_err(|reason| self.damaged(index, reason))?, index)),
            ),
        }
    }

    /// Decodes all frames in order; None stands for a frame that is equal to the one before.
    pub fn images_or_repeats(&self) -> Box<dyn Iterator<Item = Result<Option<Image>>> + '_> {
        match &self.frames {
            Frames::Png(_) => {
                Box::new(
                    (0..self.len()).map(|index| {
                        if self.repeats_previous(index) { Ok(None) } else { self.decode(index).map(Some) }
                    }),
                )
            }
            Frames::Av1(_) => Box::new(self.images().map(|image| image.map(Some))),
        }
    }

    fn damaged(&self, index: usize, reason: String) -> DataError {
        DataError::Image { place: self.place(index), reason }
    }

    fn check_size(&self, image: Image, index: usize) -> Result<Image> {
        let (height, width) = self.size;
        if (image.height(), image.width()) == (height, width) {
            return Ok(image);
        }
        let reason = format!(
            "must be {height}x{width} (height x width) by meta/info.json, found {}x{}",
            image.height(),
            image.width()
        );
        Err(DataError::Image { place: self.place(index), reason })
    }

    fn place(&self, index: usize) -> String {
        format!("`{}` in frame {index} of episode {}", self.name, self.episode)
    }
}

/// One episode: every feature over its frames.
#[derive(Clone, Debug)]
pub struct Episode {
    pub(crate) index: usize,
    pub(crate) fps: u32,
    pub(crate) tasks: Vec<Arc<str>>,
    pub(crate) columns: Vec<(Arc<str>, Column)>,
    pub(crate) cameras: Vec<Camera>,
}

impl Episode {
    /// Its number in the data set.
    pub fn index(&self) -> usize {
        self.index
    }

    /// Number of frames.
    pub fn len(&self) -> usize {
        self.tasks.len()
    }

    /// Whether there is no frame.
    pub fn is_empty(&self) -> bool {
        self.tasks.is_empty()
    }

    /// Instruction of every frame.
    pub fn tasks(&self) -> &[Arc<str>] {
        &self.tasks
    }

    /// Names of all features except cameras.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.columns.iter().map(|(name, _)| &**name)
    }

    /// Cameras in the order of the data set's features.
    pub fn cameras(&self) -> &[Camera] {
        &self.cameras
    }

    /// The camera called `name`.
    ///
    /// # Errors
    /// When there is none.
    pub fn camera(&self, name: &str) -> Result<&Camera> {
        self.cameras.iter().find(|camera| &*camera.name == name).ok_or_else(|| {
            let names: Vec<_> = self.cameras.iter().map(|camera| format!("`{}`", camera.name)).collect();
            self.no_feature(name, "a camera", format!("the cameras are [{}]", names.join(", ")))
        })
    }

    /// A feature that is not a camera.
    ///
    /// # Errors
    /// When there is none of that name.
    pub fn column(&self, name: &str) -> Result<&Column> {
        self.columns.iter().find(|(key, _)| &**key == name).map(|(_, column)| column).ok_or_else(|| {
            let names: Vec<_> = self.names().map(|name| format!("`{name}`")).collect();
            self.no_feature(name, "a feature other than a camera", format!("there are {}", names.join(", ")))
        })
    }

    /// A `float32` feature, `[frames, dim]`.
    ///
    /// # Errors
    /// When there is none of that name and type.
    pub fn f32(&self, name: &str) -> Result<&[f32]> {
        self.column(name)?.as_f32().ok_or_else(|| self.wrong_type(name, "float32"))
    }

    /// A `bool` feature, `[frames, dim]`.
    ///
    /// # Errors
    /// When there is none of that name and type.
    pub fn bool(&self, name: &str) -> Result<&[bool]> {
        self.column(name)?.as_bool().ok_or_else(|| self.wrong_type(name, "bool"))
    }

    /// `observation.state`, `[frames, state_dim]`.
    ///
    /// # Errors
    /// When the data set has none of type `float32`.
    pub fn state(&self) -> Result<&[f32]> {
        self.f32(STATE)
    }

    /// `action`, `[frames, action_dim]`.
    ///
    /// # Errors
    /// When the data set has none of type `float32`.
    pub fn action(&self) -> Result<&[f32]> {
        self.f32(ACTION)
    }

    /// Whether any frame's `next.success` is true; None when the data set does not record it.
    pub fn success(&self) -> Option<bool> {
        self.bool(SUCCESS).ok().map(|flags| flags.contains(&true))
    }

    /// Frame `index` as a policy would have seen it, with images decoded and the time counted from the episode's start.
    ///
    /// # Errors
    /// When there is no such frame, no `float32` state, or an image is damaged.
    pub fn observation(&self, index: usize) -> Result<Observation> {
        let instruction = self.tasks.get(index).ok_or(DataError::NoFrame { index, total: self.len() })?.clone();
        let decode = |camera: &Camera| Ok((camera.name.clone(), camera.decode(index)?));
        let dim = self.column(STATE)?.dim();
        Ok(Observation {
            images: self.cameras.iter().map(decode).collect::<Result<_>>()?,
            state: self.state()?[index * dim..(index + 1) * dim].to_vec(),
            instruction,
            timestamp_ns: index as u64 * 1_000_000_000 / u64::from(self.fps),
        })
    }

    fn wrong_type(&self, name: &str, expected: &str) -> DataError {
        self.no_feature(name, expected, "it has another type".into())
    }

    fn no_feature(&self, name: &str, expected: &str, found: String) -> DataError {
        DataError::Feature { feature: name.into(), expected: expected.into(), found }
    }
}
