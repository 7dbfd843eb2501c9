//! What a GPU must do for us, and nothing more: two drivers stand behind it, the real one and the software GPU.

use super::nvrtc::Code;
use crate::Result;
use std::any::Any;
use std::ops::DerefMut;
use std::sync::Arc;

/// A queue of work; what is put into one runs in order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stream(pub(super) usize);

impl Stream {
    /// The queue that every op uses.
    pub const COMPUTE: Stream = Stream(0);
}

/// A mark in a stream.
pub struct Event(pub(super) Box<dyn Any + Send + Sync>);

/// What was put into a stream while it recorded.
pub(super) struct Recorded(pub(super) Box<dyn Any + Send + Sync>);

/// The size of a launch.
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
    /// `blocks` blocks of `threads` threads.
    pub fn new(blocks: usize, threads: usize) -> Self {
        Grid { blocks: [blocks, 1, 1], threads, shared: 0 }
    }
}

/// What kernels' launches depend on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Properties {
    /// The card's name.
    pub name: String,
    /// The architecture to compile for, e.g. `sm_80`.
    pub arch: String,
    pub multiprocessors: usize,
    /// Bytes of dynamic shared memory that one block may ask for.
    pub shared: usize,
}

/// Host memory that a card reads by itself.
pub(super) trait Pinned: Send + DerefMut<Target = [u8]> {}

/// Where the host computes, its memory is all one.
impl Pinned for Vec<u8> {}

impl Properties {
    /// An A100's, for plans where no card is at hand.
    pub fn a100() -> Self {
        Properties { name: "A100".into(), arch: "sm_80".into(), multiprocessors: 108, shared: 163 << 10 }
    }
}

/// A loaded module.
pub(super) trait Module: Send + Sync {
    fn as_any(&self) -> &dyn Any;
}

/// A GPU. Addresses are the device's; every call may come from any thread.
///
/// A call that is given addresses trusts them to lie in live allocations: [`super::Cuda`] sees to it.
pub(super) trait Driver: Send + Sync {
    fn properties(&self) -> &Properties;
    /// Bytes that are free, those of freed memory that is kept included, and all there are.
    fn memory(&self) -> Result<(usize, usize)>;
    /// Memory that is there for what comes next in [`Stream::COMPUTE`]. An error says whether none was left.
    fn alloc(&self, bytes: usize) -> Result<u64>;
    /// Keeps the memory for the next allocation, which gets it when everything in [`Stream::COMPUTE`] is done.
    fn free(&self, at: u64);
    /// Waits, and gives back all freed memory that is kept.
    fn trim(&self) -> Result<()>;
    fn upload(&self, stream: Stream, to: u64, from: &[u8]) -> Result<()>;
    /// Zeroed host memory that this device reads by itself.
    fn pinned(&self, bytes: usize) -> Result<Box<dyn Pinned>>;
    /// Puts a copy to `to` into `stream` and returns.
    ///
    /// # Safety
    /// `from` is of [`Driver::pinned`] memory, and lives unchanged until the copy is done.
    unsafe fn fetch(&self, stream: Stream, to: u64, from: &[u8]) -> Result<()>;
    /// Returns when the bytes are there.
    fn download(&self, stream: Stream, to: &mut [u8], from: u64) -> Result<()>;
    fn copy(&self, stream: Stream, to: u64, from: u64, bytes: usize) -> Result<()>;
    fn fill(&self, stream: Stream, at: u64, byte: u8, bytes: usize) -> Result<()>;
    fn load(&self, code: &Code) -> Result<Arc<dyn Module>>;
    /// Starts `kernel` with its packed arguments.
    ///
    /// # Safety
    /// The kernel's accesses stay within what its arguments point to; nobody else writes there meanwhile.
    unsafe fn launch(
        &self,
        stream: Stream,
        module: &dyn Module,
        kernel: &str,
        grid: Grid,
        args: &[u8],
    ) -> Result<()>;
    /// A further stream, beside [`Stream::COMPUTE`].
    fn stream(&self) -> Result<Stream>;
    fn record(&self, stream: Stream) -> Result<Event>;
    /// Work put into `stream` from now on waits for the event.
    fn wait(&self, stream: Stream, event: &Event) -> Result<()>;
    /// Returns when the event has happened.
    fn finish(&self, event: &Event) -> Result<()>;
    /// Milliseconds between two events that have happened.
    fn elapsed(&self, from: &Event, to: &Event) -> Result<f32>;
    /// Has `stream` record what is put into it, instead of doing it. Launches, copies on the device and fills can be
    /// recorded; nothing is sent, read, allocated, loaded or waited for meanwhile.
    fn begin(&self, stream: Stream) -> Result<()>;
    /// What was recorded since [`Driver::begin`]. The stream records no more, also when that is an error.
    fn end(&self, stream: Stream) -> Result<Recorded>;
    /// Puts what was recorded into `stream`.
    fn replay(&self, stream: Stream, work: &Recorded) -> Result<()>;
    /// Returns when every stream is empty.
    fn synchronize(&self) -> Result<()>;
}
