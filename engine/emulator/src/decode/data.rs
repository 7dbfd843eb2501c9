//! Moves, conversions, loads, stores and atomics.

use super::builder::{Arg, Builder};
use super::modifiers::{Modifiers, Ty, unknown};
use super::names::Name;
use crate::error::Result;
use crate::inst::{Access, Atomic, Class, Convert, Moves, Op, Strength};
use crate::lane::convert::{self, FINITE, INTEGRAL, types};
use crate::lane::float::{FTZ, RELU, SAT};
use crate::lane::half::BRAIN;
use crate::lane::round::Rounding;
use crate::layout;
use crate::ptx::{Instruction, Operand, Space, space};

impl<'a> Builder<'a> {
    /// Lowers a data movement; false when the opcode is not one.
    pub(super) fn data(&mut self, root: &str, i: &'a Instruction<'a>) -> Result<bool> {
        match root {
            "mov" => self.mov(i)?,
            "cvt" => self.cvt(i)?,
            "cvta" => self.cvta(i)?,
            "ld" | "ldu" => self.load(i)?,
            "st" => self.store(i)?,
            "atom" | "red" => self.atomic(root == "red", i)?,
            "isspacep" => self.is_space(i)?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn mov(&mut self, i: &'a Instruction<'a>) -> Result<()> {
        let mut m = Modifiers::of(i);
        let ty = m.ty()?;
        m.finish(i)?;
        let [d, a] = self.operands(i)?;
        match (d, a) {
            (Operand::Vector(parts), _) => self.unpack(ty, parts, a),
            (_, Operand::Vector(parts)) => self.pack(ty, d, parts),
            _ if ty == Ty::Pred => self.move_predicate(i),
            _ => {
                let a = self.arg(a, ty.class())?;
                let d = self.destination(d, ty.class())?;
                let op = if ty.class() == Class::Double { Op::Mov64 } else { Op::Mov32 };
                self.emit(op, &[d], &[a], 0)
            }
        }
    }

    /// `mov.b64 %rd, {%r1, %r2}` and the other sizes.
    fn pack(&mut self, ty: Ty, d: &'a Operand<'a>, parts: &'a [Operand<'a>]) -> Result<()> {
        let s = parts.iter().map(|p| self.arg(p, Class::Word)).collect::<Result<Vec<_>>>()?;
        let op = match (ty.bits(), s.len()) {
            (64, 2) => Op::Pack64,
            (64, 4) => Op::PackQuarters,
            (32, 2) => Op::Pack32,
            _ => return Err(self.error("a mov of parts that do not add up")),
        };
        let d = self.destination(d, ty.class())?;
        self.emit(op, &[d], &s, 0)
    }

    fn unpack(&mut self, ty: Ty, parts: &'a [Operand<'a>], a: &'a Operand<'a>) -> Result<()> {
        let a = self.arg(a, ty.class())?;
        let d = parts.iter().map(|p| self.destination(p, Class::Word)).collect::<Result<Vec<_>>>()?;
        let op = match (ty.bits(), d.len()) {
            (64, 2) => Op::Unpack64,
            (64, 4) => Op::UnpackQuarters,
            (32, 2) => Op::Unpack32,
            _ => return Err(self.error("a mov of parts that do not add up")),
        };
        self.emit(op, &d, &[a], 0)
    }

