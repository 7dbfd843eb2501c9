//! Floating-point arithmetic, approximations, comparisons and selections.

use super::builder::{Arg, Builder};
use super::modifiers::{Modifiers, Ty, unknown};
use crate::error::Result;
use crate::inst::{Class, Cmp, CmpType, Float, Join, LaneFn, Logic, Moves, Op};
use crate::lane::float::{self, FTZ, NAN, RELU, SAT, XOR_SIGN};
use crate::lane::half::{self, BRAIN, PACKED};
use crate::lane::int;
use crate::ptx::{Instruction, Operand};

impl<'a> Builder<'a> {
    /// Lowers a floating-point instruction or a comparison; false when the opcode is neither.
    pub(super) fn float(&mut self, root: &str, i: &'a Instruction<'a>) -> Result<bool> {
        match root {
            "add" | "sub" | "mul" | "fma" | "mad" | "min" | "max" | "neg" | "abs" | "div" | "rcp"
            | "sqrt" | "rsqrt" | "sin" | "cos" | "lg2" | "ex2" | "tanh" | "copysign" => {
                self.float_arithmetic(root, i)?
            }
            "testp" => self.testp(i)?,
            "setp" => self.setp(i)?,
            "set" => self.set(i)?,
            "selp" => self.selp(i)?,
            "slct" => self.slct(i)?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn float_arithmetic(&mut self, root: &str, i: &'a Instruction<'a>) -> Result<()> {
        let mut m = Modifiers::of(i);
        let ty = m.ty()?;
        let (mode, approximate) = float_modifiers(root, &mut m).ok_or_else(|| unknown(i))?;
        m.finish(i)?;
        let n = match root {
            "fma" | "mad" => 3,
            "add" | "sub" | "mul" | "div" | "min" | "max" | "copysign" => 2,
            _ => 1,
        };
        match ty {
            Ty::F32 => {
                if let Some(op) = inner_loop(root, mode) {
                    let (d, s) = self.same(i, Class::Word, n)?;
                    return self.emit(Op::Float(op, mode & FTZ != 0), &[d], &s, 0);
                }
                let f = lane32(root).ok_or_else(|| unknown(i))?;
                self.lanes(i, ty, n, f, mode)
            }
            Ty::F64 => {
                let f = lane64(root, approximate).filter(|_| mode & 7 == 0).ok_or_else(|| unknown(i))?;
                self.lanes(i, ty, n, f, mode)
            }
            Ty::F16 | Ty::F16x2 | Ty::Bf16 | Ty::Bf16x2 => {
                let f = lane16(root).ok_or_else(|| unknown(i))?;
                let brain = if matches!(ty, Ty::Bf16 | Ty::Bf16x2) { BRAIN } else { 0 };
                let packed = if ty.bits() == 32 { PACKED } else { 0 };
                // For bf16 `.ftz` exists on ex2 only, where flushing cannot change the rounded result.
                let mode = if brain != 0 { mode & !FTZ } else { mode };
                let (d, s) = self.same(i, Class::Word, n)?;
                let moves = if packed != 0 { Moves::Halves } else { Moves::Mix };
                self.emit(Op::Lanes(f, mode | brain | packed, moves), &[d], &s, 0)
            }
            _ => Err(unknown(i)),
        }
    }

    fn testp(&mut self, i: &'a Instruction<'a>) -> Result<()> {
        let mut m = Modifiers::of(i);
        let ty = m.ty()?;
        let tests = [
            ("finite", 0),
            ("infinite", 1),
            ("number", 2),
            ("notanumber", 3),
            ("normal", 4),
            ("subnormal", 5),
        ];
        let test = m.one_of(&tests).ok_or_else(|| unknown(i))?;
        m.finish(i)?;
        let f: LaneFn = match ty {
            Ty::F32 => float::testp,
            Ty::F64 => float::testp64,
            _ => return Err(unknown(i)),
        };
        let [d, a] = self.operands(i)?;
        let a = self.arg(a, ty.class())?;
        let d = self.destination(d, Class::Predicate)?;
        self.emit(Op::Lanes(f, test, Moves::Mix), &[d], &[a], 0)
    }

    /// The comparison of `setp` and `set`, its join and its `.ftz`.
    fn comparison(
        &mut self,
        m: &mut Modifiers<'a>,
        i: &'a Instruction<'a>,
    ) -> Result<(CmpType, Cmp, Join, bool)> {
        let ty = m.ty()?;
        let cmp = m.one_of(&[
            ("eq", Cmp::Eq),
            ("ne", Cmp::Ne),
            ("lt", Cmp::Lt),
            ("le", Cmp::Le),
            ("gt", Cmp::Gt),
            ("ge", Cmp::Ge),
            ("lo", Cmp::Lt),
            ("ls", Cmp::Le),
            ("hi", Cmp::Gt),
            ("hs", Cmp::Ge),
            ("equ", Cmp::Equ),
            ("neu", Cmp::Neu),
            ("ltu", Cmp::Ltu),
            ("leu", Cmp::Leu),
            ("gtu", Cmp::Gtu),
            ("geu", Cmp::Geu),
            ("num", Cmp::Num),
            ("nan", Cmp::Nan),
        ]);
        let cmp = cmp.ok_or_else(|| unknown(i))?;
        let join =
            m.one_of(&[("and", Join::And), ("or", Join::Or), ("xor", Join::Xor)]).unwrap_or(Join::None);
        let ftz = m.take("ftz");
        let kind = match ty {
            Ty::Int(64, false) => CmpType::U64,
            Ty::Int(64, true) => CmpType::S64,
            Ty::Int(_, false) => CmpType::U32,
            Ty::Int(32, true) => CmpType::S32,
            // Sign-extended before the comparison.
            Ty::Int(_, true) => CmpType::S32,
            Ty::F32 => CmpType::F32,
            Ty::F64 => CmpType::F64,
            Ty::F16 => CmpType::F16,
            Ty::Bf16 => CmpType::Bf16,
            _ => return Err(unknown(i)),
        };
        if ty.is_int() && !matches!(cmp, Cmp::Eq | Cmp::Ne | Cmp::Lt | Cmp::Le | Cmp::Gt | Cmp::Ge) {
            return Err(unknown(i));
        }
        Ok((kind, cmp, join, ftz))
    }

    /// A comparison operand; narrow signed integers are sign-extended first.
    fn compared(&mut self, o: &Operand<'a>, ty: Ty) -> Result<Arg> {
        let a = self.arg(o, ty.class())?;
        if ty != Ty::Int(16, true) {
            return Ok(a);
        }
        let fresh = self.fresh(Class::Word);
        self.emit(
            Op::Lanes(int::mul_wide16, int::mode(16, true), Moves::Mix),
            &[fresh],
            &[a, Arg::Word(1)],
            0,
        )?;
        Ok(fresh)
    }

    fn setp(&mut self, i: &'a Instruction<'a>) -> Result<()> {
        let mut m = Modifiers::of(i);
        let ty = m.peek_last().and_then(Ty::parse).ok_or_else(|| unknown(i))?;
        let (kind, cmp, join, ftz) = self.comparison(&mut m, i)?;
        m.finish(i)?;
        let joined = join != Join::None;
        if i.operands.len() != 3 + joined as usize {
            return Err(self.error("setp has the wrong number of operands"));
        }
        let mut s = vec![self.compared(&i.operands[1], ty)?, self.compared(&i.operands[2], ty)?];
        if joined {
            s.push(self.arg(&i.operands[3], Class::Predicate)?);
        }
        let d = match i.operands[0] {
            Operand::Pair(p, q) => vec![
                self.destination(&Operand::Name(p), Class::Predicate)?,
                self.destination(&Operand::Name(q), Class::Predicate)?,
            ],
            ref p => vec![self.destination(p, Class::Predicate)?],
        };
        self.emit(Op::Setp(kind, cmp, join, ftz), &d, &s, 0)
    }

    /// `set`: the comparison's truth as all ones or zero, or as 1.0f or zero.
    fn set(&mut self, i: &'a Instruction<'a>) -> Result<()> {
        let mut m = Modifiers::of(i);
        let ty = m.peek_last().and_then(Ty::parse).ok_or_else(|| unknown(i))?;
        let (kind, cmp, join, ftz) = self.comparison(&mut m, i)?;
        let to = m.ty()?;
        m.finish(i)?;
        let joined = join != Join::None;
        if i.operands.len() != 3 + joined as usize {
            return Err(self.error("set has the wrong number of operands"));
        }
        let mut s = vec![self.compared(&i.operands[1], ty)?, self.compared(&i.operands[2], ty)?];
        if joined {
            s.push(self.arg(&i.operands[3], Class::Predicate)?);
        }
        let truth = match to {
            Ty::Int(32, _) => u32::MAX,
            Ty::F32 => 1f32.to_bits(),
            _ => return Err(unknown(i)),
        };
        let p = self.fresh(Class::Predicate);
        self.emit(Op::Setp(kind, cmp, join, ftz), &[p], &s, 0)?;
        let d = self.destination(&i.operands[0], Class::Word)?;
        self.emit(Op::Selp32, &[d], &[Arg::Word(truth), Arg::Word(0), p], 0)
    }

    fn selp(&mut self, i: &'a Instruction<'a>) -> Result<()> {
        let mut m = Modifiers::of(i);
        let ty = m.ty()?;
        m.finish(i)?;
        let [d, a, b, p] = self.operands(i)?;
        let s = [self.arg(a, ty.class())?, self.arg(b, ty.class())?, self.arg(p, Class::Predicate)?];
        let d = self.destination(d, ty.class())?;
        match ty.class() {
            Class::Word => self.emit(Op::Selp32, &[d], &s, 0),
            Class::Double => self.emit(Op::Selp64, &[d], &s, 0),
            Class::Predicate => Err(unknown(i)),
        }
    }

    /// `slct.t.s32|f32 d, a, b, c`: a where c >= 0.
    fn slct(&mut self, i: &'a Instruction<'a>) -> Result<()> {
        let mut m = Modifiers::of(i);
        let (by, ty) = (m.ty()?, m.ty()?);
        let ftz = m.take("ftz");
        m.finish(i)?;
        let [d, a, b, c] = self.operands(i)?;
        let kind = match by {
            Ty::Int(32, true) => CmpType::S32,
            Ty::F32 => CmpType::F32,
            _ => return Err(unknown(i)),
        };
        let (a, b, c) = (self.arg(a, ty.class())?, self.arg(b, ty.class())?, self.arg(c, Class::Word)?);
        let p = self.fresh(Class::Predicate);
        self.emit(Op::Setp(kind, Cmp::Ge, Join::None, ftz), &[p], &[c, Arg::Word(0)], 0)?;
        let d = self.destination(d, ty.class())?;
        let op = if ty.class() == Class::Double { Op::Selp64 } else { Op::Selp32 };
        self.emit(op, &[d], &[a, b, p], 0)
    }

    /// `mov.pred`.
    pub(super) fn move_predicate(&mut self, i: &'a Instruction<'a>) -> Result<()> {
        let (d, s) = self.same(i, Class::Predicate, 1)?;
        self.emit(Op::Logic(Logic::Mov), &[d], &s, 0)
    }
}

/// The mode bits of the modifiers that an operation may have, and whether it is approximate; `None` where one is
/// missing. What it may not have is left in place.
fn float_modifiers(root: &str, m: &mut Modifiers<'_>) -> Option<(u32, bool)> {
    let mut flags = |words: &[(&str, u32)]| -> u32 {
        words.iter().filter(|(word, _)| m.take(word)).fold(0, |mode, (_, bit)| mode | bit)
    };
    let mode = match root {
        "add" | "sub" | "mul" | "fma" | "mad" => {
            let flags = flags(&[("ftz", FTZ), ("sat", SAT), ("relu", RELU)]);
            flags | m.rounding().map_or(0, float::mode)
        }
        "min" | "max" => {
            let signs = flags(&[("xorsign", XOR_SIGN)]);
            if signs != 0 && flags(&[("abs", 1)]) == 0 {
                return None;
            }
            signs | flags(&[("ftz", FTZ), ("NaN", NAN)])
        }
        "neg" | "abs" => flags(&[("ftz", FTZ)]),
        "copysign" => 0,
        _ => {
            let flags = flags(&[("ftz", FTZ), ("sat", SAT)]);
            let approximate = m.take("approx") || root == "div" && m.take("full");
            let exact = matches!(root, "div" | "rcp" | "sqrt");
            return match (m.rounding(), approximate) {
                (Some(rounding), false) if exact => Some((flags | float::mode(rounding), false)),
                (None, true) => Some((flags, true)),
                _ => None,
            };
        }
    };
    Some((mode, false))
}

/// The vector form of an f32 operation that rounds to nearest without further ado.
fn inner_loop(root: &str, mode: u32) -> Option<Float> {
    if mode & !FTZ != 0 {
        return None;
    }
    Some(match root {
        "add" => Float::Add,
        "sub" => Float::Sub,
        "mul" => Float::Mul,
        "fma" | "mad" => Float::Fma,
        "min" => Float::Min,
        "max" => Float::Max,
        "neg" => Float::Neg,
        "abs" => Float::Abs,
        _ => return None,
    })
}

fn lane32(root: &str) -> Option<LaneFn> {
    Some(match root {
        "add" => float::add,
        "sub" => float::sub,
        "mul" => float::mul,
        "fma" | "mad" => float::fma,
        "min" => float::min,
        "max" => float::max,
        "neg" => float::neg,
        "abs" => float::abs,
        "div" => float::div,
        "rcp" => float::rcp,
        "sqrt" => float::sqrt,
        "rsqrt" => float::rsqrt,
        "sin" => float::sin,
        "cos" => float::cos,
        "lg2" => float::lg2,
        "ex2" => float::ex2,
        "tanh" => float::tanh,
        "copysign" => float::copysign,
        _ => return None,
    })
}

fn lane64(root: &str, approximate: bool) -> Option<LaneFn> {
    Some(match (root, approximate) {
        ("rcp", true) => float::rcp64_approx,
        ("rsqrt", true) => float::rsqrt64_approx,
        (_, true) => return None,
        ("add", _) => float::add64,
        ("sub", _) => float::sub64,
        ("mul", _) => float::mul64,
        ("fma" | "mad", _) => float::fma64,
        ("min", _) => float::min64,
        ("max", _) => float::max64,
        ("neg", _) => float::neg64,
        ("abs", _) => float::abs64,
        ("div", _) => float::div64,
        ("rcp", _) => float::rcp64,
        ("sqrt", _) => float::sqrt64,
        ("copysign", _) => float::copysign64,
        _ => return None,
    })
}

fn lane16(root: &str) -> Option<LaneFn> {
    Some(match root {
        "add" => half::add,
        "sub" => half::sub,
        "mul" => half::mul,
        "fma" => half::fma,
        "min" => half::min,
        "max" => half::max,
        "neg" => half::neg,
        "abs" => half::abs,
        "ex2" => half::ex2,
        "tanh" => half::tanh,
        _ => return None,
    })
}
