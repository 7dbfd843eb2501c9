//! Floating-point arithmetic, approximations, comparisons and selections.

use super::builder::{Builder, VirtualOperand};
use super::modifiers::{Modifiers, PtxType, unsupported};
use crate::error::Result;
use crate::inst::RegisterClass::{B32, B64, Predicate};
use crate::inst::{BoolOp, CmpOp, CmpType, FloatOp, LaneFn, Opcode, PredicateOp, TaintFlow};
use crate::lane::float::{self, FTZ, NAN, RELU, SAT, XOR_SIGN};
use crate::lane::half::{self, MODE_BF16, PACKED};
use crate::lane::int;
use crate::lane::round::Rounding;
use crate::ptx::{Instruction, Operand};

impl<'a> Builder<'a> {
    /// Lowers a floating-point instruction or a comparison. Returns false for other opcodes.
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
        let ty = m.take_type()?;
        let (mode, approximate) = float_modifiers(root, &mut m).ok_or_else(|| unsupported(i))?;
        m.expect_none_left(i)?;
        let n = match root {
            "fma" | "mad" => 3,
            "add" | "sub" | "mul" | "div" | "min" | "max" | "copysign" => 2,
            _ => 1,
        };
        match ty {
            PtxType::F32 => {
                if let Some(op) = inner_loop(root, mode) {
                    let (d, s) = self.dst_and_sources(i, B32, n)?;
                    return self.emit(Opcode::Float(op, mode & FTZ != 0), &[d], &s, 0);
                }
                let f = lane32(root).ok_or_else(|| unsupported(i))?;
                self.lane_function(i, ty, n, f, mode)
            }
            PtxType::F64 => {
                let f = lane64(root, approximate).filter(|_| mode & 7 == 0).ok_or_else(|| unsupported(i))?;
                self.lane_function(i, ty, n, f, mode)
            }
            PtxType::F16 | PtxType::F16x2 | PtxType::Bf16 | PtxType::Bf16x2 => {
                let f = lane16(root).ok_or_else(|| unsupported(i))?;
                let is_bf16 = if matches!(ty, PtxType::Bf16 | PtxType::Bf16x2) { MODE_BF16 } else { 0 };
                let packed = if ty.bits() == 32 { PACKED } else { 0 };
                // For bf16 `.ftz` exists on ex2 only, where flushing cannot change the rounded result.
                let mode = if is_bf16 != 0 { mode & !FTZ } else { mode };
                let (d, s) = self.dst_and_sources(i, B32, n)?;
                let taint_flow = if packed != 0 { TaintFlow::Halves } else { TaintFlow::All };
                self.emit(Opcode::Lanes(f, mode | is_bf16 | packed, taint_flow), &[d], &s, 0)
            }
            _ => Err(unsupported(i)),
        }
    }

    fn testp(&mut self, i: &'a Instruction<'a>) -> Result<()> {
        let mut m = Modifiers::of(i);
        let ty = m.take_type()?;
        let tests = [
            ("finite", 0),
            ("infinite", 1),
            ("number", 2),
            ("notanumber", 3),
            ("normal", 4),
            ("subnormal", 5),
        ];
        let test = m.take_one_of(&tests).ok_or_else(|| unsupported(i))?;
        m.expect_none_left(i)?;
        let f: LaneFn = match ty {
            PtxType::F32 => float::testp,
            PtxType::F64 => float::testp64,
            _ => return Err(unsupported(i)),
        };
        let [d, a] = self.operands(i)?;
        let a = self.source(a, ty.class())?;
        let d = self.destination(d, Predicate)?;
        self.emit(Opcode::Lanes(f, test, TaintFlow::All), &[d], &[a], 0)
    }

    /// Parses the comparison of `setp` and `set`: types, comparison, Boolean operator and `.ftz`.
    fn comparison(
        &mut self,
        m: &mut Modifiers<'a>,
        i: &'a Instruction<'a>,
    ) -> Result<(CmpType, CmpOp, BoolOp, bool)> {
        let ty = m.take_type()?;
        let cmp = m.take_one_of(&[
            ("eq", CmpOp::Eq),
            ("ne", CmpOp::Ne),
            ("lt", CmpOp::Lt),
            ("le", CmpOp::Le),
            ("gt", CmpOp::Gt),
            ("ge", CmpOp::Ge),
            ("lo", CmpOp::Lt),
            ("ls", CmpOp::Le),
            ("hi", CmpOp::Gt),
            ("hs", CmpOp::Ge),
            ("equ", CmpOp::Equ),
            ("neu", CmpOp::Neu),
            ("ltu", CmpOp::Ltu),
            ("leu", CmpOp::Leu),
            ("gtu", CmpOp::Gtu),
            ("geu", CmpOp::Geu),
            ("num", CmpOp::Num),
            ("nan", CmpOp::Nan),
        ]);
        let cmp = cmp.ok_or_else(|| unsupported(i))?;
        let bool_op = m
            .take_one_of(&[("and", BoolOp::And), ("or", BoolOp::Or), ("xor", BoolOp::Xor)])
            .unwrap_or(BoolOp::None);
        let ftz = m.take("ftz");
        let kind = match ty {
            PtxType::Int(64, false) => CmpType::U64,
            PtxType::Int(64, true) => CmpType::S64,
            PtxType::Int(_, false) => CmpType::U32,
            PtxType::Int(32, true) => CmpType::S32,
            // Sign-extended before the comparison.
            PtxType::Int(_, true) => CmpType::S32,
            PtxType::F32 => CmpType::F32,
            PtxType::F64 => CmpType::F64,
            PtxType::F16 => CmpType::F16,
            PtxType::Bf16 => CmpType::Bf16,
            _ => return Err(unsupported(i)),
        };
        if ty.is_int()
            && !matches!(cmp, CmpOp::Eq | CmpOp::Ne | CmpOp::Lt | CmpOp::Le | CmpOp::Gt | CmpOp::Ge)
        {
            return Err(unsupported(i));
        }
        Ok((kind, cmp, bool_op, ftz))
    }

    /// Lowers an operand of a comparison; narrow signed integers are sign-extended first.
    fn compared(&mut self, o: &Operand<'a>, ty: PtxType) -> Result<VirtualOperand> {
        let a = self.source(o, ty.class())?;
        if ty != PtxType::Int(16, true) {
            return Ok(a);
        }
        let fresh = self.fresh_register(B32);
        self.emit(
            Opcode::Lanes(int::mul_wide16, int::mode(16, true), TaintFlow::All),
            &[fresh],
            &[a, VirtualOperand::B32(1)],
            0,
        )?;
        Ok(fresh)
    }

    fn setp(&mut self, i: &'a Instruction<'a>) -> Result<()> {
        let mut m = Modifiers::of(i);
        let ty = m.peek_last().and_then(PtxType::parse).ok_or_else(|| unsupported(i))?;
        let (kind, cmp, bool_op, ftz) = self.comparison(&mut m, i)?;
        m.expect_none_left(i)?;
        let combined = bool_op != BoolOp::None;
        if i.operands.len() != 3 + combined as usize {
            return Err(self.error("setp has the wrong number of operands"));
        }
        let mut s = vec![self.compared(&i.operands[1], ty)?, self.compared(&i.operands[2], ty)?];
        if combined {
            s.push(self.source(&i.operands[3], Predicate)?);
        }
        let d = match i.operands[0] {
            Operand::Pair(p, q) => vec![
                self.destination(&Operand::Name(p), Predicate)?,
                self.destination(&Operand::Name(q), Predicate)?,
            ],
            ref p => vec![self.destination(p, Predicate)?],
        };
        self.emit(Opcode::Setp(kind, cmp, bool_op, ftz), &d, &s, 0)
    }

    /// Lowers `set`: the result of the comparison as all ones or zero, or as 1.0f or zero.
    fn set(&mut self, i: &'a Instruction<'a>) -> Result<()> {
        let mut m = Modifiers::of(i);
        let ty = m.peek_last().and_then(PtxType::parse).ok_or_else(|| unsupported(i))?;
        let (kind, cmp, bool_op, ftz) = self.comparison(&mut m, i)?;
        let to = m.take_type()?;
        m.expect_none_left(i)?;
        let combined = bool_op != BoolOp::None;
        if i.operands.len() != 3 + combined as usize {
            return Err(self.error("set has the wrong number of operands"));
        }
        let mut s = vec![self.compared(&i.operands[1], ty)?, self.compared(&i.operands[2], ty)?];
        if combined {
            s.push(self.source(&i.operands[3], Predicate)?);
        }
        let truth = match to {
            PtxType::Int(32, _) => u32::MAX,
            PtxType::F32 => 1f32.to_bits(),
            _ => return Err(unsupported(i)),
        };
        let p = self.fresh_register(Predicate);
        self.emit(Opcode::Setp(kind, cmp, bool_op, ftz), &[p], &s, 0)?;
        let d = self.destination(&i.operands[0], B32)?;
        self.emit(Opcode::Selp32, &[d], &[VirtualOperand::B32(truth), VirtualOperand::B32(0), p], 0)
    }

    fn selp(&mut self, i: &'a Instruction<'a>) -> Result<()> {
        let mut m = Modifiers::of(i);
        let ty = m.take_type()?;
        m.expect_none_left(i)?;
        let [d, a, b, p] = self.operands(i)?;
        let s = [self.source(a, ty.class())?, self.source(b, ty.class())?, self.source(p, Predicate)?];
        let d = self.destination(d, ty.class())?;
        match ty.class() {
            B32 => self.emit(Opcode::Selp32, &[d], &s, 0),
            B64 => self.emit(Opcode::Selp64, &[d], &s, 0),
            Predicate => Err(unsupported(i)),
        }
    }

    /// Lowers `slct.t.s32|f32 d, a, b, c`: a where c >= 0, else b.
    fn slct(&mut self, i: &'a Instruction<'a>) -> Result<()> {
        let mut m = Modifiers::of(i);
        let (by, ty) = (m.take_type()?, m.take_type()?);
        let ftz = m.take("ftz");
        m.expect_none_left(i)?;
        let [d, a, b, c] = self.operands(i)?;
        let kind = match by {
            PtxType::Int(32, true) => CmpType::S32,
            PtxType::F32 => CmpType::F32,
            _ => return Err(unsupported(i)),
        };
        let (a, b, c) = (self.source(a, ty.class())?, self.source(b, ty.class())?, self.source(c, B32)?);
        let p = self.fresh_register(Predicate);
        self.emit(Opcode::Setp(kind, CmpOp::Ge, BoolOp::None, ftz), &[p], &[c, VirtualOperand::B32(0)], 0)?;
        let d = self.destination(d, ty.class())?;
        let op = if ty.class() == B64 { Opcode::Selp64 } else { Opcode::Selp32 };
        self.emit(op, &[d], &[a, b, p], 0)
    }

    /// Lowers `mov.pred`.
    pub(super) fn move_predicate(&mut self, i: &'a Instruction<'a>) -> Result<()> {
        let (d, s) = self.dst_and_sources(i, Predicate, 1)?;
        self.emit(Opcode::Logic(PredicateOp::Mov), &[d], &s, 0)
    }
}