    fn cvt(&mut self, i: &'a Instruction<'a>) -> Result<()> {
        let mut m = Modifiers::of(i);
        if m.peek_last() == Some("f32") && i.opcode.iter().any(|w| matches!(*w, "f16x2" | "bf16x2")) {
            return self.cvt_pair(m, i);
        }
        let (from, to) = (m.ty()?, m.ty()?);
        let integral = m.one_of(&[
            ("rni", Rounding::Nearest),
            ("rzi", Rounding::Zero),
            ("rmi", Rounding::Down),
            ("rpi", Rounding::Up),
        ]);
        let stated = m.rounding();
        let rounding = integral.or(stated).unwrap_or(Rounding::Nearest);
        let mut mode = crate::lane::float::mode(rounding);
        for (word, bit) in [("ftz", FTZ), ("sat", SAT), ("relu", RELU), ("satfinite", FINITE)] {
            mode |= if m.take(word) { bit } else { 0 };
        }
        m.finish(i)?;
        mode |= if integral.is_some() { INTEGRAL } else { 0 };
        if to == Ty::Tf32 && from == Ty::F32 {
            return self.lanes(i, Ty::F32, 1, convert::tf32, mode);
        }
        let (Some(f), Some(t)) = (from.scalar(), to.scalar()) else { return Err(unknown(i)) };
        let [d, a] = self.operands(i)?;
        let a = self.cvt_operand(a, from)?;
        // Between floats of equal width only an integral rounding changes the value.
        let simple = mode == 0 || from.is_int() && to.is_int() && mode & SAT == 0;
        let op = match (to, from) {
            (Ty::Int(64, _), Ty::Int(32, false)) if simple => Op::Convert(Convert::U32ToU64),
            (Ty::Int(64, _), Ty::Int(32, true)) if simple => Op::Convert(Convert::S32ToS64),
            (Ty::Int(32, _), Ty::Int(64, _)) if simple => Op::Convert(Convert::U64ToU32),
            (Ty::Int(32, _), Ty::Int(32, _)) if simple => Op::Mov32,
            (Ty::Int(64, _), Ty::Int(64, _)) if simple => Op::Mov64,
            (Ty::F32, Ty::Int(32, true)) if simple => Op::Convert(Convert::S32ToF32),
            (Ty::F32, Ty::Int(32, false)) if simple => Op::Convert(Convert::U32ToF32),
            (Ty::Bf16, Ty::F32) if simple => Op::Convert(Convert::F32ToBf16),
            (Ty::F16, Ty::F32) if simple => Op::Convert(Convert::F32ToF16),
            (Ty::F32, Ty::F16) if simple => Op::Convert(Convert::F16ToF32),
            (Ty::F32, Ty::Bf16) if simple => Op::Convert(Convert::Bf16ToF32),
            _ => {
                let moved = from.is_int() && to.is_int() && mode & SAT == 0;
                Op::Lanes(convert::cvt, mode | types(t, f), if moved { Moves::Bits(1) } else { Moves::Mix })
            }
        };
        let d = self.cvt_destination(d, to)?;
        self.emit(op, &[d.0], &[a], 0)?;
        match d.1 {
            None => Ok(()),
            Some((register, op, src)) => self.emit(op, &[register], &src, 0),
        }
    }

    /// Operands may be registers wider than the type.
    fn cvt_operand(&mut self, o: &'a Operand<'a>, ty: Ty) -> Result<Arg> {
        match self.any_register(o) {
            Some((wide, r)) if r.class == Class::Double && ty.class() == Class::Word => {
                let word = self.fresh(Class::Word);
                self.emit(Op::Convert(Convert::U64ToU32), &[word], &[wide], 0)?;
                Ok(word)
            }
            _ => self.arg(o, ty.class()),
        }
    }

    /// The register to convert into, and what must follow: results narrower than their register are
    /// extended to it, and those of 16 bits or less are cut to what a narrow register keeps.
    #[allow(clippy::type_complexity)]
    fn cvt_destination(&mut self, o: &'a Operand<'a>, ty: Ty) -> Result<(Arg, Option<(Arg, Op, [Arg; 2])>)> {
        let Some((d, r)) = self.any_register(o) else { return Ok((self.destination(o, ty.class())?, None)) };
        match (r.class, ty.class()) {
            (Class::Double, Class::Word) => {
                let word = self.fresh(Class::Word);
                let extend = if ty.signed() { Convert::S32ToS64 } else { Convert::U32ToU64 };
                Ok((word, Some((d, Op::Convert(extend), [word, Arg::None]))))
            }
            (Class::Word, Class::Word) if r.bits == 16 && ty.bits() == 8 || ty.bits() < 32 && ty.signed() => {
                if r.bits != 16 {
                    return Ok((d, None));
                }
                let word = self.fresh(Class::Word);
                let cut = Op::Int32(crate::inst::Int::And);
                Ok((word, Some((d, cut, [word, Arg::Word(0xffff)]))))
            }
            _ => Ok((self.destination(o, ty.class())?, None)),
        }
    }

