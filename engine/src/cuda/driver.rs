//! The driver interface: every operation that the engine needs from a GPU. NVIDIA's driver, the software GPU and
//! the planned GPU implement it.

use super::nvrtc::Code;
use crate::Result;
use std::any::Any;
use std::ops::DerefMut;
use std::sync::Arc;

/// A queue of work on the device; its work runs in order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stream(pub(super) usize);

impl Stream {
    /// The stream that every op uses.
    pub const COMPUTE: Stream = Stream(0);
}

/// A point in a stream's work.
pub struct Event(pub(super) Box<dyn Any + Send + Sync>);

/// Work captured from a stream, to be replayed in one call (a CUDA graph).
pub(super) struct CapturedGraph(pub(super) Box<dyn Any + Send + Sync>);

/// The grid and block size of a launch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Grid {
    /// Blocks in x, y and z.
    pub blocks: [usize; 3],
    /// Threads of a block, in x.
    pub threads: usize,
    /// Bytes of dynamic shared memory of a block.
    pub shared: usize,
}

impl Grid {
    /// Returns a one-dimensional grid of `blocks` blocks of `threads` threads, without dynamic shared memory.
    pub fn new(blocks: usize, threads: usize) -> Self {
        Grid { blocks: [blocks, 1, 1], threads, shared: 0 }
    }
}

/// The properties of a device that compilation and launches depend on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DeviceProperties {
    /// The card's name.
    pub name: String,
    /// The architecture to compile for, e.g. `sm_80`.
    pub arch: String,
    pub multiprocessors: usize,
    /// The most bytes of dynamic shared memory that one block may use.
    pub shared: usize,
}

/// Page-locked host memory, which a device reads asynchronously.
pub(super) trait Pinned: Send + DerefMut<Target = [u8]> {}

/// The software GPU and planned cards read any host memory.
impl Pinned for Vec<u8> {}

impl DeviceProperties {
    /// Returns those of an A100, for plans on a machine without a card.
    pub fn a100() -> Self {
        DeviceProperties {
            name: "A100".into(),
            arch: "sm_80".into(),
            multiprocessors: 108,
            shared: 163 << 10,
        }
    }
}

/// A loaded module.
pub(super) trait DriverModule: Send + Sync {
    fn as_any(&self) -> &dyn Any;
}

/// A GPU. Addresses are device addresses; every call may come from any thread.
///
/// Addresses are trusted to lie in live allocations: [`super::Cuda`] ensures that.
pub(super) trait Driver: Send + Sync {
    fn properties(&self) -> &DeviceProperties;
    /// Free bytes, including freed memory that is kept in the pool, and total bytes.
    fn memory(&self) -> Result<(usize, usize)>;
    /// Allocates memory for later work in [`Stream::COMPUTE`]. The error is marked
    /// ([`crate::Error::out_of_memory`]) when none was left.
    fn alloc(&self, bytes: usize) -> Result<u64>;
    /// Frees memory in the order of [`Stream::COMPUTE`]; the pool keeps it for later allocations.
    fn free(&self, at: u64);
    /// Waits for the device, then returns all freed memory of the pool to the system.
    fn trim(&self) -> Result<()>;
    fn upload(&self, stream: Stream, to: u64, from: &[u8]) -> Result<()>;
    /// Allocates zeroed, page-locked host memory.
    fn pinned(&self, bytes: usize) -> Result<Box<dyn Pinned>>;
    /// Starts a copy from host to device in `stream` and returns at once.
    ///
    /// # Safety
    /// `from` lies in [`Driver::pinned`] memory, and stays alive and unchanged until the copy is done.
    unsafe fn upload_async(&self, stream: Stream, to: u64, from: &[u8]) -> Result<()>;
    /// Copies from device to host, and returns when the bytes have arrived.
    fn download(&self, stream: Stream, to: &mut [u8], from: u64) -> Result<()>;
    fn copy(&self, stream: Stream, to: u64, from: u64, bytes: usize) -> Result<()>;
    fn fill(&self, stream: Stream, at: u64, byte: u8, bytes: usize) -> Result<()>;
    fn load(&self, code: &Code) -> Result<Arc<dyn DriverModule>>;
    /// Starts `kernel` with its packed arguments.
    ///
    /// # Safety
    /// The kernel accesses only memory that its arguments point to, and nothing else writes there meanwhile.
    unsafe fn launch(
        &self,
        stream: Stream,
        module: &dyn DriverModule,
        kernel: &str,
        grid: Grid,
        args: &[u8],
    ) -> Result<()>;
    /// Creates a stream in addition to [`Stream::COMPUTE`].
    fn stream(&self) -> Result<Stream>;
    fn record(&self, stream: Stream) -> Result<Event>;
    /// Makes later work in `stream` wait for the event.
    fn wait(&self, stream: Stream, event: &Event) -> Result<()>;
    /// Blocks the host until the event has happened.
    fn wait_event(&self, event: &Event) -> Result<()>;
    /// Milliseconds between two events, waiting for them.
    fn elapsed(&self, from: &Event, to: &Event) -> Result<f32>;
    /// Begins to capture the work put into `stream` instead of running it. Launches, device-to-device copies and fills
    /// can be captured; copies from and to the host, allocations, module loads and waits cannot.
    fn begin_capture(&self, stream: Stream) -> Result<()>;
    /// Ends the capture and returns the work captured since [`Driver::begin_capture`]. The capture ends even when
    /// this fails.
    fn end_capture(&self, stream: Stream) -> Result<CapturedGraph>;
    /// Puts captured work into `stream`.
    fn replay(&self, stream: Stream, graph: &CapturedGraph) -> Result<()>;
    /// Blocks the host until every stream is empty.
    fn synchronize(&self) -> Result<()>;
}
