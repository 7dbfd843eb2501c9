//! Transfers of tensors from files to devices. A GPU gets them in large pieces, read by several threads straight
//! into pinned buffers that it fetches while the next piece is read: no tensor is ever complete in host memory.

use super::slice::TensorSlice;
use super::tensor_file::{TensorEntry, TensorFile};
use codelsi_engine::cuda::{Cuda, Staging};
use codelsi_engine::{At, DType, Device, Error, Label, Result, Tensor};
use rayon::prelude::*;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Size of a piece that is read and sent at once, in bytes.
const PIECE: usize = 8 << 20;
/// Upper limit of reading threads; more than a disk or the page cache can feed.
const READERS: usize = 8;
/// Elements converted by one task on the CPU.
const CHUNK: usize = 1 << 18;

/// Callback for the progress of loading: bytes that have arrived on the device, and bytes in total.
pub type LoadProgress = Box<dyn Fn(usize, usize) + Send + Sync>;

/// A slice of a stored tensor, and the tensor on a GPU that it fills.
pub(super) struct Transfer<'a> {
    pub file: &'a TensorFile,
    pub entry: &'a TensorEntry,
    pub slice: TensorSlice,
    pub to: Tensor,
}

impl TensorFile {
    /// Returns a slice of a tensor as `dtype`: on the CPU a view of the mapped file where it is stored so, aligned and
    /// contiguous; else a copy under `label`.
    ///
    /// # Errors
    /// When the file has no such tensor or slice, or does not hold floating-point numbers.
    pub fn tensor(
        &self,
        device: &Device,
        label: Label,
        name: &str,
        slice: &TensorSlice,
        dtype: DType,
    ) -> Result<Tensor> {
        if let (Device::Cpu(_), Some(tensor)) = (device, self.mapped(self.entry(name)?, slice, dtype)) {
            return Ok(tensor);
        }
        self.copy(device, label, name, slice, dtype)
    }

    /// Copies a slice of a tensor to `device`, converted to `dtype` (F32 or BF16, rounded to nearest even).
    ///
    /// # Errors
    /// See [`TensorFile::tensor`].
    pub fn copy(
        &self,
        device: &Device,
        label: Label,
        name: &str,
        slice: &TensorSlice,
        dtype: DType,
    ) -> Result<Tensor> {
        let entry = self.entry(name)?;
        let mut to = device.empty(label, slice.shape(&entry.shape).at(name)?, dtype);
        match device {
            Device::Plan(_) => {}
            Device::Cuda(cuda) => {
                upload(cuda, &[Transfer { file: self, entry, slice: slice.clone(), to: to.clone() }], None)?;
            }
            Device::Cpu(_) => {
                let chunks = to.bytes_mut()?.par_chunks_mut(CHUNK * dtype.size()).enumerate();
                let read = |(i, to): (usize, &mut [u8])| self.read(entry, slice, i * CHUNK, dtype, to);
                chunks.try_for_each(read)?;
            }
        }
        Ok(to)
    }
}

