//! NCCL, NVIDIA's collectives between cards, loaded when ranks on cards connect.
//!
//! The functions are bound here and not through `cudarc`, whose loader panics when the library or one of its functions
//! is missing, and does not know the name `libnccl.so.2`.

use super::ReduceOp;
use crate::cuda::{Cuda, Event, Stream};
use crate::{At, DType, Error, Result, Tensor};
use libloading::os::unix::{Library, RTLD_NOW};
use std::ffi::{CStr, c_char, c_int, c_void};
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

/// The id that all ranks of one communicator share; rank 0 creates it.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct UniqueId([u8; 128]);

type CommHandle = *mut c_void;
type RawStream = *mut c_void;

/// The functions of the library that are used.
struct NcclApi {
    error: unsafe extern "C" fn(c_int) -> *const c_char,
    unique_id: unsafe extern "C" fn(*mut UniqueId) -> c_int,
    init: unsafe extern "C" fn(*mut CommHandle, c_int, UniqueId, c_int) -> c_int,
    abort: unsafe extern "C" fn(CommHandle) -> c_int,
    async_error: unsafe extern "C" fn(CommHandle, *mut c_int) -> c_int,
    group_start: unsafe extern "C" fn() -> c_int,
    group_end: unsafe extern "C" fn() -> c_int,
    /// Arguments: source, destination, elements, type, operation.
    all_reduce: unsafe extern "C" fn(u64, u64, usize, c_int, c_int, CommHandle, RawStream) -> c_int,
    /// Arguments: source, destination, elements from each rank, type.
    all_gather: unsafe extern "C" fn(u64, u64, usize, c_int, CommHandle, RawStream) -> c_int,
    /// Arguments: source, destination, elements to each rank, type, operation.
    reduce_scatter: unsafe extern "C" fn(u64, u64, usize, c_int, c_int, CommHandle, RawStream) -> c_int,
    /// Arguments: source, destination, elements, type, root.
    broadcast: unsafe extern "C" fn(u64, u64, usize, c_int, c_int, CommHandle, RawStream) -> c_int,
    _library: Library,
}

/// Returns the library of this process, loading it at the first call.
fn api() -> Result<&'static NcclApi> {
    static API: OnceLock<Result<NcclApi>> = OnceLock::new();
    API.get_or_init(find_library).as_ref().map_err(Error::clone)
}

fn find_library() -> Result<NcclApi> {
    if let Some(named) = std::env::var_os("CODELSI_NCCL") {
        return load(Path::new(&named)).at("CODELSI_NCCL");
    }
    let found = ["libnccl.so.2", "libnccl.so"].iter().find_map(|name| load(Path::new(name)).ok());
    found.ok_or_else(|| {
        Error::new(
            "no NCCL found, which ranks with one card each need: install NVIDIA's libnccl2, name the library in \
             CODELSI_NCCL, or use --ranks 1",
        )
    })
}

fn load(path: &Path) -> Result<NcclApi> {
    // SAFETY: the library's initializers do nothing but set it up.
    let library = unsafe { Library::open(Some(path), RTLD_NOW) };
    let library = library.map_err(|e| Error::io(path, format!("is not NCCL: {e}")))?;
    let symbol = |name| Symbol { library: &library, path, name };
    // SAFETY: names and types are those of nccl.h; the library is kept with the functions.
    unsafe {
        Ok(NcclApi {
            error: symbol("ncclGetErrorString").get()?,
            unique_id: symbol("ncclGetUniqueId").get()?,
            init: symbol("ncclCommInitRank").get()?,
            abort: symbol("ncclCommAbort").get()?,
            async_error: symbol("ncclCommGetAsyncError").get()?,
            group_start: symbol("ncclGroupStart").get()?,
            group_end: symbol("ncclGroupEnd").get()?,
            all_reduce: symbol("ncclAllReduce").get()?,
            all_gather: symbol("ncclAllGather").get()?,
            reduce_scatter: symbol("ncclReduceScatter").get()?,
            broadcast: symbol("ncclBroadcast").get()?,
            _library: library,
        })
    }
}

/// A function of a library, by name.
struct Symbol<'a> {
    library: &'a Library,
    path: &'a Path,
    name: &'a str,
}

impl Symbol<'_> {
    /// # Safety
    /// `T` is the function's type, and the library outlives it.
    unsafe fn get<T: Copy>(&self) -> Result<T> {
        // SAFETY: the caller guarantees the type.
        let found = unsafe { self.library.get::<T>(self.name.as_bytes()) };
        let lacks = |_| Error::io(self.path, format!("is not NCCL: it lacks {}", self.name));
        found.map(|function| *function).map_err(lacks)
    }
}

