//! What one frame of a data set holds: names, types and shapes, in order.

use std::fmt;

use robomamba_policy::{CameraSpec, FeatureSpec, VectorSpec};
use serde::de::{MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use crate::columns::{ACTION, EPISODE_INDEX, FRAME_INDEX, INDEX, STATE, TASK_INDEX, TIMESTAMP};
use crate::{DataError, Result};

/// Type of a feature, named as in NumPy, or `image` (PNG in parquet) and `video` (a track of an MP4 file).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
#[allow(missing_docs, reason = "the variants are the names themselves")]
pub enum DType {
    Bool,
    Int64,
    Float32,
    Float64,
    Text,
    Image,
    Video,
    /// Another integer type; read as [`DType::Int64`], not written.
    OtherInteger(String),
    /// A type that this crate does not read (`language`, `float16`, ...); such features are skipped.
    Unknown(String),
}

impl From<String> for DType {
    fn from(name: String) -> Self {
        match name.as_str() {
            "bool" => Self::Bool,
            "int64" => Self::Int64,
            "float32" => Self::Float32,
            "float64" => Self::Float64,
            "string" => Self::Text,
            "image" => Self::Image,
            "video" => Self::Video,
            "int8" | "int16" | "int32" | "uint8" | "uint16" | "uint32" | "uint64" => Self::OtherInteger(name),
            _ => Self::Unknown(name),
        }
    }
}

impl From<DType> for String {
    fn from(dtype: DType) -> Self {
        dtype.to_string()
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bool => "bool",
            Self::Int64 => "int64",
            Self::Float32 => "float32",
            Self::Float64 => "float64",
            Self::Text => "string",
            Self::Image => "image",
            Self::Video => "video",
            Self::OtherInteger(name) | Self::Unknown(name) => name,
        })
    }
}

/// One feature of every frame.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Feature {
    /// Type of its values.
    pub dtype: DType,
    /// Shape of one frame's value: `[dim]`, or `[height, width, 3]` for cameras.
    pub shape: Vec<usize>,
    /// Names of the dimensions: a list, a map of lists, or null.
    #[serde(default)]
    pub names: Value,
    /// What the writer says of a video (codec, pixel format, ...).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub info: Option<Value>,
}

impl Feature {
    /// A camera whose frames are stored as PNG, `[height, width, 3]`.
    pub fn image(height: usize, width: usize) -> Self {
        let names = serde_json::json!(["height", "width", "channels"]);
        Self { dtype: DType::Image, shape: vec![height, width, 3], names, info: None }
    }

    /// A vector of `float32`, one name per dimension.
    pub fn vector<S: Into<String>>(names: impl IntoIterator<Item = S>) -> Self {
        let names: Vec<String> = names.into_iter().map(Into::into).collect();
        Self { dtype: DType::Float32, shape: vec![names.len()], names: names.into(), info: None }
    }

    /// A single value of the given type without a name.
    pub fn scalar(dtype: DType) -> Self {
        Self { dtype, shape: vec![1], names: Value::Null, info: None }
    }

