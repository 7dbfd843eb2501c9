//! A memory-mapped safetensors file: its header is checked against the file, its tensors are read in place.
//!
//! Layout (<https://github.com/huggingface/safetensors>): 8 bytes of header length, little-endian; a JSON header
//! `{name: {dtype, shape, data_offsets}}`; then the tensors, back to back.

use super::convert::{convert, engine_dtype};
use super::slice::TensorSlice;
use codelsi_engine::{At, DType, Error, Result, Tensor};
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

/// The longest header accepted, in bytes, as in the format's own reader.
const MAX_HEADER: u64 = 100_000_000;
/// Elements scanned by one task.
const CHUNK: usize = 1 << 18;

/// A memory-mapped safetensors file.
pub struct TensorFile {
    path: PathBuf,
    file: File,
    map: Arc<Mmap>,
    entries: BTreeMap<String, TensorEntry>,
}

/// Type, shape and place of one tensor in its file.
#[derive(Clone, Debug)]
pub struct TensorEntry {
    pub dtype: Dtype,
    pub shape: Vec<usize>,
    /// Bytes from the start of the file.
    offset: usize,
    bytes: usize,
}

impl TensorEntry {
    /// Describes a tensor that no file holds.
    pub(super) fn without_file(dtype: Dtype, shape: Vec<usize>) -> Self {
        let bytes = shape.iter().product::<usize>() * dtype.bitsize() / 8;
        TensorEntry { dtype, shape, offset: 0, bytes }
    }

    /// Size of the stored tensor in bytes.
    pub(super) fn byte_len(&self) -> usize {
        self.bytes
    }

    /// Index of the first element of `slice`, if the slice can be used in the mapped file as it is: stored as
    /// `dtype` and contiguous.
    pub(super) fn mappable_start(&self, slice: &TensorSlice, dtype: DType) -> Option<usize> {
        slice.contiguous_start(&self.shape).filter(|_| engine_dtype(self.dtype) == Some(dtype))
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
        let entries = parse_header(&map).at(path.display().to_string())?;
        Ok(TensorFile { path, file, map, entries })
    }

    /// Path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Every tensor by name.
    pub fn entries(&self) -> &BTreeMap<String, TensorEntry> {
        &self.entries
    }

    /// Gives a tensor another name, beside its own.
    pub(super) fn alias(&mut self, name: &str, alias: &str) {
        if let Some(entry) = self.entries.get(name).cloned() {
            self.entries.insert(alias.to_owned(), entry);
        }
    }

    /// Returns the type, shape and place of a tensor.
    ///
    /// # Errors
    /// When the file has no tensor of that name.
    pub fn entry(&self, name: &str) -> Result<&TensorEntry> {
        self.entries.get(name).ok_or_else(|| {
            Error::new(format!("tensor `{name}` is missing")).at(self.path.display().to_string())
        })
    }

    /// Size of the file in bytes.
    pub fn byte_len(&self) -> usize {
        self.map.len()
    }

    /// Returns a tensor's bytes as they are stored: little-endian, perhaps unaligned.
    ///
    /// # Errors
    /// When the file has no such tensor.
    pub fn bytes(&self, name: &str) -> Result<&[u8]> {
        let entry = self.entry(name)?;
        Ok(&self.map[entry.offset..entry.offset + entry.bytes])
    }

    /// Returns a slice of a tensor as a view of the mapped file, if it is stored as `dtype`, contiguous and aligned.
    pub(super) fn mapped(&self, entry: &TensorEntry, slice: &TensorSlice, dtype: DType) -> Option<Tensor> {
        let start = entry.mappable_start(slice, dtype)?;
        let shape = slice.shape(&entry.shape).ok()?;
        Tensor::mapped(&self.map, entry.offset + start * dtype.size(), shape, dtype).ok()
    }

    /// Fills `to` with elements of `slice` from the `first` on, converted to `dtype`. Fills with zeros beyond the
    /// slice's end.
    ///
    /// # Errors
    /// When the file cannot be read, or does not hold floating-point numbers.
    pub(super) fn read(
        &self,
        entry: &TensorEntry,
        slice: &TensorSlice,
        first: usize,
        dtype: DType,
        mut to: &mut [u8],
    ) -> Result<()> {
        let (runs, width) = (slice.runs(&entry.shape), entry.dtype.bitsize() / 8);
        let end = runs.elements().min(first + to.len() / dtype.size());
        let failed = |e| Error::io(&self.path, e);
        let mut raw = Vec::new();
        for range in runs.stored_ranges(first..end) {
            let (values, rest) = to.split_at_mut(range.len() * dtype.size());
            let offset = (entry.offset + range.start * width) as u64;
            if engine_dtype(entry.dtype) == Some(dtype) {
                self.file.read_exact_at(values, offset).map_err(failed)?;
            } else {
                raw.resize(range.len() * width, 0);
                self.file.read_exact_at(&mut raw, offset).map_err(failed)?;
                convert(entry.dtype, &raw, dtype, values).at(self.path.display().to_string())?;
            }
            to = rest;
        }
        to.fill(0);
        Ok(())
    }

    /// Returns the index and value of a tensor's first NaN or infinity.
    ///
    /// # Errors
    /// When the file has no such tensor.
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

/// Parses the header of a file, and checks it against the file's length.
fn parse_header(file: &[u8]) -> Result<BTreeMap<String, TensorEntry>> {
    let Some((length, rest)) = file.split_first_chunk::<8>() else {
        return Err(Error::new(format!(
            "{} bytes are too few for a safetensors file: it is truncated",
            file.len()
        )));
    };
    let length = u64::from_le_bytes(*length);
    if length > MAX_HEADER || length > rest.len() as u64 {
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
        let (dtype, shape) = (info.dtype, info.shape.clone());
        (name, TensorEntry { dtype, shape, offset: start + from, bytes: to - from })
    };
    Ok(metadata.tensors().into_iter().map(entry).collect())
}

fn first_non_finite<const N: usize>(
    bytes: &[u8],
    get: impl Fn([u8; N]) -> f32 + Sync,
) -> Option<(usize, f32)> {
    bytes.par_chunks(CHUNK * N).enumerate().find_map_first(|(chunk, bytes)| {
        let values = bytes.as_chunks::<N>().0;
        let i = values.iter().position(|&x| !get(x).is_finite())?;
        Some((chunk * CHUNK + i, get(values[i])))
    })
}

/// Joins the first few of many mismatches, and says how many more there are.
pub(crate) fn summarize(mismatches: &[String]) -> String {
    const NAMED: usize = 4;
    let named = mismatches[..mismatches.len().min(NAMED)].join("; ");
    match mismatches.len().saturating_sub(NAMED) {
        0 => named,
        more => format!("{named}; and {more} more"),
    }
}

/// Returns the index of the `flat`-th element of a row-major tensor.
fn unravel(mut flat: usize, shape: &[usize]) -> Vec<usize> {
    let mut index = vec![0; shape.len()];
    for (i, &n) in index.iter_mut().zip(shape).rev() {
        *i = flat % n;
        flat /= n;
    }
    index
}
