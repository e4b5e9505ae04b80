//! `episodes.mcap`: every control step of a demonstration, for Foxglove and other readers of MCAP.
//!
//! All messages are JSON with a JSON schema; images use Foxglove's own schema `foxglove.CompressedImage`. Time
//! is the robot's: episodes follow each other with a pause of a second.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::BufWriter;
use std::path::Path;

use anyhow::{Context, Result};
use mcap::records::MessageHeader;
use mcap::{WriteOptions, Writer};
use robomamba_data::encode_png;
use robomamba_policy::{FeatureSpec, VectorSpec};
use robomamba_sim::{RolloutStep, Scenario};
use serde_json::{Value, json};

use crate::report::base64;
use crate::trace::outcome_text;

/// Time between two episodes.
const PAUSE_NS: u64 = 1_000_000_000;

/// A log file that is being written.
pub struct McapLog {
    writer: Writer<BufWriter<File>>,
    features: FeatureSpec,
    channels: Channels,
    /// Time of the first step of the running episode.
    episode_ns: u64,
    /// Time of the last message.
    last_ns: u64,
    sequence: u32,
    /// The image that was written last; equal ones are not repeated.
    last_image: Vec<u8>,
}

struct Channels {
    image: u16,
    state: u16,
    action: u16,
    confidence: u16,
    instruction: u16,
    outcome: u16,
}

impl McapLog {
    /// Creates the file; the first episode begins at `start_ns` (Unix time).
    ///
    /// # Errors
    /// When the file cannot be created.
    pub fn create(path: &Path, features: &FeatureSpec, start_ns: u64) -> Result<Self> {
        let file = File::create(path).with_context(|| format!("cannot create {}", path.display()))?;
        let options = WriteOptions::new().compression(None).library(concat!("robomamba ", env!("CARGO_PKG_VERSION")));
        let mut writer = options.create(BufWriter::new(file))?;
        let channels = Channels {
            image: channel(&mut writer, "/camera/top", "foxglove.CompressedImage", &image_schema())?,
            state: channel(&mut writer, "/observation/state", "robomamba.State", &vector_schema(&features.state))?,
            action: channel(&mut writer, "/action", "robomamba.Action", &vector_schema(&features.action))?,
            confidence: channel(
                &mut writer,
                "/confidence",
                "robomamba.Confidence",
                &object(&[("success_probability", "number")]),
            )?,
            instruction: channel(
                &mut writer,
                "/instruction",
                "robomamba.Instruction",
                &object(&[("text", "string"), ("family", "string"), ("seed", "integer")]),
            )?,
            outcome: channel(
                &mut writer,
                "/outcome",
                "robomamba.Outcome",
                &object(&[("status", "string"), ("progress", "number")]),
            )?,
        };
        let features = features.clone();
        Ok(Self {
            writer,
            features,
            channels,
            episode_ns: start_ns,
            last_ns: start_ns,
            sequence: 0,
            last_image: Vec::new(),
        })
    }

    /// Begins an episode with its instruction.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn episode(&mut self, scenario: &Scenario, instruction: &str) -> Result<()> {
        self.episode_ns = self.last_ns + PAUSE_NS;
        self.last_image.clear();
        let message = json!({ "text": instruction, "family": scenario.family.name(), "seed": scenario.seed });
        self.write(self.channels.instruction, self.episode_ns, &message)
    }

    /// Writes one control step.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn step(&mut self, step: &RolloutStep) -> Result<()> {
        let observation = step.observation;
        let time_ns = self.episode_ns + observation.timestamp_ns;
        let image = &observation.images[0].1;
        if image.data() != self.last_image {
            self.last_image.clear();
            self.last_image.extend_from_slice(image.data());
            let png = encode_png(image, "camera image of the log")?;
            self.write(self.channels.image, time_ns, &image_message(time_ns, &png))?;
        }
        let state = vector_message(&self.features.state, &observation.state);
        let action = vector_message(&self.features.action, step.chunk.action(0).unwrap_or(&[]));
        self.write(self.channels.state, time_ns, &state)?;
        self.write(self.channels.action, time_ns, &action)?;
        if let Some(probability) = step.chunk.success_probability {
            self.write(self.channels.confidence, time_ns, &json!({ "success_probability": probability }))?;
        }
        if step.outcome.done() {
            let message = json!({ "status": outcome_text(step.outcome.status), "progress": step.outcome.progress });
            self.write(self.channels.outcome, time_ns, &message)?;
        }
        Ok(())
    }

    /// Writes the index and closes the file.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn finish(mut self) -> Result<()> {
        self.writer.finish().context("cannot finish the MCAP file")?;
        self.writer.into_inner().into_inner().context("cannot write the MCAP file")?.sync_all()?;
        Ok(())
    }

    fn write(&mut self, channel_id: u16, time_ns: u64, message: &Value) -> Result<()> {
        let header = MessageHeader { channel_id, sequence: self.sequence, log_time: time_ns, publish_time: time_ns };
        self.sequence = self.sequence.wrapping_add(1);
        self.last_ns = time_ns;
        self.writer
            .write_to_known_channel(&header, message.to_string().as_bytes())
            .context("cannot write the MCAP file")
    }
}

fn channel(writer: &mut Writer<BufWriter<File>>, topic: &str, schema: &str, definition: &Value) -> Result<u16> {
    let schema = writer.add_schema(schema, "jsonschema", definition.to_string().as_bytes())?;
    Ok(writer.add_channel(schema, topic, "json", &BTreeMap::new())?)
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

fn image_message(time_ns: u64, png: &[u8]) -> Value {
    json!({
        "timestamp": { "sec": time_ns / 1_000_000_000, "nsec": time_ns % 1_000_000_000 },
        "frame_id": "top",
        "data": base64::encode(png),
        "format": "png",
    })
}
