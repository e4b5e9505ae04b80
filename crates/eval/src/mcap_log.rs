//! `episodes.mcap`: every control step of a demonstration, for Foxglove and other readers of MCAP.
//!
//! All messages are JSON with a JSON schema. Images use Foxglove's own schema `foxglove.CompressedImage`, one topic per
//! camera. Time is the robot's; episodes follow each other with a pause of a second.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::BufWriter;
use std::path::{Path, PathBuf};

use mcap::records::MessageHeader;
use mcap::{WriteOptions, Writer};
use robomamba_policy::{CameraSpec, Episode, FeatureSpec, Observation, Step, VectorSpec};
use serde_json::{Value, json};

use crate::EvalError;
use crate::png::{base64, encode_png};

/// Time between two episodes.
const PAUSE_NS: u64 = 1_000_000_000;

/// A log file that is being written.
pub struct McapLog {
    path: PathBuf,
    writer: Writer<BufWriter<File>>,
    features: FeatureSpec,
    channels: Channels,
    /// Time of the first step of the running episode.
    episode_ns: u64,
    /// Time of the last message.
    last_ns: u64,
    sequence: u32,
    /// The image of each camera that was written last; equal ones are not repeated.
    last_images: Vec<Vec<u8>>,
}

struct Channels {
    /// One per camera.
    images: Vec<u16>,
    state: u16,
    action: u16,
    confidence: u16,
    instruction: u16,
    outcome: u16,
}

impl Channels {
    fn create(writer: &mut Writer<BufWriter<File>>, features: &FeatureSpec) -> Result<Self, EvalError> {
        let mut json = |topic: &str, schema: &str, definition: &Value| -> Result<u16, EvalError> {
            let schema = writer.add_schema(schema, "jsonschema", definition.to_string().as_bytes())?;
            Ok(writer.add_channel(schema, topic, "json", &BTreeMap::new())?)
        };
        let image = |camera: &CameraSpec| format!("/camera/{}", short_name(&camera.name));
        let text = [("text", "string"), ("suite", "string"), ("task", "string"), ("seed", "integer")];
        let images = features.cameras.iter().map(image);
        let images = images.map(|topic| json(&topic, "foxglove.CompressedImage", &image_schema()));
        Ok(Self {
            images: images.collect::<Result<_, _>>()?,
            state: json("/observation/state", "robomamba.State", &vector_schema(&features.state))?,
            action: json("/action", "robomamba.Action", &vector_schema(&features.action))?,
            confidence: json("/confidence", "robomamba.Confidence", &object(&[("success_probability", "number")]))?,
            instruction: json("/instruction", "robomamba.Instruction", &object(&text))?,
            outcome: json("/outcome", "robomamba.Outcome", &object(&[("outcome", "string"), ("progress", "number")]))?,
        })
    }
}

/// The last part of a camera's feature name.
fn short_name(camera: &str) -> &str {
    camera.rsplit('.').next().unwrap_or(camera)
}

impl McapLog {
    /// Creates the file `path` for a robot with these `features`; the first episode begins at `start_ns` (Unix time).
    ///
    /// # Errors
    /// When the file cannot be created.
    pub fn create(path: &Path, features: &FeatureSpec, start_ns: u64) -> Result<Self, EvalError> {
        let file = File::create(path).map_err(|source| EvalError::Write { path: path.into(), source })?;
        let options = WriteOptions::new().compression(None).library(concat!("robomamba ", env!("CARGO_PKG_VERSION")));
        let mut writer = options.create(BufWriter::new(file))?;
        Ok(Self {
            path: path.into(),
            channels: Channels::create(&mut writer, features)?,
            writer,
            features: features.clone(),
            episode_ns: start_ns,
            last_ns: start_ns,
            sequence: 0,
            last_images: vec![Vec::new(); features.cameras.len()],
        })
    }

