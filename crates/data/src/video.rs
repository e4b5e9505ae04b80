//! Cameras of dtype `video`: AV1 in MP4, decoded in pure Rust (`re_mp4` and `rav1d`).
//!
//! One file holds the frames of many episodes one after the other. An episode keeps only its own compressed samples,
//! beginning at the key frame before its first frame.

use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use re_mp4::{Mp4, StsdBoxContent, TrackKind};
use re_rav1d::dav1d::pixel::{MatrixCoefficients, YUVRange};
use re_rav1d::dav1d::{Decoder, Error as Av1Error, Picture, PixelLayout, PlanarImageComponent, Settings};
use robomamba_policy::Image;

use crate::atomic::missing_or_unreadable;
use crate::colour::{Converter, Matrix, Range};
use crate::{DataError, Result};

/// How far a frame may be from the asked time, in seconds (upstream: `tolerance_s`).
const TOLERANCE_S: f64 = 1e-4;

/// Where the samples of a video file are.
#[derive(Clone, Debug)]
pub(crate) struct VideoFile {
    path: PathBuf,
    /// Sequence header, which a decoder needs before the first sample.
    header: Arc<[u8]>,
    /// In the order of time.
    samples: Vec<Sample>,
}

#[derive(Clone, Copy, Debug)]
struct Sample {
    offset: u64,
    size: usize,
    seconds: f64,
    is_key: bool,
}

impl VideoFile {
    /// Reads the index of an MP4 file with one AV1 track.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let invalid = |expected: &str, found: String| DataError::invalid(path, expected, found);
        let file = File::open(path).map_err(missing_or_unreadable(path, "frames of a camera"))?;
        let size = file.metadata().map_err(DataError::read(path))?.len();
        let mp4 = Mp4::read(BufReader::new(file), size).map_err(|error| invalid("an MP4 file", error.to_string()))?;
        let track = mp4.tracks().values().find(|track| track.kind == Some(TrackKind::Video));
        let track = track.ok_or_else(|| invalid("a video track", format!("{} other tracks", mp4.tracks().len())))?;
        let StsdBoxContent::Av01(codec) = &track.trak(&mp4).mdia.minf.stbl.stsd.contents else {
            let found = track.codec_string(&mp4).unwrap_or_else(|| "another codec".into());
            return Err(invalid("AV1 video (re-encode it, or store the camera as images)", found));
        };
        // Four bytes of flags precede the header in an `av1C` box.
        let header = codec.av1c.raw.get(4..).unwrap_or_default().into();
        let samples = track.samples.iter().map(|sample| Sample {
            offset: sample.offset,
            size: sample.size as usize,
            seconds: sample.composition_timestamp as f64 / sample.timescale.max(1) as f64,
            is_key: sample.is_sync,
        });
        let samples: Vec<_> = samples.collect();
        if samples.iter().any(|sample| sample.offset.saturating_add(sample.size as u64) > size) {
            return Err(invalid("all frames inside the file", format!("a file of {size} bytes, which is cut short")));
        }
        Ok(Self { path: path.into(), header, samples })
    }

    /// Reads the compressed samples of `length` frames at `from_s + i / fps` seconds.
    pub(crate) fn clip(&self, from_s: f64, length: usize, fps: u32) -> Result<VideoClip> {
        let position = |frame: usize| self.nearest(from_s + frame as f64 / f64::from(fps));
        let frames: Vec<usize> = (0..length).map(position).collect::<Result<_>>()?;
        let first = frames.iter().copied().min().unwrap_or_default();
        let end = frames.iter().copied().max().map_or(0, |last| last + 1);
        let start = (0..=first).rev().find(|&i| self.samples[i].is_key).unwrap_or_default();
        let mut file = File::open(&self.path).map_err(DataError::read(&self.path))?;
        let mut read = |sample: &Sample| -> Result<(bool, Arc<[u8]>)> {
            let mut bytes = vec![0; sample.size];
            file.seek(SeekFrom::Start(sample.offset)).map_err(DataError::read(&self.path))?;
            file.read_exact(&mut bytes).map_err(DataError::read(&self.path))?;
            Ok((sample.is_key, bytes.into()))
        };
        Ok(VideoClip {
            header: self.header.clone(),
            samples: self.samples[start..end].iter().map(&mut read).collect::<Result<_>>()?,
            frames: frames.into_iter().map(|frame| frame - start).collect(),
        })
    }

    fn nearest(&self, seconds: f64) -> Result<usize> {
        let after = self.samples.partition_point(|sample| sample.seconds < seconds);
        let distance = |i: &usize| (self.samples[*i].seconds - seconds).abs();
        let candidates = [after.saturating_sub(1), after].into_iter().filter(|i| *i < self.samples.len());
        let best = candidates.min_by(|a, b| distance(a).total_cmp(&distance(b)));
        best.filter(|i| distance(i) < TOLERANCE_S).ok_or_else(|| {
            let end = self.samples.last().map_or(0.0, |sample| sample.seconds);
            let found = format!(
                "none; the nearest is {:.4} s away and the last is at {end:.4} s",
                best.map_or(f64::NAN, |i| distance(&i))
            );
            DataError::invalid(&self.path, format!("a frame at {seconds:.4} s"), found)
        })
    }
}

