//! A safetensors file, mapped: its header checked against the file, its tensors read in place.
//!
//! Layout (<https://github.com/huggingface/safetensors>): 8 bytes of header length, little-endian; a JSON header
//! `{name: {dtype, shape, data_offsets}}`; then the tensors, back to back.

use crate::loading::{Job, send};
use crate::part::Part;
use codelsi_engine::{At, DType, Device, Error, Label, Result, Tensor};
use codelsi_kernels::simd::Storage;
use half::{bf16, f16};
use memmap2::Mmap;
use rayon::prelude::*;
use safetensors::Dtype;
use safetensors::tensor::Metadata;
use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The longest header that is believed, as in the format's own reader.
const LONGEST_HEADER: u64 = 100_000_000;
/// Elements converted or scanned by one task.
const CHUNK: usize = 1 << 18;

/// A mapped safetensors file.
pub struct TensorFile {
    path: PathBuf,
    file: File,
    map: Arc<Mmap>,
    entries: BTreeMap<String, Entry>,
}

/// Where one tensor lies in its file.
#[derive(Clone, Debug)]
pub struct Entry {
    pub dtype: Dtype,
    pub shape: Vec<usize>,
    /// From the start of the file.
    offset: usize,
    bytes: usize,
}

impl Entry {
    /// Of a tensor that no file holds.
    pub(crate) fn absent(dtype: Dtype, shape: Vec<usize>) -> Self {
        let bytes = shape.iter().product::<usize>() * dtype.bitsize() / 8;
        Entry { dtype, shape, offset: 0, bytes }
    }

    pub(crate) fn byte_len(&self) -> usize {
        self.bytes
    }
}

impl TensorFile {
    /// Maps `path` and checks its header; reads no tensor.
    ///
    /// # Errors
    /// When the file cannot be read, is truncated, or its header is malformed, overlaps itself, leaves gaps or
    /// disagrees with the file's length.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref().to_path_buf();
        let (file, map) = map_file(&path)?;
        let entries = entries(&map).at(path.display().to_string())?;
        Ok(TensorFile { path, file, map, entries })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Every tensor by name.
    pub fn entries(&self) -> &BTreeMap<String, Entry> {
        &self.entries
    }

    /// Size of the file in bytes.
    pub fn byte_len(&self) -> usize {
        self.map.len()
    }

    /// A part of a tensor in the file, where the host can read it there as `dtype`.
    fn in_place(&self, entry: &Entry, part: &Part, dtype: DType) -> Option<Tensor> {
        let start = part.in_one_run(&entry.shape).filter(|_| stored(entry.dtype) == Some(dtype))?;
        let shape = part.shape(&entry.shape).ok()?;
        Tensor::mapped(&self.map, entry.offset + start * dtype.size(), shape, dtype).ok()
    }

    /// A part of a tensor as `dtype`: in place when the host reads it, it is stored so, aligned and in one piece; else a
    /// copy under `label`.
    ///
    /// # Errors
    /// When the file has no such tensor or part, or it holds no floating-point numbers.
    pub fn tensor(
        &self,
        device: &Device,
        label: Label,
        name: &str,
        part: &Part,
        dtype: DType,
    ) -> Result<Tensor> {
        let entry = self.entry(name)?;
        if let (Device::Cpu(_), Some(tensor)) = (device, self.in_place(entry, part, dtype)) {
            return Ok(tensor);
        }
        self.copy(device, label, name, part, dtype)
    }

    /// An own copy of a part of a tensor, converted to `dtype` (F32 or BF16, rounded to nearest even).
    ///
    /// # Errors
    /// As [`TensorFile::tensor`].
    pub fn copy(
        &self,
        device: &Device,
        label: Label,
        name: &str,
        part: &Part,
        dtype: DType,
    ) -> Result<Tensor> {
        let entry = self.entry(name)?;
        let mut tensor = device.empty(label, part.shape(&entry.shape).at(name)?, dtype);
        match device {
            Device::Plan(_) => {}
            Device::Cuda(cuda) => {
                send(cuda, &[Job { file: self, entry, part: part.clone(), to: tensor.clone() }], None)?;
            }
            Device::Cpu(_) => {
                let chunks = tensor.bytes_mut()?.par_chunks_mut(CHUNK * dtype.size()).enumerate();
                let read = |(i, to): (usize, &mut [u8])| self.read(entry, part, i * CHUNK, dtype, to);
                chunks.try_for_each(read)?;
            }
        }
        Ok(tensor)
    }