    /// `cvt.rn.bf16x2.f32 d, a, b`.
    fn cvt_pair(&mut self, mut m: Modifiers<'a>, i: &'a Instruction<'a>) -> Result<()> {
        m.ty()?;
        let brain = m.ty()? == Ty::Bf16x2;
        let rounding = m.rounding().unwrap_or(Rounding::Nearest);
        let mut mode = crate::lane::float::mode(rounding) | if brain { BRAIN } else { 0 };
        for (word, bit) in [("relu", RELU), ("satfinite", FINITE)] {
            mode |= if m.take(word) { bit } else { 0 };
        }
        m.finish(i)?;
        let (d, s) = self.same(i, Class::Word, 2)?;
        let op = match mode {
            0 => Op::Convert(Convert::F32ToF16x2),
            BRAIN => Op::Convert(Convert::F32ToBf16x2),
            _ => Op::Lanes(convert::pack_half, mode, Moves::Mix),
        };
        self.emit(op, &[d], &s, 0)
    }

    /// Generic addresses are global ones plus windows for the other spaces.
    fn cvta(&mut self, i: &'a Instruction<'a>) -> Result<()> {
        let mut m = Modifiers::of(i);
        let ty = m.ty()?;
        let to = m.take("to");
        let word = m.prefixed("").ok_or_else(|| unknown(i))?;
        m.finish(i)?;
        let space = space(word).ok_or_else(|| unknown(i))?;
        let base = layout::window(space);
        let [d, a] = self.operands(i)?;
        if ty.bits() != 64 {
            return Err(unknown(i));
        }
        let a = self.arg(a, Class::Double)?;
        let d = self.destination(d, Class::Double)?;
        if base == 0 {
            return self.emit(Op::Mov64, &[d], &[a], 0);
        }
        let shift = if to { base.wrapping_neg() } else { base };
        self.emit(Op::Int64(crate::inst::Int::Add), &[d], &[a, Arg::Double(shift)], 0)
    }

    fn is_space(&mut self, i: &'a Instruction<'a>) -> Result<()> {
        let mut m = Modifiers::of(i);
        let word = m.prefixed("").ok_or_else(|| unknown(i))?;
        m.finish(i)?;
        let space = space(word).ok_or_else(|| unknown(i))?;
        let [d, a] = self.operands(i)?;
        let a = self.arg(a, Class::Double)?;
        let d = self.destination(d, Class::Predicate)?;
        self.emit(Op::Lanes(layout::is_in_window, space as u32, Moves::Mix), &[d], &[a], 0)
    }

    /// Space, strength, vector length and type of a load or store; cache hints change nothing here.
    fn access(&mut self, m: &mut Modifiers<'a>, i: &'a Instruction<'a>) -> Result<(Access, Ty)> {
        let ty = m.ty()?;
        let count = m.one_of(&[("v2", 2), ("v4", 4)]).unwrap_or(1);
        let space = self.space_of(m);
        let strong = ["volatile", "relaxed", "acquire", "release", "mmio"].iter().any(|w| m.take(w));
        self.hints(m);
        for scope in ["cta", "cluster", "gpu", "sys"] {
            m.take(scope);
        }
        m.take("weak");
        m.take("nc");
        m.finish(i)?;
        let size = (ty.bits() / 8) as u8;
        if ty == Ty::Pred || size * count > 16 {
            return Err(unknown(i));
        }
        let strength = if strong { Strength::Strong } else { Strength::Plain };
        Ok((Access { space, size, count, signed: ty.signed(), width: 32, strength }, ty))
    }

    pub(super) fn space_of(&mut self, m: &mut Modifiers<'a>) -> Space {
        let spaces =
            ["global", "shared", "shared::cta", "local", "const", "param", "param::entry", "param::func"];
        spaces.into_iter().find(|w| m.take(w)).and_then(space).unwrap_or(Space::Generic)
    }

    /// Cache operators, eviction priorities and prefetch sizes.
    pub(super) fn hints(&mut self, m: &mut Modifiers<'a>) {
        while m.prefixed("L1::").is_some() || m.prefixed("L2::").is_some() {}
        for hint in ["ca", "cg", "cs", "lu", "cv", "wb", "wt"] {
            m.take(hint);
        }
    }