/// Takes the modifiers that an operation may have. Returns their mode bits and true for an approximation; `None` where
/// a required one is missing. Modifiers that it may not have are left in `m`.
fn float_modifiers(root: &str, m: &mut Modifiers<'_>) -> Option<(u32, bool)> {
    let mut take_flags = |words: &[(&str, u32)]| -> u32 {
        words.iter().filter(|(word, _)| m.take(word)).fold(0, |mode, (_, bit)| mode | bit)
    };
    let mode = match root {
        "add" | "sub" | "mul" | "fma" | "mad" => {
            let flags = take_flags(&[("ftz", FTZ), ("sat", SAT), ("relu", RELU)]);
            flags | m.take_rounding().map_or(0, float::mode)
        }
        "min" | "max" => {
            let signs = take_flags(&[("xorsign", XOR_SIGN)]);
            if signs != 0 && take_flags(&[("abs", 1)]) == 0 {
                return None;
            }
            signs | take_flags(&[("ftz", FTZ), ("NaN", NAN)])
        }
        "neg" | "abs" => take_flags(&[("ftz", FTZ)]),
        "copysign" => 0,
        _ => {
            let flags = take_flags(&[("ftz", FTZ), ("sat", SAT)]);
            let approximate = m.take("approx") || root == "div" && m.take("full");
            let exact = matches!(root, "div" | "rcp" | "sqrt");
            return match (m.take_rounding(), approximate) {
                (Some(rounding), false) if exact => Some((flags | float::mode(rounding), false)),
                (None, true) => Some((flags, true)),
                _ => None,
            };
        }
    };
    Some((mode, false))
}

/// Returns the vector form of an f32 operation with no modifier but `.ftz` and, of `fma`, `.rm`.
fn inner_loop(root: &str, mode: u32) -> Option<FloatOp> {
    if mode & !FTZ != 0 {
        let down = matches!(root, "fma" | "mad") && mode & !FTZ == float::mode(Rounding::Down);
        return down.then_some(FloatOp::FmaDown);
    }
    Some(match root {
        "add" => FloatOp::Add,
        "sub" => FloatOp::Sub,
        "mul" => FloatOp::Mul,
        "fma" | "mad" => FloatOp::Fma,
        "min" => FloatOp::Min,
        "max" => FloatOp::Max,
        "neg" => FloatOp::Neg,
        "abs" => FloatOp::Abs,
        "ex2" => FloatOp::Ex2,
        "lg2" => FloatOp::Lg2,
        "div" => FloatOp::Div,
        "rcp" => FloatOp::Rcp,
        "sqrt" => FloatOp::Sqrt,
        "rsqrt" => FloatOp::Rsqrt,
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
