//! The software GPU as a driver: every call is done when it returns, but for those that a stream records.

use super::driver::{Driver, Event, Grid, Module, Pinned, Properties, Recorded, Stream};
use super::nvrtc::Code;
use super::source::Source;
use crate::{Error, Result};
use codelsi_emulator::{Counters, Gpu, Launch, Schedule};
use std::any::Any;
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

/// Bytes of memory, unless it is told.
const MEMORY: usize = 80_000_000_000;

/// What was asked of the driver; variables of modules are beside it.
#[derive(Default)]
struct Allocated {
    sizes: HashMap<u64, usize>,
    now: usize,
    peak: usize,
    /// Freed blocks by their size: as in a card's pool that is in pieces, each serves that size alone until it is given back.
    kept: HashMap<usize, usize>,
    /// How often kept memory was given back.
    trims: usize,
}

impl Allocated {
    /// Enters a block of `bytes`, a kept one if there is one of the size; false if the memory, `all` bytes, is full.
    fn enter(&mut self, bytes: usize, all: usize) -> bool {
        let kept: usize = self.kept.iter().map(|(bytes, blocks)| bytes * blocks).sum();
        match self.kept.get_mut(&bytes) {
            Some(blocks) if *blocks > 0 => *blocks -= 1,
            _ if self.now + kept + bytes > all => return false,
            _ => {}
        }
        self.now += bytes;
        self.peak = self.peak.max(self.now);
        true
    }
}

/// What a stream can record.
enum Work {
    Launch { module: Arc<codelsi_emulator::Module>, kernel: String, launch: Launch, args: Vec<u8> },
    Copy { to: u64, from: u64, bytes: usize },
    Fill { at: u64, byte: u8, bytes: usize },
}

/// A GPU in software, with the counters of its launches.
pub struct Emulated {
    gpu: Gpu,
    properties: Properties,
    streams: AtomicUsize,
    /// Bytes that may be in use at once.
    memory: AtomicUsize,
    allocated: Mutex<Allocated>,
    launches: Mutex<Option<Vec<(String, Counters)>>>,
    uploads: AtomicUsize,
    downloads: AtomicUsize,
    /// The stream that records, and what it has recorded.
    recording: Mutex<Option<(Stream, Vec<Work>)>>,
    replays: AtomicUsize,
    /// What is compiled in place of the source of that name.
    substitutes: Mutex<HashMap<&'static str, &'static Source>>,
}

impl Emulated {
    /// One of architecture `arch`; `CODELSI_SCHEDULE=late` chooses the late schedule.
    pub(super) fn new(arch: &str) -> Result<Self> {
        let gpu = Gpu::new(arch).map_err(error)?;
        let late = std::env::var("CODELSI_SCHEDULE").as_deref() == Ok("late");
        gpu.set_schedule(if late { Schedule::Late } else { Schedule::Early });
        let shared = if arch == "sm_80" { 163 << 10 } else { 227 << 10 };
        let name = format!("software GPU {arch}");
        let properties = Properties { name, arch: arch.into(), multiprocessors: 108, shared };
        Ok(Emulated {
            gpu,
            properties,
            streams: AtomicUsize::new(1),
            memory: AtomicUsize::new(MEMORY),
            allocated: Mutex::default(),
            launches: Mutex::default(),
            uploads: AtomicUsize::new(0),
            downloads: AtomicUsize::new(0),
            recording: Mutex::default(),
            replays: AtomicUsize::new(0),
            substitutes: Mutex::default(),
        })
    }

    /// Chooses the order in which it does what programs leave open.
    pub fn set_schedule(&self, schedule: Schedule) {
        self.gpu.set_schedule(schedule);
    }

    /// Whether races and copies not waited for are faults: [`Gpu::set_ordering_checks`].
    pub fn set_ordering_checks(&self, on: bool) {
        self.gpu.set_ordering_checks(on);
    }

    /// Gives it a memory of `bytes`.
    pub fn set_memory(&self, bytes: usize) {
        self.memory.store(bytes, Ordering::Relaxed);
    }

    /// The most bytes that were allocated at once.
    pub fn peak_bytes(&self) -> usize {
        self.allocated.lock().unwrap().peak
    }

    /// How often freed memory that was kept had to be given back.
    pub fn trims(&self) -> usize {
        self.allocated.lock().unwrap().trims
    }

