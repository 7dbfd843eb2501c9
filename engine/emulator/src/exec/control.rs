//! Dispatch of everything that is not plain arithmetic, and control flow.

use super::block::Shared;
use super::mma;
use super::warp::{Frame, Stop, Warp, lanes};
use crate::fault::{Check, FaultKind, trouble};
use crate::gpu::Schedule;
use crate::inst::{Inst, Op};

impl<'g> Warp<'g> {
    /// Executes an instruction that the ALU does not; moves on by itself.
    #[inline(always)]
    pub fn execute(&mut self, shared: &mut Shared<'g>, i: &Inst, mask: u32) -> Check<Option<Stop>> {
        match i.op {
            Op::Branch => return Ok(self.branch(shared, i, mask)),
            Op::BranchIndexed => return self.branch_indexed(shared, i, mask),
            Op::Exit => return self.exit(shared, mask),
            Op::Barrier | Op::BarrierArrive | Op::BarrierReduce(_) => return self.barrier(shared, i, mask),
            _ if mask == 0 => {}
            Op::Load(access) => self.access(shared, i, access, false, mask)?,
            Op::Store(access) => self.access(shared, i, access, true, mask)?,
            Op::Atom { space, op, size } => self.atomic(shared, i, (space, op, size), mask)?,
            Op::Mma(kind) => {
                self.require_all(mask, "mma")?;
                mma::execute(&mut self.registers, i, kind);
            }
            Op::LoadMatrix(n, transposed) => self.load_matrix(shared, i, n, transposed, mask)?,
            Op::StoreMatrix(n, transposed) => self.store_matrix(shared, i, n, transposed, mask)?,
            Op::CopyAsync(size) => self.copy_async(shared, i, size, mask)?,
            Op::CopyCommit => self.copies.commit(mask),
            Op::CopyWait => self.copy_wait(shared, i.imm, mask)?,
            Op::CopyWaitAll => self.copy_wait(shared, -1, mask)?,
            Op::Clock => {
                let now = shared.executed.iter().map(|e| e.warps).sum();
                self.registers.set_bits(i.dst[0], &[now; 32], mask);
            }
            Op::Trap => {
                let detail = "the kernel executed trap, or an assertion failed";
                return Err(trouble(FaultKind::Trap, Some(mask.trailing_zeros()), detail));
            }
            _ => self.collective(shared, i, mask)?,
        }
        self.now.pc += 1;
        Ok(None)
    }

    fn branch(&mut self, shared: &Shared<'g>, i: &Inst, taken: u32) -> Option<Stop> {
        let stay = self.now.mask & !taken;
        let next = self.now.pc + 1;
        if stay == 0 {
            self.now.pc = i.imm as u32;
        } else if taken == 0 {
            self.now.pc = next;
        } else {
            let rejoin = shared.grid.program.reconverge[self.now.pc as usize];
            let mut sides = [(i.imm as u32, taken), (next, stay)];
            if shared.grid.rules.schedule == Schedule::Late {
                sides.reverse();
            }
            self.split(rejoin, &sides);
        }
        None
    }

    fn branch_indexed(&mut self, shared: &Shared<'g>, i: &Inst, mask: u32) -> Check<Option<Stop>> {
        self.require_known(i.src[0], mask, "a branch index")?;
        let program = shared.grid.program;
        let table = &program.tables[i.imm as usize];
        let index = self.registers.word(i.src[0]);
        let mut sides: Vec<(u32, u32)> = Vec::new();
        let mut add = |pc: u32, mask: u32| match sides.iter_mut().find(|s| s.0 == pc) {
            Some(side) => side.1 |= mask,
            None => sides.push((pc, mask)),
        };
        for k in lanes(mask) {
            let target = table.get(index[k] as usize).ok_or_else(|| {
                let detail = format!("branch index {} of {} targets", index[k], table.len());
                trouble(FaultKind::Invalid, Some(k as u32), detail)
            })?;
            add(*target, 1 << k);
        }
        if self.now.mask & !mask != 0 {
            add(self.now.pc + 1, self.now.mask & !mask);
        }
        match sides.as_slice() {
            [(pc, _)] => self.now.pc = *pc,
            _ => self.split(program.reconverge[self.now.pc as usize], &sides),
        }
        Ok(None)
    }

    /// Lanes part: the first side runs now, the others wait their turn, all meet at `rejoin`.
    fn split(&mut self, rejoin: u32, sides: &[(u32, u32)]) {
        // The frame below waits at the same point already, as in a loop that lanes leave one by one.
        if rejoin != self.now.rejoin {
            self.stack.push(Frame { pc: rejoin, ..self.now });
        }
        for &(pc, mask) in sides[1..].iter().rev() {
            if pc != rejoin {
                self.stack.push(Frame { pc, mask, rejoin });
            }
        }
        let (pc, mask) = sides[0];
        self.now = Frame { pc, mask, rejoin };
    }

    fn exit(&mut self, shared: &Shared<'g>, mask: u32) -> Check<Option<Stop>> {
        if shared.grid.rules.ordering {
            self.leftover_copies(mask)?;
        }
        self.exited |= mask;
        self.now.mask &= !mask;
        self.now.pc += 1;
        let going_on = self.now.mask != 0 || self.pop();
        Ok(if going_on { None } else { Some(Stop::Exited) })
    }
}
