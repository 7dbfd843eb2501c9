//! NVIDIA's driver, loaded when a card is opened. Missing libraries and functions are detected first, because
//! the bindings panic on them.

use super::driver::{CapturedGraph, DeviceProperties, Driver, DriverModule, Event, Grid, Pinned, Stream};
use super::nvrtc::Code;
use crate::{Error, Result};
use cudarc::driver::result::{self, DriverError};
use cudarc::driver::sys::{self, CUdevice_attribute, CUresult};
use std::any::Any;
use std::collections::HashMap;
use std::ffi::{CString, c_int, c_void};
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex};

/// The oldest CUDA version of a driver that is supported, as 1000·major + 10·minor.
const MIN_CUDA: i32 = 12000;

/// Driver functions that are required; an older driver lacks some of them.
const REQUIRED: [&str; 7] = [
    "cuMemAllocAsync",
    "cuMemFreeAsync",
    "cuLaunchKernelEx",
    "cuStreamBeginCapture_v2",
    "cuStreamIsCapturing",
    "cuGraphInstantiateWithFlags",
    "cuDevicePrimaryCtxRelease_v2",
];

/// One card.
pub(super) struct Card {
    context: sys::CUcontext,
    device: sys::CUdevice,
    properties: DeviceProperties,
    /// The device's default memory pool.
    pool: sys::CUmemoryPool,
    /// Streams by number; the first is [`Stream::COMPUTE`].
    streams: Mutex<Vec<sys::CUstream>>,
}

// SAFETY: the driver's handles may be used from any thread that has made the context its own.
unsafe impl Send for Card {}
// SAFETY: as above; the list of streams is behind a lock.
unsafe impl Sync for Card {}

/// Returns the error of a driver call, by number, since these bindings may not know its name.
fn failed(what: &str, DriverError(code): DriverError) -> Error {
    let hint = match code {
        CUresult::CUDA_ERROR_OUT_OF_MEMORY => ": out of memory",
        CUresult::CUDA_ERROR_NO_DEVICE => ": there is no CUDA card",
        CUresult::CUDA_ERROR_SYSTEM_DRIVER_MISMATCH => {
            ": the driver's library and kernel module differ; reboot"
        }
        CUresult::CUDA_ERROR_ILLEGAL_ADDRESS => ": a kernel accessed an illegal address",
        CUresult::CUDA_ERROR_LAUNCH_FAILED | CUresult::CUDA_ERROR_ILLEGAL_INSTRUCTION => ": a kernel stopped",
        CUresult::CUDA_ERROR_NO_BINARY_FOR_GPU | CUresult::CUDA_ERROR_INVALID_IMAGE => {
            ": the driver does not take this compiler's code; update it or name an older NVRTC in CODELSI_NVRTC"
        }
        _ => "",
    };
    let error = Error::new(format!("{what} failed with CUDA error {}{hint}", code as i32)).at("CUDA");
    if code == CUresult::CUDA_ERROR_OUT_OF_MEMORY { error.out_of_memory() } else { error }
}

/// Names the driver call that failed.
trait InCall<T> {
    fn in_call(self, function: &str) -> Result<T>;
}

impl<T> InCall<T> for std::result::Result<T, DriverError> {
    fn in_call(self, function: &str) -> Result<T> {
        self.map_err(|e| failed(function, e))
    }
}

/// True when the driver's library is found.
pub(super) fn has_driver() -> bool {
    // SAFETY: loads the library, whose initializers are sound.
    unsafe { sys::is_culib_present() }
}

/// Returns the number of cards.
///
/// # Errors
/// When there is no driver, or it is too old.
pub(super) fn count() -> Result<usize> {
    let none = |message: &str| Err(Error::new(message).at("CUDA"));
    if !has_driver() {
        return none("no driver: libcuda was not found; use --device cpu, or install NVIDIA's driver");
    }
    // SAFETY: the library is present.
    let library = unsafe { sys::culib() };
    // SAFETY: only the presence of the symbols is looked at.
    let lacks = |name: &&&str| unsafe { library.get::<*const c_void>(name.as_bytes()) }.is_err();
    if let Some(missing) = REQUIRED.iter().find(lacks) {
        return none(&format!("the driver is too old: it lacks {missing}; install version 525 or later"));
    }
    result::init().in_call("cuInit")?;
    if version()? < MIN_CUDA {
        let (have, need) = (version()?, MIN_CUDA);
        return none(&format!("the driver is too old: it is for CUDA {have}, at least {need} is needed"));
    }
    Ok(result::device::get_count().in_call("cuDeviceGetCount")?.max(0) as usize)
}

