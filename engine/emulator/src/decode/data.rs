//! Moves, conversions, loads, stores and atomics.

use super::builder::{Builder, VirtualOperand};
use super::modifiers::{Modifiers, PtxType, unsupported};
use super::scopes::Binding;
use crate::address_space;
use crate::error::Result;
use crate::inst::RegisterClass::{self, B32, B64, Predicate};
use crate::inst::{AtomicOp, CvtOp, FloatOp, IntOp, MemoryAccess, Opcode, Strength, TaintFlow};
use crate::lane::convert::{self, FINITE, INTEGRAL, types};
use crate::lane::float::{FTZ, RELU, SAT};
use crate::lane::half::MODE_BF16;
use crate::lane::round::Rounding;
use crate::ptx::{Instruction, Operand, StateSpace, space};

impl<'a> Builder<'a> {
    /// Lowers a data movement. Returns false for other opcodes.
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
        let ty = m.take_type()?;
        m.expect_none_left(i)?;
        let [d, a] = self.operands(i)?;
        match (d, a) {
            (Operand::Vector(parts), _) => self.unpack(ty, parts, a),
            (_, Operand::Vector(parts)) => self.pack(ty, d, parts),
            _ if ty == PtxType::Pred => self.move_predicate(i),
            _ => {
                let a = self.source(a, ty.class())?;
                let d = self.destination(d, ty.class())?;
                let op = if ty.class() == B64 { Opcode::Mov64 } else { Opcode::Mov32 };
                self.emit(op, &[d], &[a], 0)
            }
        }
    }

    /// Lowers `mov.b64 %rd, {%r1, %r2}` and the other sizes.
    fn pack(&mut self, ty: PtxType, d: &'a Operand<'a>, parts: &'a [Operand<'a>]) -> Result<()> {
        let s = parts.iter().map(|p| self.source(p, B32)).collect::<Result<Vec<_>>>()?;
        let op =
            match (ty.bits(), s.len()) {
                (64, 2) => Opcode::Pack64,
                (64, 4) => Opcode::PackQuarters,
                (32, 2) => Opcode::Pack32,
                _ => return Err(self.error(
                    "mov of a vector: 2 elements of 16 or 32 bits, or 4 of 16 bits, must make up its type",
                )),
            };
        let d = self.destination(d, ty.class())?;
        self.emit(op, &[d], &s, 0)
    }

    fn unpack(&mut self, ty: PtxType, parts: &'a [Operand<'a>], a: &'a Operand<'a>) -> Result<()> {
        let a = self.source(a, ty.class())?;
        let d = parts.iter().map(|p| self.destination(p, B32)).collect::<Result<Vec<_>>>()?;
        let op =
            match (ty.bits(), d.len()) {
                (64, 2) => Opcode::Unpack64,
                (64, 4) => Opcode::UnpackQuarters,
                (32, 2) => Opcode::Unpack32,
                _ => return Err(self.error(
                    "mov of a vector: 2 elements of 16 or 32 bits, or 4 of 16 bits, must make up its type",
                )),
            };
        self.emit(op, &d, &[a], 0)
    }

    fn cvt(&mut self, i: &'a Instruction<'a>) -> Result<()> {
        let mut m = Modifiers::of(i);
        if m.peek_last() == Some("f32") && i.opcode.iter().any(|w| matches!(*w, "f16x2" | "bf16x2")) {
            return self.cvt_pair(m, i);
        }
        let (from, to) = (m.take_type()?, m.take_type()?);
        let integral = m.take_one_of(&[
            ("rni", Rounding::Nearest),
            ("rzi", Rounding::Zero),
            ("rmi", Rounding::Down),
            ("rpi", Rounding::Up),
        ]);
        let stated = m.take_rounding();
        let rounding = integral.or(stated).unwrap_or(Rounding::Nearest);
        let mut mode = crate::lane::float::mode(rounding);
        for (word, bit) in [("ftz", FTZ), ("sat", SAT), ("relu", RELU), ("satfinite", FINITE)] {
            mode |= if m.take(word) { bit } else { 0 };
        }
        m.expect_none_left(i)?;
        mode |= if integral.is_some() { INTEGRAL } else { 0 };
        if to == PtxType::Tf32 && from == PtxType::F32 {
            return self.lane_function(i, PtxType::F32, 1, convert::tf32, mode);
        }
        let (Some(f), Some(t)) = (from.scalar(), to.scalar()) else { return Err(unsupported(i)) };
        let [d, a] = self.operands(i)?;
        let a = self.cvt_operand(a, from)?;
        // Between floats of equal width only an integral rounding changes the value.
        let simple = mode == 0 || from.is_int() && to.is_int() && mode & SAT == 0;
        let op = match (to, from) {
            (PtxType::Int(64, _), PtxType::Int(32, false)) if simple => Opcode::Convert(CvtOp::U32ToU64),
            (PtxType::Int(64, _), PtxType::Int(32, true)) if simple => Opcode::Convert(CvtOp::S32ToS64),
            (PtxType::Int(32, _), PtxType::Int(64, _)) if simple => Opcode::Convert(CvtOp::U64ToU32),
            (PtxType::Int(32, _), PtxType::Int(32, _)) if simple => Opcode::Mov32,
            (PtxType::Int(64, _), PtxType::Int(64, _)) if simple => Opcode::Mov64,
            (PtxType::Int(32, _), PtxType::Int(16, false)) if simple => Opcode::Int32(IntOp::And),
            (PtxType::F32, PtxType::F32) if mode == SAT => Opcode::Float(FloatOp::Saturate, false),
            (PtxType::F32, PtxType::Int(32, true)) if simple => Opcode::Convert(CvtOp::S32ToF32),
            (PtxType::F32, PtxType::Int(32, false)) if simple => Opcode::Convert(CvtOp::U32ToF32),
            (PtxType::Bf16, PtxType::F32) if simple => Opcode::Convert(CvtOp::F32ToBf16),
            (PtxType::F16, PtxType::F32) if simple => Opcode::Convert(CvtOp::F32ToF16),
            (PtxType::F32, PtxType::F16) if simple => Opcode::Convert(CvtOp::F16ToF32),
            (PtxType::F32, PtxType::Bf16) if simple => Opcode::Convert(CvtOp::Bf16ToF32),
            _ => {
                let moved = from.is_int() && to.is_int() && mode & SAT == 0;
                Opcode::Lanes(
                    convert::cvt,
                    mode | types(t, f),
                    if moved { TaintFlow::Moved(1) } else { TaintFlow::All },
                )
            }
        };
        let d = self.cvt_destination(d, to)?;
        let mut sources = vec![a];
        if let Opcode::Int32(IntOp::And) = op {
            sources.push(VirtualOperand::B32(0xffff));
        }
        self.emit(op, &[d.0], &sources, 0)?;
        match d.1 {
            None => Ok(()),
            Some((register, op, src)) => self.emit(op, &[register], &src, 0),
        }
    }

    /// Lowers the source of `cvt`, which may be a register wider than the type.
    fn cvt_operand(&mut self, o: &'a Operand<'a>, ty: PtxType) -> Result<VirtualOperand> {
        match self.any_register(o) {
            Some((wide, r)) if r.class == B64 && ty.class() == B32 => {
                let word = self.fresh_register(B32);
                self.emit(Opcode::Convert(CvtOp::U64ToU32), &[word], &[wide], 0)?;
                Ok(word)
            }
            _ => self.source(o, ty.class()),
        }
    }

    /// Returns the register to convert into, and the instruction that must follow: results narrower than their
    /// register are extended to it, and those of 16 bits or less are cut to what a narrow register keeps.
    #[expect(clippy::type_complexity)]
    fn cvt_destination(
        &mut self,
        o: &'a Operand<'a>,
        ty: PtxType,
    ) -> Result<(VirtualOperand, Option<(VirtualOperand, Opcode, [VirtualOperand; 2])>)> {
        let Some((d, r)) = self.any_register(o) else { return Ok((self.destination(o, ty.class())?, None)) };
        match (r.class, ty.class()) {
            (B64, B32) => {
                let word = self.fresh_register(B32);
                let extend = if ty.signed() { CvtOp::S32ToS64 } else { CvtOp::U32ToU64 };
                Ok((word, Some((d, Opcode::Convert(extend), [word, VirtualOperand::None]))))
            }
            (B32, B32) if r.bits == 16 && ty.bits() == 8 || ty.bits() < 32 && ty.signed() => {
                if r.bits != 16 {
                    return Ok((d, None));
                }
                let word = self.fresh_register(B32);
                let cut = Opcode::Int32(IntOp::And);
                Ok((word, Some((d, cut, [word, VirtualOperand::B32(0xffff)]))))
            }
            _ => Ok((self.destination(o, ty.class())?, None)),
        }
    }

    /// Lowers `cvt.rn.bf16x2.f32 d, a, b`.
    fn cvt_pair(&mut self, mut m: Modifiers<'a>, i: &'a Instruction<'a>) -> Result<()> {
        m.take_type()?;
        let is_bf16 = m.take_type()? == PtxType::Bf16x2;
        let rounding = m.take_rounding().unwrap_or(Rounding::Nearest);
        let mut mode = crate::lane::float::mode(rounding) | if is_bf16 { MODE_BF16 } else { 0 };
        for (word, bit) in [("relu", RELU), ("satfinite", FINITE)] {
            mode |= if m.take(word) { bit } else { 0 };
        }
        m.expect_none_left(i)?;
        let (d, s) = self.dst_and_sources(i, B32, 2)?;
        let op = match mode {
            0 => Opcode::Convert(CvtOp::F32ToF16x2),
            MODE_BF16 => Opcode::Convert(CvtOp::F32ToBf16x2),
            _ => Opcode::Lanes(convert::pack_half, mode, TaintFlow::All),
        };
        self.emit(op, &[d], &s, 0)
    }

    /// Lowers `cvta`: a generic address is a global one, or an offset in the window of another space.
    fn cvta(&mut self, i: &'a Instruction<'a>) -> Result<()> {
        let mut m = Modifiers::of(i);
        let ty = m.take_type()?;
        let to = m.take("to");
        let name = m.take_prefixed("").ok_or_else(|| unsupported(i))?;
        m.expect_none_left(i)?;
        let state_space = space(name).ok_or_else(|| unsupported(i))?;
        let base = address_space::window_base(state_space);
        let [d, a] = self.operands(i)?;
        if ty.bits() != 64 {
            return Err(unsupported(i));
        }
        let a = self.source(a, B64)?;
        let d = self.destination(d, B64)?;
        if base == 0 {
            return self.emit(Opcode::Mov64, &[d], &[a], 0);
        }
        let shift = if to { base.wrapping_neg() } else { base };
        self.emit(Opcode::Int64(IntOp::Add), &[d], &[a, VirtualOperand::B64(shift)], 0)
    }

    fn is_space(&mut self, i: &'a Instruction<'a>) -> Result<()> {
        let mut m = Modifiers::of(i);
        let name = m.take_prefixed("").ok_or_else(|| unsupported(i))?;
        m.expect_none_left(i)?;
        let state_space = space(name).ok_or_else(|| unsupported(i))?;
        let [d, a] = self.operands(i)?;
        let a = self.source(a, B64)?;
        let d = self.destination(d, Predicate)?;
        self.emit(
            Opcode::Lanes(address_space::is_in_window, state_space as u32, TaintFlow::All),
            &[d],
            &[a],
            0,
        )
    }

    /// Parses state space, strength, vector length and type of a load or store; cache hints are ignored.
    fn access(&mut self, m: &mut Modifiers<'a>, i: &'a Instruction<'a>) -> Result<(MemoryAccess, PtxType)> {
        let ty = m.take_type()?;
        let count = m.take_one_of(&[("v2", 2), ("v4", 4)]).unwrap_or(1);
        let space = self.space_of(m);
        let strong = ["volatile", "relaxed", "acquire", "release", "mmio"].iter().any(|w| m.take(w));
        self.hints(m);
        for scope in ["cta", "cluster", "gpu", "sys"] {
            m.take(scope);
        }
        m.take("weak");
        m.take("nc");
        m.expect_none_left(i)?;
        let size = (ty.bits() / 8) as u8;
        if ty == PtxType::Pred || size * count > 16 {
            return Err(unsupported(i));
        }
        let strength = if strong { Strength::Strong } else { Strength::Weak };
        Ok((MemoryAccess { space, size, count, signed: ty.signed(), width: 32, strength }, ty))
    }

    pub(super) fn space_of(&mut self, m: &mut Modifiers<'a>) -> StateSpace {
        let spaces =
            ["global", "shared", "shared::cta", "local", "const", "param", "param::entry", "param::func"];
        spaces.into_iter().find(|w| m.take(w)).and_then(space).unwrap_or(StateSpace::Generic)
    }

    /// Takes and ignores cache operators, eviction priorities and prefetch sizes.
    pub(super) fn hints(&mut self, m: &mut Modifiers<'a>) {
        while m.take_prefixed("L1::").is_some() || m.take_prefixed("L2::").is_some() {}
        for hint in ["ca", "cg", "cs", "lu", "cv", "wb", "wt"] {
            m.take(hint);
        }
    }

    /// Returns the operands without the cache policy that `.L2::cache_hint` appends.
    pub(super) fn without_policy<'o>(&self, i: &'o Instruction<'a>) -> &'o [Operand<'a>] {
        match i.opcode.contains(&"L2::cache_hint") {
            true => &i.operands[..i.operands.len().saturating_sub(1)],
            false => &i.operands,
        }
    }

    fn elements<'o>(&self, o: &'o Operand<'a>, access: &MemoryAccess) -> Result<&'o [Operand<'a>]> {
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
        if access.space == StateSpace::Param
            && let Some(done) = self.call_param(address, ty)?
        {
            let (source, register) = done;
            let (d, r) = self.any_register(d).ok_or_else(|| self.error("ld needs a register"))?;
            return self.move_between(d, r.class, source, register, ty);
        }
        let mut dst = Vec::new();
        for o in self.elements(d, &access)? {
            let found = match o {
                Operand::Name("_") => (self.fresh_register(ty.class()), None),
                o => match self.any_register(o) {
                    Some((d, r)) if r.class != Predicate && r.bits as u32 >= ty.bits().min(16) => {
                        (d, Some(r))
                    }
                    _ => return Err(self.error("ld needs registers at least as wide as its type")),
                },
            };
            if let Some(r) = found.1 {
                if ty.bits() > 32 && r.class == B32 {
                    return Err(self.error("ld needs registers at least as wide as its type"));
                }
                access.width = r.bits;
            }
            dst.push(found.0);
        }
        self.correct_space(&mut access, address);
        let (base, offset) = self.address(address)?;
        self.emit(Opcode::Load(access), &dst, &[base], offset)
    }

    fn store(&mut self, i: &'a Instruction<'a>) -> Result<()> {
        let mut m = Modifiers::of(i);
        let (mut access, ty) = self.access(&mut m, i)?;
        let [address, value] = self.without_policy(i) else { return Err(self.error("st takes 2 operands")) };
        if access.space == StateSpace::Param
            && let Some((target, register)) = self.call_param(address, ty)?
        {
            let (source, class) = match self.any_register(value) {
                Some((s, r)) => (s, r.class),
                None => (self.source(value, ty.class())?, ty.class()),
            };
            return self.move_between(target, register, source, class, ty);
        }
        let mut src = vec![VirtualOperand::None];
        for o in self.elements(value, &access)? {
            let found = match self.any_register(o) {
                Some((s, r)) if r.class != Predicate => s,
                _ => self.source(o, ty.class())?,
            };
            let is_b32 = |r: u32| self.scopes.registers[r as usize].class == B32;
            if ty.bits() > 32 && matches!(found, VirtualOperand::Reg(r) if is_b32(r)) {
                return Err(self.error("st needs registers at least as wide as its type"));
            }
            src.push(found);
        }
        self.correct_space(&mut access, address);
        let (base, offset) = self.address(address)?;
        src[0] = base;
        self.emit(Opcode::Store(access), &[], &src, offset)
    }

    /// Redirects an access to an array parameter of a call to local memory, where such arrays live.
    fn correct_space(&mut self, access: &mut MemoryAccess, address: &'a Operand<'a>) {
        if access.space == StateSpace::Param
            && let Operand::Address(Some(name), _) = *address
            && let Some(Binding::Local(_)) = self.find(name)
        {
            access.space = StateSpace::Local;
        }
    }

    /// Returns the register that holds a scalar parameter of a call.
    fn call_param(
        &mut self,
        address: &'a Operand<'a>,
        ty: PtxType,
    ) -> Result<Option<(VirtualOperand, RegisterClass)>> {
        let Operand::Address(Some(name), offset) = *address else { return Ok(None) };
        // A register holding an address has the same syntax; parameters are never written with `%`.
        if name.starts_with('%') {
            return Ok(None);
        }
        match self.find(name) {
            Some(Binding::Register(r)) => {
                let class = self.scopes.registers[r as usize].class;
                match offset == 0 && (ty.class() == class || ty.bits() <= 32) {
                    true => Ok(Some((VirtualOperand::Reg(r), class))),
                    false => Err(self.error(format!("the scalar parameter '{name}' is accessed in parts"))),
                }
            }
            _ => Ok(None),
        }
    }

    fn move_between(
        &mut self,
        d: VirtualOperand,
        to: RegisterClass,
        s: VirtualOperand,
        from: RegisterClass,
        ty: PtxType,
    ) -> Result<()> {
        let op = match (to, from) {
            (B32, B32) => Opcode::Mov32,
            (B64, B64) => Opcode::Mov64,
            (B64, B32) if ty.signed() => Opcode::Convert(CvtOp::S32ToS64),
            (B64, B32) => Opcode::Convert(CvtOp::U32ToU64),
            (B32, B64) => Opcode::Convert(CvtOp::U64ToU32),
            _ => return Err(self.error("a predicate cannot be a parameter")),
        };
        self.emit(op, &[d], &[s], 0)
    }

    fn atomic(&mut self, reduce: bool, i: &'a Instruction<'a>) -> Result<()> {
        let mut m = Modifiers::of(i);
        let ty = m.take_type()?;
        let space = self.space_of(&mut m);
        m.take("noftz");
        let op = m.take_one_of(&[
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
        m.expect_none_left(i)?;
        let op = match (op.ok_or_else(|| unsupported(i))?, ty) {
            ("add", PtxType::Int(..)) => AtomicOp::Add,
            ("add", PtxType::F32) => AtomicOp::AddF32,
            ("add", PtxType::F64) => AtomicOp::AddF64,
            ("add", PtxType::F16x2) => AtomicOp::AddF16x2,
            ("add", PtxType::Bf16x2) => AtomicOp::AddBf16x2,
            ("add", PtxType::F16) => AtomicOp::AddF16,
            ("add", PtxType::Bf16) => AtomicOp::AddBf16,
            ("min", PtxType::Int(_, signed)) => {
                if signed {
                    AtomicOp::MinS
                } else {
                    AtomicOp::MinU
                }
            }
            ("max", PtxType::Int(_, signed)) => {
                if signed {
                    AtomicOp::MaxS
                } else {
                    AtomicOp::MaxU
                }
            }
            ("and", _) => AtomicOp::And,
            ("or", _) => AtomicOp::Or,
            ("xor", _) => AtomicOp::Xor,
            ("exch", _) => AtomicOp::Exch,
            ("cas", _) => AtomicOp::Cas,
            ("inc", _) => AtomicOp::Inc,
            ("dec", _) => AtomicOp::Dec,
            _ => return Err(unsupported(i)),
        };
        let integer_only = !matches!(op, AtomicOp::AddF16 | AtomicOp::AddBf16 | AtomicOp::Cas);
        if !space_allows_atomics(space) || ty.bits() < 16 || ty.bits() == 16 && integer_only {
            return Err(unsupported(i));
        }
        let operands = self.without_policy(i);
        let values = 1 + (op == AtomicOp::Cas) as usize;
        if operands.len() != 1 + values + !reduce as usize {
            return Err(self.error("atom or red with the wrong number of operands"));
        }
        let rest = &operands[!reduce as usize..];
        let d = match reduce {
            true => self.fresh_register(ty.class()),
            false => self.destination(&operands[0], ty.class())?,
        };
        let mut src = vec![VirtualOperand::None];
        for o in &rest[1..] {
            src.push(self.source(o, ty.class())?);
        }
        let (base, offset) = self.address(&rest[0])?;
        src[0] = base;
        self.emit(Opcode::Atom { space, op, size: (ty.bits() / 8) as u8 }, &[d], &src, offset)
    }
}

fn space_allows_atomics(space: StateSpace) -> bool {
    matches!(space, StateSpace::Global | StateSpace::Shared | StateSpace::Generic)
}
