//! Reference data and devices for tests.

use codelsi_engine::Device;
use std::path::PathBuf;

/// Returns a path in the folder of shared data (`CODELSI_SHARED`, default `../shared`). If it is absent, prints
/// that the test is skipped and returns none, or fails with `CODELSI_REQUIRE=all`.
pub(crate) fn shared(path: &str) -> Option<PathBuf> {
    let default = concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared");
    let found = PathBuf::from(std::env::var("CODELSI_SHARED").unwrap_or(default.into())).join(path);
    if found.exists() {
        return Some(found);
    }
    assert!(std::env::var("CODELSI_REQUIRE").as_deref() != Ok("all"), "{} is absent", found.display());
    println!("skipped: {} is absent", found.display());
    None
}

/// Returns a software GPU. Without NVRTC, prints that the test is skipped and returns none, or fails with
/// `CODELSI_REQUIRE=all`.
pub(crate) fn emulated() -> Option<Device> {
    Device::emulated("sm_80")
        .inspect_err(|e| {
            assert!(std::env::var("CODELSI_REQUIRE").as_deref() != Ok("all"), "{e}");
            println!("skipped: {e}");
        })
        .ok()
}
