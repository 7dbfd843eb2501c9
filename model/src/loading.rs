//! Weights from files to a device: read in large pieces by several threads, straight into buffers that the card fetches
//! while the next piece is read. No weight is ever whole in host memory.

use crate::checkpoint::{Checkpoint, Watch};
use crate::part::Part;
use crate::tensor_file::{Entry, TensorFile};
use codelsi_engine::cuda::{Cuda, Staging};
use codelsi_engine::{At, DType, Device, Error, Label, Result, Shape, Tensor};
use safetensors::Dtype;
use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes that are read and sent at once.
const PIECE: usize = 8 << 20;
/// Threads that read; more than a disk or the page cache feeds.
const READERS: usize = 8;

/// Weights of a checkpoint on their way to a device. They have their content after [`Loading::finish`].
pub struct Loading<'a> {
    checkpoint: &'a Checkpoint,
    device: &'a Device,
    queue: RefCell<Vec<Job<'a>>>,
}

/// A part of a stored tensor, and the tensor on a card that it fills.
pub(crate) struct Job<'a> {
    pub file: &'a TensorFile,
    pub entry: &'a Entry,
    pub part: Part,
    pub to: Tensor,
}

impl<'a> Loading<'a> {
    pub(crate) fn new(checkpoint: &'a Checkpoint, device: &'a Device) -> Self {
        Loading { checkpoint, device, queue: RefCell::default() }
    }

    /// A part of a weight, ready for ops that compute in `compute`.
    ///
    /// BF16 stays BF16 under either compute type, F32 stays so under F32; anything else is converted to `compute`. The
    /// host reads in place what lies in one piece and needs no conversion. The planning device gets the shape only.
    ///
    /// # Errors
    /// When the model has no tensor of that name, or the tensor no such part.
    pub fn tensor(&self, name: &str, part: &Part, compute: DType) -> Result<Tensor> {
        let entry = self.checkpoint.entry(name)?;
        let dtype = if entry.dtype == Dtype::BF16 { DType::BF16 } else { compute };
        match self.device {
            Device::Cpu(_) => {
                self.checkpoint.file(name)?.tensor(self.device, Label::Weights, name, part, dtype)
            }
            _ if self.checkpoint.is_in_place(entry, part, dtype) => {
                Ok(self.device.borrowed(part.shape(&entry.shape).at(name)?, dtype))
            }
            _ => self.copy(name, part, dtype),
        }
    }

    /// The dimensions of a weight.
    ///
    /// # Errors
    /// When the model has no tensor of that name.
    pub fn shape(&self, name: &str) -> Result<Shape> {
        Part::Whole.shape(&self.checkpoint.entry(name)?.shape).at(name)
    }

    /// An own F32 copy of a part of a weight, to be trained or changed.
    ///
    /// # Errors
    /// As [`Loading::tensor`].
    pub fn copy_f32(&self, name: &str, part: &Part) -> Result<Tensor> {
        match self.device {
            Device::Cpu(_) => {
                self.checkpoint.file(name)?.copy(self.device, Label::Weights, name, part, DType::F32)
            }
            _ => self.copy(name, part, DType::F32),
        }
    }

    /// Memory on the device, and the order to fill it.
    fn copy(&self, name: &str, part: &Part, dtype: DType) -> Result<Tensor> {
        let entry = self.checkpoint.entry(name)?;
        let to = self.device.empty(Label::Weights, part.shape(&entry.shape).at(name)?, dtype);
        if !self.device.is_plan() {
            let file = self.checkpoint.file(name)?;
            self.queue.borrow_mut().push(Job { file, entry, part: part.clone(), to: to.clone() });
        }
        Ok(to)
    }

    /// Returns when every weight has its content.
    ///
    /// # Errors
    /// When a file cannot be read, or the device fails or has too little memory.
    pub fn finish(self) -> Result<()> {
        match self.device {
            Device::Cuda(cuda) => send(cuda, &self.queue.into_inner(), self.checkpoint.watch()),
            _ => Ok(()),
        }
    }
}

