//! One rule for what a machine may lack (NVRTC, shared data, compilers): a test that needs it is skipped and says so;
//! with `CODELSI_REQUIRE=all` it fails.
//!
//! The crate has no dependencies, so that every crate's unit tests can use it: a helper that returned the engine's types
//! would return those of another copy of the engine there.
//!
//! ```
//! use codelsi_testing::or_skip;
//!
//! let Some(text) = or_skip(std::fs::read_to_string("/proc/cpuinfo")) else { return };
//! assert!(!text.is_empty());
//! ```

#![forbid(unsafe_code)]

use std::fmt::Display;
use std::path::{Path, PathBuf};

/// Returns the value of `found`, or `None` after a line with the error, which says why the test is skipped.
///
/// # Panics
/// On an error under `CODELSI_REQUIRE=all`.
#[track_caller]
pub fn or_skip<T, E: Display>(found: Result<T, E>) -> Option<T> {
    let required = std::env::var("CODELSI_REQUIRE").is_ok_and(|required| required == "all");
    value_or_skip(found, required)
}

/// Returns a path in the folder of shared data: `CODELSI_SHARED`, by default `shared` beside the project. An absent one
/// is skipped as by [`or_skip`].
///
/// # Panics
/// If it is absent under `CODELSI_REQUIRE=all`.
#[track_caller]
pub fn shared(path: impl AsRef<Path>) -> Option<PathBuf> {
    let beside_project = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared");
    let folder = std::env::var_os("CODELSI_SHARED").unwrap_or_else(|| beside_project.into());
    or_skip(existing(PathBuf::from(folder).join(path)))
}

/// Returns a path below `.tools`, which the test command fills: packages of Python in `python`, of Node in
/// `node/node_modules`. An absent one is skipped as by [`or_skip`].
///
/// # Panics
/// If it is absent under `CODELSI_REQUIRE=all`.
#[track_caller]
pub fn tool(path: impl AsRef<Path>) -> Option<PathBuf> {
    or_skip(existing(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../.tools")).join(path)))
}

fn existing(path: PathBuf) -> Result<PathBuf, String> {
    if path.exists() { Ok(path) } else { Err(format!("{} is absent", path.display())) }
}

#[track_caller]
fn value_or_skip<T, E: Display>(found: Result<T, E>, required: bool) -> Option<T> {
    match found {
        Ok(value) => Some(value),
        Err(e) if required => panic!("CODELSI_REQUIRE=all: {e}"),
        Err(e) => {
            println!("skipped: {e}");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_found_is_returned() {
        for required in [false, true] {
            assert_eq!(value_or_skip(Ok::<_, String>(7), required), Some(7));
        }
    }

    #[test]
    fn what_is_absent_is_skipped_unless_required() {
        assert_eq!(value_or_skip(Err::<u8, _>("no compiler"), false), None);
    }

    #[test]
    #[should_panic(expected = "CODELSI_REQUIRE=all: no compiler")]
    fn what_is_absent_is_a_failure_where_all_is_required() {
        value_or_skip(Err::<u8, _>("no compiler"), true);
    }

    #[test]
    fn an_absent_path_is_named() {
        assert_eq!(existing("/nowhere/at all".into()), Err("/nowhere/at all is absent".into()));
        assert_eq!(existing("/".into()), Ok("/".into()));
    }
}
