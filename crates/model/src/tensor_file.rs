//! Safetensors files, read and written tensor by tensor, so that memory holds the weights once.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use safetensors::tensor::{Dtype as FileDtype, Metadata, TensorInfo};
use serde::{Deserialize, Serialize};

use crate::{
    ModelError, ParamSpec, Weights,
    weights::{Tensor, check_finite, check_layout, check_unexpected},
};

/// A header longer than this is no header (the format's own limit).
const HEADER_LEN_MAX: u64 = 100_000_000;

/// The type that matrices have in a file. Vectors and `A_log` are always f32: they are small, and the
/// scan is sensitive to them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Dtype {
    /// IEEE single precision.
    #[default]
    F32,
    /// The upper half of an f32, rounded to nearest even.
    Bf16,
}

impl Dtype {
    /// The type in the file of the tensor `name`.
    pub(crate) fn of(self, name: &str, shape: &[usize]) -> Self {
        if shape.len() < 2 || name.ends_with("A_log") { Self::F32 } else { self }
    }

    /// Its name in lower case.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
        }
    }

    /// Bytes of one value.
    pub fn size(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::Bf16 => 2,
        }
    }

    fn in_file(self) -> FileDtype {
        match self {
            Self::F32 => FileDtype::F32,
            Self::Bf16 => FileDtype::BF16,
        }
    }
}

/// An open file whose header has been checked.
pub(crate) struct TensorFile {
    path: PathBuf,
    file: File,
    data_start: u64,
    tensors: BTreeMap<String, TensorInfo>,
}

impl TensorFile {
    pub(crate) fn open(path: &Path) -> Result<Self, ModelError> {
        let read = |source| ModelError::Read { path: path.into(), source };
        let malformed = |reason: String| ModelError::SafeTensors { path: path.into(), reason };
        let mut file = File::open(path).map_err(read)?;
        let file_len = file.metadata().map_err(read)?.len();
        let mut header_len = [0; 8];
        if file_len < 8 {
            return Err(malformed(format!("it must have at least 8 bytes, found {file_len}")));
        }
        file.read_exact(&mut header_len).map_err(read)?;
        let header_len = u64::from_le_bytes(header_len);
        if header_len > HEADER_LEN_MAX.min(file_len - 8) {
            return Err(malformed(format!("its header claims {header_len} bytes, the file has {file_len}")));
        }
        let mut header = vec![0; header_len as usize];
        file.read_exact(&mut header).map_err(read)?;
        let metadata: Metadata = serde_json::from_slice(&header).map_err(|error| malformed(error.to_string()))?;
        let expected = 8 + header_len + metadata.data_len() as u64;
        if file_len != expected {
            return Err(malformed(format!("it must have {expected} bytes by its header, found {file_len}")));
        }
        let tensors = metadata.tensors().into_iter().map(|(name, info)| (name, info.clone())).collect();
        Ok(Self { path: path.into(), file, data_start: 8 + header_len, tensors })
    }

    /// The names of its tensors, in order.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// Checks that these are exactly the tensors of `specs`; returns their types, each f32 or bf16.
    pub(crate) fn check(&self, specs: &[ParamSpec]) -> Result<BTreeMap<String, Dtype>, ModelError> {
        check_layout(specs, |name| self.tensors.get(name).map(|info| info.shape.as_slice()))?;
        check_unexpected(specs, self.names())?;
        let dtype = |(name, info): (&String, &TensorInfo)| match info.dtype {
            FileDtype::F32 => Ok((name.clone(), Dtype::F32)),
            FileDtype::BF16 => Ok((name.clone(), Dtype::Bf16)),
            other => Err(dtype_error(name, other, "F32 or BF16")),
        };
        self.tensors.iter().map(dtype).collect()
    }

    /// Exactly the tensors of `specs`, each f32 or bf16 and finite.
    pub(crate) fn read_all(&mut self, specs: &[ParamSpec]) -> Result<Weights, ModelError> {
        self.check(specs)?;
        let mut in_order: Vec<&ParamSpec> = specs.iter().collect();
        in_order.sort_by_key(|spec| self.tensors[&spec.name].data_offsets.0);
        in_order.into_iter().map(|spec| Ok((spec.name.clone(), self.read(&spec.name)?))).collect()
    }

