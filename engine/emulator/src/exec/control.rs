//! Dispatch of the instructions that the ALU does not execute, and control flow.

use super::mma;
use super::thread_block::BlockState;
use super::warp::{DivergenceEntry, StopReason, Warp, lanes};
use crate::fault::{FaultKind, LaneResult, lane_fault};
use crate::gpu::Schedule;
use crate::inst::{Inst, Opcode};

impl<'g> Warp<'g> {
    /// Executes an instruction that the ALU does not, and advances the program counter.
    #[inline(always)]
    pub fn execute(
        &mut self,
        block: &mut BlockState<'g>,
        i: &Inst,
        mask: u32,
    ) -> LaneResult<Option<StopReason>> {
        match i.op {
            Opcode::Branch | Opcode::BranchIndexed => {
                // Lanes that stay execute a branch as those that leave do. A compiler may turn a loop that waits so that it
                // is left by staying where it was left by a jump, depending on whether it has waited.
                block.executed[i.kind as usize].threads += (self.active.mask & !mask).count_ones() as u64;
                return match i.op {
                    Opcode::Branch => Ok(self.branch(block, i, mask)),
                    _ => self.branch_indexed(block, i, mask),
                };
            }
            Opcode::Exit => return self.exit(block, mask),
            Opcode::Barrier | Opcode::BarrierArrive | Opcode::BarrierReduce(_) => {
                return self.barrier(block, i, mask);
            }
            _ if mask == 0 => {}
            Opcode::Sleep => return Ok(Some(self.sleep(block))),
            Opcode::Load(access) => self.access(block, i, access, false, mask)?,
            Opcode::Store(access) => self.access(block, i, access, true, mask)?,
            Opcode::Atom { space, op, size } => self.atomic(block, i, (space, op, size), mask)?,
            Opcode::Mma(kind) => {
                self.require_all(mask, "mma")?;
                mma::execute(&mut self.registers, i, kind);
            }
            Opcode::LoadMatrix(n, transposed) => self.load_matrix(block, i, n, transposed, mask)?,
            Opcode::StoreMatrix(n, transposed) => self.store_matrix(block, i, n, transposed, mask)?,
            Opcode::CopyAsync(size) => self.copy_async(block, i, size, mask)?,
            Opcode::CopyCommit => self.copies.commit(mask),
            Opcode::CopyWait => self.copy_wait(block, i.imm, mask)?,
            Opcode::CopyWaitAll => self.copy_wait(block, -1, mask)?,
            Opcode::Clock => {
                let now = block.executed.iter().map(|e| e.warps).sum();
                self.registers.set_bits(i.dst[0], &[now; 32], mask);
            }
            Opcode::Trap => {
                let detail = "the kernel executed trap, or a device-side assert failed";
                return Err(lane_fault(FaultKind::Trap, Some(mask.trailing_zeros()), detail));
            }
            _ => self.collective(block, i, mask)?,
        }
        self.active.pc += 1;
        Ok(None)
    }

    fn branch(&mut self, block: &BlockState<'g>, i: &Inst, taken: u32) -> Option<StopReason> {
        let not_taken = self.active.mask & !taken;
        let next = self.active.pc + 1;
        if not_taken == 0 {
            self.active.pc = i.imm as u32;
        } else if taken == 0 {
            self.active.pc = next;
        } else {
            let reconvergence = block.launch.code.reconvergence[self.active.pc as usize];
            let mut paths = [(i.imm as u32, taken), (next, not_taken)];
            if block.launch.options.schedule == Schedule::Late {
                paths.reverse();
            }
            self.diverge(reconvergence, &paths);
        }
        None
    }

    fn branch_indexed(
        &mut self,
        block: &BlockState<'g>,
        i: &Inst,
        mask: u32,
    ) -> LaneResult<Option<StopReason>> {
        self.require_known(i.src[0], mask, "a branch index")?;
        let code = block.launch.code;
        let table = &code.branch_tables[i.imm as usize];
        let index = self.registers.b32(i.src[0]);
        let mut paths: Vec<(u32, u32)> = Vec::new();
        let mut add = |pc: u32, mask: u32| match paths.iter_mut().find(|s| s.0 == pc) {
            Some(path) => path.1 |= mask,
            None => paths.push((pc, mask)),
        };
        for k in lanes(mask) {
            let target = table.get(index[k] as usize).ok_or_else(|| {
                let detail = format!("index {} of brx.idx is beyond its {} targets", index[k], table.len());
                lane_fault(FaultKind::Invalid, Some(k as u32), detail)
            })?;
            add(*target, 1 << k);
        }
        if self.active.mask & !mask != 0 {
            add(self.active.pc + 1, self.active.mask & !mask);
        }
        match paths.as_slice() {
            [(pc, _)] => self.active.pc = *pc,
            _ => self.diverge(code.reconvergence[self.active.pc as usize], &paths),
        }
        Ok(None)
    }

    /// Splits the active lanes: the first path runs now, the others wait on the stack, and all join at `reconvergence`.
    fn diverge(&mut self, reconvergence: u32, paths: &[(u32, u32)]) {
        // The entry below already waits at this point, as in a loop that lanes leave one by one.
        if reconvergence != self.active.reconvergence {
            self.stack.push(DivergenceEntry { pc: reconvergence, ..self.active });
        }
        for &(pc, mask) in paths[1..].iter().rev() {
            if pc != reconvergence {
                self.stack.push(DivergenceEntry { pc, mask, reconvergence });
            }
        }
        let (pc, mask) = paths[0];
        self.active = DivergenceEntry { pc, mask, reconvergence };
    }

    fn exit(&mut self, block: &BlockState<'g>, mask: u32) -> LaneResult<Option<StopReason>> {
        if block.launch.options.racecheck {
            self.require_no_pending_copies(mask)?;
        }
        self.exited |= mask;
        self.active.mask &= !mask;
        self.active.pc += 1;
        let going_on = self.active.mask != 0 || self.pop_divergence();
        Ok(if going_on { None } else { Some(StopReason::Exited) })
    }
}
