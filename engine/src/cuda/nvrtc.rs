//! NVRTC, NVIDIA's run-time compiler (CUDA source to PTX and machine code), loaded when the first kernel is compiled.
//!
//! It is searched for at the path in `CODELSI_NVRTC` (the library or its folder), then under the usual names and
//! folders of the system, and in `.tools/nvrtc` of the current folder or one above it, where `tools/test.sh` puts it.

use super::source::Source;
use crate::{Error, Result};
use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// The result of a compilation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Code {
    pub ptx: String,
    /// Machine code for the requested architecture.
    pub cubin: Vec<u8>,
    /// Warnings, and the assembler's report of registers and spills.
    pub log: String,
}

/// The oldest NVRTC that compiles the kernels.
const MIN_VERSION: (i32, i32) = (12, 0);

/// The loaded library.
pub struct Nvrtc {
    version: (i32, i32),
    api: NvrtcApi,
    /// Keep the functions alive; the builtins must be loaded first, with global symbols.
    _libraries: Vec<Library>,
}

type ProgramHandle = *mut c_void;
type SizeFn = unsafe extern "C" fn(ProgramHandle, *mut usize) -> c_int;
type FillFn = unsafe extern "C" fn(ProgramHandle, *mut c_char) -> c_int;

/// The functions of the library that are used.
struct NvrtcApi {
    error: unsafe extern "C" fn(c_int) -> *const c_char,
    create: unsafe extern "C" fn(
        *mut ProgramHandle,
        *const c_char,
        *const c_char,
        c_int,
        *const *const c_char,
        *const *const c_char,
    ) -> c_int,
    compile: unsafe extern "C" fn(ProgramHandle, c_int, *const *const c_char) -> c_int,
    destroy: unsafe extern "C" fn(*mut ProgramHandle) -> c_int,
    log: (SizeFn, FillFn),
    ptx: (SizeFn, FillFn),
    cubin: (SizeFn, FillFn),
}

impl Nvrtc {
    /// Returns the compiler of this process, loading it at the first call.
    ///
    /// # Errors
    /// When none is found or it is too old; the message says how to install one.
    pub fn get() -> Result<&'static Nvrtc> {
        static NVRTC: OnceLock<Result<Nvrtc>> = OnceLock::new();
        NVRTC.get_or_init(find_library).as_ref().map_err(Error::clone)
    }

    /// Loads the library at `path`, a file or its folder.
    ///
    /// # Errors
    /// When it is not an NVRTC, or too old.
    pub fn open(path: &Path) -> Result<Nvrtc> {
        let file =
            if path.is_dir() { library_in(path).ok_or_else(|| missing(path))? } else { path.to_owned() };
        load(&file)
    }

    /// The major and minor version.
    pub fn version(&self) -> (i32, i32) {
        self.version
    }

    /// Compiles `source` under `options`; `--gpu-architecture=sm_NN` must be among them.
    ///
    /// # Errors
    /// The compiler's first message about the source, with the source line.
    pub fn compile(&self, source: &Source, options: &[String]) -> Result<Code> {
        let text = |s: &str| {
            CString::new(s)
                .map_err(|_| Error::new("a NUL byte in CUDA source"))
                .map_err(|e| e.at(source.name))
        };
        let (code, name) = (text(source.text)?, text(source.name)?);
        let headers: Vec<CString> = source.headers.iter().map(|h| text(h.1)).collect::<Result<_>>()?;
        let names: Vec<CString> = source.headers.iter().map(|h| text(h.0)).collect::<Result<_>>()?;
        let options: Vec<CString> = options.iter().map(|o| text(o)).collect::<Result<_>>()?;
        let pointers = |strings: &[CString]| strings.iter().map(|s| s.as_ptr()).collect::<Vec<_>>();
        let (headers_at, names_at, options_at) = (pointers(&headers), pointers(&names), pointers(&options));
        let mut program: ProgramHandle = std::ptr::null_mut();
        // SAFETY: every pointer is to a NUL-terminated string that outlives the call; the counts are theirs.
        let created = unsafe {
            (self.api.create)(
                &mut program,
                code.as_ptr(),
                name.as_ptr(),
                headers.len() as c_int,
                headers_at.as_ptr(),
                names_at.as_ptr(),
            )
        };
        self.check(created, "nvrtcCreateProgram")?;
        let program = OwnedProgram { program, destroy: self.api.destroy };
        // SAFETY: the program lives, and so do the options.
        let compiled =
            unsafe { (self.api.compile)(program.program, options.len() as c_int, options_at.as_ptr()) };
        let log = string(self.read(&program, self.api.log, "log")?);
        if compiled != 0 {
            return Err(Error::new(first_error(&log, source)).at(source.name));
        }
        let ptx = strip_current_folder(string(self.read(&program, self.api.ptx, "PTX")?));
        let cubin = self.read(&program, self.api.cubin, "CUBIN")?;
        Ok(Code { ptx, cubin, log })
    }

    fn read(&self, program: &OwnedProgram, (size, fill): (SizeFn, FillFn), what: &str) -> Result<Vec<u8>> {
        let mut bytes = 0;
        // SAFETY: the program lives; `fill` writes as many bytes as `size` says.
        unsafe {
            self.check(size(program.program, &mut bytes), what)?;
            let mut data = vec![0u8; bytes];
            self.check(fill(program.program, data.as_mut_ptr().cast()), what)?;
            Ok(data)
        }
    }

    fn check(&self, code: c_int, what: &str) -> Result<()> {
        if code == 0 {
            return Ok(());
        }
        // SAFETY: the library returns a static string for any code.
        let message = unsafe { CStr::from_ptr((self.api.error)(code)) };
        Err(Error::new(format!("{what}: {} ({code})", message.to_string_lossy())).at("NVRTC"))
    }
}