    /// Keeps the counters of every launch from now on.
    pub fn count(&self) {
        *self.launches.lock().unwrap() = Some(Vec::new());
    }

    /// Kernels and counters of the launches since [`Emulated::count`]; no more are kept.
    pub fn take_launches(&self) -> Vec<(String, Counters)> {
        self.launches.lock().unwrap().take().unwrap_or_default()
    }

    /// Copies so far from the host to the device, and from the device to the host.
    pub fn copies(&self) -> (usize, usize) {
        (self.uploads.load(Ordering::Relaxed), self.downloads.load(Ordering::Relaxed))
    }

    /// How often recorded work was put into a stream.
    pub fn replays(&self) -> usize {
        self.replays.load(Ordering::Relaxed)
    }

    pub(super) fn driver(&self) -> &dyn Driver {
        self
    }

    /// Records `work` if `stream` does, or does it.
    fn submit(&self, stream: Stream, work: Work) -> Result<()> {
        match &mut *self.recording.lock().unwrap() {
            Some((recording, all)) if *recording == stream => {
                all.push(work);
                Ok(())
            }
            _ => self.perform(&work),
        }
    }

    fn perform(&self, work: &Work) -> Result<()> {
        match work {
            Work::Copy { to, from, bytes } => self.gpu.copy(*to, *from, *bytes).map_err(error),
            Work::Fill { at, byte, bytes } => self.gpu.fill(*at, *byte, *bytes).map_err(error),
            Work::Launch { module, kernel, launch, args } => {
                let kernel = module.kernel(kernel).ok_or_else(|| Error::new("has no such kernel"))?;
                let counters = self.gpu.launch(kernel, *launch, args).map_err(error)?;
                if let Some(launches) = &mut *self.launches.lock().unwrap() {
                    launches.push((kernel.name().to_owned(), counters));
                }
                Ok(())
            }
        }
    }

    /// Refuses what a card does not do while `stream`, or any stream, records.
    fn refuse_recording(&self, stream: Option<Stream>, what: &str) -> Result<()> {
        match &*self.recording.lock().unwrap() {
            Some((recording, _)) if stream.is_none_or(|stream| stream == *recording) => {
                Err(Error::new(format!("{what} cannot be recorded")).at("software GPU"))
            }
            _ => Ok(()),
        }
    }

