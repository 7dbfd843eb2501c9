//! Instructions of a whole warp or block: shuffles, votes, barriers, matrices, asynchronous copies.

use super::builder::{Arg, Builder};
use super::modifiers::{Modifiers, Ty, unknown};
use crate::error::Result;
use crate::inst::{Class, Mma, Op, Reduce, Shuffle, Vote};
use crate::ptx::{Instruction, Operand};

impl<'a> Builder<'a> {
    /// Lowers a collective; false when the opcode is not one.
    pub(super) fn collective(&mut self, root: &str, i: &'a Instruction<'a>) -> Result<bool> {
        match root {
            "shfl" => self.shuffle(i)?,
            "vote" => self.vote(i)?,
            "activemask" => {
                let mut m = Modifiers::of(i);
                m.ty()?;
                m.finish(i)?;
                let [d] = self.operands(i)?;
                let d = self.destination(d, Class::Word)?;
                self.emit(Op::ActiveMask, &[d], &[], 0)?;
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
        m.ty()?;
        let mode = m.one_of(&[
            ("up", Shuffle::Up),
            ("down", Shuffle::Down),
            ("bfly", Shuffle::Butterfly),
            ("idx", Shuffle::Index),
        ]);
        let synchronized = m.take("sync");
        m.finish(i)?;
        let (Some(mode), true) = (mode, synchronized) else { return Err(unknown(i)) };
        let [d, a, b, c, mask] = self.operands(i)?;
        let s = [
            self.arg(a, Class::Word)?,
            self.arg(b, Class::Word)?,
            self.arg(c, Class::Word)?,
            self.arg(mask, Class::Word)?,
        ];
        let d = self.pair(d, Class::Word)?;
        self.emit(Op::Shuffle(mode), &d, &s, 0)
    }

    /// `d|p`, or `d` alone.
    fn pair(&mut self, o: &'a Operand<'a>, class: Class) -> Result<Vec<Arg>> {
        Ok(match *o {
            Operand::Pair(d, p) => vec![
                self.destination(&Operand::Name(d), class)?,
                self.destination(&Operand::Name(p), Class::Predicate)?,
            ],
            ref d => vec![self.destination(d, class)?],
        })
    }

    fn vote(&mut self, i: &'a Instruction<'a>) -> Result<()> {
        let mut m = Modifiers::of(i);
        m.ty()?;
        let mode =
            m.one_of(&[("all", Vote::All), ("any", Vote::Any), ("uni", Vote::Uni), ("ballot", Vote::Ballot)]);
        let synchronized = m.take("sync");
        m.finish(i)?;
        let (Some(mode), true) = (mode, synchronized) else { return Err(unknown(i)) };
        let [d, p, mask] = self.operands(i)?;
        let s = [self.arg(p, Class::Predicate)?, self.arg(mask, Class::Word)?];
        let class = if mode == Vote::Ballot { Class::Word } else { Class::Predicate };
        let d = self.destination(d, class)?;
        self.emit(Op::Vote(mode), &[d], &s, 0)
    }

    fn match_lanes(&mut self, i: &'a Instruction<'a>) -> Result<()> {
        let mut m = Modifiers::of(i);
        let ty = m.ty()?;
        let all = m.one_of(&[("all", true), ("any", false)]).ok_or_else(|| unknown(i))?;
        if !m.take("sync") {
            return Err(unknown(i));
        }
        m.finish(i)?;
        let [d, a, mask] = self.operands(i)?;
        let s = [self.arg(a, ty.class())?, self.arg(mask, Class::Word)?];
        let d = self.pair(d, Class::Word)?;
        self.emit(if all { Op::MatchAll } else { Op::MatchAny }, &d, &s, 0)
    }

    fn redux(&mut self, i: &'a Instruction<'a>) -> Result<()> {
        let mut m = Modifiers::of(i);
        let ty = m.ty()?;
        let op = m.one_of(&[
            ("add", Reduce::Add),
            ("min", if ty.signed() { Reduce::MinS } else { Reduce::MinU }),
            ("max", if ty.signed() { Reduce::MaxS } else { Reduce::MaxU }),
            ("and", Reduce::And),
            ("or", Reduce::Or),
            ("xor", Reduce::Xor),
        ]);
        let synchronized = m.take("sync");
        m.finish(i)?;
        let (Some(op), true, Ty::Int(32, _)) = (op, synchronized, ty) else { return Err(unknown(i)) };
        let [d, a, mask] = self.operands(i)?;
        let s = [self.arg(a, Class::Word)?, self.arg(mask, Class::Word)?];
        let d = self.destination(d, Class::Word)?;
        self.emit(Op::Redux(op), &[d], &s, 0)
    }

    fn barrier(&mut self, i: &'a Instruction<'a>) -> Result<()> {
        let mut m = Modifiers::of(i);
        if m.take("warp") {
            if !m.take("sync") {
                return Err(unknown(i));
            }
            m.finish(i)?;
            let [mask] = self.operands(i)?;
            let mask = self.arg(mask, Class::Word)?;
            return self.emit(Op::WarpSync, &[], &[mask], 0);
        }
        m.take("cta");
        m.take("aligned");
        let what = m.one_of(&[("sync", 's'), ("arrive", 'a'), ("red", 'r')]).ok_or_else(|| unknown(i))?;
        if what == 'r' {
            return self.barrier_reduce(m, i);
        }
        m.finish(i)?;
        let (id, count) = match i.operands.as_slice() {
            [id] if what == 's' => (id, None),
            [id, count] => (id, Some(count)),
            _ => return Err(self.error("a barrier takes an id and a thread count")),
        };
        let id = self.arg(id, Class::Word)?;
        let count = count.map_or(Ok(Arg::None), |c| self.arg(c, Class::Word))?;
        self.emit(if what == 's' { Op::Barrier } else { Op::BarrierArrive }, &[], &[id, count], 0)
    }

    fn barrier_reduce(&mut self, mut m: Modifiers<'a>, i: &'a Instruction<'a>) -> Result<()> {
        m.ty()?;
        let op = m.one_of(&[("popc", Reduce::Popc), ("and", Reduce::And), ("or", Reduce::Or)]);
        m.finish(i)?;
        let op = op.ok_or_else(|| unknown(i))?;
        let (d, id, count, p) = match i.operands.as_slice() {
            [d, id, p] => (d, id, None, p),
            [d, id, count, p] => (d, id, Some(count), p),
            _ => return Err(self.error("bar.red takes a destination, an id, a thread count and a predicate")),
        };
        let id = self.arg(id, Class::Word)?;
        let count = count.map_or(Ok(Arg::None), |c| self.arg(c, Class::Word))?;
        let p = self.arg(p, Class::Predicate)?;
        let d = self.destination(d, if op == Reduce::Popc { Class::Word } else { Class::Predicate })?;
        self.emit(Op::BarrierReduce(op), &[d], &[id, count, p], 0)
    }

    /// Registers in braces, or one alone.
    fn words(&mut self, o: &'a Operand<'a>, n: usize, written: bool) -> Result<Vec<Arg>> {
        let list = match o {
            Operand::Vector(v) => v.as_slice(),
            one => std::slice::from_ref(one),
        };
        if list.len() != n {
            return Err(self.error(format!("a fragment of {} registers where {n} are needed", list.len())));
        }
        list.iter()
            .map(|o| if written { self.destination(o, Class::Word) } else { self.arg(o, Class::Word) })
            .collect()
    }

    fn matrix(&mut self, root: &str, i: &'a Instruction<'a>) -> Result<()> {
        let mut m = Modifiers::of(i);
        let n = m.one_of(&[("x1", 1u8), ("x2", 2), ("x4", 4)]).ok_or_else(|| unknown(i))?;
        let transposed = m.take("trans");
        let stated = m.take("sync") & m.take("aligned") & m.take("m8n8") & m.take("b16");
        if !stated || !(m.take("shared") || m.take("shared::cta")) {
            return Err(unknown(i));
        }
        m.finish(i)?;
        let [first, second] = self.operands(i)?;
        if root == "ldmatrix" {
            let d = self.words(first, n as usize, true)?;
            let (base, offset) = self.address(second)?;
            return self.emit(Op::LoadMatrix(n, transposed), &d, &[base], offset);
        }
        let (base, offset) = self.address(first)?;
        let mut s = vec![base];
        s.extend(self.words(second, n as usize, false)?);
        self.emit(Op::StoreMatrix(n, transposed), &[], &s, offset)
    }

    fn mma(&mut self, i: &'a Instruction<'a>) -> Result<()> {
        let kinds = [
            ("m16n8k16.row.col.f32.bf16.bf16.f32", Mma::Bf16K16, 4, 2),
            ("m16n8k8.row.col.f32.bf16.bf16.f32", Mma::Bf16K8, 2, 1),
            ("m16n8k16.row.col.f32.f16.f16.f32", Mma::F16K16, 4, 2),
            ("m16n8k8.row.col.f32.f16.f16.f32", Mma::F16K8, 2, 1),
            ("m16n8k8.row.col.f32.tf32.tf32.f32", Mma::Tf32K8, 4, 2),
            ("m16n8k4.row.col.f32.tf32.tf32.f32", Mma::Tf32K4, 2, 1),
        ];
        let stated = i.opcode[1..].join(".");
        let shape = stated.strip_prefix("sync.aligned.");
        let kind = kinds.into_iter().find(|k| Some(k.0) == shape).ok_or_else(|| unknown(i))?;
        let [d, a, b, c] = self.operands(i)?;
        let mut s = self.words(a, kind.2, false)?;
        s.resize(4, Arg::None);
        s.extend(self.words(b, kind.3, false)?);
        s.resize(6, Arg::None);
        s.extend(self.words(c, 4, false)?);
        let d = self.words(d, 4, true)?;
        self.emit(Op::Mma(kind.1), &d, &s, 0)
    }

    fn copy_async(&mut self, i: &'a Instruction<'a>) -> Result<()> {
        let mut m = Modifiers::of(i);
        if !m.take("async") {
            return Err(unknown(i));
        }
        if m.take("commit_group") {
            m.finish(i)?;
            return self.emit(Op::CopyCommit, &[], &[], 0);
        }
        if m.take("wait_all") {
            m.finish(i)?;
            return self.emit(Op::CopyWaitAll, &[], &[], 0);
        }
        if m.take("wait_group") {
            m.finish(i)?;
            let [Operand::Int(n)] = *self.operands::<1>(i)? else { return Err(unknown(i)) };
            return self.emit(Op::CopyWait, &[], &[], n);
        }
        let through = m.one_of(&[("ca", false), ("cg", true)]).ok_or_else(|| unknown(i))?;
        if !(m.take("shared") || m.take("shared::cta")) || !m.take("global") {
            return Err(unknown(i));
        }
        self.hints(&mut m);
        m.finish(i)?;
        let (to, from, size, rest) = match self.without_policy(i) {
            [to, from, Operand::Int(size)] => (to, from, *size, None),
            [to, from, Operand::Int(size), rest] => (to, from, *size, Some(rest)),
            _ => return Err(self.error("cp.async takes a destination, a source and a size")),
        };
        if !matches!(size, 4 | 8 | 16) || through && size != 16 {
            return Err(self.error(format!("cp.async cannot copy {size} bytes")));
        }
        let bytes = match rest {
            None => Arg::None,
            Some(o) => self.arg(o, Class::Word)?,
        };
        let (to, to_offset) = self.address(to)?;
        let (from, from_offset) = self.address(from)?;
        let offsets = (to_offset as u32 as i64) << 32 | from_offset as u32 as i64;
        if from_offset as i32 as i64 != from_offset || to_offset as i32 as i64 != to_offset {
            return Err(self.error("cp.async with an offset beyond 32 bits"));
        }
        self.emit(Op::CopyAsync(size as u8), &[], &[to, from, bytes], offsets)
    }
}