impl NcclApi {
    fn check(&self, code: c_int, what: &str) -> Result<()> {
        if code == 0 {
            return Ok(());
        }
        // SAFETY: the library returns a static string for any code.
        let message = unsafe { CStr::from_ptr((self.error)(code)) };
        Err(Error::new(format!("{what} failed: {} ({code})", message.to_string_lossy())).at("NCCL"))
    }
}

impl UniqueId {
    /// Creates an id.
    ///
    /// # Errors
    /// When NCCL is not installed, or finds no network.
    pub fn new() -> Result<Self> {
        let (api, mut id) = (api()?, UniqueId([0; 128]));
        // SAFETY: the pointer is valid for 128 bytes.
        api.check(unsafe { (api.unique_id)(&mut id) }, "ncclGetUniqueId")?;
        Ok(id)
    }

    /// The bytes to send to the other ranks.
    pub fn bytes(&self) -> &[u8; 128] {
        &self.0
    }
}

impl From<[u8; 128]> for UniqueId {
    fn from(bytes: [u8; 128]) -> Self {
        UniqueId(bytes)
    }
}

/// One rank's NCCL communicator, and the stream in which its collectives run.
pub(crate) struct Communicator {
    api: &'static NcclApi,
    cuda: Arc<Cuda>,
    stream: Stream,
    /// `None` after an abort.
    handle: Mutex<Option<OwnedComm>>,
}

struct OwnedComm(CommHandle);

// SAFETY: a communicator may be used from any thread, by one at a time: it is behind a lock.
unsafe impl Send for OwnedComm {}