/// The compressed frames of one camera over one episode.
#[derive(Clone, Debug)]
pub(crate) struct VideoClip {
    header: Arc<[u8]>,
    samples: Vec<(bool, Arc<[u8]>)>,
    /// Position in `samples` of every frame.
    frames: Vec<usize>,
}

impl VideoClip {
    pub(crate) fn len(&self) -> usize {
        self.frames.len()
    }

    /// Decodes frame `index`, beginning at the key frame before it. The error says what is wrong.
    pub(crate) fn decode(&self, index: usize) -> Result<Image, String> {
        let target = self.frames[index];
        let start = (0..=target).rev().find(|&i| self.samples[i].0).unwrap_or_default();
        let mut decoder = ClipDecoder::new(self, start)?;
        let mut last = None;
        while decoder.next <= target {
            last = decoder.picture()?;
        }
        last.map(|picture| to_rgb(&picture)).ok_or("the decoder gave no frame")?
    }

    /// Decodes all frames in order with one decoder.
    pub(crate) fn images(&self) -> impl Iterator<Item = Result<Image, String>> + '_ {
        let mut decoder = None;
        let mut frame = 0;
        std::iter::from_fn(move || {
            let target = *self.frames.get(frame)?;
            frame += 1;
            Some(self.advance(&mut decoder, target))
        })
    }

    fn advance<'a>(&'a self, decoder: &mut Option<ClipDecoder<'a>>, target: usize) -> Result<Image, String> {
        let decoder = match decoder {
            Some(decoder) => decoder,
            None => decoder.insert(ClipDecoder::new(self, 0)?),
        };
        while decoder.next <= target {
            decoder.last = decoder.picture()?;
        }
        decoder.last.as_ref().map(to_rgb).ok_or("the decoder gave no frame")?
    }
}

/// A decoder and the next sample that it will be fed.
struct ClipDecoder<'a> {
    clip: &'a VideoClip,
    decoder: Decoder,
    next: usize,
    last: Option<Picture>,
}

impl<'a> ClipDecoder<'a> {
    fn new(clip: &'a VideoClip, start: usize) -> Result<Self, String> {
        let mut settings = Settings::new();
        // One thread and no delay: a sample in, its frame out. Episodes are decoded in parallel instead.
        settings.set_n_threads(1);
        settings.set_max_frame_delay(1);
        let mut decoder = Decoder::with_settings(&settings).map_err(|error| error.to_string())?;
        if !clip.header.is_empty() {
            match decoder.send_data(clip.header.clone(), None, None, None) {
                Ok(()) | Err(Av1Error::Again) => {}
                Err(error) => return Err(format!("the AV1 sequence header is damaged: {error}")),
            }
        }
        Ok(Self { clip, decoder, next: start, last: None })
    }

    /// Feeds the next sample and takes the frame that it shows, if it shows one.
    fn picture(&mut self) -> Result<Option<Picture>, String> {
        let damaged = |error: Av1Error| format!("the AV1 data is damaged: {error}");
        let sample = self.clip.samples[self.next].1.clone();
        self.next += 1;
        let mut sent = self.decoder.send_data(sample, None, None, None);
        let mut shown = None;
        loop {
            match self.decoder.get_picture() {
                Ok(picture) => shown = Some(picture),
                Err(Av1Error::Again) if sent.is_ok() => return Ok(shown),
                Err(Av1Error::Again) => {}
                Err(error) => return Err(damaged(error)),
            }
            match sent {
                Ok(()) => {}
                Err(Av1Error::Again) => sent = self.decoder.send_pending_data(),
                Err(error) => return Err(damaged(error)),
            }
        }
    }
}

