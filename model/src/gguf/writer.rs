//! The format of a GGUF file, version 3: metadata, entries of tensors, and their contents, each aligned.

use super::quantize::TensorType;
use crate::tensor_writer::ByteCounter;
use codelsi_engine::Result;
use codelsi_engine::files::write_atomic_with;
use std::io::{self, Write};
use std::path::Path;

/// Contents of tensors begin at multiples of this.
pub(super) const ALIGNMENT: usize = 32;
const VERSION: u32 = 3;

/// A metadata value.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    U32(u32),
    F32(f32),
    Bool(bool),
    Text(String),
    F32s(Vec<f32>),
    I32s(Vec<i32>),
    Texts(Vec<String>),
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Value::Text(text.to_string())
    }
}

/// Keys and values in the order of the file.
pub(super) type Metadata = Vec<(String, Value)>;

/// A tensor to be written; its shape begins with the rows.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct TensorEntry {
    pub(super) name: String,
    pub(super) shape: Vec<usize>,
    pub(super) tensor_type: TensorType,
}

impl TensorEntry {
    /// Size of the content in bytes.
    pub(super) fn byte_len(&self) -> usize {
        self.tensor_type.byte_len(self.shape.iter().product())
    }
}

/// Writes a file atomically. `fill` is called for each tensor in order, with its index, and writes its content.
///
/// # Errors
/// When the file cannot be written, or `fill` fails or writes another number of bytes than the entry says.
pub(super) fn write_gguf(
    path: &Path,
    metadata: &Metadata,
    tensors: &[TensorEntry],
    fill: &mut dyn FnMut(usize, &mut dyn Write) -> io::Result<()>,
) -> Result<()> {
    write_atomic_with(path, |file| {
        file.write_all(&header(metadata, tensors))?;
        for (i, tensor) in tensors.iter().enumerate() {
            let mut counter = ByteCounter { inner: file, bytes: 0 };
            fill(i, &mut counter).map_err(|e| io::Error::other(format!("`{}`: {e}", tensor.name)))?;
            let written = counter.bytes;
            if written != tensor.byte_len() {
                return Err(io::Error::other(format!("{written} bytes written for {tensor:?}")));
            }
            file.write_all(&padding(written))?;
        }
        Ok(())
    })
}

/// Returns the file's beginning, up to the first tensor's content.
fn header(metadata: &Metadata, tensors: &[TensorEntry]) -> Vec<u8> {
    let mut out = Vec::from(*b"GGUF");
    out.extend(VERSION.to_le_bytes());
    put_len(&mut out, tensors.len());
    put_len(&mut out, metadata.len());
    for (key, value) in metadata {
        put_text(&mut out, key);
        put_value(&mut out, value);
    }
    let mut offset = 0;
    for tensor in tensors {
        put_text(&mut out, &tensor.name);
        out.extend((tensor.shape.len() as u32).to_le_bytes());
        // The fastest dimension comes first.
        tensor.shape.iter().rev().for_each(|&size| put_len(&mut out, size));
        out.extend(tensor.tensor_type.ggml_type().to_le_bytes());
        put_len(&mut out, offset);
        offset += tensor.byte_len().next_multiple_of(ALIGNMENT);
    }
    out.extend(padding(out.len()));
    out
}

/// Zeros from a position to the next aligned one.
fn padding(position: usize) -> Vec<u8> {
    vec![0; position.next_multiple_of(ALIGNMENT) - position]
}

fn put_len(out: &mut Vec<u8>, len: usize) {
    out.extend((len as u64).to_le_bytes());
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    put_len(out, text.len());
    out.extend(text.as_bytes());
}

/// Appends a value's type and the value.
fn put_value(out: &mut Vec<u8>, value: &Value) {
    let [u32_type, i32_type, f32_type, bool_type, text_type, array_type] = [4u32, 5, 6, 7, 8, 9];
    let array = |out: &mut Vec<u8>, of: u32, len: usize| {
        out.extend(array_type.to_le_bytes());
        out.extend(of.to_le_bytes());
        put_len(out, len);
    };
    let single = |out: &mut Vec<u8>, kind: u32, bytes: &[u8]| {
        out.extend(kind.to_le_bytes());
        out.extend(bytes);
    };
    match value {
        Value::U32(x) => single(out, u32_type, &x.to_le_bytes()),
        Value::F32(x) => single(out, f32_type, &x.to_le_bytes()),
        Value::Bool(x) => single(out, bool_type, &[u8::from(*x)]),
        Value::Text(text) => {
            single(out, text_type, &[]);
            put_text(out, text);
        }
        Value::F32s(all) => {
            array(out, f32_type, all.len());
            out.extend(bytemuck::cast_slice(all));
        }
        Value::I32s(all) => {
            array(out, i32_type, all.len());
            out.extend(bytemuck::cast_slice(all));
        }
        Value::Texts(all) => {
            array(out, text_type, all.len());
            all.iter().for_each(|text| put_text(out, text));
        }
    }
}
