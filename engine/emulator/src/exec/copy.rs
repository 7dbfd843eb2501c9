//! `cp.async`: copies from global to shared memory that land at once or as late as allowed.

use super::block::Shared;
use super::space::{aligned, offsets};
use super::warp::{Warp, lanes};
use crate::fault::{Check, FaultKind, trouble};
use crate::gpu::Schedule;
use crate::inst::{Inst, LANES};
use crate::memory::Allocation;
use std::sync::atomic::Ordering::Relaxed;

/// One lane's copy that is under way.
#[derive(Clone, Copy, Debug)]
struct Copy<'g> {
    lane: u32,
    /// The group it belongs to, counted per lane.
    group: u32,
    /// Word in shared memory, words to fill.
    to: usize,
    words: usize,
    /// Allocation, byte offset and bytes to read; the rest is zero.
    from: Option<&'g Allocation>,
    at: usize,
    bytes: usize,
}

/// A warp's asynchronous copies.
#[derive(Debug, Default)]
pub struct Copies<'g> {
    pending: Vec<Copy<'g>>,
    /// Groups that each lane has committed.
    committed: [u32; LANES],
}

impl Copies<'_> {
    /// `commit_group`.
    pub fn commit(&mut self, mask: u32) {
        for k in lanes(mask) {
            self.committed[k] += 1;
        }
    }
}

impl Copy<'_> {
    fn land(&self, words: &mut [u32]) {
        for w in 0..self.words {
            let missing = (4 * w + 4).saturating_sub(self.bytes).min(4);
            let keep = if missing == 4 { 0 } else { u32::MAX >> (8 * missing) };
            let value = match self.from {
                Some(a) if keep != 0 => a.words()[self.at / 4 + w].load(Relaxed) & keep,
                _ => 0,
            };
            words[self.to + w] = value;
        }
    }
}

impl<'g> Warp<'g> {
    /// `cp.async`.
    pub fn copy_async(&mut self, shared: &mut Shared<'g>, i: &Inst, size: u8, mask: u32) -> Check {
        let to = self.addresses(i.src[0], i.imm >> 32, mask);
        aligned(&to, size as u32)?;
        let to = offsets("shared memory", &to, shared.grid.shared_bytes as u64, size as u32)?;
        let from = self.addresses(i.src[1], i.imm as i32 as i64, mask);
        aligned(&from, size as u32)?;
        let bytes: [u32; LANES] = match i.src[2].is_none() {
            true => [size as u32; LANES],
            false => *self.registers.word(i.src[2]),
        };
        for k in lanes(mask) {
            if bytes[k] > size as u32 {
                let detail = format!("cp.async of {} bytes from a source of {}", size, bytes[k]);
                return Err(trouble(FaultKind::Invalid, Some(k as u32), detail));
            }
            let group = self.copies.committed[k];
            let (to, words) = (to[k] / 4, size as usize / 4);
            let mut copy =
                Copy { lane: k as u32, group, to, words, from: None, at: 0, bytes: bytes[k] as usize };
            if bytes[k] > 0 {
                let (_, a, at, _) = shared.allocation(self.now.pc, &[from[k]; LANES], 1 << k, bytes[k])?;
                (copy.from, copy.at) = (Some(a), at[k]);
            }
            if shared.grid.schedule == Schedule::Early {
                copy.land(&mut shared.words);
            }
            self.copies.pending.push(copy);
        }
        Ok(())
    }

    /// `wait_group`: at most `left` groups stay pending; -1 waits for all, committed or not.
    pub fn copy_wait(&mut self, shared: &mut Shared<'g>, left: i64, mask: u32) -> Check {
        let late = shared.grid.schedule == Schedule::Late;
        let committed = self.copies.committed;
        self.copies.pending.retain(|c| {
            let done = committed[c.lane as usize] as i64 - left;
            let waited = mask >> c.lane & 1 != 0 && (left < 0 || (c.group as i64) < done);
            if waited && late {
                c.land(&mut shared.words);
            }
            !waited
        });
        Ok(())
    }

    /// An error when a lane that exits has copies under way.
    pub fn leftover_copies(&self, mask: u32) -> Check {
        match self.copies.pending.iter().find(|c| mask >> c.lane & 1 != 0) {
            None => Ok(()),
            Some(c) => {
                let detail = "the thread exits with copies it never waited for";
                Err(trouble(FaultKind::AsyncCopy, Some(c.lane), detail))
            }
        }
    }
}
