//! `ldmatrix` and `stmatrix`: 8 x 8 matrices of 16-bit elements between shared memory and fragments.
//!
//! Lane 8n + r holds the address of row r of matrix n, 16 bytes. Register n of lane l then holds elements
//! 2 (l % 4) and 2 (l % 4) + 1 of row l / 4 of matrix n; transposed, those rows of column l / 4.

use super::block::Shared;
use super::space::{aligned, offsets};
use super::warp::Warp;
use crate::fault::Check;
use crate::inst::{FULL, Inst, LANES};
use std::array::from_fn;

const ROW: u32 = 16;

impl<'g> Warp<'g> {
    /// Where the rows of all matrices begin, in words of shared memory.
    #[inline(always)]
    fn rows(&mut self, shared: &Shared<'g>, i: &Inst, n: u8, mask: u32, what: &str) -> Check<[usize; LANES]> {
        self.require_all(mask, what)?;
        // With fewer than four matrices the upper lanes' addresses are ignored.
        let used = if n == 4 { FULL } else { (1 << (8 * n)) - 1 };
        let addresses = self.addresses(i.src[0], i.imm, used);
        aligned(&addresses, ROW)?;
        Ok(offsets("shared memory", &addresses, shared.grid.shared_bytes as u64, ROW)?.map(|at| at / 4))
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
        let rows = self.rows(shared, i, n, mask, "ldmatrix")?;
        for m in 0..n as usize {
            let words = &shared.words;
            let new = match transposed {
                false => from_fn(|l| words[rows[8 * m + l / 4] + l % 4]),
                true => {
                    let element = |row: usize, column: usize| {
                        words[rows[8 * m + row] + column / 2] >> (16 * (column % 2)) & 0xffff
                    };
                    from_fn(|l| element(2 * (l % 4), l / 4) | element(2 * (l % 4) + 1, l / 4) << 16)
                }
            };
            self.registers.set_word(i.dst[m], &new, FULL);
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
        let rows = self.rows(shared, i, n, mask, "stmatrix")?;
        for m in 0..n as usize {
            let source = self.registers.word(i.src[1 + m]);
            for l in 0..LANES {
                if !transposed {
                    shared.words[rows[8 * m + l / 4] + l % 4] = source[l];
                    continue;
                }
                for half in 0..2 {
                    let (row, column) = (2 * (l % 4) + half, l / 4);
                    let word = &mut shared.words[rows[8 * m + row] + column / 2];
                    let shift = 16 * (column % 2);
                    *word = *word & !(0xffff << shift) | (source[l] >> (16 * half) & 0xffff) << shift;
                }
            }
        }
        Ok(())
    }
}
