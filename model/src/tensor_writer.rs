//! Writer of safetensors files, tensor by tensor, so that a model never has to fit in memory.

use codelsi_engine::files::{write_atomic, write_atomic_with};
use codelsi_engine::{Error, Result};
use safetensors::Dtype;
use serde_json::{Map, Value, json};
use std::io::{self, Write};
use std::path::Path;

/// Upper limit of a shard's tensor bytes.
pub const MAX_SHARD_BYTES: usize = 5_000_000_000;

/// Name, type and shape of a tensor to be written.
#[derive(Clone, Debug, PartialEq)]
pub struct TensorSpec {
    pub name: String,
    pub dtype: Dtype,
    pub shape: Vec<usize>,
}

impl TensorSpec {
    /// Size of the content in bytes.
    pub fn byte_len(&self) -> usize {
        self.shape.iter().product::<usize>() * self.dtype.bitsize() / 8
    }
}

/// Writes one file atomically. `fill` is called for each tensor, in the file's order, and writes its content.
///
/// # Errors
/// When the file cannot be written, or `fill` fails or writes another number of bytes than the shape says.
pub fn write_tensor_file(
    path: impl AsRef<Path>,
    specs: &[TensorSpec],
    fill: &mut dyn FnMut(&TensorSpec, &mut dyn Write) -> io::Result<()>,
) -> Result<()> {
    // Wide types first: every tensor is then aligned to its element type.
    let mut order: Vec<&TensorSpec> = specs.iter().collect();
    order.sort_by_key(|spec| std::cmp::Reverse(spec.dtype.bitsize()));
    write_atomic_with(path, |file| {
        file.write_all(&header(&order))?;
        for spec in order {
            let mut counter = ByteCounter { inner: file, bytes: 0 };
            fill(spec, &mut counter)?;
            if counter.bytes != spec.byte_len() {
                let message = format!("`{}`: {} bytes written for {spec:?}", spec.name, counter.bytes);
                return Err(io::Error::other(message));
            }
        }
        Ok(())
    })
}

/// Writes the weights of a model folder: `model.safetensors`, or shards of at most `shard_bytes` and their index.
///
/// # Errors
/// When a file cannot be written, or `fill` fails or writes another number of bytes than the shape says.
pub fn write_model(
    folder: &Path,
    specs: &[TensorSpec],
    shard_bytes: usize,
    fill: &mut dyn FnMut(&TensorSpec, &mut dyn Write) -> io::Result<()>,
) -> Result<()> {
    let shards = split_into_shards(specs, shard_bytes);
    if let [all] = shards[..] {
        return write_tensor_file(folder.join("model.safetensors"), all, fill);
    }
    let mut weight_map = Map::new();
    for (i, shard) in shards.iter().enumerate() {
        let name = format!("model-{:05}-of-{:05}.safetensors", i + 1, shards.len());
        write_tensor_file(folder.join(&name), shard, fill)?;
        weight_map.extend(shard.iter().map(|spec| (spec.name.clone(), Value::from(name.as_str()))));
    }
    let total: usize = specs.iter().map(TensorSpec::byte_len).sum();
    let index = json!({"metadata": {"total_size": total}, "weight_map": weight_map});
    write_json(folder.join("model.safetensors.index.json"), &index)
}

/// Writes indented JSON and a newline atomically.
///
/// # Errors
/// When the file cannot be written.
pub fn write_json(path: impl AsRef<Path>, value: &Value) -> Result<()> {
    let text = serde_json::to_string_pretty(value).map_err(|e| Error::io(&path, e))?;
    write_atomic(path, (text + "\n").as_bytes())
}

/// Splits tensors, in order, into shards that are each as large as the limit allows.
fn split_into_shards(specs: &[TensorSpec], limit: usize) -> Vec<&[TensorSpec]> {
    let mut shards = Vec::new();
    let (mut start, mut bytes) = (0, 0);
    for (i, spec) in specs.iter().enumerate() {
        if i > start && bytes + spec.byte_len() > limit {
            shards.push(&specs[start..i]);
            (start, bytes) = (i, 0);
        }
        bytes += spec.byte_len();
    }
    shards.push(&specs[start..]);
    shards
}

/// Returns a file's first bytes: the header's length and the JSON header, padded so that tensors start at a
/// multiple of 8.
fn header(specs: &[&TensorSpec]) -> Vec<u8> {
    let mut entries = Map::new();
    entries.insert("__metadata__".into(), json!({"format": "pt"}));
    let mut start = 0;
    for spec in specs {
        let end = start + spec.byte_len();
        let entry =
            json!({"dtype": spec.dtype.to_string(), "shape": spec.shape, "data_offsets": [start, end]});
        entries.insert(spec.name.clone(), entry);
        start = end;
    }
    let mut text = Value::Object(entries).to_string().into_bytes();
    text.resize(text.len().next_multiple_of(8), b' ');
    [&(text.len() as u64).to_le_bytes()[..], &text].concat()
}

/// A writer that counts the bytes written.
pub(crate) struct ByteCounter<'a, W> {
    pub(crate) inner: &'a mut W,
    pub(crate) bytes: usize,
}

impl<W: Write> Write for ByteCounter<'_, W> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(data)?;
        self.bytes += written;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(name: &str, dtype: Dtype, n: usize) -> TensorSpec {
        TensorSpec { name: name.into(), dtype, shape: vec![n] }
    }

    #[test]
    fn shards_keep_the_limit_and_the_order() {
        let specs = [4, 4, 2, 9, 1].map(|n| spec("w", Dtype::U8, n));
        let lengths: Vec<usize> = split_into_shards(&specs, 8).iter().map(|s| s.len()).collect();
        assert_eq!(lengths, [2, 1, 1, 1]);
    }

    #[test]
    fn the_safetensors_crate_reads_what_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.safetensors");
        let specs = [spec("narrow", Dtype::BF16, 3), spec("wide", Dtype::F32, 2)];
        write_tensor_file(&path, &specs, &mut |spec, out| {
            out.write_all(&vec![spec.name.len() as u8; spec.byte_len()])
        })
        .unwrap();
        let bytes = std::fs::read(&path).unwrap();
        let read = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        assert_eq!(read.tensor("narrow").unwrap().data(), [6; 6]);
        assert_eq!(
            (read.tensor("wide").unwrap().data(), read.tensor("wide").unwrap().shape()),
            (&[4; 8][..], &[2][..])
        );
    }

    #[test]
    fn a_wrong_number_of_bytes_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.safetensors");
        let result =
            write_tensor_file(&path, &[spec("w", Dtype::F32, 2)], &mut |_, out| out.write_all(&[0; 7]));
        assert!(result.unwrap_err().to_string().contains("7 bytes"));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