/// Converts a picture of 8 or more bits and any chroma subsampling to RGB.
fn to_rgb(picture: &Picture) -> Result<Image, String> {
    let matrix = match picture.matrix_coefficients() {
        MatrixCoefficients::BT709 => Matrix::BT709,
        MatrixCoefficients::BT2020NonConstantLuminance => Matrix::BT2020,
        MatrixCoefficients::ST240M => Matrix::SMPTE240,
        MatrixCoefficients::BT470M => Matrix::FCC,
        MatrixCoefficients::Unspecified | MatrixCoefficients::BT470BG | MatrixCoefficients::ST170M => Matrix::BT601,
        other => return Err(format!("colour matrix {other:?} is not supported; re-encode with BT.601 or BT.709")),
    };
    let range = match picture.color_range() {
        YUVRange::Full => Range::Full,
        _ => Range::Limited,
    };
    let converter = Converter::new(matrix, range);
    let (height, width) = (picture.height() as usize, picture.width() as usize);
    let subsampling = match picture.pixel_layout() {
        PixelLayout::I400 => None,
        PixelLayout::I420 => Some(Subsampling { rows: 1, columns: 1 }),
        PixelLayout::I422 => Some(Subsampling { rows: 0, columns: 1 }),
        PixelLayout::I444 => Some(Subsampling::NONE),
    };
    let luma = picture.plane(PlanarImageComponent::Y);
    let luma = Plane::new(picture, PlanarImageComponent::Y, &luma, Subsampling::NONE);
    let chroma = subsampling.map(|subsampling| {
        let planes = [PlanarImageComponent::U, PlanarImageComponent::V].map(|component| picture.plane(component));
        (planes, subsampling)
    });
    let chroma = chroma.as_ref().map(|([cb, cr], subsampling)| {
        let plane = |component, data| Plane::new(picture, component, data, *subsampling);
        (plane(PlanarImageComponent::U, cb), plane(PlanarImageComponent::V, cr))
    });
    let mut pixels = Vec::with_capacity(height * width * Image::CHANNELS);
    for row in 0..height {
        match &chroma {
            Some((cb, cr)) => pixels.extend(
                (0..width)
                    .flat_map(|column| converter.rgb(luma.at(row, column), cb.at(row, column), cr.at(row, column))),
            ),
            None => pixels.extend((0..width).flat_map(|column| converter.rgb(luma.at(row, column), 128, 128))),
        }
    }
    Image::from_rgb(height, width, pixels).map_err(|error| error.to_string())
}

/// Samples of one component of a picture, scaled to 8 bits.
struct Plane<'a> {
    data: &'a [u8],
    stride: usize,
    /// Bytes per sample.
    width: usize,
    /// Bits beyond eight.
    excess: usize,
    subsampling: Subsampling,
}

/// Binary logarithms of the luma samples per sample of the component, along each axis.
#[derive(Clone, Copy)]
struct Subsampling {
    rows: usize,
    columns: usize,
}

impl Subsampling {
    const NONE: Self = Self { rows: 0, columns: 0 };
}

impl<'a> Plane<'a> {
    fn new(picture: &Picture, component: PlanarImageComponent, data: &'a [u8], subsampling: Subsampling) -> Self {
        Self {
            data,
            stride: picture.stride(component) as usize,
            width: if picture.bit_depth() > 8 { 2 } else { 1 },
            excess: picture.bits_per_component().map_or(0, |bits| bits.0 - 8),
            subsampling,
        }
    }

    #[inline]
    fn at(&self, row: usize, column: usize) -> u8 {
        let start = (row >> self.subsampling.rows) * self.stride + (column >> self.subsampling.columns) * self.width;
        if self.width == 1 {
            return self.data[start];
        }
        (u16::from_le_bytes([self.data[start], self.data[start + 1]]) >> self.excess).min(255) as u8
    }
}
