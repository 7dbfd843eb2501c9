//! Types of tensors in a GGUF file, and the conversion of f32 values to them.

use half::{bf16, f16};
use rayon::prelude::*;
use safetensors::Dtype;
use std::io::{self, Write};

/// Values of a block that share a scale.
const BLOCK: usize = 32;
/// Bytes of a block: the scale in f16, and a byte for each value.
const BLOCK_BYTES: usize = 2 + BLOCK;
/// Values that are converted at a time.
const CHUNK: usize = 1 << 20;

/// A type that tensors are stored in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TensorType {
    F32,
    F16,
    BF16,
    /// Blocks of 32 values: bytes, and their scale in f16.
    Q8_0,
}

impl TensorType {
    /// The type that a checkpoint is stored in.
    pub(super) fn stored(dtype: Dtype) -> Self {
        match dtype {
            Dtype::F16 => TensorType::F16,
            Dtype::BF16 => TensorType::BF16,
            _ => TensorType::F32,
        }
    }

    /// Name on the command line.
    pub fn name(self) -> &'static str {
        ["f32", "f16", "bf16", "q8_0"][self as usize]
    }

    /// Number in a tensor's entry (`ggml_type`).
    pub(super) fn ggml_type(self) -> u32 {
        [0, 1, 30, 8][self as usize]
    }

    /// Number of a file whose matrices have this type (`general.file_type`).
    pub(super) fn file_type(self) -> u32 {
        [0, 1, 32, 7][self as usize]
    }

    /// The type of one tensor in a file of this type: f32 for vectors, f16 where rows are not whole blocks.
    pub(super) fn of_tensor(self, shape: &[usize]) -> Self {
        match (self, shape) {
            (_, [] | [_]) => TensorType::F32,
            (TensorType::Q8_0, [.., inner]) if !inner.is_multiple_of(BLOCK) => TensorType::F16,
            _ => self,
        }
    }

    /// Size of `elements` values in bytes.
    pub(super) fn byte_len(self, elements: usize) -> usize {
        match self {
            TensorType::F32 => 4 * elements,
            TensorType::F16 | TensorType::BF16 => 2 * elements,
            TensorType::Q8_0 => elements / BLOCK * BLOCK_BYTES,
        }
    }

    /// Writes values in this type, rounded to nearest even; a block's bytes are rounded half away from zero.
    ///
    /// # Errors
    /// When the file cannot be written, or a value is beyond the type's range.
    pub(super) fn write(self, values: &[f32], out: &mut dyn Write) -> io::Result<()> {
        for chunk in values.chunks(CHUNK) {
            match self {
                TensorType::F32 => out.write_all(bytemuck::cast_slice(chunk))?,
                TensorType::F16 => {
                    let narrow: Vec<f16> = chunk.par_iter().map(|&x| f16::from_f32(x)).collect();
                    check_range(chunk, |i| narrow[i].is_finite())?;
                    out.write_all(bytemuck::cast_slice(&narrow))?;
                }
                TensorType::BF16 => {
                    let narrow: Vec<bf16> = chunk.par_iter().map(|&x| bf16::from_f32(x)).collect();
                    out.write_all(bytemuck::cast_slice(&narrow))?;
                }
                TensorType::Q8_0 => {
                    let mut blocks = vec![0; self.byte_len(chunk.len())];
                    let pairs = blocks.par_chunks_mut(BLOCK_BYTES).zip(chunk.par_chunks(BLOCK));
                    pairs.for_each(|(block, values)| quantize_block(values, block));
                    let scale =
                        |i: usize| [blocks[i / BLOCK * BLOCK_BYTES], blocks[i / BLOCK * BLOCK_BYTES + 1]];
                    check_range(chunk, |i| chunk[i].is_finite() && f16::from_le_bytes(scale(i)).is_finite())?;
                    out.write_all(&blocks)?;
                }
            }
        }
        Ok(())
    }
}

/// Checks that every value is in its type's range, as `in_range` says of an index.
fn check_range(values: &[f32], in_range: impl Fn(usize) -> bool + Sync) -> io::Result<()> {
    match (0..values.len()).into_par_iter().find_first(|&i| !in_range(i)) {
        None => Ok(()),
        Some(i) => {
            let message = format!("{} is beyond the range of the type; give --type bf16 or f32", values[i]);
            Err(io::Error::other(message))
        }
    }
}

/// Stores 32 values as a scale and bytes.
fn quantize_block(values: &[f32], block: &mut [u8]) {
    let largest = values.iter().fold(0f32, |largest, x| largest.max(x.abs()));
    let scale = largest / 127.0;
    let inverse = if scale == 0.0 { 0.0 } else { 1.0 / scale };
    block[..2].copy_from_slice(&f16::from_f32(scale).to_le_bytes());
    for (byte, x) in block[2..].iter_mut().zip(values) {
        *byte = ((x * inverse).round() as i8) as u8;
    }
}
