//! Compiled kernels on disk, keyed by a hash of everything that goes into them.
//!
//! The folder is the one that `CODELSI_CACHE` names, else `codelsi` in the user's cache folder. A damaged file is
//! compiled again; a folder that cannot be written only costs time.

use super::nvrtc::{Code, Nvrtc};
use super::source::Source;
use crate::Result;
use crate::files::write_atomic;
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};

const MAGIC: &[u8] = b"codelsi kernel 1\n";
const DIGEST: usize = 32;

/// Compiles `source` under `options`, or loads the result from the cache.
///
/// # Errors
/// When no NVRTC is found, or the source has an error.
pub fn compile(source: &Source, options: &[String]) -> Result<Code> {
    compile_in(folder().as_deref(), source, options)
}

/// Returns the folder of the cache; `None` when the environment names none.
pub fn folder() -> Option<PathBuf> {
    let named = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    let user = || named("XDG_CACHE_HOME").or_else(|| Some(named("HOME")?.join(".cache")));
    named("CODELSI_CACHE").or_else(|| Some(user()?.join("codelsi")))
}

fn compile_in(folder: Option<&Path>, source: &Source, options: &[String]) -> Result<Code> {
    let nvrtc = Nvrtc::get()?;
    let file =
        folder.map(|f| f.join(format!("{}.{}.kernel", stem(source), key(source, options, nvrtc.version()))));
    if let Some(code) = file.as_deref().and_then(read) {
        return Ok(code);
    }
    let code = nvrtc.compile(source, options)?;
    if let Some(file) = file {
        let _ = write_atomic(file, &encode(&code)); // the cache is a convenience
    }
    Ok(code)
}

fn stem(source: &Source) -> &str {
    source.name.rsplit('/').next().unwrap_or(source.name).trim_end_matches(".cu")
}

/// Hashes everything that the compiler reads to 128 bits.
fn key(source: &Source, options: &[String], version: (i32, i32)) -> String {
    let mut hash = Sha256::new();
    let mut part = |bytes: &[u8]| {
        hash.update((bytes.len() as u64).to_le_bytes());
        hash.update(bytes);
    };
    part(format!("{version:?}").as_bytes());
    part(source.name.as_bytes());
    part(source.text.as_bytes());
    for (name, text) in source.headers {
        part(name.as_bytes());
        part(text.as_bytes());
    }
    part(b"options");
    options.iter().for_each(|o| part(o.as_bytes()));
    hash.finalize()[..16].iter().map(|byte| format!("{byte:02x}")).collect()
}

fn encode(code: &Code) -> Vec<u8> {
    let mut payload = Vec::new();
    for part in [code.ptx.as_bytes(), &code.cubin, code.log.as_bytes()] {
        payload.extend((part.len() as u64).to_le_bytes());
        payload.extend(part);
    }
    [MAGIC, &Sha256::digest(&payload), &payload].concat()
}

/// Reads the code in a file; `None` when it is missing or damaged.
fn read(file: &Path) -> Option<Code> {
    let bytes = std::fs::read(file).ok()?;
    let (digest, mut payload) = bytes.strip_prefix(MAGIC)?.split_at_checked(DIGEST)?;
    if digest != &Sha256::digest(payload)[..] {
        return None;
    }
    let mut part = || {
        let (length, rest) = payload.split_first_chunk()?;
        let (part, rest) = rest.split_at_checked(u64::from_le_bytes(*length) as usize)?;
        payload = rest;
        Some(part.to_vec())
    };
    Some(Code {
        ptx: String::from_utf8(part()?).ok()?,
        cubin: part()?,
        log: String::from_utf8(part()?).ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cuda::Variant;
    use codelsi_testing::or_skip;
    use std::fs;

    const SOURCE: Source = Source {
        name: "op/twice.cu",
        text: "#include \"factor.cuh\"\nextern \"C\" __global__ void twice(float *x) { x[threadIdx.x] *= FACTOR; }\n",
        headers: &[("factor.cuh", "#define FACTOR 2.0f\n")],
        constants: &[],
        variants: || vec![Variant::PLAIN],
    };

    fn options() -> Vec<String> {
        vec!["--gpu-architecture=sm_80".into()]
    }

    fn private(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("codelsi-cache-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        folder
    }

    #[test]
    fn a_damaged_file_is_compiled_again() {
        let Some(_) = or_skip(Nvrtc::get()) else { return };
        let folder = private("damaged");
        let code = compile_in(Some(&folder), &SOURCE, &options()).unwrap();
        assert!(code.ptx.contains(".entry twice") && !code.cubin.is_empty());
        let file = fs::read_dir(&folder).unwrap().next().unwrap().unwrap().path();
        let whole = fs::read(&file).unwrap();
        assert_eq!(read(&file).as_ref(), Some(&code));
        let flipped: Vec<u8> =
            whole.iter().enumerate().map(|(i, b)| if i == 99 { b ^ 1 } else { *b }).collect();
        for damaged in [&whole[..whole.len() - 1], &whole[..20], b"", &flipped] {
            fs::write(&file, damaged).unwrap();
            assert_eq!(read(&file), None);
            assert_eq!(compile_in(Some(&folder), &SOURCE, &options()).unwrap(), code);
            assert_eq!(fs::read(&file).unwrap(), whole);
        }
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_folder_that_cannot_be_written_does_no_harm() {
        let Some(_) = or_skip(Nvrtc::get()) else { return };
        let file = private("file");
        fs::write(&file, "no folder").unwrap();
        assert!(compile_in(Some(&file), &SOURCE, &options()).is_ok());
        fs::remove_file(file).unwrap();
    }

    #[test]
    fn the_key_covers_everything_that_goes_into_the_code() {
        let (source, options) = (SOURCE, options());
        let key_of = |s: &Source, o: &[String], v| key(s, o, v);
        let other = Source { text: "x", ..SOURCE };
        let header = Source { headers: &[("factor.cuh", "#define FACTOR 3.0f\n")], ..SOURCE };
        let keys = [
            key_of(&source, &options, (13, 0)),
            key_of(&source, &options, (13, 1)),
            key_of(&source, &[], (13, 0)),
            key_of(&other, &options, (13, 0)),
            key_of(&header, &options, (13, 0)),
        ];
        for (i, key) in keys.iter().enumerate() {
            assert!(!keys[..i].contains(key), "{keys:?}");
        }
    }
}