    /// One tensor as f32. F32, BF16 and F16 are read.
    pub(crate) fn read(&mut self, name: &str) -> Result<Tensor, ModelError> {
        let info = self.tensors.get(name).ok_or_else(|| ModelError::MissingTensor {
            name: name.into(),
            expected: Vec::new(),
            n_missing: 1,
        })?;
        let (dtype, shape, (begin, _)) = (info.dtype, info.shape.clone(), info.data_offsets);
        let n = shape.iter().product();
        let start = self.data_start + begin as u64;
        let data = self.file.seek(SeekFrom::Start(start)).and_then(|_| match dtype {
            FileDtype::F32 => read_f32(&mut self.file, n).map(Some),
            FileDtype::BF16 => read_u16(&mut self.file, n, |bits| f32::from_bits(u32::from(bits) << 16)).map(Some),
            FileDtype::F16 => read_u16(&mut self.file, n, |bits| half::f16::from_bits(bits).to_f32()).map(Some),
            _ => Ok(None),
        });
        let data = data
            .map_err(|source| ModelError::Read { path: self.path.clone(), source })?
            .ok_or_else(|| dtype_error(name, dtype, "F32, BF16 or F16"))?;
        check_finite(name, &data)?;
        Ok(Tensor { shape, data })
    }
}

fn dtype_error(name: &str, found: FileDtype, expected: &'static str) -> ModelError {
    ModelError::TensorDtype { name: name.into(), expected, found: format!("{found:?}") }
}

fn read_f32(file: &mut File, n: usize) -> io::Result<Vec<f32>> {
    let mut data = vec![0f32; n];
    file.read_exact(bytemuck::cast_slice_mut(&mut data))?;
    if cfg!(target_endian = "big") {
        data.iter_mut().for_each(|value| *value = f32::from_bits(value.to_bits().swap_bytes()));
    }
    Ok(data)
}

fn read_u16(file: &mut File, n: usize, widen: impl Fn(u16) -> f32) -> io::Result<Vec<f32>> {
    let mut bytes = vec![0; 2 * n];
    file.read_exact(&mut bytes)?;
    Ok(bytes.chunks_exact(2).map(|pair| widen(u16::from_le_bytes([pair[0], pair[1]]))).collect())
}

/// Writes `weights` as a safetensors file, matrices as `dtype`; equal weights give equal bytes.
pub(crate) fn write_weights(out: &mut dyn Write, weights: &Weights, dtype: Dtype) -> io::Result<()> {
    let mut tensors: Vec<(&str, &Tensor, Dtype)> =
        weights.iter().map(|(name, tensor)| (name, tensor, dtype.of(name, &tensor.shape))).collect();
    // Wider types first keeps every tensor aligned to its type.
    tensors.sort_by_key(|(_, _, dtype)| std::cmp::Reverse(dtype.size()));
    let header = header(&tensors).map_err(io::Error::other)?;
    out.write_all(&(header.len() as u64).to_le_bytes())?;
    out.write_all(&header)?;
    tensors.into_iter().try_for_each(|(_, tensor, dtype)| write_values(out, &tensor.data, dtype))
}

/// The JSON header, padded with spaces to 8 bytes.
fn header(tensors: &[(&str, &Tensor, Dtype)]) -> Result<Vec<u8>, Box<dyn std::error::Error + Send + Sync>> {
    let mut begin = 0;
    let mut infos = Vec::with_capacity(tensors.len());
    for (name, tensor, dtype) in tensors {
        let end = begin + tensor.data.len() * dtype.size();
        let info = TensorInfo { dtype: dtype.in_file(), shape: tensor.shape.clone(), data_offsets: (begin, end) };
        infos.push((name.to_string(), info));
        begin = end;
    }
    let format = [("format".to_string(), "pt".to_string())].into();
    let mut header = serde_json::to_vec(&Metadata::new(Some(format), infos)?)?;
    header.resize(header.len().next_multiple_of(8), b' ');
    Ok(header)
}

fn write_values(out: &mut dyn Write, values: &[f32], dtype: Dtype) -> io::Result<()> {
    const BLOCK: usize = 16 * 1024;
    let mut bytes = Vec::with_capacity(BLOCK * dtype.size());
    for block in values.chunks(BLOCK) {
        bytes.clear();
        match dtype {
            Dtype::F32 => block.iter().for_each(|value| bytes.extend(value.to_le_bytes())),
            Dtype::Bf16 => block.iter().for_each(|&value| bytes.extend(half::bf16::from_f32(value).to_le_bytes())),
        }
        out.write_all(&bytes)?;
    }
    Ok(())
}