    /// Fills `to` with the elements of `part` from number `first` on, as `dtype`; what lies beyond its end is zero.
    pub(crate) fn read(
        &self,
        entry: &Entry,
        part: &Part,
        first: usize,
        dtype: DType,
        mut to: &mut [u8],
    ) -> Result<()> {
        let (runs, width) = (part.runs(&entry.shape), entry.dtype.bitsize() / 8);
        let end = runs.elements().min(first + to.len() / dtype.size());
        let failed = |e| Error::io(&self.path, e);
        let mut raw = Vec::new();
        for run in runs.within(first..end) {
            let (values, rest) = to.split_at_mut(run.len() * dtype.size());
            let offset = (entry.offset + run.start * width) as u64;
            if stored(entry.dtype) == Some(dtype) {
                self.file.read_exact_at(values, offset).map_err(failed)?;
            } else {
                raw.resize(run.len() * width, 0);
                self.file.read_exact_at(&mut raw, offset).map_err(failed)?;
                convert(entry.dtype, &raw, dtype, values).at(self.path.display().to_string())?;
            }
            to = rest;
        }
        to.fill(0);
        Ok(())
    }

    /// The first NaN or infinity of a tensor: its index and its value.
    ///
    /// # Errors
    /// As [`TensorFile::tensor`].
    pub fn non_finite(&self, name: &str) -> Result<Option<(Vec<usize>, f32)>> {
        let entry = self.entry(name)?;
        let bytes = self.bytes(name)?;
        let found = match entry.dtype {
            Dtype::F32 => first_non_finite(bytes, f32::from_le_bytes),
            Dtype::F16 => first_non_finite(bytes, |b| f16::from_le_bytes(b).to_f32()),
            Dtype::BF16 => first_non_finite(bytes, |b| bf16::from_le_bytes(b).get()),
            _ => None,
        };
        Ok(found.map(|(flat, value)| (unravel(flat, &entry.shape), value)))
    }

    /// Where a tensor lies.
    ///
    /// # Errors
    /// When the file has none of that name.
    pub fn entry(&self, name: &str) -> Result<&Entry> {
        self.entries.get(name).ok_or_else(|| {
            Error::new(format!("tensor `{name}` is missing")).at(self.path.display().to_string())
        })
    }

    /// A tensor's bytes as they are stored, little-endian and perhaps unaligned.
    ///
    /// # Errors
    /// When the file has no such tensor.
    pub fn bytes(&self, name: &str) -> Result<&[u8]> {
        let entry = self.entry(name)?;
        Ok(&self.map[entry.offset..entry.offset + entry.bytes])
    }
}

/// The engine's storage type of a file's, if they are the same.
pub fn stored(dtype: Dtype) -> Option<DType> {
    match dtype {
        Dtype::F32 => Some(DType::F32),
        Dtype::BF16 => Some(DType::BF16),
        _ => None,
    }
}

/// Maps a file for reading.
fn map_file(path: &Path) -> Result<(File, Arc<Mmap>)> {
    let file = File::open(path).map_err(|e| Error::io(path, e))?;
    if !file.metadata().map_err(|e| Error::io(path, e))?.is_file() {
        return Err(Error::io(path, "not a regular file"));
    }
    // SAFETY: nobody shortens or rewrites the file while it is mapped. Checkpoints are replaced by renaming,
    // which leaves a mapped file as it was.
    let map = unsafe { Mmap::map(&file) };
    let map = map.map_err(|e| Error::io(path, e))?;
    Ok((file, Arc::new(map)))
}

