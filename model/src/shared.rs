//! Reference data that lies beside the project, for tests.

use std::path::PathBuf;

/// A path in the folder `CODELSI_SHARED` names (default: `shared`, beside the project). None, with a line that says so, when it
/// is absent; with `CODELSI_REQUIRE=all` that is a failure.
pub(crate) fn shared(path: &str) -> Option<PathBuf> {
    let beside = concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared");
    let found = PathBuf::from(std::env::var("CODELSI_SHARED").unwrap_or(beside.into())).join(path);
    if found.exists() {
        return Some(found);
    }
    assert!(std::env::var("CODELSI_REQUIRE").as_deref() != Ok("all"), "{} is absent", found.display());
    println!("skipped: {} is absent", found.display());
    None
}