    /// The operands without the cache policy that `.L2::cache_hint` appends.
    pub(super) fn without_policy<'o>(&self, i: &'o Instruction<'a>) -> &'o [Operand<'a>] {
        match i.opcode.contains(&"L2::cache_hint") {
            true => &i.operands[..i.operands.len().saturating_sub(1)],
            false => &i.operands,
        }
    }

    fn elements<'o>(&self, o: &'o Operand<'a>, access: &Access) -> Result<&'o [Operand<'a>]> {
        let list = match o {
            Operand::Vector(v) => v.as_slice(),
            one => std::slice::from_ref(one),
        };
        match list.len() == access.count as usize {
            true => Ok(list),
            false => Err(self.error("the vector has the wrong number of elements")),
        }
    }

    fn load(&mut self, i: &'a Instruction<'a>) -> Result<()> {
        let mut m = Modifiers::of(i);
        let (mut access, ty) = self.access(&mut m, i)?;
        let [d, address] = self.without_policy(i) else { return Err(self.error("ld takes 2 operands")) };
        if access.space == Space::Param
            && let Some(done) = self.call_param(address, ty)?
        {
            let (source, register) = done;
            let (d, r) = self.any_register(d).ok_or_else(|| self.error("ld needs a register"))?;
            return self.move_between(d, r.class, source, register, ty);
        }
        let mut dst = Vec::new();
        for o in self.elements(d, &access)? {
            let found = match o {
                Operand::Name("_") => (self.fresh(ty.class()), None),
                o => match self.any_register(o) {
                    Some((d, r)) if r.class != Class::Predicate && r.bits as u32 >= ty.bits().min(16) => {
                        (d, Some(r))
                    }
                    _ => return Err(self.error("ld needs registers at least as wide as its type")),
                },
            };
            if let Some(r) = found.1 {
                if ty.bits() > 32 && r.class == Class::Word {
                    return Err(self.error("ld needs registers at least as wide as its type"));
                }
                access.width = r.bits;
            }
            dst.push(found.0);
        }
        self.correct_space(&mut access, address);
        let (base, offset) = self.address(address)?;
        self.emit(Op::Load(access), &dst, &[base], offset)
    }

    fn store(&mut self, i: &'a Instruction<'a>) -> Result<()> {
        let mut m = Modifiers::of(i);
        let (mut access, ty) = self.access(&mut m, i)?;
        let [address, value] = self.without_policy(i) else { return Err(self.error("st takes 2 operands")) };
        if access.space == Space::Param
            && let Some((target, register)) = self.call_param(address, ty)?
        {
            let (source, class) = match self.any_register(value) {
                Some((s, r)) => (s, r.class),
                None => (self.arg(value, ty.class())?, ty.class()),
            };
            return self.move_between(target, register, source, class, ty);
        }
        let mut src = vec![Arg::None];
        for o in self.elements(value, &access)? {
            let found = match self.any_register(o) {
                Some((s, r)) if r.class != Class::Predicate => s,
                _ => self.arg(o, ty.class())?,
            };
            if ty.bits() > 32
                && matches!(found, Arg::Reg(r) if self.names.registers[r as usize].class == Class::Word)
            {
                return Err(self.error("st needs registers at least as wide as its type"));
            }
            src.push(found);
        }
        self.correct_space(&mut access, address);
        let (base, offset) = self.address(address)?;
        src[0] = base;
        self.emit(Op::Store(access), &[], &src, offset)
    }

    /// Arrays among a call's parameters live in local memory.
    fn correct_space(&mut self, access: &mut Access, address: &'a Operand<'a>) {
        if access.space == Space::Param
            && let Operand::Address(Some(name), _) = *address
            && let Some(Name::Local(_)) = self.find(name)
        {
            access.space = Space::Local;
        }
    }

    /// The register that stands for a scalar parameter of a call.
    fn call_param(&mut self, address: &'a Operand<'a>, ty: Ty) -> Result<Option<(Arg, Class)>> {
        let Operand::Address(Some(name), offset) = *address else { return Ok(None) };
        // A register holding an address has the same syntax; parameters are never written with `%`.
        if name.starts_with('%') {
            return Ok(None);
        }
        match self.find(name) {
            Some(Name::Register(r)) => {
                let class = self.names.registers[r as usize].class;
                match offset == 0 && (ty.class() == class || ty.bits() <= 32) {
                    true => Ok(Some((Arg::Reg(r), class))),
                    false => Err(self.error(format!("'{name}' is accessed in parts"))),
                }
            }
            _ => Ok(None),
        }
    }