/// A collective with its tensors.
pub(crate) enum Collective<'a> {
    AllReduce(&'a mut Tensor, ReduceOp),
    AllGather(&'a Tensor, &'a mut Tensor),
    /// A group of gathers, each from the first tensor to the second.
    AllGathers(&'a mut [(Tensor, Tensor)]),
    ReduceScatter(&'a Tensor, &'a mut Tensor),
    /// A group of broadcasts, each from the given rank.
    Broadcast(&'a mut [(usize, Tensor)]),
}

impl Communicator {
    /// Connects to the other ranks, and returns when all are connected. Its collectives run in `stream`.
    ///
    /// # Errors
    /// When NCCL is not installed, the device is not a card, or NCCL fails (for example, two ranks on one card).
    pub fn new(cuda: &Arc<Cuda>, stream: Stream, rank: usize, world: usize, id: UniqueId) -> Result<Self> {
        let api = api()?;
        let (mut handle, cuda) = (std::ptr::null_mut(), cuda.clone());
        cuda.raw_stream(stream)?; // makes the card's context current
        // SAFETY: the pointer is valid, and the card's context is current.
        let joined = unsafe { (api.init)(&mut handle, world as c_int, id, rank as c_int) };
        api.check(joined, "ncclCommInitRank")?;
        Ok(Communicator { api, cuda, stream, handle: Mutex::new(Some(OwnedComm(handle))) })
    }

    /// Starts a collective; work put into its stream later reads the result.
    ///
    /// # Errors
    /// When NCCL fails, or the sizes of tensors do not match.
    pub fn start(&self, what: Collective) -> Result<()> {
        let stream = self.cuda.raw_stream(self.stream)?;
        let handle = self.handle.lock().unwrap_or_else(|e| e.into_inner());
        let handle = handle.as_ref().ok_or_else(|| Error::new("the run has ended").at("NCCL"))?.0;
        let api = self.api;
        // SAFETY: in each arm the addresses are of live tensors of this card with as many elements as are named, the
        // written ones without other owners; communicator and stream live.
        let (code, name) = unsafe {
            match what {
                Collective::AllReduce(x, op) => {
                    let (at, n, dtype) =
                        (self.cuda.address_mut(x)?, x.shape().elements(), nccl_type(x.dtype()));
                    let reduce_code = if op == ReduceOp::Sum { 0 } else { 2 };
                    ((api.all_reduce)(at, at, n, dtype, reduce_code, handle, stream), "ncclAllReduce")
                }
                Collective::AllGather(x, out) => {
                    let n = part_elements(x, out)?;
                    let (from, to) = (self.cuda.address(x)?, self.cuda.address_mut(out)?);
                    ((api.all_gather)(from, to, n, nccl_type(x.dtype()), handle, stream), "ncclAllGather")
                }
                Collective::AllGathers(gathers) => {
                    api.check((api.group_start)(), "ncclGroupStart")?;
                    let started = gathers.iter_mut().try_for_each(|(x, out)| {
                        let n = part_elements(x, out)?;
                        let (from, to) = (self.cuda.address(x)?, self.cuda.address_mut(out)?);
                        let code = (api.all_gather)(from, to, n, nccl_type(x.dtype()), handle, stream);
                        api.check(code, "ncclAllGather")
                    });
                    let ended = (api.group_end)();
                    started?;
                    (ended, "ncclGroupEnd")
                }
                Collective::ReduceScatter(x, out) => {
                    let n = part_elements(out, x)?;
                    let (from, to) = (self.cuda.address(x)?, self.cuda.address_mut(out)?);
                    (
                        (api.reduce_scatter)(from, to, n, nccl_type(x.dtype()), 0, handle, stream),
                        "ncclReduceScatter",
                    )
                }
                Collective::Broadcast(parts) => {
                    api.check((api.group_start)(), "ncclGroupStart")?;
                    let started = parts.iter_mut().try_for_each(|(root, t)| {
                        let (at, n, root) = (self.cuda.address_mut(t)?, t.byte_len(), *root as c_int);
                        let bytes = 1; // ncclUint8
                        api.check((api.broadcast)(at, at, n, bytes, root, handle, stream), "ncclBroadcast")
                    });
                    let ended = (api.group_end)();
                    started?;
                    (ended, "ncclGroupEnd")
                }
            }
        };
        api.check(code, name)
    }

    /// Makes the communicator's stream wait for the ops in the compute stream.
    ///
    /// # Errors
    /// When the driver fails.
    pub fn after_compute(&self) -> Result<()> {
        self.cuda.wait(self.stream, &self.cuda.record(Stream::COMPUTE)?)
    }

    /// Records an event that happens when all started collectives are over.
    ///
    /// # Errors
    /// When the driver fails; the device is idle then.
    pub fn record_end(&self) -> Result<(Arc<Cuda>, Event)> {
        let event = self.cuda.record(self.stream).or_else(|e| self.cuda.synchronize().and(Err(e)))?;
        Ok((self.cuda.clone(), event))
    }

    /// Waits until its stream is empty; returns false after `timeout`.
    ///
    /// # Errors
    /// When NCCL or the driver fails.
    pub fn wait(&self, timeout: Duration) -> Result<bool> {
        let (deadline, record_end) = (Instant::now() + timeout, self.cuda.record(self.stream)?);
        while !self.cuda.is_done(&record_end)? {
            if Instant::now() > deadline {
                return Ok(false);
            }
            self.check_async()?;
            std::thread::sleep(Duration::from_micros(50));
        }
        Ok(true)
    }

    fn check_async(&self) -> Result<()> {
        let handle = self.handle.lock().unwrap_or_else(|e| e.into_inner());
        let Some(OwnedComm(handle)) = &*handle else {
            return Err(Error::new("the run has ended").at("NCCL"));
        };
        let mut code = 0;
        // SAFETY: the communicator lives, and the pointer is valid.
        let queried = unsafe { (self.api.async_error)(*handle, &mut code) };
        self.api.check(queried, "ncclCommGetAsyncError")?;
        const IN_PROGRESS: c_int = 7;
        if code == IN_PROGRESS { Ok(()) } else { self.api.check(code, "a collective") }
    }

    /// Aborts the collectives in progress; no further one can be started.
    pub fn abort(&self) {
        if let Some(OwnedComm(handle)) = self.handle.lock().unwrap_or_else(|e| e.into_inner()).take() {
            // SAFETY: the communicator was made by `new` and is given up once.
            let _ = unsafe { (self.api.abort)(handle) };
        }
    }
}

impl Drop for Communicator {
    fn drop(&mut self) {
        // The owner has waited for the collectives whose results it needs.
        self.abort();
    }
}

/// Returns the number of elements of `part`; `full` must have a multiple of them.
fn part_elements(part: &Tensor, full: &Tensor) -> Result<usize> {
    let n = part.shape().elements();
    match part.dtype() == full.dtype() && n > 0 && full.shape().elements().is_multiple_of(n) {
        true => Ok(n),
        false => Err(Error::new(format!("{part:?} is no rank's part of {full:?}"))),
    }
}

/// Returns the `ncclDataType_t` of a storage type.
fn nccl_type(dtype: DType) -> c_int {
    match dtype {
        DType::I32 => 2,
        DType::F32 => 7,
        DType::BF16 => 9,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_nccl_is_refused_in_one_line() {
        let missing = load(Path::new("/nowhere/libnccl.so.2")).err().unwrap().to_string();
        assert!(missing.contains("/nowhere/libnccl.so.2: is not NCCL"), "{missing}");
        let other = load(Path::new("libc.so.6")).err().unwrap().to_string();
        assert!(other.contains("ncclGetErrorString") && !other.contains('\n'), "{other}");
        match UniqueId::new() {
            Ok(id) => assert!(id.bytes() != UniqueId::new().unwrap().bytes(), "every run has its own"),
            Err(e) => assert!(!e.to_string().contains('\n') && e.to_string().contains("NCCL"), "{e}"),
        }
    }
}
