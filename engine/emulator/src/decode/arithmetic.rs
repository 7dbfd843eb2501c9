//! Integer arithmetic, bit operations and predicate logic.

use super::builder::{Arg, Builder};
use super::modifiers::{Modifiers, Ty, unknown};
use crate::error::Result;
use crate::inst::{Class, Int, LaneFn, Logic, Moves, Op};
use crate::lane::int;
use crate::ptx::{Instruction, Operand};

impl<'a> Builder<'a> {
    /// Lowers an integer instruction; false when the opcode is not one.
    pub(super) fn arithmetic(&mut self, root: &str, i: &'a Instruction<'a>) -> Result<bool> {
        let mut m = Modifiers::of(i);
        let Some(ty) = m.peek_last().and_then(Ty::parse) else { return Ok(false) };
        match (root, ty) {
            ("and" | "or" | "xor" | "not", Ty::Pred) => self.logic(root, i)?,
            ("add" | "sub" | "addc" | "subc", Ty::Int(..)) => self.add(root, i)?,
            ("mul" | "mad" | "mul24" | "mad24", Ty::Int(..)) => self.multiply(root, i)?,
            ("min" | "max", Ty::Int(bits, signed)) => {
                m.ty()?;
                let relu = m.take("relu");
                m.finish(i)?;
                let (vector, lane, with_relu): (Int, LaneFn, LaneFn) = match (root, signed) {
                    ("min", false) => (Int::MinU, int::min, int::min_relu),
                    ("min", true) => (Int::MinS, int::min, int::min_relu),
                    (_, false) => (Int::MaxU, int::max, int::max_relu),
                    (_, true) => (Int::MaxS, int::max, int::max_relu),
                };
                if relu {
                    self.lanes(i, ty, 2, with_relu, int::mode(bits, signed))?;
                } else {
                    self.int(i, ty, 2, vector, lane)?;
                }
            }
            ("and" | "or" | "xor", Ty::Int(..)) => {
                plain(&mut m, i)?;
                let op = match root {
                    "and" => Int::And,
                    "or" => Int::Or,
                    _ => Int::Xor,
                };
                // Zero-extended operands give zero-extended results.
                self.vector(i, ty, 2, op)?;
            }
            ("not", Ty::Int(..)) => {
                plain(&mut m, i)?;
                self.int(i, ty, 1, Int::Not, int::not)?;
            }
            ("neg", Ty::Int(..)) => {
                plain(&mut m, i)?;
                self.int(i, ty, 1, Int::Neg, int::neg)?;
            }
            ("shl" | "shr", Ty::Int(..)) => self.shift(root, i)?,
            ("shf", _) => self.funnel(i)?,
            ("lop3", Ty::Int(32, _)) => self.lop3(i)?,
            ("prmt", Ty::Int(32, _)) => {
                m.ty()?;
                let mode =
                    m.one_of(&[("f4e", 1), ("b4e", 2), ("rc8", 3), ("ecl", 4), ("ecr", 5), ("rc16", 6)]);
                m.finish(i)?;
                self.moving(i, ty, (3, 2), int::prmt, mode.unwrap_or(0))?;
            }
            ("dp4a", _) => self.dp4a(i)?,
            ("bfe" | "bfi", Ty::Int(..)) => self.field(root, i)?,
            ("bfind", Ty::Int(bits, signed)) => {
                m.ty()?;
                let amount = if m.take("shiftamt") { int::SHIFT_AMOUNT } else { 0 };
                m.finish(i)?;
                self.counting(i, ty, int::bfind, int::mode(bits, signed) | amount)?;
            }
            ("popc" | "clz", Ty::Int(bits, _)) => {
                plain(&mut m, i)?;
                let f = if root == "popc" { int::popc } else { int::clz };
                self.counting(i, ty, f, int::mode(bits, false))?;
            }
            ("div" | "rem" | "abs" | "sad" | "brev" | "cnot", Ty::Int(bits, signed)) => {
                plain(&mut m, i)?;
                let (f, n): (LaneFn, usize) = match root {
                    "div" => (int::div, 2),
                    "rem" => (int::rem, 2),
                    "abs" => (int::abs, 1),
                    "sad" => (int::sad, 3),
                    "brev" => (int::brev, 1),
                    _ => (int::cnot, 1),
                };
                self.lanes(i, ty, n, f, int::mode(bits, signed))?;
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Destination and `n` sources, all of the type's class.
    pub(super) fn same(&mut self, i: &'a Instruction<'a>, class: Class, n: usize) -> Result<(Arg, Vec<Arg>)> {
        if i.operands.len() != n + 1 {
            return Err(self.error(format!("'{}' takes {} operands", i.opcode.join("."), n + 1)));
        }
        let sources = i.operands[1..].iter().map(|o| self.arg(o, class)).collect::<Result<Vec<_>>>()?;
        Ok((self.destination(&i.operands[0], class)?, sources))
    }

    fn vector(&mut self, i: &'a Instruction<'a>, ty: Ty, n: usize, op: Int) -> Result<()> {
        let (d, s) = self.same(i, ty.class(), n)?;
        let op = if ty.class() == Class::Double { Op::Int64(op) } else { Op::Int32(op) };
        self.emit(op, &[d], &s, 0)
    }

    /// The vector form for 32 and 64 bits, the lane form for narrower types.
    fn int(&mut self, i: &'a Instruction<'a>, ty: Ty, n: usize, op: Int, lane: LaneFn) -> Result<()> {
        match ty.bits() {
            32 | 64 => self.vector(i, ty, n, op),
            bits => self.lanes(i, ty, n, lane, int::mode(bits, ty.signed())),
        }
    }

    pub(super) fn lanes(
        &mut self,
        i: &'a Instruction<'a>,
        ty: Ty,
        n: usize,
        f: LaneFn,
        mode: u32,
    ) -> Result<()> {
        let (d, s) = self.same(i, ty.class(), n)?;
        self.emit(Op::Lanes(f, mode, Moves::Mix), &[d], &s, 0)
    }

    /// As `lanes`, for a function that moves bits of its first operands.
    fn moving(
        &mut self,
        i: &'a Instruction<'a>,
        ty: Ty,
        (n, moved): (usize, u8),
        f: LaneFn,
        mode: u32,
    ) -> Result<()> {
        let (d, s) = self.same(i, ty.class(), n)?;
        self.emit(Op::Lanes(f, mode, Moves::Bits(moved)), &[d], &s, 0)
    }

    /// One source of the type, a word destination: positions and counts.
    fn counting(&mut self, i: &'a Instruction<'a>, ty: Ty, f: LaneFn, mode: u32) -> Result<()> {
        let [d, a] = self.operands(i)?;
        let a = self.arg(a, ty.class())?;
        let d = self.destination(d, Class::Word)?;
        self.emit(Op::Lanes(f, mode, Moves::Mix), &[d], &[a], 0)
    }

    fn logic(&mut self, root: &str, i: &'a Instruction<'a>) -> Result<()> {
        let mut m = Modifiers::of(i);
        plain(&mut m, i)?;
        let (op, n) = match root {
            "and" => (Logic::And, 2),
            "or" => (Logic::Or, 2),
            "xor" => (Logic::Xor, 2),
            _ => (Logic::Not, 1),
        };
        let (d, s) = self.same(i, Class::Predicate, n)?;
        self.emit(Op::Logic(op), &[d], &s, 0)
    }

    fn add(&mut self, root: &str, i: &'a Instruction<'a>) -> Result<()> {
        let mut m = Modifiers::of(i);
        let ty = m.ty()?;
        let (write, read) = (m.take("cc"), root.ends_with('c'));
        let saturate = m.take("sat");
        m.finish(i)?;
        let subtract = root.starts_with("sub");
        if read || write {
            if saturate || ty.bits() < 32 {
                return Err(unknown(i));
            }
            let (d, s) = self.same(i, ty.class(), 2)?;
            let double = ty.class() == Class::Double;
            return self.emit(Op::Carry { subtract, read, write, double }, &[d], &s, 0);
        }
        match (saturate, subtract) {
            (true, _) if ty != Ty::Int(32, true) => Err(unknown(i)),
            (true, false) => self.lanes(i, ty, 2, int::add_sat, 0),
            (true, true) => self.lanes(i, ty, 2, int::sub_sat, 0),
            (false, false) => self.int(i, ty, 2, Int::Add, int::add),
            (false, true) => self.int(i, ty, 2, Int::Sub, int::sub),
        }
    }

    fn multiply(&mut self, root: &str, i: &'a Instruction<'a>) -> Result<()> {
        let mut m = Modifiers::of(i);
        let ty = m.ty()?;
        let half = m.one_of(&[("lo", 'l'), ("hi", 'h'), ("wide", 'w')]);
        m.finish(i)?;
        let add = root.starts_with("mad");
        let n = 2 + add as usize;
        let mode = int::mode(ty.bits(), ty.signed());
        match (half, root.ends_with("24")) {
            (Some('l'), true) if ty.bits() == 32 => {
                self.lanes(i, ty, n, if add { int::mad24_lo } else { int::mul24_lo }, mode)
            }
            (_, true) => Err(unknown(i)),
            (Some('l'), false) if add => self.int(i, ty, 3, Int::Mad, int::mad_lo),
            (Some('l'), false) => self.int(i, ty, 2, Int::Mul, int::mul_lo),
            (Some('h'), false) => self.lanes(i, ty, n, if add { int::mad_hi } else { int::mul_hi }, mode),
            (Some('w'), false) => self.multiply_wide(i, ty, add),
            _ => Err(unknown(i)),
        }
    }

    fn multiply_wide(&mut self, i: &'a Instruction<'a>, ty: Ty, add: bool) -> Result<()> {
        let wide = match ty.bits() {
            16 => Class::Word,
            32 => Class::Double,
            _ => return Err(unknown(i)),
        };
        if i.operands.len() != 3 + add as usize {
            return Err(self.error(format!("'{}' has the wrong number of operands", i.opcode.join("."))));
        }
        let mut s = vec![self.arg(&i.operands[1], Class::Word)?, self.arg(&i.operands[2], Class::Word)?];
        if add {
            s.push(self.arg(&i.operands[3], wide)?);
        }
        let d = self.destination(&i.operands[0], wide)?;
        let mode = int::mode(16, ty.signed());
        let op = match (wide, add) {
            (Class::Word, false) => Op::Lanes(int::mul_wide16, mode, Moves::Mix),
            (Class::Word, true) => Op::Lanes(int::mad_wide16, mode, Moves::Mix),
            (_, false) => Op::MulWide(ty.signed()),
            (_, true) => Op::MadWide(ty.signed()),
        };
        self.emit(op, &[d], &s, 0)
    }

    fn shift(&mut self, root: &str, i: &'a Instruction<'a>) -> Result<()> {
        let mut m = Modifiers::of(i);
        let ty = m.ty()?;
        m.finish(i)?;
        let [d, a, b] = self.operands(i)?;
        let (a, b) = (self.arg(a, ty.class())?, self.arg(b, Class::Word)?);
        let d = self.destination(d, ty.class())?;
        let op = match (root, ty.bits(), ty.signed()) {
            ("shl", 16, _) => Op::Lanes(int::shl16, 0, Moves::Bits(1)),
            (_, 16, signed) => Op::Lanes(int::shr16, int::mode(16, signed), Moves::Bits(1)),
            ("shl", 32, _) => Op::Shl32,
            ("shl", 64, _) => Op::Shl64,
            (_, 32, false) => Op::ShrU32,
            (_, 32, true) => Op::ShrS32,
            (_, 64, false) => Op::ShrU64,
            (_, 64, true) => Op::ShrS64,
            _ => return Err(unknown(i)),
        };
        self.emit(op, &[d], &[a, b], 0)
    }

    fn funnel(&mut self, i: &'a Instruction<'a>) -> Result<()> {
        let mut m = Modifiers::of(i);
        let ty = m.ty()?;
        let left = m.one_of(&[("l", true), ("r", false)]).ok_or_else(|| unknown(i))?;
        let mode = m.one_of(&[("wrap", int::WRAP), ("clamp", 0)]).ok_or_else(|| unknown(i))?;
        m.finish(i)?;
        self.moving(i, ty, (3, 2), if left { int::shf_left } else { int::shf_right }, mode)
    }

    fn lop3(&mut self, i: &'a Instruction<'a>) -> Result<()> {
        let mut m = Modifiers::of(i);
        plain(&mut m, i)?;
        let [d, a, b, c, table] = self.operands(i)?;
        let Operand::Int(table) = *table else { return Err(self.error("lop3 needs a constant table")) };
        let s = [a, b, c].map(|o| self.arg(o, Class::Word));
        let [a, b, c] = s;
        let d = self.destination(d, Class::Word)?;
        self.emit(Op::Lop3(table as u8), &[d], &[a?, b?, c?], 0)
    }

    fn dp4a(&mut self, i: &'a Instruction<'a>) -> Result<()> {
        let mut m = Modifiers::of(i);
        let (b, a) = (m.ty()?, m.ty()?);
        m.finish(i)?;
        self.lanes(i, Ty::Int(32, true), 3, int::dp4a, a.signed() as u32 | (b.signed() as u32) << 1)
    }

    /// `bfe d, a, pos, len` and `bfi d, a, b, pos, len`: values of the type, position and length words.
    fn field(&mut self, root: &str, i: &'a Instruction<'a>) -> Result<()> {
        let mut m = Modifiers::of(i);
        let ty = m.ty()?;
        m.finish(i)?;
        let values = if root == "bfe" { 1 } else { 2 };
        if i.operands.len() != values + 3 {
            return Err(self.error(format!("'{root}' takes {} operands", values + 3)));
        }
        let mut s = Vec::new();
        for (k, o) in i.operands[1..].iter().enumerate() {
            s.push(self.arg(o, if k < values { ty.class() } else { Class::Word })?);
        }
        let d = self.destination(&i.operands[0], ty.class())?;
        let f = if root == "bfe" { int::bfe } else { int::bfi };
        self.emit(Op::Lanes(f, int::mode(ty.bits(), ty.signed()), Moves::Bits(values as u8)), &[d], &s, 0)
    }
}

/// Nothing but a type.
fn plain(m: &mut Modifiers<'_>, i: &Instruction<'_>) -> Result<()> {
    m.ty()?;
    m.finish(i)
}