    /// Begins an episode with its instruction.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn episode(&mut self, episode: &Episode) -> Result<(), EvalError> {
        self.episode_ns = self.last_ns + PAUSE_NS;
        self.last_images.iter_mut().for_each(Vec::clear);
        let Episode { instruction, suite, task, seed, .. } = episode;
        let message = json!({ "text": instruction, "suite": suite, "task": task, "seed": seed });
        self.write(self.channels.instruction, self.episode_ns, &message)
    }

    /// Writes one control step.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn step(&mut self, step: &Step) -> Result<(), EvalError> {
        let time_ns = self.episode_ns + step.observation.timestamp_ns;
        for camera in 0..self.channels.images.len() {
            self.image(camera, step.observation, time_ns)?;
        }
        let state = vector_message(&self.features.state, &step.observation.state);
        let action = vector_message(&self.features.action, step.action());
        self.write(self.channels.state, time_ns, &state)?;
        self.write(self.channels.action, time_ns, &action)?;
        if let Some(probability) = step.chunk.success_probability {
            self.write(self.channels.confidence, time_ns, &json!({ "success_probability": probability }))?;
        }
        if let Some(outcome) = &step.outcome.outcome {
            let message = json!({ "outcome": outcome.to_string(), "progress": step.outcome.progress });
            self.write(self.channels.outcome, time_ns, &message)?;
        }
        Ok(())
    }

    fn image(&mut self, camera: usize, observation: &Observation, time_ns: u64) -> Result<(), EvalError> {
        let name = &self.features.cameras[camera].name;
        let Some(image) = observation.image(name) else { return Ok(()) };
        let last = &mut self.last_images[camera];
        if *last == image.data() {
            return Ok(());
        }
        last.clear();
        last.extend_from_slice(image.data());
        let message = image_message(short_name(name), time_ns, &encode_png(image)?);
        self.write(self.channels.images[camera], time_ns, &message)
    }

    /// Writes the index and closes the file.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn finish(mut self) -> Result<(), EvalError> {
        self.writer.finish()?;
        let file = self.writer.into_inner().into_inner().map_err(std::io::IntoInnerError::into_error);
        let synced = file.and_then(|file| file.sync_all());
        synced.map_err(|source| EvalError::Write { path: self.path, source })
    }

    fn write(&mut self, channel_id: u16, time_ns: u64, message: &Value) -> Result<(), EvalError> {
        let header = MessageHeader { channel_id, sequence: self.sequence, log_time: time_ns, publish_time: time_ns };
        self.sequence = self.sequence.wrapping_add(1);
        self.last_ns = time_ns;
        Ok(self.writer.write_to_known_channel(&header, message.to_string().as_bytes())?)
    }
}

/// A JSON schema of an object with these properties and their types.
fn object(properties: &[(&str, &str)]) -> Value {
    let properties = properties.iter().map(|(name, kind)| (name.to_string(), json!({ "type": kind })));
    json!({ "type": "object", "properties": properties.collect::<serde_json::Map<_, _>>() })
}

fn vector_schema(spec: &VectorSpec) -> Value {
    object(&spec.names.iter().map(|name| (name.as_str(), "number")).collect::<Vec<_>>())
}

fn vector_message(spec: &VectorSpec, values: &[f32]) -> Value {
    spec.names
        .iter()
        .zip(values)
        .map(|(name, value)| (name.clone(), json!(value)))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

/// `foxglove.CompressedImage` in Foxglove's JSON encoding: bytes are base64.
fn image_schema() -> Value {
    let time = json!({
        "type": "object",
        "title": "time",
        "properties": {
            "sec": { "type": "integer", "minimum": 0 },
            "nsec": { "type": "integer", "minimum": 0, "maximum": 999_999_999 },
        },
    });
    json!({
        "title": "foxglove.CompressedImage",
        "type": "object",
        "properties": {
            "timestamp": time,
            "frame_id": { "type": "string" },
            "data": { "type": "string", "contentEncoding": "base64" },
            "format": { "type": "string" },
        },
    })
}

fn image_message(frame_id: &str, time_ns: u64, png: &[u8]) -> Value {
    json!({
        "timestamp": { "sec": time_ns / 1_000_000_000, "nsec": time_ns % 1_000_000_000 },
        "frame_id": frame_id,
        "data": base64(png),
        "format": "png",
    })
}
