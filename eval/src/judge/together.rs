//! Compiling many programs in one process of the `tsc` judge's compiler: most of a compiler's time goes into starting and into
//! reading the language's library, which it then does once.
//!
//! A compiler executes no program, so one process may see several. Whatever goes wrong in it (it dies, meets a limit,
//! takes long over a program) leaves the programs concerned without a result, and they are compiled alone, as the rule says.

use super::{Program, tsc::Tsc};
use crate::sandbox::{Limits, Task};
use codelsi_engine::{Error, Result};
use serde::Deserialize;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Programs a process: its start is then a small part of its work, and what is lost with it is little.
pub(super) const MOST: usize = 64;
/// Seconds over a program beyond which it is compiled alone, where its time is its own.
const LONG: f64 = 3.0;

/// How the compiler ended over a program.
pub struct Compiled {
    pub accepted: bool,
    /// What it printed.
    pub said: String,
    pub seconds: f64,
    /// The JavaScript that it wrote; it writes even where it complains.
    pub code: Option<Vec<u8>>,
}

/// A line of `compile.js`.
#[derive(Deserialize)]
struct Said {
    status: i32,
    said: String,
    seconds: f64,
}

/// See [`Tsc::compile_together`].
pub(super) fn compile(tsc: &Tsc, library: &Path, programs: &[&Program]) -> Result<Vec<Option<Compiled>>> {
    let folder = super::folder()?;
    // Names that no program can guess: one must not find another.
    let names: Vec<String> = programs.iter().map(|_| super::word()).collect();
    let places: Vec<PathBuf> = names.iter().map(|name| folder.path().join(name)).collect();
    for (place, program) in places.iter().zip(programs) {
        fs::create_dir(place).map_err(|e| Error::io(place, e))?;
        super::write_program(place, program)?;
    }
    let wall = Duration::from_secs(15) + Duration::from_secs_f64(LONG) * programs.len() as u32 / 4;
    let limits = Limits { wall, cpu: 2 * wall, ..Limits::multipl_e() };
    let args = ["-".into(), library.display().to_string()].into_iter().chain(names).collect();
    let stdin = include_str!("js/compile.js").to_string();
    tsc.run(Task::Exec { program: tsc.node().to_owned(), args, stdin }, folder.path(), limits)?;
    Ok(places.iter().map(|place| result(place)).collect())
}

/// What was left of a program, if it is whole and did not take long.
fn result(place: &Path) -> Option<Compiled> {
    let said: Said = serde_json::from_slice(&fs::read(place.join("result.json")).ok()?).ok()?;
    let code = fs::read(place.join("file.js")).ok();
    let accepted = said.status == 0;
    (said.seconds < LONG && (code.is_some() || !accepted)).then_some(Compiled {
        accepted,
        said: said.said,
        seconds: said.seconds,
        code,
    })
}