/// A compiler program, destroyed when dropped.
struct OwnedProgram {
    program: ProgramHandle,
    destroy: unsafe extern "C" fn(*mut ProgramHandle) -> c_int,
}

impl Drop for OwnedProgram {
    fn drop(&mut self) {
        // SAFETY: created, and destroyed once.
        unsafe { (self.destroy)(&mut self.program) };
    }
}

/// Converts text of the compiler, which ends with NUL bytes.
fn string(mut bytes: Vec<u8>) -> String {
    while bytes.last() == Some(&0) {
        bytes.pop();
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Removes the current folder from the names of sources in PTX, where NVRTC puts it.
fn strip_current_folder(ptx: String) -> String {
    match std::env::current_dir() {
        Ok(folder) => ptx.replace(&format!("\"{}/", folder.display()), "\""),
        Err(_) => ptx,
    }
}

/// Returns the first error of a log, with the source line that it names.
fn first_error(log: &str, source: &Source) -> String {
    let Some(line) = log.lines().find(|l| l.contains("error")) else { return log.trim().to_owned() };
    let errors = log.lines().filter(|l| l.contains("): error")).count();
    let more = if errors > 1 { format!(" (and {} more errors)", errors - 1) } else { String::new() };
    // NVRTC writes `file(line): error: …`.
    let place = line.split_once('(').and_then(|(file, rest)| Some((file, rest.split_once(')')?.0)));
    let quoted = place.and_then(|(file, number)| {
        let header = source.headers.iter().find(|h| h.0 == file).map(|h| h.1);
        header.unwrap_or(source.text).lines().nth(number.parse::<usize>().ok()?.checked_sub(1)?)
    });
    match quoted {
        Some(quoted) => format!("{}: `{}`{more}", line.trim(), quoted.trim()),
        None => format!("{}{more}", line.trim()),
    }
}

fn find_library() -> Result<Nvrtc> {
    if let Some(named) = std::env::var_os("CODELSI_NVRTC") {
        return Nvrtc::open(Path::new(&named)).map_err(|e| e.at("CODELSI_NVRTC"));
    }
    let names = ["libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so"];
    let mut refused = None;
    for path in names.iter().map(PathBuf::from).chain(candidates()) {
        match load(&path) {
            Ok(nvrtc) => return Ok(nvrtc),
            // A library that exists but cannot be used is worth an error; a missing one is not.
            Err(e) if path.is_absolute() => refused = refused.or(Some(e)),
            Err(_) => {}
        }
    }
    Err(refused.unwrap_or_else(|| {
        Error::new(
            "no NVRTC found: install it (`pip install --target .tools/nvrtc nvidia-cuda-nvrtc==13.0.88`, as \
             tools/test.sh does), or name the library or its folder in CODELSI_NVRTC",
        )
    }))
}

/// Returns the libraries in the usual folders of a CUDA toolkit and of the Python package.
fn candidates() -> impl Iterator<Item = PathBuf> {
    let toolkits = ["CUDA_HOME", "CUDA_PATH"].into_iter().filter_map(std::env::var_os).map(PathBuf::from);
    let toolkits = toolkits.chain(["/usr/local/cuda", "/opt/cuda"].map(PathBuf::from));
    let system = toolkits.flat_map(|t| [t.join("lib64"), t.join("targets/x86_64-linux/lib")]);
    let current = std::env::current_dir().unwrap_or_default();
    let downloaded: Vec<PathBuf> = current
        .ancestors()
        .map(|folder| folder.join(".tools/nvrtc"))
        .flat_map(|tools| ["nvidia/cu13/lib", "nvidia/cuda_nvrtc/lib", ""].map(|sub| tools.join(sub)))
        .collect();
    system.chain(downloaded).filter_map(|folder| library_in(&folder))
}

/// Returns the newest `libnvrtc.so` in a folder.
fn library_in(folder: &Path) -> Option<PathBuf> {
    highest(folder, "libnvrtc.so")
}

/// Returns the file of the highest version whose name begins with `prefix`.
fn highest(folder: &Path, prefix: &str) -> Option<PathBuf> {
    let names =
        std::fs::read_dir(folder).ok()?.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let version = |name: &String| -> Vec<u32> {
        name[prefix.len()..].split('.').filter_map(|part| part.parse().ok()).collect()
    };
    let best = names.filter(|name| name.starts_with(prefix)).max_by_key(version)?;
    Some(folder.join(best))
}

fn missing(folder: &Path) -> Error {
    Error::io(folder, "holds no libnvrtc.so")
}

/// Loads a library by name or path, its builtins first.
fn load(path: &Path) -> Result<Nvrtc> {
    let open = |path: &Path| {
        // SAFETY: the initializers of NVRTC and of its builtins do nothing but set the libraries up.
        let library = unsafe { Library::open(Some(path), RTLD_NOW | RTLD_GLOBAL) };
        library.map_err(|e| Error::io(path, format!("is not an NVRTC: {e}")))
    };
    let mut libraries = Vec::new();
    if let Some(builtins) = path.parent().and_then(|folder| highest(folder, "libnvrtc-builtins.so")) {
        libraries.push(open(&builtins)?);
    }
    let library = open(path)?;
    // SAFETY: the names and types are those of nvrtc.h.
    let (version, api) = unsafe { (version(&library), api(&library)) };
    let api = api.map_err(|e| Error::io(path, format!("is not an NVRTC: {e}")))?;
    let version = version.ok_or_else(|| Error::io(path, "is not an NVRTC: it reports no version"))?;
    if version < MIN_VERSION {
        let ((major, minor), (m, n)) = (version, MIN_VERSION);
        return Err(Error::io(path, format!("is NVRTC {major}.{minor}; the kernels need {m}.{n} or later")));
    }
    libraries.push(library);
    Ok(Nvrtc { version, api, _libraries: libraries })
}

/// # Safety
/// `library` is NVRTC, if it has the function at all.
unsafe fn version(library: &Library) -> Option<(i32, i32)> {
    type Version = unsafe extern "C" fn(*mut c_int, *mut c_int) -> c_int;
    let (mut major, mut minor) = (0, 0);
    // SAFETY: the caller guarantees the type; both pointers are valid.
    let code = unsafe { library.get::<Version>(b"nvrtcVersion").ok()?(&mut major, &mut minor) };
    (code == 0).then_some((major, minor))
}

/// # Safety
/// `library` is NVRTC, so that names have the types given here.
unsafe fn api(library: &Library) -> std::result::Result<NvrtcApi, libloading::Error> {
    // SAFETY: the caller guarantees the types; the library outlives the functions, in `Nvrtc`.
    unsafe {
        let pair = |size: &[u8], fill: &[u8]| -> std::result::Result<(SizeFn, FillFn), libloading::Error> {
            Ok((*library.get::<SizeFn>(size)?, *library.get::<FillFn>(fill)?))
        };
        Ok(NvrtcApi {
            error: *library.get(b"nvrtcGetErrorString")?,
            create: *library.get(b"nvrtcCreateProgram")?,
            compile: *library.get(b"nvrtcCompileProgram")?,
            destroy: *library.get(b"nvrtcDestroyProgram")?,
            log: pair(b"nvrtcGetProgramLogSize", b"nvrtcGetProgramLog")?,
            ptx: pair(b"nvrtcGetPTXSize", b"nvrtcGetPTX")?,
            cubin: pair(b"nvrtcGetCUBINSize", b"nvrtcGetCUBIN")?,
        })
    }
}