/// Returns the CUDA version of the driver, as 1000·major + 10·minor.
fn version() -> Result<i32> {
    let mut version: c_int = 0;
    // SAFETY: the pointer is valid; the function is older than any driver of interest.
    unsafe { sys::cuDriverGetVersion(&mut version) }.result().in_call("cuDriverGetVersion")?;
    Ok(version)
}

impl Card {
    /// Opens card `ordinal`; `compiler` is the version of NVRTC.
    pub(super) fn new(ordinal: usize, compiler: (i32, i32)) -> Result<Self> {
        let cards = count()?;
        if ordinal >= cards {
            return Err(Error::new(format!("there is no card {ordinal}: {cards} found")).at("CUDA"));
        }
        let driver = version()?;
        if driver / 1000 < compiler.0 {
            let (d, e, (major, minor)) = (driver / 1000, driver % 1000 / 10, compiler);
            return Err(Error::new(format!(
                "the driver is for CUDA {d}.{e} and does not take code of NVRTC {major}.{minor}: update it (580 or \
                 later for CUDA 13), or name an NVRTC {d}.x in CODELSI_NVRTC"
            ))
            .at("CUDA"));
        }
        let device = result::device::get(ordinal as c_int).in_call("cuDeviceGet")?;
        let properties = properties(device)?;
        // SAFETY: the device was just returned; the context is released in `drop`.
        let context = unsafe { result::primary_ctx::retain(device) }.in_call("cuDevicePrimaryCtxRetain")?;
        // SAFETY: the device comes from the driver.
        let pool = unsafe { result::device::get_default_mem_pool(device) };
        let pool = pool.in_call("cuDeviceGetDefaultMemPool")?;
        let real = Card { context, device, properties, pool, streams: Mutex::default() };
        real.bind()?;
        real.keep_freed_memory()?;
        real.stream()?; // Stream::COMPUTE
        Ok(real)
    }

    /// Lets the process keep freed memory: asking the system again takes longer than most kernels.
    fn keep_freed_memory(&self) -> Result<()> {
        let mut all = u64::MAX;
        let threshold = sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
        // SAFETY: the pool is the device's, and the attribute is a u64.
        unsafe { result::mem_pool::set_attribute(self.pool, threshold, (&raw mut all).cast::<c_void>()) }
            .in_call("cuMemPoolSetAttribute")
    }

    /// Returns one of the pool's statistics, in bytes.
    fn pool_bytes(&self, statistic: sys::CUmemPool_attribute) -> Result<usize> {
        let mut bytes = 0u64;
        // SAFETY: the pool is the device's, and its figures are u64.
        unsafe { result::mem_pool::get_attribute(self.pool, statistic, (&raw mut bytes).cast::<c_void>()) }
            .in_call("cuMemPoolGetAttribute")?;
        Ok(bytes as usize)
    }

    /// Makes the card's context current in the calling thread.
    fn bind(&self) -> Result<()> {
        // SAFETY: the context is retained for as long as `self` lives.
        unsafe { result::ctx::set_current(self.context) }.in_call("cuCtxSetCurrent")
    }

    /// The driver's handle of `stream`, with the card's context made current in the calling thread.
    pub(super) fn raw_stream(&self, stream: Stream) -> Result<sys::CUstream> {
        self.bind()?;
        let streams = self.streams.lock().unwrap();
        streams.get(stream.0).copied().ok_or_else(|| Error::new("the stream is another device's"))
    }

    /// True when everything before `event` is done.
    pub(super) fn is_done(&self, event: &Event) -> Result<bool> {
        self.bind()?;
        // SAFETY: the event lives.
        match unsafe { sys::cuEventQuery(raw_event(event)?) } {
            CUresult::CUDA_ERROR_NOT_READY => Ok(false),
            code => code.result().in_call("cuEventQuery").map(|()| true),
        }
    }
}

impl Drop for Card {
    fn drop(&mut self) {
        if self.bind().is_ok() {
            // Frees the memory for other processes; errors have no receiver in a drop.
            let _ = self.trim();
            for &stream in self.streams.lock().unwrap().iter() {
                // SAFETY: created by `stream`, destroyed once.
                let _ = unsafe { result::stream::destroy(stream) };
            }
        }
        // SAFETY: retained once, in `new`.
        let _ = unsafe { result::primary_ctx::release(self.device) };
    }
}

