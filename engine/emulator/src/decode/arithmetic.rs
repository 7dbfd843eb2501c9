//! Integer arithmetic, bit operations and predicate logic.

use super::builder::{Builder, VirtualOperand};
use super::modifiers::{Modifiers, PtxType, unsupported};
use crate::error::Result;
use crate::inst::RegisterClass::{self, B32, B64, Predicate};
use crate::inst::{IntOp, LaneFn, Opcode, PredicateOp, TaintFlow};
use crate::lane::int;
use crate::ptx::{Instruction, Operand};

impl<'a> Builder<'a> {
    /// Lowers an integer instruction. Returns false for other opcodes.
    pub(super) fn arithmetic(&mut self, root: &str, i: &'a Instruction<'a>) -> Result<bool> {
        let mut m = Modifiers::of(i);
        let Some(ty) = m.peek_last().and_then(PtxType::parse) else { return Ok(false) };
        match (root, ty) {
            ("and" | "or" | "xor" | "not", PtxType::Pred) => self.logic(root, i)?,
            ("add" | "sub" | "addc" | "subc", PtxType::Int(..)) => self.add(root, i)?,
            ("mul" | "mad" | "mul24" | "mad24", PtxType::Int(..)) => self.multiply(root, i)?,
            ("min" | "max", PtxType::Int(bits, signed)) => {
                m.take_type()?;
                let relu = m.take("relu");
                m.expect_none_left(i)?;
                let (vector, lane, with_relu): (IntOp, LaneFn, LaneFn) = match (root, signed) {
                    ("min", false) => (IntOp::MinU, int::min, int::min_relu),
                    ("min", true) => (IntOp::MinS, int::min, int::min_relu),
                    (_, false) => (IntOp::MaxU, int::max, int::max_relu),
                    (_, true) => (IntOp::MaxS, int::max, int::max_relu),
                };
                if relu {
                    self.lane_function(i, ty, 2, with_relu, int::mode(bits, signed))?;
                } else {
                    self.int(i, ty, 2, vector, lane)?;
                }
            }
            ("and" | "or" | "xor", PtxType::Int(..)) => {
                only_type(&mut m, i)?;
                let op = match root {
                    "and" => IntOp::And,
                    "or" => IntOp::Or,
                    _ => IntOp::Xor,
                };
                // Zero-extended operands give zero-extended results.
                self.vector(i, ty, 2, op)?;
            }
            ("not", PtxType::Int(..)) => {
                only_type(&mut m, i)?;
                self.int(i, ty, 1, IntOp::Not, int::not)?;
            }
            ("neg", PtxType::Int(..)) => {
                only_type(&mut m, i)?;
                self.int(i, ty, 1, IntOp::Neg, int::neg)?;
            }
            ("shl" | "shr", PtxType::Int(..)) => self.shift(root, i)?,
            ("shf", _) => self.funnel(i)?,
            ("lop3", PtxType::Int(32, _)) => self.lop3(i)?,
            ("prmt", PtxType::Int(32, _)) => {
                m.take_type()?;
                let mode =
                    m.take_one_of(&[("f4e", 1), ("b4e", 2), ("rc8", 3), ("ecl", 4), ("ecr", 5), ("rc16", 6)]);
                m.expect_none_left(i)?;
                self.moving(i, ty, (3, 2), int::prmt, mode.unwrap_or(0))?;
            }
            ("dp4a", _) => self.dp4a(i)?,
            ("bfe" | "bfi", PtxType::Int(..)) => self.field(root, i)?,
            ("bfind", PtxType::Int(bits, signed)) => {
                m.take_type()?;
                let amount = if m.take("shiftamt") { int::SHIFT_AMOUNT } else { 0 };
                m.expect_none_left(i)?;
                self.counting(i, ty, int::bfind, int::mode(bits, signed) | amount)?;
            }
            ("popc" | "clz", PtxType::Int(bits, _)) => {
                only_type(&mut m, i)?;
                let f = if root == "popc" { int::popc } else { int::clz };
                self.counting(i, ty, f, int::mode(bits, false))?;
            }
            ("div" | "rem" | "abs" | "sad" | "brev" | "cnot", PtxType::Int(bits, signed)) => {
                only_type(&mut m, i)?;
                let (f, n): (LaneFn, usize) = match root {
                    "div" => (int::div, 2),
                    "rem" => (int::rem, 2),
                    "abs" => (int::abs, 1),
                    "sad" => (int::sad, 3),
                    "brev" => (int::brev, 1),
                    _ => (int::cnot, 1),
                };
                self.lane_function(i, ty, n, f, int::mode(bits, signed))?;
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Lowers a destination and `n` sources, all of one register class.
    pub(super) fn dst_and_sources(
        &mut self,
        i: &'a Instruction<'a>,
        class: RegisterClass,
        n: usize,
    ) -> Result<(VirtualOperand, Vec<VirtualOperand>)> {
        if i.operands.len() != n + 1 {
            return Err(self.error(format!("'{}' takes {} operands", i.opcode.join("."), n + 1)));
        }
        let sources = i.operands[1..].iter().map(|o| self.source(o, class)).collect::<Result<Vec<_>>>()?;
        Ok((self.destination(&i.operands[0], class)?, sources))
    }

    fn vector(&mut self, i: &'a Instruction<'a>, ty: PtxType, n: usize, op: IntOp) -> Result<()> {
        let (d, s) = self.dst_and_sources(i, ty.class(), n)?;
        let op = if ty.class() == B64 { Opcode::Int64(op) } else { Opcode::Int32(op) };
        self.emit(op, &[d], &s, 0)
    }

    /// Emits the vector form for 32 and 64 bits, the lane function for narrower types.
    fn int(&mut self, i: &'a Instruction<'a>, ty: PtxType, n: usize, op: IntOp, lane: LaneFn) -> Result<()> {
        match ty.bits() {
            32 | 64 => self.vector(i, ty, n, op),
            bits => self.lane_function(i, ty, n, lane, int::mode(bits, ty.signed())),
        }
    }

    pub(super) fn lane_function(
        &mut self,
        i: &'a Instruction<'a>,
        ty: PtxType,
        n: usize,
        f: LaneFn,
        mode: u32,
    ) -> Result<()> {
        let (d, s) = self.dst_and_sources(i, ty.class(), n)?;
        self.emit(Opcode::Lanes(f, mode, TaintFlow::All), &[d], &s, 0)
    }

    /// Emits a lane function that moves bits of its first `moved` operands.
    fn moving(
        &mut self,
        i: &'a Instruction<'a>,
        ty: PtxType,
        (n, moved): (usize, u8),
        f: LaneFn,
        mode: u32,
    ) -> Result<()> {
        let (d, s) = self.dst_and_sources(i, ty.class(), n)?;
        self.emit(Opcode::Lanes(f, mode, TaintFlow::Moved(moved)), &[d], &s, 0)
    }

    /// Emits a lane function with a 32-bit result: a bit position or count.
    fn counting(&mut self, i: &'a Instruction<'a>, ty: PtxType, f: LaneFn, mode: u32) -> Result<()> {
        let [d, a] = self.operands(i)?;
        let a = self.source(a, ty.class())?;
        let d = self.destination(d, B32)?;
        self.emit(Opcode::Lanes(f, mode, TaintFlow::All), &[d], &[a], 0)
    }

    fn logic(&mut self, root: &str, i: &'a Instruction<'a>) -> Result<()> {
        let mut m = Modifiers::of(i);
        only_type(&mut m, i)?;
        let (op, n) = match root {
            "and" => (PredicateOp::And, 2),
            "or" => (PredicateOp::Or, 2),
            "xor" => (PredicateOp::Xor, 2),
            _ => (PredicateOp::Not, 1),
        };
        let (d, s) = self.dst_and_sources(i, Predicate, n)?;
        self.emit(Opcode::Logic(op), &[d], &s, 0)
    }

    fn add(&mut self, root: &str, i: &'a Instruction<'a>) -> Result<()> {
        let mut m = Modifiers::of(i);
        let ty = m.take_type()?;
        let (write, read) = (m.take("cc"), root.ends_with('c'));
        let saturate = m.take("sat");
        m.expect_none_left(i)?;
        let subtract = root.starts_with("sub");
        if read || write {
            if saturate || ty.bits() < 32 {
                return Err(unsupported(i));
            }
            let (d, s) = self.dst_and_sources(i, ty.class(), 2)?;
            let double = ty.class() == B64;
            return self.emit(Opcode::Carry { subtract, read, write, double }, &[d], &s, 0);
        }
        match (saturate, subtract) {
            (true, _) if ty != PtxType::Int(32, true) => Err(unsupported(i)),
            (true, false) => self.lane_function(i, ty, 2, int::add_sat, 0),
            (true, true) => self.lane_function(i, ty, 2, int::sub_sat, 0),
            (false, false) => self.int(i, ty, 2, IntOp::Add, int::add),
            (false, true) => self.int(i, ty, 2, IntOp::Sub, int::sub),
        }
    }

    fn multiply(&mut self, root: &str, i: &'a Instruction<'a>) -> Result<()> {
        let mut m = Modifiers::of(i);
        let ty = m.take_type()?;
        let half = m.take_one_of(&[("lo", 'l'), ("hi", 'h'), ("wide", 'w')]);
        m.expect_none_left(i)?;
        let add = root.starts_with("mad");
        let n = 2 + add as usize;
        let mode = int::mode(ty.bits(), ty.signed());
        match (half, root.ends_with("24")) {
            (Some('l'), true) if ty.bits() == 32 => {
                self.lane_function(i, ty, n, if add { int::mad24_lo } else { int::mul24_lo }, mode)
            }
            (_, true) => Err(unsupported(i)),
            (Some('l'), false) if add => self.int(i, ty, 3, IntOp::Mad, int::mad_lo),
            (Some('l'), false) => self.int(i, ty, 2, IntOp::Mul, int::mul_lo),
            (Some('h'), false) => {
                self.lane_function(i, ty, n, if add { int::mad_hi } else { int::mul_hi }, mode)
            }
            (Some('w'), false) => self.multiply_wide(i, ty, add),
            _ => Err(unsupported(i)),
        }
    }

    fn multiply_wide(&mut self, i: &'a Instruction<'a>, ty: PtxType, add: bool) -> Result<()> {
        let wide = match ty.bits() {
            16 => B32,
            32 => B64,
            _ => return Err(unsupported(i)),
        };
        if i.operands.len() != 3 + add as usize {
            return Err(self.error(format!("'{}' has the wrong number of operands", i.opcode.join("."))));
        }
        let mut s = vec![self.source(&i.operands[1], B32)?, self.source(&i.operands[2], B32)?];
        if add {
            s.push(self.source(&i.operands[3], wide)?);
        }
        let d = self.destination(&i.operands[0], wide)?;
        let mode = int::mode(16, ty.signed());
        let op = match (wide, add) {
            (B32, false) => Opcode::Lanes(int::mul_wide16, mode, TaintFlow::All),
            (B32, true) => Opcode::Lanes(int::mad_wide16, mode, TaintFlow::All),
            (_, false) => Opcode::MulWide(ty.signed()),
            (_, true) => Opcode::MadWide(ty.signed()),
        };
        self.emit(op, &[d], &s, 0)
    }

    fn shift(&mut self, root: &str, i: &'a Instruction<'a>) -> Result<()> {
        let mut m = Modifiers::of(i);
        let ty = m.take_type()?;
        m.expect_none_left(i)?;
        let [d, a, b] = self.operands(i)?;
        let (a, b) = (self.source(a, ty.class())?, self.source(b, B32)?);
        let d = self.destination(d, ty.class())?;
        let op = match (root, ty.bits(), ty.signed()) {
            ("shl", 16, _) => Opcode::Lanes(int::shl16, 0, TaintFlow::Moved(1)),
            (_, 16, signed) => Opcode::Lanes(int::shr16, int::mode(16, signed), TaintFlow::Moved(1)),
            ("shl", 32, _) => Opcode::Shl32,
            ("shl", 64, _) => Opcode::Shl64,
            (_, 32, false) => Opcode::ShrU32,
            (_, 32, true) => Opcode::ShrS32,
            (_, 64, false) => Opcode::ShrU64,
            (_, 64, true) => Opcode::ShrS64,
            _ => return Err(unsupported(i)),
        };
        self.emit(op, &[d], &[a, b], 0)
    }

    fn funnel(&mut self, i: &'a Instruction<'a>) -> Result<()> {
        let mut m = Modifiers::of(i);
        let ty = m.take_type()?;
        let left = m.take_one_of(&[("l", true), ("r", false)]).ok_or_else(|| unsupported(i))?;
        let mode = m.take_one_of(&[("wrap", int::WRAP), ("clamp", 0)]).ok_or_else(|| unsupported(i))?;
        m.expect_none_left(i)?;
        self.moving(i, ty, (3, 2), if left { int::shf_left } else { int::shf_right }, mode)
    }

    fn lop3(&mut self, i: &'a Instruction<'a>) -> Result<()> {
        let mut m = Modifiers::of(i);
        only_type(&mut m, i)?;
        let [d, a, b, c, table] = self.operands(i)?;
        let Operand::Int(table) = *table else { return Err(self.error("lop3 needs a constant table")) };
        let s = [a, b, c].map(|o| self.source(o, B32));
        let [a, b, c] = s;
        let d = self.destination(d, B32)?;
        self.emit(Opcode::Lop3(table as u8), &[d], &[a?, b?, c?], 0)
    }

    fn dp4a(&mut self, i: &'a Instruction<'a>) -> Result<()> {
        let mut m = Modifiers::of(i);
        let (b, a) = (m.take_type()?, m.take_type()?);
        m.expect_none_left(i)?;
        self.lane_function(
            i,
            PtxType::Int(32, true),
            3,
            int::dp4a,
            a.signed() as u32 | (b.signed() as u32) << 1,
        )
    }

    /// Lowers `bfe d, a, pos, len` and `bfi d, a, b, pos, len`: values of the type, 32-bit position and length.
    fn field(&mut self, root: &str, i: &'a Instruction<'a>) -> Result<()> {
        let mut m = Modifiers::of(i);
        let ty = m.take_type()?;
        m.expect_none_left(i)?;
        let values = if root == "bfe" { 1 } else { 2 };
        if i.operands.len() != values + 3 {
            return Err(self.error(format!("'{root}' takes {} operands", values + 3)));
        }
        let mut s = Vec::new();
        for (k, o) in i.operands[1..].iter().enumerate() {
            s.push(self.source(o, if k < values { ty.class() } else { B32 })?);
        }
        let d = self.destination(&i.operands[0], ty.class())?;
        let f = if root == "bfe" { int::bfe } else { int::bfi };
        self.emit(
            Opcode::Lanes(f, int::mode(ty.bits(), ty.signed()), TaintFlow::Moved(values as u8)),
            &[d],
            &s,
            0,
        )
    }
}

/// Checks that the type is the only modifier.
fn only_type(m: &mut Modifiers<'_>, i: &Instruction<'_>) -> Result<()> {
    m.take_type()?;
    m.expect_none_left(i)
}