    /// Number of values per frame.
    pub fn dim(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether this is a camera, however it is stored.
    pub fn is_camera(&self) -> bool {
        matches!(self.dtype, DType::Image | DType::Video)
    }

    /// Names of the dimensions of a vector, if there are as many as dimensions.
    pub fn dimension_names(&self) -> Option<Vec<String>> {
        let mut names = Vec::new();
        collect_names(&self.names, &mut names);
        (names.len() == self.dim()).then_some(names)
    }

    /// Height and width in pixels of a camera; the names of the dimensions say which one is the channels.
    pub fn image_size(&self) -> Option<(usize, usize)> {
        let &[a, b, c] = self.shape.as_slice() else { return None };
        let channels_first = self.names.get(0).and_then(Value::as_str).is_some_and(|name| name.starts_with("channel"));
        Some(if channels_first { (b, c) } else { (a, b) })
    }
}

fn collect_names(names: &Value, out: &mut Vec<String>) {
    match names {
        Value::String(name) => out.push(name.clone()),
        Value::Array(items) => items.iter().for_each(|item| collect_names(item, out)),
        Value::Object(groups) => groups.values().for_each(|group| collect_names(group, out)),
        _ => {}
    }
}

/// Features by name, in the order of `info.json`, which is also the order of the parquet columns.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Features(Vec<(String, Feature)>);

impl Features {
    /// Features that the format adds to every frame.
    pub const DEFAULT: [(&'static str, DType); 5] = [
        (TIMESTAMP, DType::Float32),
        (FRAME_INDEX, DType::Int64),
        (EPISODE_INDEX, DType::Int64),
        (INDEX, DType::Int64),
        (TASK_INDEX, DType::Int64),
    ];

    /// Cameras (as images), `observation.state` and `action` of a robot.
    pub fn of_robot(spec: &FeatureSpec) -> Self {
        let cameras =
            spec.cameras.iter().map(|camera| (camera.name.clone(), Feature::image(camera.height, camera.width)));
        let vectors = [(STATE, &spec.state), (ACTION, &spec.action)]
            .map(|(name, vector)| (name.to_string(), Feature::vector(vector.names.clone())));
        Self(cameras.chain(vectors).collect())
    }

    /// The same with one more feature at the end.
    #[must_use]
    pub fn with(mut self, name: impl Into<String>, feature: Feature) -> Self {
        self.0.push((name.into(), feature));
        self
    }

    /// The feature called `name`.
    pub fn get(&self, name: &str) -> Option<&Feature> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, feature)| feature)
    }

    /// Names and features in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Feature)> {
        self.0.iter().map(|(name, feature)| (name.as_str(), feature))
    }

    /// Cameras in order.
    pub fn cameras(&self) -> impl Iterator<Item = (&str, &Feature)> {
        self.iter().filter(|(_, feature)| feature.is_camera())
    }

    /// All names, for messages.
    pub(crate) fn names(&self) -> String {
        self.0.iter().map(|(name, _)| format!("`{name}`")).collect::<Vec<_>>().join(", ")
    }

    /// The interface of the robot, as policies see it.
    ///
    /// # Errors
    /// When `observation.state` or `action` is missing, or a camera has no three-dimensional shape.
    pub fn robot(&self, fps: u32) -> Result<FeatureSpec> {
        let cameras = self.cameras().map(|(name, feature)| camera_spec(name, feature)).collect::<Result<_>>()?;
        Ok(FeatureSpec { cameras, state: self.vector_spec(STATE)?, action: self.vector_spec(ACTION)?, fps })
    }

    fn vector_spec(&self, name: &str) -> Result<VectorSpec> {
        let feature = self.get(name).ok_or_else(|| DataError::Feature {
            feature: name.into(),
            expected: "a vector of every frame".into(),
            found: format!("the data set has {}", self.names()),
        })?;
        let numbered = || (0..feature.dim()).map(|i| format!("{name}_{i}")).collect();
        Ok(VectorSpec { names: feature.dimension_names().unwrap_or_else(numbered) })
    }
}

fn camera_spec(name: &str, feature: &Feature) -> Result<CameraSpec> {
    let (height, width) = feature.image_size().ok_or_else(|| DataError::Feature {
        feature: name.into(),
        expected: "a camera of shape [height, width, 3]".into(),
        found: format!("its shape is {:?}", feature.shape),
    })?;
    Ok(CameraSpec { name: name.into(), height, width })
}

impl<S: Into<String>> FromIterator<(S, Feature)> for Features {
    fn from_iter<I: IntoIterator<Item = (S, Feature)>>(items: I) -> Self {
        Self(items.into_iter().map(|(name, feature)| (name.into(), feature)).collect())
    }
}

impl Serialize for Features {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, feature) in &self.0 {
            map.serialize_entry(name, feature)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for Features {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;
        impl<'de> Visitor<'de> for InOrder {
            type Value = Features;
            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a map from feature names to {dtype, shape, names}")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Features, A::Error> {
                let mut features = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    features.push(entry);
                }
                Ok(Features(features))
            }
        }
        deserializer.deserialize_map(InOrder)
    }
}