fn properties(device: sys::CUdevice) -> Result<DeviceProperties> {
    use CUdevice_attribute::*;
    let get = |attribute| {
        // SAFETY: the device comes from the driver.
        unsafe { result::device::get_attribute(device, attribute) }.in_call("cuDeviceGetAttribute")
    };
    let major = get(CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?;
    let minor = get(CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?;
    let name = result::device::get_name(device).in_call("cuDeviceGetName")?;
    if major < 8 {
        let message =
            format!("{name} is of compute capability {major}.{minor}; the kernels need 8.0 or later");
        return Err(Error::new(message).at("CUDA"));
    }
    // The suffix `a` allows the instructions that only this generation has.
    let suffix = if major == 9 { "a" } else { "" };
    Ok(DeviceProperties {
        name,
        arch: format!("sm_{major}{minor}{suffix}"),
        multiprocessors: get(CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)? as usize,
        shared: get(CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)? as usize,
    })
}

/// A loaded module, and the functions looked up in it so far.
struct CardModule {
    module: sys::CUmodule,
    functions: Mutex<HashMap<String, sys::CUfunction>>,
}

// SAFETY: the driver's handles may be used from any thread that has made the context its own.
unsafe impl Send for CardModule {}
// SAFETY: as above; the functions are behind a lock.
unsafe impl Sync for CardModule {}

impl DriverModule for CardModule {
    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl CardModule {
    fn function(&self, kernel: &str, shared_limit: usize) -> Result<sys::CUfunction> {
        let mut functions = self.functions.lock().unwrap();
        if let Some(&function) = functions.get(kernel) {
            return Ok(function);
        }
        let name = CString::new(kernel).map_err(|_| Error::new("a kernel's name has a NUL byte"))?;
        // SAFETY: the module is never unloaded.
        let function =
            unsafe { result::module::get_function(self.module, name) }.in_call("cuModuleGetFunction")?;
        let attribute = sys::CUfunction_attribute_enum::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
        // SAFETY: the function was just returned.
        unsafe {
            let mut fixed = 0;
            let size = sys::CUfunction_attribute_enum::CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES;
            sys::cuFuncGetAttribute(&mut fixed, size, function).result().in_call("cuFuncGetAttribute")?;
            let limit = shared_limit as c_int - fixed;
            result::function::set_function_attribute(function, attribute, limit)
                .in_call("cuFuncSetAttribute")?;
        }
        functions.insert(kernel.to_owned(), function);
        Ok(function)
    }
}

/// Page-locked host memory, freed when dropped.
struct PinnedBuffer {
    start: *mut u8,
    bytes: usize,
}

// SAFETY: nothing else points to this host memory.
unsafe impl Send for PinnedBuffer {}

impl Deref for PinnedBuffer {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        // SAFETY: initialized in `pinned`, and `self` is its only holder.
        unsafe { std::slice::from_raw_parts(self.start, self.bytes) }
    }
}

impl DerefMut for PinnedBuffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above.
        unsafe { std::slice::from_raw_parts_mut(self.start, self.bytes) }
    }
}

impl Pinned for PinnedBuffer {}

impl Drop for PinnedBuffer {
    fn drop(&mut self) {
        // SAFETY: allocated by `pinned`, freed once.
        let _ = unsafe { result::free_host(self.start.cast()) };
    }
}

/// A driver's event, destroyed when dropped.
struct CudaEvent(sys::CUevent);

// SAFETY: events may be used from any thread.
unsafe impl Send for CudaEvent {}
// SAFETY: the driver locks what it changes.
unsafe impl Sync for CudaEvent {}

impl Drop for CudaEvent {
    fn drop(&mut self) {
        // SAFETY: created by `record`, destroyed once.
        let _ = unsafe { result::event::destroy(self.0) };
    }
}

/// The driver's handle of an event.
fn raw_event(event: &Event) -> Result<sys::CUevent> {
    event
        .0
        .downcast_ref::<CudaEvent>()
        .map(|m| m.0)
        .ok_or_else(|| Error::new("the event is another device's"))
}

/// A graph that can be launched, destroyed when dropped.
struct GraphExec(sys::CUgraphExec);

// SAFETY: the driver's handles may be used from any thread; launches are one after another in a stream.
unsafe impl Send for GraphExec {}
// SAFETY: as above.
unsafe impl Sync for GraphExec {}

impl Drop for GraphExec {
    fn drop(&mut self) {
        // SAFETY: created by `end`, destroyed once; the driver waits until it has run.
        let _ = unsafe { result::graph::exec_destroy(self.0) };
    }
}

/// Refuses a host copy in a stream that is being captured: the graph would hold the address of host memory.
fn refuse_in_capture(stream: sys::CUstream) -> Result<()> {
    // SAFETY: the stream lives.
    match unsafe { result::stream::is_capturing(stream) }.in_call("cuStreamIsCapturing")? {
        sys::CUstreamCaptureStatus::CU_STREAM_CAPTURE_STATUS_NONE => Ok(()),
        _ => Err(Error::new("a copy from or to the host cannot be captured").at("CUDA")),
    }
}