    fn move_between(&mut self, d: Arg, to: Class, s: Arg, from: Class, ty: Ty) -> Result<()> {
        let op = match (to, from) {
            (Class::Word, Class::Word) => Op::Mov32,
            (Class::Double, Class::Double) => Op::Mov64,
            (Class::Double, Class::Word) if ty.signed() => Op::Convert(Convert::S32ToS64),
            (Class::Double, Class::Word) => Op::Convert(Convert::U32ToU64),
            (Class::Word, Class::Double) => Op::Convert(Convert::U64ToU32),
            _ => return Err(self.error("a predicate cannot be a parameter")),
        };
        self.emit(op, &[d], &[s], 0)
    }

    fn atomic(&mut self, reduce: bool, i: &'a Instruction<'a>) -> Result<()> {
        let mut m = Modifiers::of(i);
        let ty = m.ty()?;
        let space = self.space_of(&mut m);
        m.take("noftz");
        let op = m.one_of(&[
            ("add", "add"),
            ("min", "min"),
            ("max", "max"),
            ("and", "and"),
            ("or", "or"),
            ("xor", "xor"),
            ("exch", "exch"),
            ("cas", "cas"),
            ("inc", "inc"),
            ("dec", "dec"),
        ]);
        for word in ["relaxed", "acquire", "release", "acq_rel", "cta", "cluster", "gpu", "sys"] {
            m.take(word);
        }
        self.hints(&mut m);
        m.finish(i)?;
        let op = match (op.ok_or_else(|| unknown(i))?, ty) {
            ("add", Ty::Int(..)) => Atomic::Add,
            ("add", Ty::F32) => Atomic::AddF32,
            ("add", Ty::F64) => Atomic::AddF64,
            ("add", Ty::F16x2) => Atomic::AddF16x2,
            ("add", Ty::Bf16x2) => Atomic::AddBf16x2,
            ("add", Ty::F16) => Atomic::AddF16,
            ("add", Ty::Bf16) => Atomic::AddBf16,
            ("min", Ty::Int(_, signed)) => {
                if signed {
                    Atomic::MinS
                } else {
                    Atomic::MinU
                }
            }
            ("max", Ty::Int(_, signed)) => {
                if signed {
                    Atomic::MaxS
                } else {
                    Atomic::MaxU
                }
            }
            ("and", _) => Atomic::And,
            ("or", _) => Atomic::Or,
            ("xor", _) => Atomic::Xor,
            ("exch", _) => Atomic::Exch,
            ("cas", _) => Atomic::Cas,
            ("inc", _) => Atomic::Inc,
            ("dec", _) => Atomic::Dec,
            _ => return Err(unknown(i)),
        };
        let integer_only = !matches!(op, Atomic::AddF16 | Atomic::AddBf16 | Atomic::Cas);
        if !space_allows_atomics(space) || ty.bits() < 16 || ty.bits() == 16 && integer_only {
            return Err(unknown(i));
        }
        let operands = self.without_policy(i);
        let values = 1 + (op == Atomic::Cas) as usize;
        if operands.len() != 1 + values + !reduce as usize {
            return Err(self.error("an atomic with the wrong number of operands"));
        }
        let rest = &operands[!reduce as usize..];
        let d = match reduce {
            true => self.fresh(ty.class()),
            false => self.destination(&operands[0], ty.class())?,
        };
        let mut src = vec![Arg::None];
        for o in &rest[1..] {
            src.push(self.arg(o, ty.class())?);
        }
        let (base, offset) = self.address(&rest[0])?;
        src[0] = base;
        self.emit(Op::Atom { space, op, size: (ty.bits() / 8) as u8 }, &[d], &src, offset)
    }
}

fn space_allows_atomics(space: Space) -> bool {
    matches!(space, Space::Global | Space::Shared | Space::Generic)
}
