//! Compiles many programs in one process of the `tsc` judge's compiler. A compiler spends most of its time on
//! starting and on reading the language's library; this way it does both once.
//!
//! A compiler executes no program, so one process may see several. If anything goes wrong in it (it dies, exceeds a
//! limit, takes long over a program), the programs concerned have no result and are compiled alone, as the rule
//! requires.

use super::guard::nonce;
use super::program_folder::write;
use super::tools::SandboxedTools;
use crate::problem::CandidateProgram;
use crate::sandbox::{ChildTask, ResourceLimits};
use codelsi_engine::{Error, Result, ScratchFolder};
use serde::Deserialize;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Programs per process: enough to make its start a small part of its work, few enough to lose little when it dies.
pub(super) const MAX_BATCH: usize = 64;
/// Seconds over a program beyond which it is compiled alone, so that its time is measured alone.
const MAX_SECONDS: f64 = 3.0;

/// The compiler's result for one program.
pub struct CompiledProgram {
    pub accepted: bool,
    /// The text that the compiler printed.
    pub diagnostics: String,
    pub seconds: f64,
    /// The JavaScript that it wrote; it writes it even for a program that it refuses.
    pub code: Option<Vec<u8>>,
}

/// The contents of a `result.json` of `compile.js`.
#[derive(Deserialize)]
struct CompilerResult {
    status: i32,
    diagnostics: String,
    seconds: f64,
}

/// Compiles `programs` under `node` with the compiler `library` (`typescript.js`); `None` for those to be compiled
/// alone.
///
/// # Errors
/// When the disk or the sandbox fails.
pub(super) fn compile(
    tools: &SandboxedTools,
    node: &Path,
    library: &Path,
    programs: &[&CandidateProgram],
) -> Result<Vec<Option<CompiledProgram>>> {
    let folder = ScratchFolder::new()?;
    // Names that no program can guess: one must not find another.
    let names: Vec<String> = programs.iter().map(|_| nonce()).collect();
    let folders: Vec<PathBuf> = names.iter().map(|name| folder.path().join(name)).collect();
    for (folder, program) in folders.iter().zip(programs) {
        fs::create_dir(folder).map_err(|e| Error::io(folder, e))?;
        write(&folder.join("file.ts"), &program.text)?;
    }
    let wall = Duration::from_secs(15) + Duration::from_secs_f64(MAX_SECONDS) * programs.len() as u32 / 4;
    let limits = ResourceLimits { wall, cpu: 2 * wall, ..ResourceLimits::multipl_e() };
    let args = ["-".into(), library.display().to_string()].into_iter().chain(names).collect();
    let stdin = include_str!("js/compile.js").to_string();
    tools.run(ChildTask::Exec { program: node.to_owned(), args, stdin }, folder.path(), limits)?;
    Ok(folders.iter().map(|folder| read_result(folder)).collect())
}

/// Reads the result for the program in `folder`, if it is complete and did not take long.
fn read_result(folder: &Path) -> Option<CompiledProgram> {
    let result: CompilerResult = serde_json::from_slice(&fs::read(folder.join("result.json")).ok()?).ok()?;
    let code = fs::read(folder.join("file.js")).ok();
    let accepted = result.status == 0;
    (result.seconds < MAX_SECONDS && (code.is_some() || !accepted)).then_some(CompiledProgram {
        accepted,
        diagnostics: result.diagnostics,
        seconds: result.seconds,
        code,
    })
}