impl Driver for Card {
    fn properties(&self) -> &DeviceProperties {
        &self.properties
    }

    fn memory(&self) -> Result<(usize, usize)> {
        use sys::CUmemPool_attribute::{
            CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT, CU_MEMPOOL_ATTR_USED_MEM_CURRENT,
        };
        self.bind()?;
        let (free, all) = result::mem_get_info().in_call("cuMemGetInfo")?;
        let reserved = self.pool_bytes(CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT)?;
        let kept = reserved.saturating_sub(self.pool_bytes(CU_MEMPOOL_ATTR_USED_MEM_CURRENT)?);
        Ok((free + kept, all))
    }

    fn alloc(&self, bytes: usize) -> Result<u64> {
        let stream = self.raw_stream(Stream::COMPUTE)?;
        // SAFETY: the stream lives; the owner of the address frees it once.
        unsafe { result::malloc_async(stream, bytes.max(1)) }.in_call("cuMemAllocAsync")
    }

    fn free(&self, at: u64) {
        if let Ok(stream) = self.raw_stream(Stream::COMPUTE) {
            // SAFETY: `at` comes from `alloc`; work that uses it is in the same stream, before this.
            let _ = unsafe { result::free_async(at, stream) };
        }
    }

    fn trim(&self) -> Result<()> {
        self.synchronize()?;
        // SAFETY: the pool is the device's.
        unsafe { result::mem_pool::trim_to(self.pool, 0) }.in_call("cuMemPoolTrimTo")
    }

    fn upload(&self, stream: Stream, to: u64, from: &[u8]) -> Result<()> {
        let stream = self.raw_stream(stream)?;
        refuse_in_capture(stream)?;
        // SAFETY: the destination is live; pageable memory has been read when the call returns.
        unsafe { result::memcpy_htod_async(to, from, stream) }.in_call("cuMemcpyHtoDAsync")
    }

    fn pinned(&self, bytes: usize) -> Result<Box<dyn Pinned>> {
        self.bind()?;
        // SAFETY: the context is this thread's; the memory is freed once, in `drop`.
        let start = unsafe { result::malloc_host(bytes, 0) }.in_call("cuMemHostAlloc")?;
        // SAFETY: the memory was just allocated, `bytes` long.
        unsafe { start.cast::<u8>().write_bytes(0, bytes) };
        Ok(Box::new(PinnedBuffer { start: start.cast(), bytes }))
    }

    unsafe fn upload_async(&self, stream: Stream, to: u64, from: &[u8]) -> Result<()> {
        let stream = self.raw_stream(stream)?;
        // SAFETY: the destination is live; the source lives until the copy is done, by the caller's word.
        unsafe { result::memcpy_htod_async(to, from, stream) }.in_call("cuMemcpyHtoDAsync")
    }

    fn download(&self, stream: Stream, to: &mut [u8], from: u64) -> Result<()> {
        let stream = self.raw_stream(stream)?;
        refuse_in_capture(stream)?;
        // SAFETY: the source is live, and `to` is held until the copy is done.
        unsafe {
            result::memcpy_dtoh_async(to, from, stream).in_call("cuMemcpyDtoHAsync")?;
            result::stream::synchronize(stream).in_call("cuStreamSynchronize")
        }
    }

    fn copy(&self, stream: Stream, to: u64, from: u64, bytes: usize) -> Result<()> {
        let stream = self.raw_stream(stream)?;
        // SAFETY: both ranges are live.
        unsafe { result::memcpy_dtod_async(to, from, bytes, stream) }.in_call("cuMemcpyDtoDAsync")
    }

    fn fill(&self, stream: Stream, at: u64, byte: u8, bytes: usize) -> Result<()> {
        let stream = self.raw_stream(stream)?;
        // SAFETY: the range is live.
        unsafe { result::memset_d8_async(at, byte, bytes, stream) }.in_call("cuMemsetD8Async")
    }

    fn load(&self, code: &Code) -> Result<Arc<dyn DriverModule>> {
        self.bind()?;
        // SAFETY: a CUBIN knows its own length; it is not read after the call.
        let module =
            unsafe { result::module::load_data(code.cubin.as_ptr().cast()) }.in_call("cuModuleLoadData")?;
        Ok(Arc::new(CardModule { module, functions: Mutex::default() }))
    }

