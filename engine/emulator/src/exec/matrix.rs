//! `ldmatrix` and `stmatrix`: 8 x 8 matrices of 16-bit elements between shared memory and fragments.
//!
//! Lane 8n + r holds the address of row r of matrix n, 16 bytes. Register n of lane l then holds elements
//! 2 (l % 4) and 2 (l % 4) + 1 of row l / 4 of matrix n; transposed, those rows of column l / 4.

use super::address::{Offsets, check_alignment, checked_offsets};
use super::footprint::FootprintId;
use super::registers::{Registers, row};
use super::shared_memory::WarpAccess;
use super::thread_block::BlockState;
use super::warp::Warp;
use crate::fault::LaneResult;
use crate::inst::{FULL, Inst, LANES};
use std::array::from_fn;

const ROW: u32 = 16;

impl<'g> Warp<'g> {
    /// Returns the offsets of all matrices' rows in shared memory, and the footprint of the lanes whose addresses are
    /// used: with fewer than four matrices the addresses of the upper lanes are ignored.
    #[inline(always)]
    fn rows(
        &self,
        block: &mut BlockState<'g>,
        i: &Inst,
        n: u8,
        mask: u32,
        what: &str,
    ) -> LaneResult<(Offsets, FootprintId)> {
        self.require_all(mask, what)?;
        self.require_known(i.src[0], mask, "an address")?;
        let used = if n == 4 { FULL } else { (1 << (8 * n)) - 1 };
        let addresses = self.addresses(i.src[0], i.imm, used);
        let access = block.launch.code.access_index[self.active.pc as usize];
        let id = block.footprints.of(access, &addresses, ROW, used);
        let footprint = &block.footprints[id];
        check_alignment(&addresses, footprint)?;
        let size = block.launch.shared_bytes as u64;
        Ok((checked_offsets("shared memory", &addresses, footprint, size)?, id))
    }

    /// Executes `ldmatrix`.
    #[inline(always)]
    pub fn load_matrix(
        &mut self,
        block: &mut BlockState<'g>,
        i: &Inst,
        n: u8,
        transposed: bool,
        mask: u32,
    ) -> LaneResult {
        let (offsets, footprint) = self.rows(block, i, n, mask, "ldmatrix")?;
        let footprint = &block.footprints[footprint];
        block.counters.shared_loads.count(footprint.moved(), footprint.wavefronts);
        let accessor = self.as_accessor(false);
        let warp_access = WarpAccess { accessor, base: 0, offsets: &offsets, footprint };
        let tainted = block.shared_memory.read(&block.clock, warp_access)?;
        let memory = &block.shared_memory;
        read_fragments(&mut self.registers, i, &offsets, (n, transposed), |w| {
            let words = &memory.words[w..w + 4];
            [words[0], words[1], words[2], words[3]]
        });
        if tainted {
            self.taint_source.get_or_insert(self.active.pc);
            read_fragments(self.taint_registers(block.launch), i, &offsets, (n, transposed), |w| {
                from_fn(|i| memory.taint_of(w + i))
            });
        } else if let Some(t) = &mut self.register_taint {
            i.dst[..n as usize].iter().for_each(|&d| t.set_b32(d, &[0; LANES], FULL));
        }
        Ok(())
    }

    /// Executes `stmatrix`.
    pub fn store_matrix(
        &mut self,
        block: &mut BlockState<'g>,
        i: &Inst,
        n: u8,
        transposed: bool,
        mask: u32,
    ) -> LaneResult {
        let (offsets, footprint) = self.rows(block, i, n, mask, "stmatrix")?;
        let footprint = &block.footprints[footprint];
        block.counters.shared_stores.count(footprint.moved(), footprint.wavefronts);
        let fragments = &i.src[1..1 + n as usize];
        let any = fragments.iter().fold(0, |any, &s| any | self.tainted(s, mask));
        // A lane's elements go to rows whose addresses other lanes provide: one taint for all.
        let tainted = if any != 0 { footprint.mask } else { 0 };
        let accessor = self.as_accessor(false);
        let warp_access = WarpAccess { accessor, base: 0, offsets: &offsets, footprint };
        block.shared_memory.write(&mut block.clock, warp_access, tainted, |_, _| false)?;
        let memory = &mut block.shared_memory;
        write_fragments(&self.registers, i, &offsets, (n, transposed), |w, value, bits| {
            memory.words[w] = memory.words[w] & !bits | value & bits;
        });
        if let (Some(t), true) = (&self.register_taint, tainted != 0) {
            write_fragments(t, i, &offsets, (n, transposed), |w, value, bits| {
                memory.taint[w] = memory.taint[w] & !bits | value & bits;
            });
        }
        Ok(())
    }
}

/// Reads matrices into fragments; `get(w)` returns the four words of shared memory from word w.
#[inline(always)]
fn read_fragments(
    r: &mut Registers<'_>,
    i: &Inst,
    offsets: &Offsets,
    (n, transposed): (u8, bool),
    get: impl Fn(usize) -> [u32; 4],
) {
    for m in 0..n as usize {
        let mut new = [0; LANES];
        for (words, &offset) in new.chunks_exact_mut(4).zip(&offsets[8 * m..8 * m + 8]) {
            words.copy_from_slice(&get(offset / 4));
        }
        if transposed {
            let element =
                |row: usize, column: usize| new[4 * row + column / 2] >> (16 * (column % 2)) & 0xffff;
            new = row(|l| element(2 * (l % 4), l / 4) | element(2 * (l % 4) + 1, l / 4) << 16);
        }
        r.set_b32(i.dst[m], &new, FULL);
    }
}

/// Writes fragments to matrices; `put(w, value, bits)` writes the given bits of word w of shared memory.
fn write_fragments(
    r: &Registers<'_>,
    i: &Inst,
    offsets: &Offsets,
    (n, transposed): (u8, bool),
    mut put: impl FnMut(usize, u32, u32),
) {
    for m in 0..n as usize {
        let source = r.b32(i.src[1 + m]);
        for l in 0..LANES {
            if !transposed {
                put(offsets[8 * m + l / 4] / 4 + l % 4, source[l], u32::MAX);
                continue;
            }
            for half in 0..2 {
                let (row, column) = (2 * (l % 4) + half, l / 4);
                let shift = 16 * (column % 2);
                put(
                    offsets[8 * m + row] / 4 + column / 2,
                    (source[l] >> (16 * half) & 0xffff) << shift,
                    0xffff << shift,
                );
            }
        }
    }
}
