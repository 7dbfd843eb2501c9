//! `ldmatrix` and `stmatrix`: 8 x 8 matrices of 16-bit elements between shared memory and fragments.
//!
//! Lane 8n + r holds the address of row r of matrix n, 16 bytes. Register n of lane l then holds elements
//! 2 (l % 4) and 2 (l % 4) + 1 of row l / 4 of matrix n; transposed, those rows of column l / 4.

use super::block::Shared;
use super::pattern::Pattern;
use super::registers::{Registers, row};
use super::shadow::Touch;
use super::space::{Offsets, aligned, offsets};
use super::warp::Warp;
use crate::fault::Check;
use crate::inst::{FULL, Inst, LANES};

const ROW: u32 = 16;

impl<'g> Warp<'g> {
    /// Where the rows of all matrices begin in shared memory, and the lanes whose addresses count: with fewer
    /// than four matrices the upper lanes' are ignored.
    #[inline(always)]
    fn rows(&self, shared: &Shared<'g>, i: &Inst, n: u8, mask: u32, what: &str) -> Check<(Offsets, u32)> {
        self.require_all(mask, what)?;
        self.require_known(i.src[0], mask, "an address")?;
        let used = if n == 4 { FULL } else { (1 << (8 * n)) - 1 };
        let addresses = self.addresses(i.src[0], i.imm, used);
        aligned(&addresses, ROW)?;
        Ok((offsets("shared memory", &addresses, shared.grid.shared_bytes as u64, ROW)?, used))
    }

    /// `ldmatrix`.
    #[inline(always)]
    pub fn load_matrix(
        &mut self,
        shared: &mut Shared<'g>,
        i: &Inst,
        n: u8,
        transposed: bool,
        mask: u32,
    ) -> Check {
        let (at, used) = self.rows(shared, i, n, mask, "ldmatrix")?;
        let pattern = Pattern::of(&at, ROW, used);
        let bytes = used.count_ones() as u64 * ROW as u64;
        shared.counters.shared_loads.count(bytes, pattern.passes(&at, ROW, used));
        let touch = Touch { who: self.who(false), base: 0, at: &at, bytes: ROW, mask: used };
        let tainted = shared.memory.read(&shared.clock, touch)?;
        let memory = &shared.memory;
        spread(&mut self.registers, i, &at, (n, transposed), |w| memory.words[w]);
        if tainted {
            self.first_taint.get_or_insert(self.now.pc);
            spread(self.taints(shared.grid), i, &at, (n, transposed), |w| memory.taint_of(w));
        } else if let Some(t) = &mut self.taints {
            i.dst[..n as usize].iter().for_each(|&d| t.set_word(d, &[0; LANES], FULL));
        }
        Ok(())
    }

    /// `stmatrix`.
    pub fn store_matrix(
        &mut self,
        shared: &mut Shared<'g>,
        i: &Inst,
        n: u8,
        transposed: bool,
        mask: u32,
    ) -> Check {
        let (at, used) = self.rows(shared, i, n, mask, "stmatrix")?;
        let pattern = Pattern::of(&at, ROW, used);
        let bytes = used.count_ones() as u64 * ROW as u64;
        shared.counters.shared_stores.count(bytes, pattern.passes(&at, ROW, used));
        let fragments = &i.src[1..1 + n as usize];
        let any = fragments.iter().fold(0, |any, &s| any | self.tainted(s, mask));
        // Which row a lane's elements go to differs from the lane that gives the address: one taint for all.
        let tainted = if any != 0 { used } else { 0 };
        let touch = Touch { who: self.who(false), base: 0, at: &at, bytes: ROW, mask: used };
        shared.memory.write(&mut shared.clock, touch, tainted, |_, _| false)?;
        let memory = &mut shared.memory;
        collect(&self.registers, i, &at, (n, transposed), |w, value, bits| {
            memory.words[w] = memory.words[w] & !bits | value & bits;
        });
        if let (Some(t), true) = (&self.taints, tainted != 0) {
            collect(t, i, &at, (n, transposed), |w, value, bits| {
                memory.taint[w] = memory.taint[w] & !bits | value & bits;
            });
        }
        Ok(())
    }
}

/// Reads matrices into fragments; `get` reads a word of shared memory.
#[inline(always)]
fn spread(
    r: &mut Registers<'_>,
    i: &Inst,
    at: &Offsets,
    (n, transposed): (u8, bool),
    get: impl Fn(usize) -> u32,
) {
    for m in 0..n as usize {
        let new = match transposed {
            false => row(|l| get(at[8 * m + l / 4] / 4 + l % 4)),
            true => {
                let element = |row: usize, column: usize| {
                    get(at[8 * m + row] / 4 + column / 2) >> (16 * (column % 2)) & 0xffff
                };
                row(|l| element(2 * (l % 4), l / 4) | element(2 * (l % 4) + 1, l / 4) << 16)
            }
        };
        r.set_word(i.dst[m], &new, FULL);
    }
}

/// Writes fragments to matrices; `put` gets a word of shared memory, a value, and which bits of it to write.
fn collect(
    r: &Registers<'_>,
    i: &Inst,
    at: &Offsets,
    (n, transposed): (u8, bool),
    mut put: impl FnMut(usize, u32, u32),
) {
    for m in 0..n as usize {
        let source = r.word(i.src[1 + m]);
        for l in 0..LANES {
            if !transposed {
                put(at[8 * m + l / 4] / 4 + l % 4, source[l], u32::MAX);
                continue;
            }
            for half in 0..2 {
                let (row, column) = (2 * (l % 4) + half, l / 4);
                let shift = 16 * (column % 2);
                put(
                    at[8 * m + row] / 4 + column / 2,
                    (source[l] >> (16 * half) & 0xffff) << shift,
                    0xffff << shift,
                );
            }
        }
    }
}