/// Does all of `jobs`; `watch` is told of bytes that are there.
pub(crate) fn send(cuda: &Arc<Cuda>, jobs: &[Job], watch: Option<&Watch>) -> Result<()> {
    let mut pieces: Vec<(&Job, usize)> = Vec::new();
    for job in jobs {
        pieces.extend((0..job.to.byte_len()).step_by(PIECE).map(|offset| (job, offset)));
    }
    let total = jobs.iter().map(|job| job.to.byte_len()).sum();
    let (next, done) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let reader = || -> Result<()> {
        let mut staging = Staging::new(cuda, PIECE)?;
        while let Some((job, offset)) = pieces.get(next.fetch_add(1, Ordering::Relaxed)) {
            let (dtype, bytes) = (job.to.dtype(), PIECE.min(job.to.byte_len() - offset));
            let first = offset / dtype.size();
            let read = |to: &mut [u8]| job.file.read(job.entry, &job.part, first, dtype, to);
            let sent = staging.send(&job.to, *offset, bytes, read);
            if sent.is_err() {
                next.store(pieces.len(), Ordering::Relaxed); // for the others
                return sent;
            }
            let done = done.fetch_add(bytes, Ordering::Relaxed) + bytes;
            watch.iter().for_each(|watch| watch(done, total));
        }
        staging.finish()
    };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        let readers: Vec<_> =
            (0..READERS.min(cores).min(pieces.len())).map(|_| scope.spawn(reader)).collect();
        readers.into_iter().try_for_each(|reader| {
            reader.join().unwrap_or_else(|_| Err(Error::new("a thread that reads weights ended early")))
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shared::emulated;
    use crate::tensor_writer::{Spec, write_file};
    use half::{bf16, f16};
    use std::sync::Mutex;

    const SHAPE: [usize; 2] = [2100, 2101];

    /// Short in F16, so that a conversion to bf16 rounds.
    fn value(i: usize) -> f32 {
        f16::from_f32(((i * 7919) % 10007) as f32 / 64.0 - 70.0).to_f32()
    }

    /// A file with the same matrix in each type, large enough for several pieces.
    fn file(folder: &std::path::Path) -> TensorFile {
        let spec = |(name, dtype): (&str, Dtype)| Spec { name: name.into(), dtype, shape: SHAPE.to_vec() };
        let specs = [("f32", Dtype::F32), ("f16", Dtype::F16), ("bf16", Dtype::BF16)].map(spec);
        write_file(folder.join("x.safetensors"), &specs, &mut |spec, out| {
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

    fn expected(part: &Part, stored: &str) -> Vec<f32> {
        let runs = part.runs(&SHAPE);
        let mut all: Vec<f32> = runs.within(0..runs.elements()).flatten().map(value).collect();
        if stored == "bf16" {
            all.iter_mut().for_each(|x| *x = bf16::from_f32(*x).to_f32());
        }
        all.resize(part.shape(&SHAPE).unwrap().elements(), 0.0);
        all
    }

    /// Every stored type as every type wanted, whole and in parts.
    fn arrives_on(device: &Device) {
        let folder = tempfile::tempdir().unwrap();
        let file = file(folder.path());
        let beyond = SHAPE[0] * SHAPE[1] - 5..SHAPE[0] * SHAPE[1] + 3;
        for part in [Part::Whole, Part::Rows(11..2050), Part::Columns(1..1800), Part::Flat(beyond)] {
            for stored in ["f32", "f16", "bf16"] {
                let truth = expected(&part, stored);
                let load = |dtype| file.tensor(device, Label::Weights, stored, &part, dtype).unwrap();
                assert!(load(DType::F32).to_vec::<f32>().unwrap() == truth, "{part:?} of {stored}");
                let rounded: Vec<bf16> = truth.iter().map(|&x| bf16::from_f32(x)).collect();
                assert!(load(DType::BF16).to_vec::<bf16>().unwrap() == rounded, "{part:?} of {stored}");
            }
        }
    }

    #[test]
    fn every_type_and_part_arrives_on_the_cpu() {
        arrives_on(&Device::cpu());
    }

    #[test]
    fn every_type_and_part_arrives_on_a_gpu() {
        let Some(device) = emulated() else { return };
        arrives_on(&device);
    }

    /// Memory that was used before is not zero by itself.
    #[test]
    fn what_lies_beyond_the_end_is_zero_wherever_it_is_read_to() {
        let folder = tempfile::tempdir().unwrap();
        let file = file(folder.path());
        let elements = SHAPE[0] * SHAPE[1];
        for (part, there) in [(elements - 5..elements + 3, 5), (elements + 2..elements + 10, 0)] {
            for stored in ["f32", "f16", "bf16"] {
                for dtype in [DType::F32, DType::BF16] {
                    let mut to = vec![0xff; 8 * dtype.size()];
                    let part = Part::Flat(part.clone());
                    file.read(file.entry(stored).unwrap(), &part, 0, dtype, &mut to).unwrap();
                    let (own, beyond) = to.split_at(there * dtype.size());
                    assert!(own.chunks(dtype.size()).all(|x| x != [0xff; 4] && x != [0xff; 2]));
                    assert!(beyond.iter().all(|&byte| byte == 0), "{part:?} of {stored} as {dtype:?}");
                }
            }
        }
    }

    #[test]
    fn the_host_reads_in_place_what_lies_in_one_run() {
        let folder = tempfile::tempdir().unwrap();
        let (file, device) = (file(folder.path()), Device::cpu());
        let held = |part: Part, dtype| {
            let tensor = file.tensor(&device, Label::Weights, "f32", &part, dtype).unwrap();
            (device.ledger().usage().total(), tensor.byte_len())
        };
        assert_eq!(held(Part::Rows(3..9), DType::F32).0, 0);
        assert_eq!(held(Part::Flat(5..7), DType::F32).0, 0);
        for (part, dtype) in [(Part::Columns(0..2), DType::F32), (Part::Rows(3..9), DType::BF16)] {
            let (held, bytes) = held(part, dtype);
            assert_eq!(held, bytes);
        }
    }

    #[test]
    fn progress_ends_at_the_total_and_a_short_file_is_an_error() {
        let Some(device) = emulated() else { return };
        let Device::Cuda(cuda) = &device else { unreachable!() };
        let folder = tempfile::tempdir().unwrap();
        let file = file(folder.path());
        let job = |name: &str| Job {
            file: &file,
            entry: file.entry(name).unwrap(),
            part: Part::Whole,
            to: device.empty(Label::Weights, SHAPE, DType::F32),
        };
        let told = Arc::new(Mutex::new(Vec::new()));
        let log = told.clone();
        let watch: Watch = Box::new(move |done, total| log.lock().unwrap().push((done, total)));
        send(cuda, &[job("f32"), job("bf16")], Some(&watch)).unwrap();
        let total = 2 * 4 * SHAPE[0] * SHAPE[1];
        let told = told.lock().unwrap();
        assert!(told.len() >= 6 && told.iter().all(|&(done, of)| done <= of && of == total));
        assert!(told.contains(&(total, total)));
        std::fs::File::options().write(true).open(file.path()).unwrap().set_len(1 << 20).unwrap();
        let message = send(cuda, &[job("f32")], None).unwrap_err().to_string();
        assert!(message.contains("x.safetensors"), "{message}");
    }
}
