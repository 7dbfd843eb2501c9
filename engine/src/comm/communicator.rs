//! NVIDIA's collectives between cards, loaded when ranks on cards meet.
//!
//! The functions are bound here rather than through `cudarc`, whose loader panics where the library or one of its
//! functions is missing and does not know the name `libnccl.so.2`.

use super::Reduce;
use crate::cuda::{Cuda, Event, Stream};
use crate::{At, DType, Error, Result, Tensor};
use libloading::os::unix::{Library, RTLD_NOW};
use std::ffi::{CStr, c_char, c_int, c_void};
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

/// What the ranks of one communicator must share; rank 0 makes it.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct UniqueId([u8; 128]);

type Handle = *mut c_void;
type Queue = *mut c_void;

/// The functions used.
struct Api {
    error: unsafe extern "C" fn(c_int) -> *const c_char,
    unique_id: unsafe extern "C" fn(*mut UniqueId) -> c_int,
    init: unsafe extern "C" fn(*mut Handle, c_int, UniqueId, c_int) -> c_int,
    abort: unsafe extern "C" fn(Handle) -> c_int,
    async_error: unsafe extern "C" fn(Handle, *mut c_int) -> c_int,
    group_start: unsafe extern "C" fn() -> c_int,
    group_end: unsafe extern "C" fn() -> c_int,
    /// From, to, elements, type, operation.
    all_reduce: unsafe extern "C" fn(u64, u64, usize, c_int, c_int, Handle, Queue) -> c_int,
    /// From, to, elements from each rank, type.
    all_gather: unsafe extern "C" fn(u64, u64, usize, c_int, Handle, Queue) -> c_int,
    /// From, to, elements to each rank, type, operation.
    reduce_scatter: unsafe extern "C" fn(u64, u64, usize, c_int, c_int, Handle, Queue) -> c_int,
    /// From, to, elements, type, root.
    broadcast: unsafe extern "C" fn(u64, u64, usize, c_int, c_int, Handle, Queue) -> c_int,
    _library: Library,
}

/// The process's library.
fn api() -> Result<&'static Api> {
    static API: OnceLock<Result<Api>> = OnceLock::new();
    API.get_or_init(find).as_ref().map_err(Error::clone)
}

fn find() -> Result<Api> {
    if let Some(named) = std::env::var_os("CODELSI_NCCL") {
        return load(Path::new(&named)).at("CODELSI_NCCL");
    }
    let found = ["libnccl.so.2", "libnccl.so"].iter().find_map(|name| load(Path::new(name)).ok());
    found.ok_or_else(|| {
        Error::new(
            "no NCCL found, which ranks on cards of their own need: install NVIDIA's libnccl2, name the library in \
             CODELSI_NCCL, or use --ranks 1",
        )
    })
}

