//! Safetensors files, read and written tensor by tensor, so that memory holds the weights once.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    fs::File,
    io::{self, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use safetensors::tensor::{Dtype as FileDtype, Metadata, TensorInfo};
use serde::{Deserialize, Serialize};

use crate::{
    ModelError, ParamSpec, Weights,
    weights::{Tensor, check_finite, check_layout, check_shape, check_unexpected},
};

/// Longest header in bytes, the format's own limit.
const HEADER_LEN_MAX: u64 = 100_000_000;

/// The type of matrices in a file. Vectors and `A_log` are always f32: they are small, and the scan is sensitive to
/// them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Dtype {
    /// IEEE single precision.
    #[default]
    F32,
    /// The upper half of an f32, rounded to nearest even.
    Bf16,
    /// A byte per value, -127 to 127, and an f32 scale per row (output), as inference computes.
    ///
    /// Embeddings, and matrices that inference keeps in 16 bits, are bf16.
    Int8,
}

impl Dtype {
    /// The type in the file of the tensor `name`.
    pub(crate) fn of(self, name: &str, shape: &[usize]) -> Self {
        match self {
            _ if shape.len() < 2 || name.ends_with("A_log") => Self::F32,
            Self::Int8 if !is_linear(name, shape) => Self::Bf16,
            dtype => dtype,
        }
    }

    /// Its name in lower case.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::Int8 => "int8",
        }
    }

    /// Bytes of a tensor of this `shape`, scales included.
    pub fn bytes(self, shape: &[usize]) -> usize {
        let scales = if self == Self::Int8 { shape[0] * Self::F32.size() } else { 0 };
        shape.iter().product::<usize>() * self.size() + scales
    }

    /// Bytes of one value.
    fn size(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::Bf16 => 2,
            Self::Int8 => 1,
        }
    }

    fn in_file(self) -> FileDtype {
        match self {
            Self::F32 => FileDtype::F32,
            Self::Bf16 => FileDtype::BF16,
            Self::Int8 => FileDtype::I8,
        }
    }
}

/// Whether a tensor is the matrix of a linear layer that inference may compute with in 8 bits.
fn is_linear(name: &str, shape: &[usize]) -> bool {
    let finer = ["embeddings", "x_proj", "dt_proj"];
    shape.len() == 2 && name.ends_with(".weight") && !finer.iter().any(|part| name.contains(part))
}

/// The name of the scales of an int8 matrix, `[rows]`.
fn scales_of(name: &str) -> String {
    format!("{name}.scale")
}

/// An open file whose header has been checked.
#[derive(Debug)]
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

    /// Checks that these are exactly the tensors of `specs`, with the scales of int8 matrices; returns the types.
    pub(crate) fn check(&self, specs: &[ParamSpec]) -> Result<BTreeMap<String, Dtype>, ModelError> {
        check_layout(specs, |name| self.tensors.get(name).map(|info| info.shape.as_slice()))?;
        let dtype = |spec: &ParamSpec| match self.tensors[&spec.name].dtype {
            FileDtype::F32 => Ok((spec.name.clone(), Dtype::F32)),
            FileDtype::BF16 => Ok((spec.name.clone(), Dtype::Bf16)),
            FileDtype::I8 if spec.shape.len() == 2 => Ok((spec.name.clone(), Dtype::Int8)),
            other => Err(dtype_error(&spec.name, other, "F32, BF16 or (a matrix) I8")),
        };
        let dtypes = specs.iter().map(dtype).collect::<Result<BTreeMap<_, _>, _>>()?;
        let scaled = specs.iter().filter(|spec| dtypes[&spec.name] == Dtype::Int8);
        let scales =
            scaled.map(|spec| ParamSpec { name: scales_of(&spec.name), shape: vec![spec.shape[0]], part: spec.part });
        let with_scales: Vec<ParamSpec> = specs.iter().cloned().chain(scales).collect();
        check_layout(&with_scales, |name| self.tensors.get(name).map(|info| info.shape.as_slice()))?;
        check_unexpected(&with_scales, self.names())?;
        Ok(dtypes)
    }

    /// The tensors of `specs`, which [`TensorFile::check`] must have found, and finite.
    pub(crate) fn read_all(&mut self, specs: &[ParamSpec]) -> Result<Weights, ModelError> {
        let mut in_order: Vec<&ParamSpec> = specs.iter().collect();
        in_order.sort_by_key(|spec| self.tensors[&spec.name].data_offsets.0);
        in_order.into_iter().map(|spec| Ok((spec.name.clone(), self.read(&spec.name)?))).collect()
    }

    /// One tensor as f32. F32, BF16, F16, and matrices in I8 with their scales are read.
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
            FileDtype::I8 if shape.len() == 2 => read_i8(&mut self.file, n).map(Some),
            _ => Ok(None),
        });
        let mut data = data
            .map_err(|source| ModelError::Read { path: self.path.clone(), source })?
            .ok_or_else(|| dtype_error(name, dtype, "F32, BF16, F16 or (a matrix) I8"))?;
        if dtype == FileDtype::I8 {
            let scales = self.read(&scales_of(name))?;
            check_shape(&scales_of(name), &shape[..1], &scales.shape)?;
            let rows = data.chunks_exact_mut(shape[1].max(1));
            rows.zip(scales.data).for_each(|(row, scale)| row.iter_mut().for_each(|value| *value *= scale));
        }
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

