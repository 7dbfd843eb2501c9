//! Instructions of a whole warp or block: shuffles, votes, barriers, matrices, asynchronous copies.

use super::builder::{Builder, VirtualOperand};
use super::modifiers::{Modifiers, PtxType, unsupported};
use crate::error::Result;
use crate::inst::RegisterClass::{self, B32, Predicate};
use crate::inst::{MmaShape, Opcode, ReduxOp, ShuffleMode, VoteMode};
use crate::ptx::{Instruction, Operand};

impl<'a> Builder<'a> {
    /// Lowers a collective. Returns false for other opcodes.
    pub(super) fn collective(&mut self, root: &str, i: &'a Instruction<'a>) -> Result<bool> {
        match root {
            "shfl" => self.shuffle(i)?,
            "vote" => self.vote(i)?,
            "activemask" => {
                let mut m = Modifiers::of(i);
                m.take_type()?;
                m.expect_none_left(i)?;
                let [d] = self.operands(i)?;
                let d = self.destination(d, B32)?;
                self.emit(Opcode::ActiveMask, &[d], &[], 0)?;
            }
            "match" => self.match_lanes(i)?,
            "redux" => self.redux(i)?,
            "bar" | "barrier" => self.barrier(i)?,
            "ldmatrix" | "stmatrix" => self.matrix(root, i)?,
            "mma" => self.mma(i)?,
            "cp" => self.copy_async(i)?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn shuffle(&mut self, i: &'a Instruction<'a>) -> Result<()> {
        let mut m = Modifiers::of(i);
        m.take_type()?;
        let mode = m.take_one_of(&[
            ("up", ShuffleMode::Up),
            ("down", ShuffleMode::Down),
            ("bfly", ShuffleMode::Butterfly),
            ("idx", ShuffleMode::Index),
        ]);
        let synchronized = m.take("sync");
        m.expect_none_left(i)?;
        let (Some(mode), true) = (mode, synchronized) else { return Err(unsupported(i)) };
        let [d, a, b, c, mask] = self.operands(i)?;
        let s = [self.source(a, B32)?, self.source(b, B32)?, self.source(c, B32)?, self.source(mask, B32)?];
        let d = self.pair(d, B32)?;
        self.emit(Opcode::Shuffle(mode), &d, &s, 0)
    }

    /// Lowers the destinations `d|p`, or `d` alone.
    fn pair(&mut self, o: &'a Operand<'a>, class: RegisterClass) -> Result<Vec<VirtualOperand>> {
        Ok(match *o {
            Operand::Pair(d, p) => vec![
                self.destination(&Operand::Name(d), class)?,
                self.destination(&Operand::Name(p), Predicate)?,
            ],
            ref d => vec![self.destination(d, class)?],
        })
    }

    fn vote(&mut self, i: &'a Instruction<'a>) -> Result<()> {
        let mut m = Modifiers::of(i);
        m.take_type()?;
        let mode = m.take_one_of(&[
            ("all", VoteMode::All),
            ("any", VoteMode::Any),
            ("uni", VoteMode::Uni),
            ("ballot", VoteMode::Ballot),
        ]);
        let synchronized = m.take("sync");
        m.expect_none_left(i)?;
        let (Some(mode), true) = (mode, synchronized) else { return Err(unsupported(i)) };
        let [d, p, mask] = self.operands(i)?;
        let s = [self.source(p, Predicate)?, self.source(mask, B32)?];
        let class = if mode == VoteMode::Ballot { B32 } else { Predicate };
        let d = self.destination(d, class)?;
        self.emit(Opcode::Vote(mode), &[d], &s, 0)
    }

    fn match_lanes(&mut self, i: &'a Instruction<'a>) -> Result<()> {
        let mut m = Modifiers::of(i);
        let ty = m.take_type()?;
        let all = m.take_one_of(&[("all", true), ("any", false)]).ok_or_else(|| unsupported(i))?;
        if !m.take("sync") {
            return Err(unsupported(i));
        }
        m.expect_none_left(i)?;
        let [d, a, mask] = self.operands(i)?;
        let s = [self.source(a, ty.class())?, self.source(mask, B32)?];
        let d = self.pair(d, B32)?;
        self.emit(if all { Opcode::MatchAll } else { Opcode::MatchAny }, &d, &s, 0)
    }

    fn redux(&mut self, i: &'a Instruction<'a>) -> Result<()> {
        let mut m = Modifiers::of(i);
        let ty = m.take_type()?;
        let op = m.take_one_of(&[
            ("add", ReduxOp::Add),
            ("min", if ty.signed() { ReduxOp::MinS } else { ReduxOp::MinU }),
            ("max", if ty.signed() { ReduxOp::MaxS } else { ReduxOp::MaxU }),
            ("and", ReduxOp::And),
            ("or", ReduxOp::Or),
            ("xor", ReduxOp::Xor),
        ]);
        let synchronized = m.take("sync");
        m.expect_none_left(i)?;
        let (Some(op), true, PtxType::Int(32, _)) = (op, synchronized, ty) else {
            return Err(unsupported(i));
        };
        let [d, a, mask] = self.operands(i)?;
        let s = [self.source(a, B32)?, self.source(mask, B32)?];
        let d = self.destination(d, B32)?;
        self.emit(Opcode::Redux(op), &[d], &s, 0)
    }

    fn barrier(&mut self, i: &'a Instruction<'a>) -> Result<()> {
        let mut m = Modifiers::of(i);
        if m.take("warp") {
            if !m.take("sync") {
                return Err(unsupported(i));
            }
            m.expect_none_left(i)?;
            let [mask] = self.operands(i)?;
            let mask = self.source(mask, B32)?;
            return self.emit(Opcode::WarpSync, &[], &[mask], 0);
        }
        m.take("cta");
        m.take("aligned");
        let what =
            m.take_one_of(&[("sync", 's'), ("arrive", 'a'), ("red", 'r')]).ok_or_else(|| unsupported(i))?;
        if what == 'r' {
            return self.barrier_reduce(m, i);
        }
        m.expect_none_left(i)?;
        let (id, count) = match i.operands.as_slice() {
            [id] if what == 's' => (id, None),
            [id, count] => (id, Some(count)),
            _ => return Err(self.error("a barrier takes an id and a thread count")),
        };
        let id = self.source(id, B32)?;
        let count = count.map_or(Ok(VirtualOperand::None), |c| self.source(c, B32))?;
        self.emit(if what == 's' { Opcode::Barrier } else { Opcode::BarrierArrive }, &[], &[id, count], 0)
    }

    fn barrier_reduce(&mut self, mut m: Modifiers<'a>, i: &'a Instruction<'a>) -> Result<()> {
        m.take_type()?;
        let op = m.take_one_of(&[("popc", ReduxOp::Popc), ("and", ReduxOp::And), ("or", ReduxOp::Or)]);
        m.expect_none_left(i)?;
        let op = op.ok_or_else(|| unsupported(i))?;
        let (d, id, count, p) = match i.operands.as_slice() {
            [d, id, p] => (d, id, None, p),
            [d, id, count, p] => (d, id, Some(count), p),
            _ => return Err(self.error("bar.red takes a destination, an id, a thread count and a predicate")),
        };
        let id = self.source(id, B32)?;
        let count = count.map_or(Ok(VirtualOperand::None), |c| self.source(c, B32))?;
        let p = self.source(p, Predicate)?;
        let d = self.destination(d, if op == ReduxOp::Popc { B32 } else { Predicate })?;
        self.emit(Opcode::BarrierReduce(op), &[d], &[id, count, p], 0)
    }

    /// Lowers a fragment: registers in braces, or one alone.
    fn words(&mut self, o: &'a Operand<'a>, n: usize, written: bool) -> Result<Vec<VirtualOperand>> {
        let list = match o {
            Operand::Vector(v) => v.as_slice(),
            one => std::slice::from_ref(one),
        };
        if list.len() != n {
            return Err(self.error(format!("a fragment of {} registers where {n} are needed", list.len())));
        }
        list.iter().map(|o| if written { self.destination(o, B32) } else { self.source(o, B32) }).collect()
    }

    fn matrix(&mut self, root: &str, i: &'a Instruction<'a>) -> Result<()> {
        let mut m = Modifiers::of(i);
        let n = m.take_one_of(&[("x1", 1u8), ("x2", 2), ("x4", 4)]).ok_or_else(|| unsupported(i))?;
        let transposed = m.take("trans");
        let stated = m.take("sync") & m.take("aligned") & m.take("m8n8") & m.take("b16");
        if !stated || !(m.take("shared") || m.take("shared::cta")) {
            return Err(unsupported(i));
        }
        m.expect_none_left(i)?;
        let [first, second] = self.operands(i)?;
        if root == "ldmatrix" {
            let d = self.words(first, n as usize, true)?;
            let (base, offset) = self.address(second)?;
            return self.emit(Opcode::LoadMatrix(n, transposed), &d, &[base], offset);
        }
        let (base, offset) = self.address(first)?;
        let mut s = vec![base];
        s.extend(self.words(second, n as usize, false)?);
        self.emit(Opcode::StoreMatrix(n, transposed), &[], &s, offset)
    }

    fn mma(&mut self, i: &'a Instruction<'a>) -> Result<()> {
        let kinds = [
            ("m16n8k16.row.col.f32.bf16.bf16.f32", MmaShape::Bf16K16, 4, 2),
            ("m16n8k8.row.col.f32.bf16.bf16.f32", MmaShape::Bf16K8, 2, 1),
            ("m16n8k16.row.col.f32.f16.f16.f32", MmaShape::F16K16, 4, 2),
            ("m16n8k8.row.col.f32.f16.f16.f32", MmaShape::F16K8, 2, 1),
            ("m16n8k8.row.col.f32.tf32.tf32.f32", MmaShape::Tf32K8, 4, 2),
            ("m16n8k4.row.col.f32.tf32.tf32.f32", MmaShape::Tf32K4, 2, 1),
        ];
        let stated = i.opcode[1..].join(".");
        let shape = stated.strip_prefix("sync.aligned.");
        let kind = kinds.into_iter().find(|k| Some(k.0) == shape).ok_or_else(|| unsupported(i))?;
        let [d, a, b, c] = self.operands(i)?;
        let mut s = self.words(a, kind.2, false)?;
        s.resize(4, VirtualOperand::None);
        s.extend(self.words(b, kind.3, false)?);
        s.resize(6, VirtualOperand::None);
        s.extend(self.words(c, 4, false)?);
        let d = self.words(d, 4, true)?;
        self.emit(Opcode::Mma(kind.1), &d, &s, 0)
    }

    fn copy_async(&mut self, i: &'a Instruction<'a>) -> Result<()> {
        let mut m = Modifiers::of(i);
        if !m.take("async") {
            return Err(unsupported(i));
        }
        if m.take("commit_group") {
            m.expect_none_left(i)?;
            return self.emit(Opcode::CopyCommit, &[], &[], 0);
        }
        if m.take("wait_all") {
            m.expect_none_left(i)?;
            return self.emit(Opcode::CopyWaitAll, &[], &[], 0);
        }
        if m.take("wait_group") {
            m.expect_none_left(i)?;
            let [Operand::Int(n)] = *self.operands::<1>(i)? else { return Err(unsupported(i)) };
            return self.emit(Opcode::CopyWait, &[], &[], n);
        }
        let through = m.take_one_of(&[("ca", false), ("cg", true)]).ok_or_else(|| unsupported(i))?;
        if !(m.take("shared") || m.take("shared::cta")) || !m.take("global") {
            return Err(unsupported(i));
        }
        self.hints(&mut m);
        m.expect_none_left(i)?;
        let (to, from, size, rest) = match self.without_policy(i) {
            [to, from, Operand::Int(size)] => (to, from, *size, None),
            [to, from, Operand::Int(size), rest] => (to, from, *size, Some(rest)),
            _ => return Err(self.error("cp.async takes a destination, a source and a size")),
        };
        if !matches!(size, 4 | 8 | 16) || through && size != 16 {
            return Err(self.error(format!("cp.async cannot copy {size} bytes")));
        }
        let bytes = match rest {
            None => VirtualOperand::None,
            Some(o) => self.source(o, B32)?,
        };
        let (to, to_offset) = self.address(to)?;
        let (from, from_offset) = self.address(from)?;
        let offsets = (to_offset as u32 as i64) << 32 | from_offset as u32 as i64;
        if from_offset as i32 as i64 != from_offset || to_offset as i32 as i64 != to_offset {
            return Err(self.error("cp.async with an offset beyond 32 bits"));
        }
        self.emit(Opcode::CopyAsync(size as u8), &[], &[to, from, bytes], offsets)
    }
}