    unsafe fn launch(
        &self,
        stream: Stream,
        module: &dyn DriverModule,
        kernel: &str,
        grid: Grid,
        args: &[u8],
    ) -> Result<()> {
        let stream = self.raw_stream(stream)?;
        let module = module.as_any().downcast_ref::<CardModule>();
        let module = module.ok_or_else(|| Error::new("the module is another device's"))?;
        let function = module.function(kernel, self.properties.shared)?;
        let [x, y, z] = grid.blocks.map(|b| b as u32);
        let mut size = args.len();
        // The driver's list: a packed buffer of arguments (1), its size (2), and the end (0).
        let buffer = args.as_ptr().cast_mut().cast();
        let marker = std::ptr::without_provenance_mut::<c_void>;
        let mut extra = [marker(1), buffer, marker(2), (&raw mut size).cast(), marker(0)];
        // SAFETY: the function and stream live, the buffer holds the kernel's arguments (checked by the caller),
        // and the kernel keeps to them by the caller's word.
        let code = unsafe {
            sys::cuLaunchKernel(
                function,
                x,
                y,
                z,
                grid.threads as u32,
                1,
                1,
                grid.shared as u32,
                stream,
                std::ptr::null_mut(),
                extra.as_mut_ptr(),
            )
        };
        code.result().in_call("cuLaunchKernel")
    }

    fn stream(&self) -> Result<Stream> {
        self.bind()?;
        let stream =
            result::stream::create(result::stream::StreamKind::NonBlocking).in_call("cuStreamCreate")?;
        let mut streams = self.streams.lock().unwrap();
        streams.push(stream);
        Ok(Stream(streams.len() - 1))
    }

    fn record(&self, stream: Stream) -> Result<Event> {
        let stream = self.raw_stream(stream)?;
        let event = result::event::create(sys::CUevent_flags::CU_EVENT_DEFAULT).in_call("cuEventCreate")?;
        let event = CudaEvent(event);
        // SAFETY: both live.
        unsafe { result::event::record(event.0, stream) }.in_call("cuEventRecord")?;
        Ok(Event(Box::new(event)))
    }

    fn wait(&self, stream: Stream, event: &Event) -> Result<()> {
        let (stream, event) = (self.raw_stream(stream)?, raw_event(event)?);
        let flags = sys::CUevent_wait_flags::CU_EVENT_WAIT_DEFAULT;
        // SAFETY: both live.
        unsafe { result::stream::wait_event(stream, event, flags) }.in_call("cuStreamWaitEvent")
    }

    fn wait_event(&self, event: &Event) -> Result<()> {
        self.bind()?;
        // SAFETY: it lives and was recorded.
        unsafe { result::event::synchronize(raw_event(event)?) }.in_call("cuEventSynchronize")
    }

    fn elapsed(&self, from: &Event, to: &Event) -> Result<f32> {
        self.bind()?;
        let (from, to) = (raw_event(from)?, raw_event(to)?);
        // SAFETY: both live and were recorded.
        unsafe {
            result::event::synchronize(to).in_call("cuEventSynchronize")?;
            result::event::elapsed(from, to).in_call("cuEventElapsedTime")
        }
    }

    fn begin_capture(&self, stream: Stream) -> Result<()> {
        let stream = self.raw_stream(stream)?;
        // Thread-local: other threads' work on other streams does not take part in the capture.
        let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        // SAFETY: the stream lives.
        unsafe { result::stream::begin_capture(stream, mode) }.in_call("cuStreamBeginCapture")
    }

    fn end_capture(&self, stream: Stream) -> Result<CapturedGraph> {
        let stream = self.raw_stream(stream)?;
        // SAFETY: the stream lives.
        let graph = unsafe { result::stream::end_capture(stream) }.in_call("cuStreamEndCapture")?;
        // SAFETY: the graph was just returned, is destroyed once, and is not needed by what is made of it.
        let executable = unsafe {
            let executable = result::graph::instantiate(graph, sys::CUgraphInstantiate_flags(0));
            let _ = result::graph::destroy(graph);
            executable
        };
        Ok(CapturedGraph(Box::new(GraphExec(executable.in_call("cuGraphInstantiate")?))))
    }

    fn replay(&self, stream: Stream, graph: &CapturedGraph) -> Result<()> {
        let stream = self.raw_stream(stream)?;
        let executable = graph.0.downcast_ref::<GraphExec>();
        let executable = executable.ok_or_else(|| Error::new("the graph is another device's"))?;
        // SAFETY: both live; the memory that the work uses does, as the caller has seen.
        unsafe { result::graph::launch(executable.0, stream) }.in_call("cuGraphLaunch")
    }

    fn synchronize(&self) -> Result<()> {
        self.bind()?;
        result::ctx::synchronize().in_call("cuCtxSynchronize")
    }
}