/// Fills the tensors of all `transfers`; returns when they have their content.
///
/// # Errors
/// When a file cannot be read, or the device fails.
pub(super) fn upload(
    cuda: &Arc<Cuda>,
    transfers: &[Transfer],
    progress: Option<&LoadProgress>,
) -> Result<()> {
    let mut pieces: Vec<(&Transfer, usize)> = Vec::new();
    for transfer in transfers {
        pieces.extend((0..transfer.to.byte_len()).step_by(PIECE).map(|offset| (transfer, offset)));
    }
    let total = transfers.iter().map(|transfer| transfer.to.byte_len()).sum();
    let (next, done) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let reader = || -> Result<()> {
        let mut staging = Staging::new(cuda, PIECE)?;
        while let Some((transfer, offset)) = pieces.get(next.fetch_add(1, Ordering::Relaxed)) {
            let Transfer { file, entry, slice, to } = transfer;
            let (dtype, bytes) = (to.dtype(), PIECE.min(to.byte_len() - offset));
            let read = |buffer: &mut [u8]| file.read(entry, slice, offset / dtype.size(), dtype, buffer);
            let sent = staging.upload(to, *offset, bytes, read);
            if sent.is_err() {
                // Leaves no piece for the other readers.
                next.store(pieces.len(), Ordering::Relaxed);
                return sent;
            }
            let done = done.fetch_add(bytes, Ordering::Relaxed) + bytes;
            progress.iter().for_each(|progress| progress(done, total));
        }
        staging.wait()
    };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        let readers: Vec<_> =
            (0..READERS.min(cores).min(pieces.len())).map(|_| scope.spawn(reader)).collect();
        readers.into_iter().try_for_each(|reader| {
            reader.join().unwrap_or_else(|_| Err(Error::new("a thread that reads weights panicked")))
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor_writer::{TensorSpec, write_tensor_file};
    use codelsi_testing::or_skip;
    use half::{bf16, f16};
    use safetensors::Dtype;
    use std::sync::Mutex;

    const SHAPE: [usize; 2] = [2100, 2101];

    /// Short in F16, so that a conversion to bf16 rounds.
    fn value(i: usize) -> f32 {
        f16::from_f32(((i * 7919) % 10007) as f32 / 64.0 - 70.0).to_f32()
    }

    /// A file with the same matrix in each type, large enough for several pieces.
    fn file(folder: &std::path::Path) -> TensorFile {
        let spec =
            |(name, dtype): (&str, Dtype)| TensorSpec { name: name.into(), dtype, shape: SHAPE.to_vec() };
        let specs = [("f32", Dtype::F32), ("f16", Dtype::F16), ("bf16", Dtype::BF16)].map(spec);
        write_tensor_file(folder.join("x.safetensors"), &specs, &mut |spec, out| {
            let values = (0..SHAPE[0] * SHAPE[1]).map(value);
            let bytes: Vec<u8> = match spec.dtype {
                Dtype::F32 => values.flat_map(f32::to_le_bytes).collect(),
                Dtype::F16 => values.flat_map(|x| f16::from_f32(x).to_le_bytes()).collect(),
                _ => values.flat_map(|x| bf16::from_f32(x).to_le_bytes()).collect(),
            };
            out.write_all(&bytes)
        })
        .unwrap();
        TensorFile::open(folder.join("x.safetensors")).unwrap()
    }

    fn expected(slice: &TensorSlice, stored: &str) -> Vec<f32> {
        let runs = slice.runs(&SHAPE);
        let mut all: Vec<f32> = runs.stored_ranges(0..runs.elements()).flatten().map(value).collect();
        if stored == "bf16" {
            all.iter_mut().for_each(|x| *x = bf16::from_f32(*x).to_f32());
        }
        all.resize(slice.shape(&SHAPE).unwrap().elements(), 0.0);
        all
    }

    /// Checks every stored type as every type wanted, full tensors and slices.
    fn arrives_on(device: &Device) {
        let folder = tempfile::tempdir().unwrap();
        let file = file(folder.path());
        let beyond = SHAPE[0] * SHAPE[1] - 5..SHAPE[0] * SHAPE[1] + 3;
        for slice in [
            TensorSlice::Full,
            TensorSlice::Rows(11..2050),
            TensorSlice::Columns(1..1800),
            TensorSlice::Flat(beyond),
        ] {
            for stored in ["f32", "f16", "bf16"] {
                let truth = expected(&slice, stored);
                let load = |dtype| file.tensor(device, Label::Weights, stored, &slice, dtype).unwrap();
                assert!(load(DType::F32).to_vec::<f32>().unwrap() == truth, "{slice:?} of {stored}");
                let rounded: Vec<bf16> = truth.iter().map(|&x| bf16::from_f32(x)).collect();
                assert!(load(DType::BF16).to_vec::<bf16>().unwrap() == rounded, "{slice:?} of {stored}");
            }
        }
    }

    #[test]
    fn every_type_and_slice_arrives_on_the_cpu() {
        arrives_on(&Device::cpu());
    }

    #[test]
    fn every_type_and_slice_arrives_on_a_gpu() {
        let Some(device) = or_skip(Device::emulated("sm_80")) else { return };
        arrives_on(&device);
    }

    #[test]
    fn elements_beyond_the_end_of_a_tensor_are_zeros_in_used_memory_too() {
        let folder = tempfile::tempdir().unwrap();
        let file = file(folder.path());
        let elements = SHAPE[0] * SHAPE[1];
        for (flat, stored_elements) in [(elements - 5..elements + 3, 5), (elements + 2..elements + 10, 0)] {
            for stored in ["f32", "f16", "bf16"] {
                for dtype in [DType::F32, DType::BF16] {
                    let mut to = vec![0xff; 8 * dtype.size()];
                    let slice = TensorSlice::Flat(flat.clone());
                    file.read(file.entry(stored).unwrap(), &slice, 0, dtype, &mut to).unwrap();
                    let (own, beyond) = to.split_at(stored_elements * dtype.size());
                    assert!(own.chunks(dtype.size()).all(|x| x != [0xff; 4] && x != [0xff; 2]));
                    assert!(beyond.iter().all(|&byte| byte == 0), "{slice:?} of {stored} as {dtype:?}");
                }
            }
        }
    }

    #[test]
    fn the_cpu_reads_contiguous_slices_in_place() {
        let folder = tempfile::tempdir().unwrap();
        let (file, device) = (file(folder.path()), Device::cpu());
        let held = |slice: TensorSlice, dtype| {
            let tensor = file.tensor(&device, Label::Weights, "f32", &slice, dtype).unwrap();
            (device.ledger().usage().total(), tensor.byte_len())
        };
        assert_eq!(held(TensorSlice::Rows(3..9), DType::F32).0, 0);
        assert_eq!(held(TensorSlice::Flat(5..7), DType::F32).0, 0);
        for (slice, dtype) in
            [(TensorSlice::Columns(0..2), DType::F32), (TensorSlice::Rows(3..9), DType::BF16)]
        {
            let (bytes_held, bytes) = held(slice, dtype);
            assert_eq!(bytes_held, bytes);
        }
    }

    #[test]
    fn progress_ends_at_the_total_and_a_short_file_is_an_error() {
        let Some(device) = or_skip(Device::emulated("sm_80")) else { return };
        let Device::Cuda(cuda) = &device else { unreachable!() };
        let folder = tempfile::tempdir().unwrap();
        let file = file(folder.path());
        let transfer = |name: &str| Transfer {
            file: &file,
            entry: file.entry(name).unwrap(),
            slice: TensorSlice::Full,
            to: device.empty(Label::Weights, SHAPE, DType::F32),
        };
        let reports = Arc::new(Mutex::new(Vec::new()));
        let log = reports.clone();
        let progress: LoadProgress = Box::new(move |done, total| log.lock().unwrap().push((done, total)));
        upload(cuda, &[transfer("f32"), transfer("bf16")], Some(&progress)).unwrap();
        let total = 2 * 4 * SHAPE[0] * SHAPE[1];
        let reports = reports.lock().unwrap();
        assert!(reports.len() >= 6 && reports.iter().all(|&(done, of)| done <= of && of == total));
        assert!(reports.contains(&(total, total)));
        std::fs::File::options().write(true).open(file.path()).unwrap().set_len(1 << 20).unwrap();
        let message = upload(cuda, &[transfer("f32")], None).unwrap_err().to_string();
        assert!(message.contains("x.safetensors"), "{message}");
    }
}
