//! What ranks must have in common.

use codelsi_engine::{Comm, DType, Device, Error, Label, Result};
use sha2::{Digest, Sha256};

/// Checks that every rank has the same `bytes`.
///
/// # Errors
/// On every rank, naming those whose `what` differs from rank 0's; or when a rank is gone.
pub fn agree(
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
    let mut mine = device.empty(Label::Scratch, [8], DType::I32);
    mine.write_bytes(&hash.finalize())?;
    let mut all = device.empty(Label::Scratch, [8 * comm.world()], DType::I32);
    comm.all_gather(&mine, &mut all)?;
    let all = all.to_bytes()?;
    let other = all.chunks(32).enumerate().filter(|(_, digest)| *digest != &all[..32]);
    let other: Vec<String> = other.map(|(rank, _)| rank.to_string()).collect();
    match other.is_empty() {
        true => Ok(()),
        false => Err(Error::new(format!(
            "rank {} has another {what} than rank 0: start every rank with the same flags, files and program",
            other.join(", ")
        ))),
    }
}
