//! Reference data that lies beside the project, for tests.

use codelsi_engine::Device;
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

/// A GPU in software, where there is a compiler for it; says so when there is none. With `CODELSI_REQUIRE=all` that is
/// a failure.
pub fn emulated() -> Option<Device> {
    Device::emulated("sm_80")
        .inspect_err(|e| {
            assert!(std::env::var("CODELSI_REQUIRE").as_deref() != Ok("all"), "{e}");
            println!("skipped: {e}");
        })
        .ok()
}