fn load(path: &Path) -> Result<Api> {
    // SAFETY: the library's initializers do nothing but set it up.
    let library = unsafe { Library::open(Some(path), RTLD_NOW) };
    let library = library.map_err(|e| Error::io(path, format!("is no NCCL: {e}")))?;
    let find = |name| Symbol { library: &library, path, name };
    // SAFETY: names and types are those of nccl.h; the library is kept beside the functions.
    unsafe {
        Ok(Api {
            error: find("ncclGetErrorString").get()?,
            unique_id: find("ncclGetUniqueId").get()?,
            init: find("ncclCommInitRank").get()?,
            abort: find("ncclCommAbort").get()?,
            async_error: find("ncclCommGetAsyncError").get()?,
            group_start: find("ncclGroupStart").get()?,
            group_end: find("ncclGroupEnd").get()?,
            all_reduce: find("ncclAllReduce").get()?,
            all_gather: find("ncclAllGather").get()?,
            reduce_scatter: find("ncclReduceScatter").get()?,
            broadcast: find("ncclBroadcast").get()?,
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
        // SAFETY: the caller's word.
        let found = unsafe { self.library.get::<T>(self.name.as_bytes()) };
        let lacks = |_| Error::io(self.path, format!("is no NCCL: it lacks {}", self.name));
        found.map(|function| *function).map_err(lacks)
    }
}

impl Api {
    fn check(&self, code: c_int, what: &str) -> Result<()> {
        if code == 0 {
            return Ok(());
        }
        // SAFETY: the library returns a static string for any code.
        let words = unsafe { CStr::from_ptr((self.error)(code)) };
        Err(Error::new(format!("{what} failed: {} ({code})", words.to_string_lossy())).at("NCCL"))
    }
}

impl UniqueId {
    /// A new one.
    ///
    /// # Errors
    /// When there is no NCCL, or it finds no network.
    pub fn new() -> Result<Self> {
        let (api, mut id) = (api()?, UniqueId([0; 128]));
        // SAFETY: the pointer is valid for 128 bytes.
        api.check(unsafe { (api.unique_id)(&mut id) }, "ncclGetUniqueId")?;
        Ok(id)
    }

    /// Its bytes.
    pub fn bytes(&self) -> &[u8; 128] {
        &self.0
    }
}

impl From<[u8; 128]> for UniqueId {
    fn from(bytes: [u8; 128]) -> Self {
        UniqueId(bytes)
    }
}

/// One card's end of a communicator, and the stream that its collectives run in.
pub(crate) struct Communicator {
    api: &'static Api,
    cuda: Arc<Cuda>,
    stream: Stream,
    /// None after an abort.
    handle: Mutex<Option<Owned>>,
}

struct Owned(Handle);

// SAFETY: a communicator may be used from any thread, by one at a time: it is behind a lock.
unsafe impl Send for Owned {}

/// What a collective does with its tensors.
pub(crate) enum Collective<'a> {
    AllReduce(&'a mut Tensor, Reduce),
    AllGather(&'a Tensor, &'a mut Tensor),
    /// Several of them.
    AllGathers(&'a mut [(Tensor, Tensor)]),
    ReduceScatter(&'a Tensor, &'a mut Tensor),
    /// Each from the rank beside it.
    Broadcast(&'a mut [(usize, Tensor)]),
}

impl Communicator {
    /// Joins the others; returns when all are there. Its collectives run in `stream`.
    ///
    /// # Errors
    /// When there is no NCCL, the device is no card, or NCCL refuses (two ranks on one card, say).
    pub fn new(cuda: &Arc<Cuda>, stream: Stream, rank: usize, world: usize, id: UniqueId) -> Result<Self> {
        let api = api()?;
        let (mut handle, cuda) = (std::ptr::null_mut(), cuda.clone());
        cuda.raw_stream(stream)?; // makes the card the thread's own
        // SAFETY: the pointer is valid, and the card's context is current.
        let joined = unsafe { (api.init)(&mut handle, world as c_int, id, rank as c_int) };
        api.check(joined, "ncclCommInitRank")?;
        Ok(Communicator { api, cuda, stream, handle: Mutex::new(Some(Owned(handle))) })
    }

    /// Starts a collective: what is put into its stream later finds the result.
    ///
    /// # Errors
    /// NCCL's; or when tensors do not fit.
    pub fn start(&self, what: Collective) -> Result<()> {
        let queue = self.cuda.raw_stream(self.stream)?;
        let handle = self.handle.lock().unwrap_or_else(|e| e.into_inner());
        let handle = handle.as_ref().ok_or_else(|| Error::new("the run has ended").at("NCCL"))?.0;
        let api = self.api;
        // SAFETY: in each arm the addresses are of live tensors of this card with as many elements as are named, the
        // written ones held by nobody else; communicator and stream live.
        let (code, name) = unsafe {
            match what {
                Collective::AllReduce(x, how) => {
                    let (at, n, dtype) = (self.cuda.address_mut(x)?, x.shape().elements(), kind(x.dtype()));
                    let how = if how == Reduce::Sum { 0 } else { 2 };
                    ((api.all_reduce)(at, at, n, dtype, how, handle, queue), "ncclAllReduce")
                }
                Collective::AllGather(x, out) => {
                    let n = fits(x, out)?;
                    let (from, to) = (self.cuda.address(x)?, self.cuda.address_mut(out)?);
                    ((api.all_gather)(from, to, n, kind(x.dtype()), handle, queue), "ncclAllGather")
                }
                Collective::AllGathers(gathers) => {
                    api.check((api.group_start)(), "ncclGroupStart")?;
                    let each = gathers.iter_mut().try_for_each(|(x, out)| {
                        let n = fits(x, out)?;
                        let (from, to) = (self.cuda.address(x)?, self.cuda.address_mut(out)?);
                        let code = (api.all_gather)(from, to, n, kind(x.dtype()), handle, queue);
                        api.check(code, "ncclAllGather")
                    });
                    let ended = (api.group_end)();
                    each?;
                    (ended, "ncclGroupEnd")
                }
                Collective::ReduceScatter(x, out) => {
                    let n = fits(out, x)?;
                    let (from, to) = (self.cuda.address(x)?, self.cuda.address_mut(out)?);
                    (
                        (api.reduce_scatter)(from, to, n, kind(x.dtype()), 0, handle, queue),
                        "ncclReduceScatter",
                    )
                }
                Collective::Broadcast(parts) => {
                    api.check((api.group_start)(), "ncclGroupStart")?;
                    let each = parts.iter_mut().try_for_each(|(root, t)| {
                        let (at, n, root) = (self.cuda.address_mut(t)?, t.byte_len(), *root as c_int);
                        let bytes = 1; // ncclUint8
                        api.check((api.broadcast)(at, at, n, bytes, root, handle, queue), "ncclBroadcast")
                    });
                    let ended = (api.group_end)();
                    each?;
                    (ended, "ncclGroupEnd")
                }
            }
        };
        api.check(code, name)
    }

    /// Lets the communicator's stream wait for what ops have put into theirs.
    ///
    /// # Errors
    /// The driver's.
    pub fn after_compute(&self) -> Result<()> {
        self.cuda.wait(self.stream, &self.cuda.record(Stream::COMPUTE)?)
    }

    /// Happens when all that was started is over.
    ///
    /// # Errors
    /// The driver's; nothing that was started runs on then.
    pub fn end(&self) -> Result<(Arc<Cuda>, Event)> {
        let event = self.cuda.record(self.stream).or_else(|e| self.cuda.synchronize().and(Err(e)))?;
        Ok((self.cuda.clone(), event))
    }

    /// Waits until its stream is empty, but no longer than `timeout`; false then.
    ///
    /// # Errors
    /// NCCL's or the driver's.
    pub fn wait(&self, timeout: Duration) -> Result<bool> {
        let (deadline, end) = (Instant::now() + timeout, self.cuda.record(self.stream)?);
        while !self.cuda.is_done(&end)? {
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
        let Some(Owned(handle)) = &*handle else { return Err(Error::new("the run has ended").at("NCCL")) };
        let mut code = 0;
        // SAFETY: the communicator lives, and the pointer is valid.
        let asked = unsafe { (self.api.async_error)(*handle, &mut code) };
        self.api.check(asked, "ncclCommGetAsyncError")?;
        const IN_PROGRESS: c_int = 7;
        if code == IN_PROGRESS { Ok(()) } else { self.api.check(code, "a collective") }
    }

    /// Ends what runs in the communicator; nothing more can be started.
    pub fn abort(&self) {
        if let Some(Owned(handle)) = self.handle.lock().unwrap_or_else(|e| e.into_inner()).take() {
            // SAFETY: the communicator was made by `new` and is given up once.
            let _ = unsafe { (self.api.abort)(handle) };
        }
    }
}

impl Drop for Communicator {
    fn drop(&mut self) {
        // Whoever drops it has waited for what it wants of it.
        self.abort();
    }
}

/// The number of elements of `part`, a whole number of which fill `whole`.
fn fits(part: &Tensor, whole: &Tensor) -> Result<usize> {
    let n = part.shape().elements();
    match part.dtype() == whole.dtype() && n > 0 && whole.shape().elements().is_multiple_of(n) {
        true => Ok(n),
        false => Err(Error::new(format!("{part:?} is no rank's part of {whole:?}"))),
    }
}

/// NCCL's number of a type.
fn kind(dtype: DType) -> c_int {
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
    fn what_is_no_nccl_is_refused_in_one_line() {
        let missing = load(Path::new("/nowhere/libnccl.so.2")).err().unwrap().to_string();
        assert!(missing.contains("/nowhere/libnccl.so.2: is no NCCL"), "{missing}");
        let other = load(Path::new("libc.so.6")).err().unwrap().to_string();
        assert!(other.contains("ncclGetErrorString") && !other.contains('\n'), "{other}");
        match UniqueId::new() {
            Ok(id) => assert!(id.bytes() != UniqueId::new().unwrap().bytes(), "every run has its own"),
            Err(e) => assert!(!e.to_string().contains('\n') && e.to_string().contains("NCCL"), "{e}"),
        }
    }
}