fn entries(file: &[u8]) -> Result<BTreeMap<String, Entry>> {
    let Some((length, rest)) = file.split_first_chunk::<8>() else {
        return Err(Error::new(format!(
            "{} bytes are too few for a safetensors file: it is truncated",
            file.len()
        )));
    };
    let length = u64::from_le_bytes(*length);
    if length > LONGEST_HEADER || length > rest.len() as u64 {
        return Err(Error::new(format!(
            "claims a header of {length} bytes in a file of {}: truncated, or no safetensors file",
            file.len()
        )));
    }
    let (header, data) = rest.split_at(length as usize);
    // Parsing checks that tensors follow each other without overlap or gap and that sizes match shapes.
    let metadata: Metadata = serde_json::from_slice(header)
        .map_err(|e| Error::new(format!("the safetensors header is broken: {e}")))?;
    if metadata.data_len() != data.len() {
        return Err(Error::new(format!(
            "its header promises {} bytes of tensors, the file holds {}: truncated or overwritten",
            metadata.data_len(),
            data.len()
        )));
    }
    let start = 8 + length as usize;
    let entry = |(name, info): (String, &safetensors::tensor::TensorInfo)| {
        let (from, to) = info.data_offsets;
        let entry =
            Entry { dtype: info.dtype, shape: info.shape.clone(), offset: start + from, bytes: to - from };
        (name, entry)
    };
    Ok(metadata.tensors().into_iter().map(entry).collect())
}

/// Stored numbers as `dtype`, which is F32 or BF16.
fn convert(from: Dtype, bytes: &[u8], dtype: DType, to: &mut [u8]) -> Result<()> {
    match dtype {
        DType::F32 => convert_to::<f32>(from, bytes, bytemuck::cast_slice_mut(to)),
        DType::BF16 => convert_to::<bf16>(from, bytes, bytemuck::cast_slice_mut(to)),
        DType::I32 => Err(Error::new("weights are not read as integers")),
    }
}

fn convert_to<T: Storage>(from: Dtype, bytes: &[u8], to: &mut [T]) -> Result<()> {
    match from {
        Dtype::F32 => widen(bytes, f32::from_le_bytes, to),
        Dtype::F16 => widen(bytes, |b| f16::from_le_bytes(b).to_f32(), to),
        Dtype::BF16 => widen(bytes, |b| bf16::from_le_bytes(b).get(), to),
        _ => return Err(Error::new(format!("stored as {from:?}; only F32, F16 and BF16 are read"))),
    }
    Ok(())
}

fn widen<const N: usize, T: Storage>(bytes: &[u8], get: impl Fn([u8; N]) -> f32, to: &mut [T]) {
    for (y, x) in to.iter_mut().zip(bytes.as_chunks::<N>().0) {
        *y = T::put(get(*x));
    }
}

fn first_non_finite<const N: usize>(
    bytes: &[u8],
    get: impl Fn([u8; N]) -> f32 + Sync,
) -> Option<(usize, f32)> {
    bytes.par_chunks(CHUNK * N).enumerate().find_map_first(|(chunk, bytes)| {
        let values = bytes.as_chunks::<N>().0;
        let at = values.iter().position(|&x| !get(x).is_finite())?;
        Some((chunk * CHUNK + at, get(values[at])))
    })
}

/// The first of many complaints, and how many more there are.
pub(crate) fn first_few(complaints: &[String]) -> String {
    const NAMED: usize = 4;
    let named = complaints[..complaints.len().min(NAMED)].join("; ");
    match complaints.len().saturating_sub(NAMED) {
        0 => named,
        more => format!("{named}; and {more} more"),
    }
}

/// The index of the `flat`-th element of a row-major tensor.
fn unravel(mut flat: usize, shape: &[usize]) -> Vec<usize> {
    let mut index = vec![0; shape.len()];
    for (i, &n) in index.iter_mut().zip(shape).rev() {
        *i = flat % n;
        flat /= n;
    }
    index
}
