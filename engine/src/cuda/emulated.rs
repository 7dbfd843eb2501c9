//! The software GPU as a driver: every call is done when it returns, except for work that a stream captures.

use super::coverage::Coverage;
use super::driver::{CapturedGraph, DeviceProperties, Driver, DriverModule, Event, Grid, Pinned, Stream};
use super::nvrtc::Code;
use super::resources::KernelResources;
use super::source::Source;
use crate::{Error, Result};
use codelsi_emulator::{Counters, Gpu, LaunchConfig, Schedule};
use std::any::Any;
use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

/// Default size of the memory, in bytes.
const MEMORY: usize = 80_000_000_000;

/// Allocations made through the driver; variables of modules are not counted.
#[derive(Default)]
struct Allocations {
    sizes: HashMap<u64, usize>,
    now: usize,
    peak: usize,
    /// Number of freed blocks by size. As in the fragmented pool of a card, each serves only its own size until
    /// trimmed.
    kept: HashMap<usize, usize>,
    /// Number of times that kept memory was returned to the system.
    trims: usize,
}

impl Allocations {
    /// Counts a block of `bytes`, preferably a kept one; false when it does not fit into the memory of `all` bytes.
    fn reserve(&mut self, bytes: usize, all: usize) -> bool {
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

/// One piece of work that a stream can capture.
enum StreamOp {
    Launch { module: Arc<EmulatedModule>, kernel: String, launch: LaunchConfig, args: Vec<u8> },
    Copy { to: u64, from: u64, bytes: usize },
    Fill { at: u64, byte: u8, bytes: usize },
}

/// A launch: its resources, and its counters.
#[derive(Clone, Debug)]
pub struct LaunchRecord {
    pub kernel: String,
    /// Blocks of the grid.
    pub blocks: u64,
    /// Threads of a block.
    pub threads: u32,
    /// Registers of a thread.
    pub registers: u32,
    /// Bytes of shared memory of a block.
    pub shared: u32,
    /// Bytes of the allocations that its arguments point to.
    pub footprint: u64,
    /// Sums over all blocks.
    pub counters: Counters,
}

/// A GPU in software, with the counters of its launches.
pub struct EmulatedGpu {
    gpu: Gpu,
    properties: DeviceProperties,
    /// The same with one multiprocessor.
    single: DeviceProperties,
    is_single: AtomicBool,
    coverage: Mutex<Coverage>,
    streams: AtomicUsize,
    /// Size of the memory in bytes.
    memory: AtomicUsize,
    allocations: Mutex<Allocations>,
    launches: Mutex<Option<Vec<LaunchRecord>>>,
    /// True when fresh memory is zero: see [`EmulatedGpu::set_sampled_blocks`].
    zeroed: AtomicBool,
    uploads: AtomicUsize,
    downloads: AtomicUsize,
    /// The stream being captured, and its work so far.
    capture: Mutex<Option<(Stream, Vec<StreamOp>)>>,
    replays: AtomicUsize,
    /// Sources compiled in place of those of the same name.
    substitutes: Mutex<HashMap<&'static str, &'static Source>>,
}

impl EmulatedGpu {
    /// Returns a GPU of architecture `arch`; `CODELSI_SCHEDULE=late` chooses the late schedule.
    pub(super) fn new(arch: &str) -> Result<Self> {
        let gpu = Gpu::new(arch).map_err(error)?;
        let late = std::env::var("CODELSI_SCHEDULE").as_deref() == Ok("late");
        gpu.set_schedule(if late { Schedule::Late } else { Schedule::Early });
        // Those of an A100 and of an H200.
        let (multiprocessors, shared) = if arch == "sm_80" { (108, 163 << 10) } else { (132, 227 << 10) };
        let name = format!("software GPU {arch}");
        let properties = DeviceProperties { name, arch: arch.into(), multiprocessors, shared };
        Ok(EmulatedGpu {
            gpu,
            single: DeviceProperties { multiprocessors: 1, ..properties.clone() },
            properties,
            is_single: AtomicBool::new(false),
            coverage: Mutex::default(),
            streams: AtomicUsize::new(1),
            memory: AtomicUsize::new(MEMORY),
            allocations: Mutex::default(),
            launches: Mutex::default(),
            zeroed: AtomicBool::new(false),
            uploads: AtomicUsize::new(0),
            downloads: AtomicUsize::new(0),
            capture: Mutex::default(),
            replays: AtomicUsize::new(0),
            substitutes: Mutex::default(),
        })
    }

    /// Chooses the order of work that a program leaves unordered.
    pub fn set_schedule(&self, schedule: Schedule) {
        self.gpu.set_schedule(schedule);
    }

    /// Makes races and copies not waited for faults, or stops doing so: [`Gpu::set_ordering_checks`].
    pub fn set_ordering_checks(&self, on: bool) {
        self.gpu.set_ordering_checks(on);
    }

    /// Makes launches see a GPU of one multiprocessor, where few blocks of large tiles are fastest, or of 108. No result
    /// depends on it.
    pub fn set_single_multiprocessor(&self, single: bool) {
        self.is_single.store(single, Ordering::Relaxed);
    }

    /// Returns the record of all launches so far.
    ///
    /// # Panics
    /// When a thread that held it panicked.
    pub fn coverage(&self) -> MutexGuard<'_, Coverage> {
        self.coverage.lock().unwrap()
    }

    /// Sets the size of the memory in bytes.
    pub fn set_memory(&self, bytes: usize) {
        self.memory.store(bytes, Ordering::Relaxed);
    }

    /// The most bytes that were allocated at the same time.
    pub fn peak_bytes(&self) -> usize {
        self.allocations.lock().unwrap().peak
    }

    /// Number of times that kept memory was returned to the system.
    pub fn trim_count(&self) -> usize {
        self.allocations.lock().unwrap().trims
    }

    /// Starts to keep the counters of every launch.
    pub fn count_launches(&self) {
        *self.launches.lock().unwrap() = Some(Vec::new());
    }

    /// Executes `blocks` blocks of each launch at most and scales their counters ([`Gpu::set_sampled_blocks`]), to count at
    /// sizes that would take too long. Fresh memory is zero then, where missing blocks would have left nothing to read.
    pub fn set_sampled_blocks(&self, blocks: Option<u64>) {
        self.gpu.set_sampled_blocks(blocks);
        self.zeroed.store(blocks.is_some(), Ordering::Relaxed);
    }

    /// Returns the record of each launch since [`EmulatedGpu::count_launches`], and stops keeping them.
    pub fn take_launches(&self) -> Vec<LaunchRecord> {
        self.launches.lock().unwrap().take().unwrap_or_default()
    }

    /// Number of copies so far from host to device, and from device to host.
    pub fn copy_counts(&self) -> (usize, usize) {
        (self.uploads.load(Ordering::Relaxed), self.downloads.load(Ordering::Relaxed))
    }

    /// Number of times that captured work was replayed.
    pub fn replay_count(&self) -> usize {
        self.replays.load(Ordering::Relaxed)
    }

    pub(super) fn driver(&self) -> &dyn Driver {
        self
    }

    /// Captures `work` if `stream` is being captured, else runs it.
    fn submit(&self, stream: Stream, work: StreamOp) -> Result<()> {
        match &mut *self.capture.lock().unwrap() {
            Some((captured, all)) if *captured == stream => {
                all.push(work);
                Ok(())
            }
            _ => self.perform(&work),
        }
    }

    fn perform(&self, work: &StreamOp) -> Result<()> {
        match work {
            StreamOp::Copy { to, from, bytes } => self.gpu.copy(*to, *from, *bytes).map_err(error),
            StreamOp::Fill { at, byte, bytes } => self.gpu.fill(*at, *byte, *bytes).map_err(error),
            StreamOp::Launch { module, kernel, launch, args } => {
                let no_kernel = || Error::new("has no such kernel");
                let kernel = module.module.kernel(kernel).ok_or_else(no_kernel)?;
                let counters = self.gpu.launch(kernel, *launch, args).map_err(error)?;
                if let Some(launches) = &mut *self.launches.lock().unwrap() {
                    let footprint = self.footprint(kernel, args);
                    launches.push(module.record(kernel, launch, footprint, counters));
                }
                Ok(())
            }
        }
    }

    /// Bytes of the allocations whose addresses are among the arguments.
    fn footprint(&self, kernel: &codelsi_emulator::Kernel, args: &[u8]) -> u64 {
        let word = |at: usize| Some(u64::from_le_bytes(args.get(at..at + 8)?.try_into().ok()?));
        let words =
            kernel.params().iter().filter(|param| param.size == 8).filter_map(|param| word(param.offset));
        let addresses: BTreeSet<u64> = words.collect();
        let allocations = self.allocations.lock().unwrap();
        addresses.iter().filter_map(|address| allocations.sizes.get(address)).map(|&bytes| bytes as u64).sum()
    }

    /// Refuses what a card cannot do while `stream`, or any stream, is being captured.
    fn refuse_in_capture(&self, stream: Option<Stream>, what: &str) -> Result<()> {
        match &*self.capture.lock().unwrap() {
            Some((captured, _)) if stream.is_none_or(|stream| stream == *captured) => {
                Err(Error::new(format!("{what} cannot be captured")).at("software GPU"))
            }
            _ => Ok(()),
        }
    }

    /// The source to compile when `source` is requested: see [`super::Cuda::substitute`].
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

struct EmulatedModule {
    module: Arc<codelsi_emulator::Module>,
    /// Registers and memory of each kernel, as the assembler reports them.
    resources: Vec<KernelResources>,
}

impl EmulatedModule {
    fn record(
        &self,
        kernel: &codelsi_emulator::Kernel,
        launch: &LaunchConfig,
        footprint: u64,
        counters: Counters,
    ) -> LaunchRecord {
        let product = |sizes: [u32; 3]| sizes.map(u64::from).iter().product::<u64>();
        let resources = self.resources.iter().find(|resources| resources.kernel == kernel.name());
        LaunchRecord {
            kernel: kernel.name().to_owned(),
            blocks: product(launch.grid),
            threads: product(launch.block) as u32,
            registers: resources.map_or(0, |resources| resources.registers as u32),
            shared: kernel.static_shared() + launch.shared_bytes,
            footprint,
            counters,
        }
    }
}

impl DriverModule for Arc<EmulatedModule> {
    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl Driver for EmulatedGpu {
    fn properties(&self) -> &DeviceProperties {
        if self.is_single.load(Ordering::Relaxed) { &self.single } else { &self.properties }
    }

    fn memory(&self) -> Result<(usize, usize)> {
        let all = self.memory.load(Ordering::Relaxed);
        Ok((all.saturating_sub(self.allocations.lock().unwrap().now), all))
    }

    fn alloc(&self, bytes: usize) -> Result<u64> {
        self.refuse_in_capture(None, "an allocation")?;
        let mut allocations = self.allocations.lock().unwrap();
        let all = self.memory.load(Ordering::Relaxed);
        if !allocations.reserve(bytes, all) {
            let message = format!("out of memory, of which there are {all} bytes");
            return Err(Error::new(message).at("software GPU").out_of_memory());
        }
        let at = self.gpu.alloc(bytes).map_err(error)?;
        if self.zeroed.load(Ordering::Relaxed) {
            self.gpu.fill(at, 0, bytes).map_err(error)?;
        }
        allocations.sizes.insert(at, bytes);
        Ok(at)
    }

    fn free(&self, at: u64) {
        // The error has no receiver in a drop; the address came from `alloc` and is freed once.
        let _ = self.gpu.free(at);
        let mut allocations = self.allocations.lock().unwrap();
        let bytes = allocations.sizes.remove(&at).unwrap_or(0);
        allocations.now -= bytes;
        *allocations.kept.entry(bytes).or_default() += 1;
    }

    fn trim(&self) -> Result<()> {
        self.refuse_in_capture(None, "giving memory back")?;
        let mut allocations = self.allocations.lock().unwrap();
        allocations.kept.clear();
        allocations.trims += 1;
        Ok(())
    }

    fn upload(&self, stream: Stream, to: u64, from: &[u8]) -> Result<()> {
        self.refuse_in_capture(Some(stream), "a copy from the host")?;
        self.uploads.fetch_add(1, Ordering::Relaxed);
        self.gpu.write(to, from).map_err(error)
    }

    fn pinned(&self, bytes: usize) -> Result<Box<dyn Pinned>> {
        self.refuse_in_capture(None, "an allocation of pinned memory")?;
        Ok(Box::new(vec![0; bytes]))
    }

    unsafe fn upload_async(&self, stream: Stream, to: u64, from: &[u8]) -> Result<()> {
        self.upload(stream, to, from)
    }

    fn download(&self, stream: Stream, to: &mut [u8], from: u64) -> Result<()> {
        self.refuse_in_capture(Some(stream), "a copy to the host")?;
        self.downloads.fetch_add(1, Ordering::Relaxed);
        self.gpu.read(from, to).map_err(error)
    }

    fn copy(&self, stream: Stream, to: u64, from: u64, bytes: usize) -> Result<()> {
        self.submit(stream, StreamOp::Copy { to, from, bytes })
    }

    fn fill(&self, stream: Stream, at: u64, byte: u8, bytes: usize) -> Result<()> {
        self.submit(stream, StreamOp::Fill { at, byte, bytes })
    }

    fn load(&self, code: &Code) -> Result<Arc<dyn DriverModule>> {
        self.refuse_in_capture(None, "loading a module")?;
        let module = self.gpu.load(&code.ptx).map_err(error)?;
        Ok(Arc::new(Arc::new(EmulatedModule { module, resources: code.resources() })))
    }

    unsafe fn launch(
        &self,
        stream: Stream,
        module: &dyn DriverModule,
        kernel: &str,
        grid: Grid,
        args: &[u8],
    ) -> Result<()> {
        let module = module.as_any().downcast_ref::<Arc<EmulatedModule>>();
        let module = module.ok_or_else(|| Error::new("the module is another device's"))?.clone();
        let launch = LaunchConfig {
            grid: grid.blocks.map(|b| b as u32),
            block: [grid.threads as u32, 1, 1],
            shared_bytes: grid.shared as u32,
        };
        self.submit(stream, StreamOp::Launch { module, kernel: kernel.into(), launch, args: args.into() })
    }

    fn stream(&self) -> Result<Stream> {
        Ok(Stream(self.streams.fetch_add(1, Ordering::Relaxed)))
    }

    fn record(&self, stream: Stream) -> Result<Event> {
        self.refuse_in_capture(Some(stream), "an event")?;
        Ok(Event(Box::new(Instant::now())))
    }

    fn wait(&self, stream: Stream, _: &Event) -> Result<()> {
        self.refuse_in_capture(Some(stream), "waiting for an event")?;
        Ok(())
    }

    fn wait_event(&self, _: &Event) -> Result<()> {
        self.refuse_in_capture(None, "waiting for an event")
    }

    fn elapsed(&self, from: &Event, to: &Event) -> Result<f32> {
        match (from.0.downcast_ref::<Instant>(), to.0.downcast_ref::<Instant>()) {
            (Some(from), Some(to)) => Ok(to.duration_since(*from).as_secs_f32() * 1e3),
            _ => Err(Error::new("the event is another device's")),
        }
    }

    fn begin_capture(&self, stream: Stream) -> Result<()> {
        self.refuse_in_capture(None, "a graph")?;
        *self.capture.lock().unwrap() = Some((stream, Vec::new()));
        Ok(())
    }

    fn end_capture(&self, stream: Stream) -> Result<CapturedGraph> {
        match self.capture.lock().unwrap().take_if(|(captured, _)| *captured == stream) {
            Some((_, work)) => Ok(CapturedGraph(Box::new(work))),
            None => Err(Error::new("the stream is not being captured").at("software GPU")),
        }
    }

    fn replay(&self, stream: Stream, graph: &CapturedGraph) -> Result<()> {
        self.refuse_in_capture(Some(stream), "a graph")?;
        let work = graph.0.downcast_ref::<Vec<StreamOp>>();
        let work = work.ok_or_else(|| Error::new("the graph is another device's"))?;
        self.replays.fetch_add(1, Ordering::Relaxed);
        work.iter().try_for_each(|work| self.perform(work))
    }

    fn synchronize(&self) -> Result<()> {
        self.refuse_in_capture(None, "waiting for the device")
    }
}