    /// What is compiled when `source` is asked for: see [`super::Cuda::substitute`].
    pub(super) fn compiled(&self, source: &'static Source) -> &'static Source {
        self.substitutes.lock().unwrap().get(source.name).copied().unwrap_or(source)
    }

    pub(super) fn substitute(&self, source: &'static Source) {
        self.substitutes.lock().unwrap().insert(source.name, source);
    }
}

fn error(e: codelsi_emulator::Error) -> Error {
    Error::new(e.to_string()).at("software GPU")
}

struct Loaded(Arc<codelsi_emulator::Module>);

impl Module for Loaded {
    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl Driver for Emulated {
    fn properties(&self) -> &Properties {
        &self.properties
    }

    fn memory(&self) -> Result<(usize, usize)> {
        let all = self.memory.load(Ordering::Relaxed);
        Ok((all.saturating_sub(self.allocated.lock().unwrap().now), all))
    }

    fn alloc(&self, bytes: usize) -> Result<u64> {
        self.refuse_recording(None, "an allocation")?;
        let mut allocated = self.allocated.lock().unwrap();
        let all = self.memory.load(Ordering::Relaxed);
        if !allocated.enter(bytes, all) {
            let message = format!("out of memory, of which there are {all} bytes");
            return Err(Error::new(message).at("software GPU").out_of_memory());
        }
        let at = self.gpu.alloc(bytes).map_err(error)?;
        allocated.sizes.insert(at, bytes);
        Ok(at)
    }

    fn free(&self, at: u64) {
        // A drop has nobody to tell; the address came from `alloc` and is freed once.
        let _ = self.gpu.free(at);
        let mut allocated = self.allocated.lock().unwrap();
        let bytes = allocated.sizes.remove(&at).unwrap_or(0);
        allocated.now -= bytes;
        *allocated.kept.entry(bytes).or_default() += 1;
    }

    fn trim(&self) -> Result<()> {
        self.refuse_recording(None, "giving memory back")?;
        let mut allocated = self.allocated.lock().unwrap();
        allocated.kept.clear();
        allocated.trims += 1;
        Ok(())
    }

    fn upload(&self, stream: Stream, to: u64, from: &[u8]) -> Result<()> {
        self.refuse_recording(Some(stream), "a copy from the host")?;
        self.uploads.fetch_add(1, Ordering::Relaxed);
        self.gpu.write(to, from).map_err(error)
    }

    fn pinned(&self, bytes: usize) -> Result<Box<dyn Pinned>> {
        self.refuse_recording(None, "an allocation of pinned memory")?;
        Ok(Box::new(vec![0; bytes]))
    }

    unsafe fn fetch(&self, stream: Stream, to: u64, from: &[u8]) -> Result<()> {
        self.upload(stream, to, from)
    }

    fn download(&self, stream: Stream, to: &mut [u8], from: u64) -> Result<()> {
        self.refuse_recording(Some(stream), "a copy to the host")?;
        self.downloads.fetch_add(1, Ordering::Relaxed);
        self.gpu.read(from, to).map_err(error)
    }

    fn copy(&self, stream: Stream, to: u64, from: u64, bytes: usize) -> Result<()> {
        self.submit(stream, Work::Copy { to, from, bytes })
    }

    fn fill(&self, stream: Stream, at: u64, byte: u8, bytes: usize) -> Result<()> {
        self.submit(stream, Work::Fill { at, byte, bytes })
    }

    fn load(&self, code: &Code) -> Result<Arc<dyn Module>> {
        self.refuse_recording(None, "loading a module")?;
        Ok(Arc::new(Loaded(self.gpu.load(&code.ptx).map_err(error)?)))
    }

    unsafe fn launch(
        &self,
        stream: Stream,
        module: &dyn Module,
        kernel: &str,
        grid: Grid,
        args: &[u8],
    ) -> Result<()> {
        let module = module.as_any().downcast_ref::<Loaded>();
        let module = module.ok_or_else(|| Error::new("the module is another device's"))?.0.clone();
        let launch = Launch {
            grid: grid.blocks.map(|b| b as u32),
            block: [grid.threads as u32, 1, 1],
            shared: grid.shared as u32,
        };
        self.submit(stream, Work::Launch { module, kernel: kernel.into(), launch, args: args.into() })
    }

    fn stream(&self) -> Result<Stream> {
        Ok(Stream(self.streams.fetch_add(1, Ordering::Relaxed)))
    }

    fn record(&self, stream: Stream) -> Result<Event> {
        self.refuse_recording(Some(stream), "an event")?;
        Ok(Event(Box::new(Instant::now())))
    }

    fn wait(&self, stream: Stream, _: &Event) -> Result<()> {
        self.refuse_recording(Some(stream), "waiting for an event")?;
        Ok(())
    }

    fn finish(&self, _: &Event) -> Result<()> {
        self.refuse_recording(None, "waiting for an event")
    }

    fn elapsed(&self, from: &Event, to: &Event) -> Result<f32> {
        match (from.0.downcast_ref::<Instant>(), to.0.downcast_ref::<Instant>()) {
            (Some(from), Some(to)) => Ok(to.duration_since(*from).as_secs_f32() * 1e3),
            _ => Err(Error::new("the event is another device's")),
        }
    }

    fn begin(&self, stream: Stream) -> Result<()> {
        self.refuse_recording(None, "a recording")?;
        *self.recording.lock().unwrap() = Some((stream, Vec::new()));
        Ok(())
    }

    fn end(&self, stream: Stream) -> Result<Recorded> {
        match self.recording.lock().unwrap().take_if(|(recording, _)| *recording == stream) {
            Some((_, work)) => Ok(Recorded(Box::new(work))),
            None => Err(Error::new("the stream does not record").at("software GPU")),
        }
    }

    fn replay(&self, stream: Stream, work: &Recorded) -> Result<()> {
        self.refuse_recording(Some(stream), "a recording")?;
        let work = work.0.downcast_ref::<Vec<Work>>();
        let work = work.ok_or_else(|| Error::new("the recording is another device's"))?;
        self.replays.fetch_add(1, Ordering::Relaxed);
        work.iter().try_for_each(|work| self.perform(work))
    }

    fn synchronize(&self) -> Result<()> {
        self.refuse_recording(None, "waiting for the device")
    }
}
