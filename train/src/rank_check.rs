//! A check that all ranks hold the same data.

use codelsi_engine::{Comm, DType, Device, Error, Label, Result};
use sha2::{Digest, Sha256};

/// Checks by SHA-256 that `bytes`, described by `what`, are the same on every rank. A collective: every rank calls it.
///
/// # Errors
/// On every rank, naming the ranks that differ from rank 0; or when a rank is gone.
pub fn check_same_on_all_ranks(
    device: &Device,
    comm: &dyn Comm,
    what: &str,
    bytes: impl IntoIterator<Item = Result<Vec<u8>>>,
) -> Result<()> {
    if comm.world() == 1 {
        return Ok(());
    }
    let mut hash = Sha256::new();
    for part in bytes {
        hash.update(part?);
    }
    let mut own = device.empty(Label::Scratch, [8], DType::I32);
    own.write_bytes(&hash.finalize())?;
    let mut all = device.empty(Label::Scratch, [8 * comm.world()], DType::I32);
    comm.all_gather(&own, &mut all)?;
    let all = all.to_bytes()?;
    let different = all.chunks(32).enumerate().filter(|(_, digest)| *digest != &all[..32]);
    let different: Vec<String> = different.map(|(rank, _)| rank.to_string()).collect();
    match different.is_empty() {
        true => Ok(()),
        false => Err(Error::new(format!(
            "rank {} has another {what} than rank 0: start every rank with the same flags, files and program",
            different.join(", ")
        ))),
    }
}