fn read_i8(file: &mut File, n: usize) -> io::Result<Vec<f32>> {
    let mut bytes = vec![0; n];
    file.read_exact(&mut bytes)?;
    Ok(bytes.into_iter().map(|byte| f32::from(byte as i8)).collect())
}

/// A tensor in the form in which it is written.
struct Entry<'a> {
    name: String,
    shape: Vec<usize>,
    dtype: Dtype,
    values: Cow<'a, [f32]>,
}

impl<'a> Entry<'a> {
    /// `tensor` as `dtype`: its values, and for int8 its scales as well.
    fn of(name: &str, tensor: &'a Tensor, dtype: Dtype) -> Vec<Self> {
        let values = Self {
            name: name.into(),
            shape: tensor.shape.clone(),
            dtype,
            values: Cow::Borrowed(tensor.data.as_slice()),
        };
        if dtype != Dtype::Int8 {
            return vec![values];
        }
        let scales: Vec<f32> = tensor.data.chunks_exact(tensor.shape[1].max(1)).map(scale_of).collect();
        let shape = vec![scales.len()];
        vec![values, Self { name: scales_of(name), shape, dtype: Dtype::F32, values: Cow::Owned(scales) }]
    }

    /// Writes row by row, so that memory holds no second copy.
    fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        let width = self.shape.last().copied().unwrap_or(1).max(1);
        let mut bytes = Vec::with_capacity(width * self.dtype.size());
        for row in self.values.chunks(width) {
            bytes.clear();
            match self.dtype {
                Dtype::F32 => row.iter().for_each(|value| bytes.extend(value.to_le_bytes())),
                Dtype::Bf16 => row.iter().for_each(|&value| bytes.extend(half::bf16::from_f32(value).to_le_bytes())),
                Dtype::Int8 => {
                    let scale = scale_of(row);
                    bytes.extend(row.iter().map(|x| (x / scale).round_ties_even() as i8 as u8));
                }
            }
            out.write_all(&bytes)?;
        }
        Ok(())
    }
}

/// The scale of an int8 row: its largest magnitude becomes 127.
fn scale_of(row: &[f32]) -> f32 {
    let largest = row.iter().fold(0.0, |largest: f32, x| largest.max(x.abs()));
    if largest > 0.0 { largest / 127.0 } else { 1.0 }
}

/// Writes `weights` as a safetensors file, matrices as `dtype`; equal weights give equal bytes.
pub(crate) fn write_weights(out: &mut dyn Write, weights: &Weights, dtype: Dtype) -> io::Result<()> {
    let entries = weights.iter().flat_map(|(name, tensor)| Entry::of(name, tensor, dtype.of(name, &tensor.shape)));
    let mut entries: Vec<Entry<'_>> = entries.collect();
    // Wider types first keeps every tensor aligned to its type.
    entries.sort_by_key(|entry| std::cmp::Reverse(entry.dtype.size()));
    let header = header(&entries).map_err(io::Error::other)?;
    out.write_all(&(header.len() as u64).to_le_bytes())?;
    out.write_all(&header)?;
    entries.iter().try_for_each(|entry| entry.write(out))
}

/// The JSON header, padded with spaces to 8 bytes.
fn header(entries: &[Entry<'_>]) -> Result<Vec<u8>, Box<dyn std::error::Error + Send + Sync>> {
    let mut begin = 0;
    let mut infos = Vec::with_capacity(entries.len());
    for Entry { name, shape, dtype, values } in entries {
        let end = begin + values.len() * dtype.size();
        let info = TensorInfo { dtype: dtype.in_file(), shape: shape.clone(), data_offsets: (begin, end) };
        infos.push((name.clone(), info));
        begin = end;
    }
    let format = [("format".to_string(), "pt".to_string())].into();
    let mut header = serde_json::to_vec(&Metadata::new(Some(format), infos)?)?;
    header.resize(header.len().next_multiple_of(8), b' ');
    Ok(header)
}
