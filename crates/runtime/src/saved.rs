//! States as bytes, to move an episode to another process or to keep it.
//!
//! | bytes | are |
//! |---|---|
//! | 8 | `RMSTATE` and a zero |
//! | 4 | version of this format, u32 |
//! | 4 | kind: 1 Mamba, 2 Transformer, u32 |
//! | 4 x 8 | sizes: n_layer, d_inner, d_conv, d_state, or n_layer, context_len, d_model, 0; u64 |
//! | 8 | steps since the start of the episode (0 for Mamba), u64 |
//! | n x 4 | the values in use, f32 |
//! | 4 | CRC-32 of everything before, u32 |
//!
//! All numbers are little-endian.

use robomamba_model::BackboneConfig;

use crate::RuntimeError;
use crate::state::{State, StateLayout};

const MAGIC: &[u8; 8] = b"RMSTATE\0";
const VERSION: u32 = 1;
const HEADER_LEN: usize = 8 + 4 + 4 + 4 * 8 + 8;
const CRC_LEN: usize = 4;

impl State {
    /// The state as bytes, for [`State::restore`].
    pub fn save(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER_LEN + self.bytes() + CRC_LEN);
        let (kind, sizes) = header(&self.layout());
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&kind.to_le_bytes());
        for number in sizes.into_iter().chain([self.n_step() as u64]) {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        for values in self.values() {
            bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
        }
        let crc = crc32fast::hash(&bytes);
        bytes.extend_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// The state that [`State::save`] turned into `bytes`, for a backbone of this configuration.
    ///
    /// # Errors
    /// When the bytes are cut short, altered or of another version, or the state was made for another backbone.
    pub fn restore(bytes: &[u8], config: &BackboneConfig) -> Result<Self, RuntimeError> {
        let body = checked_body(bytes)?;
        let expected = StateLayout::of(config);
        let (found_header, n_step) = read_header(body);
        if found_header != header(&expected) {
            return Err(RuntimeError::StateShape { expected: expected.to_string(), found: describe(found_header) });
        }
        let mut state = Self::zeros(config);
        if let Self::Transformer(cache) = &mut state {
            cache.n_step = usize::try_from(n_step).map_err(|_| damaged("its step number is too large"))?;
        }
        let values = &body[HEADER_LEN..];
        if values.len() != state.bytes() {
            return Err(damaged(format!("expected {} bytes of values, found {}", state.bytes(), values.len())));
        }
        let mut values =
            values.chunks_exact(size_of::<f32>()).filter_map(|bytes| bytes.try_into().ok().map(f32::from_le_bytes));
        for slot in state.values_mut().into_iter().flatten() {
            *slot = values.next().unwrap_or_default();
        }
        Ok(state)
    }

    fn n_step(&self) -> usize {
        match self {
            Self::Mamba(_) => 0,
            Self::Transformer(cache) => cache.n_step(),
        }
    }
}

/// Kind and sizes as they are written.
type Header = (u32, [u64; 4]);

fn header(layout: &StateLayout) -> Header {
    match *layout {
        StateLayout::Mamba { n_layer, d_inner, d_conv, d_state } => {
            (1, [n_layer, d_inner, d_conv, d_state].map(|n| n as u64))
        }
        StateLayout::Transformer { n_layer, context_len, d_model } => {
            (2, [n_layer, context_len, d_model, 0].map(|n| n as u64))
        }
    }
}

fn describe((kind, sizes): Header) -> String {
    match (kind, sizes.map(|size| size as usize)) {
        (1, [n_layer, d_inner, d_conv, d_state]) => {
            StateLayout::Mamba { n_layer, d_inner, d_conv, d_state }.to_string()
        }
        (2, [n_layer, context_len, d_model, _]) => {
            StateLayout::Transformer { n_layer, context_len, d_model }.to_string()
        }
        (kind, _) => format!("kind {kind}"),
    }
}

/// Everything in front of the checksum, if magic, version and checksum are right.
fn checked_body(bytes: &[u8]) -> Result<&[u8], RuntimeError> {
    if !bytes.starts_with(MAGIC) {
        return Err(damaged("it does not start with `RMSTATE`"));
    }
    if bytes.len() < HEADER_LEN + CRC_LEN {
        return Err(damaged(format!("expected at least {} bytes, found {}", HEADER_LEN + CRC_LEN, bytes.len())));
    }
    let version = read_u32(&bytes[MAGIC.len()..]);
    if version != VERSION {
        return Err(damaged(format!("this build reads version {VERSION} of the format, found {version}")));
    }
    let (body, crc) = bytes.split_at(bytes.len() - CRC_LEN);
    let (expected, found) = (read_u32(crc), crc32fast::hash(body));
    if expected != found {
        return Err(damaged(format!("its checksum is {found:08x} instead of {expected:08x}")));
    }
    Ok(body)
}

fn read_header(body: &[u8]) -> (Header, u64) {
    let kind = read_u32(&body[12..]);
    let number = |i: usize| u64::from_le_bytes(std::array::from_fn(|byte| body[16 + 8 * i + byte]));
    ((kind, std::array::from_fn(number)), number(4))
}

fn read_u32(bytes: &[u8]) -> u32 {
    u32::from_le_bytes(std::array::from_fn(|i| bytes[i]))
}

fn damaged(reason: impl Into<String>) -> RuntimeError {
    RuntimeError::StateDamaged { reason: reason.into() }
}
