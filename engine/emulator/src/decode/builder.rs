//! Lowering of a function body to instructions on virtual registers.

use super::instruction_kind::instruction_kind;
use super::scopes::{Binding, Scopes, VirtualRegister, special_register};
use super::{SourceLocation, SpecialRegister};
use crate::address_space::LOCAL_ALIGN;
use crate::error::{Error, Result};
use crate::inst::RegisterClass::{self, B32, B64, Predicate};
use crate::inst::{InstructionKind, MAX_DST, MAX_SRC, Opcode};
use crate::module::{Param, ParamKind};
use crate::ptx::{
    Function, Instruction, Operand, ParsedModule, StateSpace, StatementKind, Variable, type_size,
};
use std::collections::HashMap;

/// An operand on virtual registers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum VirtualOperand {
    None,
    Reg(u32),
    B32(u32),
    B64(u64),
    Pred(bool),
    /// An offset in dynamic shared memory, which begins where all static variables end.
    DynamicShared(RegisterClass, u64),
}

/// An instruction on virtual registers; a branch's `imm` is a label number.
#[derive(Clone, Debug)]
pub struct VirtualInst {
    pub op: Opcode,
    pub guard: Option<(u32, bool)>,
    pub dst: [VirtualOperand; MAX_DST],
    pub src: [VirtualOperand; MAX_SRC],
    pub imm: i64,
    pub kind: InstructionKind,
    pub location: SourceLocation,
}

/// The address of a module variable.
#[derive(Clone, Copy, Debug)]
pub enum ModuleSymbol {
    /// In device memory.
    Device(u64),
    /// In shared memory: size and alignment in bytes.
    Shared(u32, u32),
    /// `extern .shared`, of this alignment: begins where the static variables end.
    Dynamic(u32),
}

/// Module variables by name.
pub type Symbols<'a> = HashMap<&'a str, ModuleSymbol>;

/// A kernel on virtual registers, the input of register allocation.
#[derive(Debug, Default)]
pub struct VirtualProgram {
    pub insts: Vec<VirtualInst>,
    /// Instruction index of every label.
    pub labels: Vec<u32>,
    pub tables: Vec<Vec<u32>>,
    pub registers: Vec<VirtualRegister>,
    /// Bytes of static shared memory; the dynamic one begins here.
    pub shared_bytes: u32,
    pub local_bytes: u32,
    pub params: Vec<Param>,
    pub param_bytes: usize,
}

/// Maximum depth of calls; PTX that NVRTC emits for kernels does not recurse.
const MAX_DEPTH: usize = 24;
/// Maximum number of instructions of a kernel with all calls inlined.
const MAX_INSTRUCTIONS: usize = 1 << 18;

pub(super) struct Builder<'a> {
    parsed: &'a ParsedModule<'a>,
    symbols: &'a Symbols<'a>,
    pub(super) scopes: Scopes<'a>,
    pub(super) program: VirtualProgram,
    shared: HashMap<&'a str, u32>,
    dynamic_align: u32,
    /// Index of the outermost scope of the current function.
    function_scope: usize,
    /// Target of `ret` in an inlined function; in an entry `ret` ends the thread.
    pub(super) return_label: Option<u32>,
    depth: usize,
    location: SourceLocation,
    guard: Option<(u32, bool)>,
    kind: InstructionKind,
}

/// Lowers an entry.
pub fn build<'a>(
    parsed: &'a ParsedModule<'a>,
    function: &'a Function<'a>,
    symbols: &'a Symbols<'a>,
) -> Result<VirtualProgram> {
    let mut b = Builder {
        parsed,
        symbols,
        scopes: Scopes::default(),
        program: VirtualProgram::default(),
        shared: HashMap::new(),
        dynamic_align: 1,
        function_scope: 0,
        return_label: None,
        depth: 0,
        location: SourceLocation::default(),
        guard: None,
        kind: InstructionKind::Other,
    };
    b.scopes.open();
    b.entry_params(function)?;
    b.body(function)?;
    b.emit(Opcode::Exit, &[], &[], 0)?;
    b.program.shared_bytes = align_up(b.program.shared_bytes as u64, b.dynamic_align) as u32;
    b.program.registers = std::mem::take(&mut b.scopes.registers);
    Ok(b.program)
}

fn align_up(value: u64, align: u32) -> u64 {
    value.next_multiple_of(align.max(1) as u64)
}

impl<'a> Builder<'a> {
    pub(super) fn error(&self, what: impl Into<String>) -> Error {
        Error::ptx(self.location.ptx_line, what)
    }

    fn entry_params(&mut self, function: &'a Function<'a>) -> Result<()> {
        let mut offset = 0;
        for p in &function.params {
            let size = type_size(p.ty).unwrap_or(1) as u64 * p.count;
            offset = align_up(offset, p.align);
            let kind = match p.ty {
                _ if p.array => ParamKind::Bytes,
                "f16" | "f32" | "f64" => ParamKind::Float { bits: size as u32 * 8 },
                ty => ParamKind::Int { bits: size as u32 * 8, signed: ty.starts_with('s') },
            };
            let param = Param { offset: offset as usize, size: size as usize, align: p.align as usize, kind };
            self.scopes.define(p.name, Binding::Param(offset as u32), p.line)?;
            self.program.params.push(param);
            offset += size;
            if offset > 1 << 16 {
                return Err(Error::ptx(p.line, "the parameters take more than 64 KiB"));
            }
        }
        self.program.param_bytes = offset as usize;
        Ok(())
    }

    fn body(&mut self, function: &'a Function<'a>) -> Result<()> {
        for statement in &function.body {
            if let StatementKind::Label(name) = statement.kind {
                let label = self.new_label();
                self.scopes.define(name, Binding::Label(label), statement.line)?;
            }
        }
        for statement in &function.body {
            if let StatementKind::BranchTargets { name, labels } = &statement.kind {
                let found: Option<Vec<_>> = labels
                    .iter()
                    .map(|l| match self.scopes.find(l, self.function_scope) {
                        Some(Binding::Label(n)) => Some(n),
                        _ => None,
                    })
                    .collect();
                let found = found.ok_or_else(|| {
                    Error::ptx(statement.line, ".branchtargets names something that is not a label")
                })?;
                self.program.tables.push(found);
                let number = self.program.tables.len() as u32 - 1;
                self.scopes.define(name, Binding::Table(number), statement.line)?;
            }
        }
        for statement in &function.body {
            self.location.ptx_line = statement.line;
            match &statement.kind {
                StatementKind::Open => self.scopes.open(),
                StatementKind::Close => self.scopes.close(),
                StatementKind::Label(name) => {
                    if let Some(Binding::Label(label)) = self.scopes.find(name, self.function_scope) {
                        self.bind_label(label);
                    }
                }
                StatementKind::Registers { ty, name, count } => {
                    self.scopes.declare(ty, name, *count, statement.line)?;
                }
                StatementKind::Variable(v) => self.variable(v)?,
                StatementKind::Location { file, line } => {
                    (self.location.file, self.location.cuda_line) = (*file, *line);
                }
                StatementKind::BranchTargets { .. } => {}
                StatementKind::Instruction(i) => self.guarded(i)?,
            }
        }
        Ok(())
    }

    fn variable(&mut self, v: &'a Variable<'a>) -> Result<()> {
        let size = type_size(v.ty).unwrap_or(1) as u64 * v.count;
        let name = match v.space {
            StateSpace::Shared => Binding::Shared(self.allot_shared(size, v.align)?),
            StateSpace::Local => Binding::Local(self.allot_local(size, v.align)?),
            // A parameter of a call: a register where it is a scalar.
            StateSpace::Param if !v.array => {
                let (class, bits) = match size {
                    8 => (B64, 64),
                    4 => (B32, 32),
                    _ => (B32, 16),
                };
                Binding::Register(self.scopes.register(class, bits))
            }
            StateSpace::Param => Binding::Local(self.allot_local(size, v.align)?),
            _ => return Err(self.error(format!("'{}' cannot be declared inside a function", v.name))),
        };
        self.scopes.define(v.name, name, v.line)
    }

    fn allot_shared(&mut self, size: u64, align: u32) -> Result<u32> {
        let at = align_up(self.program.shared_bytes as u64, align);
        if at + size > 1 << 24 {
            return Err(self.error("more than 16 MiB of static shared memory"));
        }
        self.program.shared_bytes = (at + size) as u32;
        Ok(at as u32)
    }

    fn allot_local(&mut self, size: u64, align: u32) -> Result<u32> {
        let at = align_up(self.program.local_bytes as u64, align.max(LOCAL_ALIGN));
        if at + size > 1 << 19 {
            return Err(self.error("more than 512 KiB of local memory per thread"));
        }
        self.program.local_bytes = (at + size) as u32;
        Ok(at as u32)
    }

    pub(super) fn new_label(&mut self) -> u32 {
        self.program.labels.push(u32::MAX);
        self.program.labels.len() as u32 - 1
    }

    pub(super) fn bind_label(&mut self, label: u32) {
        self.program.labels[label as usize] = self.program.insts.len() as u32;
    }

    pub(super) fn emit(
        &mut self,
        op: Opcode,
        dst: &[VirtualOperand],
        src: &[VirtualOperand],
        imm: i64,
    ) -> Result<()> {
        if self.program.insts.len() >= MAX_INSTRUCTIONS {
            return Err(
                self.error(format!("more than {MAX_INSTRUCTIONS} instructions with all calls inlined"))
            );
        }
        let mut inst = VirtualInst {
            op,
            guard: self.guard,
            dst: [VirtualOperand::None; MAX_DST],
            src: [VirtualOperand::None; MAX_SRC],
            imm,
            kind: self.kind,
            location: self.location,
        };
        inst.dst[..dst.len()].copy_from_slice(dst);
        inst.src[..src.len()].copy_from_slice(src);
        self.program.insts.push(inst);
        Ok(())
    }

    fn guarded(&mut self, i: &'a Instruction<'a>) -> Result<()> {
        self.guard = match i.guard {
            None => None,
            Some((name, negated)) => match self.source(&Operand::Name(name), Predicate)? {
                VirtualOperand::Reg(r) => Some((r, negated)),
                _ => return Err(self.error("a guard must be a predicate register")),
            },
        };
        let lowered = self.instruction(i);
        self.guard = None;
        lowered.map_err(|e| match e {
            Error::Ptx { line: 0, what } => self.error(what),
            other => other,
        })
    }

    fn instruction(&mut self, i: &'a Instruction<'a>) -> Result<()> {
        let root = i.opcode[0];
        self.kind = instruction_kind(i);
        let known = self.arithmetic(root, i)?
            || self.float(root, i)?
            || self.data(root, i)?
            || self.collective(root, i)?
            || self.control(root, i)?;
        if known {
            Ok(())
        } else {
            Err(self.error(format!("unsupported instruction '{}'", i.opcode.join("."))))
        }
    }

    /// Inlines a called function in place of the call.
    pub(super) fn inline_call(&mut self, name: &'a str, returns: &[Binding], args: &[Binding]) -> Result<()> {
        let parsed = self.parsed;
        let function = parsed.functions.iter().find(|f| f.name == name && !f.entry);
        let function = function.ok_or_else(|| self.error(format!("unknown function '{name}'")))?;
        if self.depth >= MAX_DEPTH {
            return Err(self.error(format!(
                "calls of '{name}' nest deeper than {MAX_DEPTH}: recursion is not supported"
            )));
        }
        if function.params.len() != args.len() || function.returns.len() != returns.len() {
            return Err(self.error(format!("'{name}' is called with the wrong number of parameters")));
        }
        let (guard, location) = (self.guard.take(), self.location);
        let skip = self.new_label();
        if let Some((r, negated)) = guard {
            self.guard = Some((r, !negated));
            self.emit(Opcode::Branch, &[], &[], skip as i64)?;
            self.guard = None;
        }
        let outer = (self.function_scope, self.return_label);
        self.function_scope = self.scopes.enter_function();
        self.return_label = Some(skip);
        self.depth += 1;
        for (formal, actual) in function.returns.iter().zip(returns).chain(function.params.iter().zip(args)) {
            self.scopes.define(formal.name, *actual, formal.line)?;
        }
        self.body(function)?;
        self.depth -= 1;
        self.scopes.leave_function(self.function_scope);
        (self.function_scope, self.return_label) = outer;
        self.location = location;
        self.bind_label(skip);
        Ok(())
    }

    pub(super) fn find(&mut self, name: &'a str) -> Option<Binding> {
        if let Some(found) = self.scopes.find(name, self.function_scope) {
            return Some(found);
        }
        match *self.symbols.get(name)? {
            ModuleSymbol::Device(address) => Some(Binding::Global(address)),
            ModuleSymbol::Shared(size, align) => {
                if let Some(&at) = self.shared.get(name) {
                    return Some(Binding::Shared(at));
                }
                let at = self.allot_shared(size as u64, align).ok()?;
                self.shared.insert(name, at);
                Some(Binding::Shared(at))
            }
            ModuleSymbol::Dynamic(_) => None,
        }
    }

    /// Returns true if `name` is a dynamic shared variable; its alignment is honoured from then on.
    fn dynamic(&mut self, name: &str) -> bool {
        match self.symbols.get(name) {
            Some(&ModuleSymbol::Dynamic(align)) => {
                self.dynamic_align = self.dynamic_align.max(align);
                true
            }
            _ => false,
        }
    }

    fn constant(&self, value: u64, class: RegisterClass) -> VirtualOperand {
        match class {
            B32 => VirtualOperand::B32(value as u32),
            B64 => VirtualOperand::B64(value),
            Predicate => VirtualOperand::Pred(value != 0),
        }
    }

    /// Lowers a source operand of a register class; literals become its bits.
    pub(super) fn source(&mut self, operand: &Operand<'a>, class: RegisterClass) -> Result<VirtualOperand> {
        match *operand {
            Operand::Int(v) => Ok(self.constant(v as u64, class)),
            Operand::Float(bits, double) => Ok(match (class, double) {
                (B64, false) => VirtualOperand::B64((f32::from_bits(bits as u32) as f64).to_bits()),
                (B32, true) => VirtualOperand::B32((f64::from_bits(bits) as f32).to_bits()),
                (class, _) => self.constant(bits, class),
            }),
            Operand::Not(name) if class == Predicate => {
                let source = self.source(&Operand::Name(name), class)?;
                let guard = self.guard.take();
                let fresh = VirtualOperand::Reg(self.scopes.register(Predicate, 1));
                self.emit(Opcode::Logic(crate::inst::PredicateOp::Not), &[fresh], &[source], 0)?;
                self.guard = guard;
                Ok(fresh)
            }
            Operand::Name(name) => self.named(name, 0, class),
            Operand::Offset(name, offset) => self.named(name, offset, class),
            _ => Err(self.error(format!("unexpected operand {operand:?}"))),
        }
    }

    fn named(&mut self, name: &'a str, offset: i64, class: RegisterClass) -> Result<VirtualOperand> {
        if self.dynamic(name) {
            return Ok(VirtualOperand::DynamicShared(class, offset as u64));
        }
        if let Some(s) = special_register(name) {
            return self.special(s, class);
        }
        if let Some(found) = self.clock(name, class)? {
            return Ok(found);
        }
        let address = match self.find(name) {
            Some(Binding::Register(r)) if offset == 0 => {
                let found = self.scopes.registers[r as usize].class;
                return match found == class {
                    true => Ok(VirtualOperand::Reg(r)),
                    false => Err(self
                        .error(format!("register '{name}' does not have the width of the instruction type"))),
                };
            }
            Some(Binding::Shared(at) | Binding::Local(at) | Binding::Param(at)) => at as u64,
            Some(Binding::Global(address)) => address,
            _ => return Err(self.error(format!("unknown name '{name}'"))),
        };
        Ok(self.constant(address.wrapping_add(offset as u64), class))
    }

    fn special(&mut self, s: SpecialRegister, class: RegisterClass) -> Result<VirtualOperand> {
        let word = VirtualOperand::Reg(self.scopes.special(s));
        match class {
            B32 => Ok(word),
            B64 => {
                let wide = VirtualOperand::Reg(self.scopes.register(B64, 64));
                self.emit(Opcode::Convert(crate::inst::CvtOp::U32ToU64), &[wide], &[word], 0)?;
                Ok(wide)
            }
            Predicate => Err(self.error("a special register cannot be used as a predicate")),
        }
    }

    fn clock(&mut self, name: &str, class: RegisterClass) -> Result<Option<VirtualOperand>> {
        let bits = match (name, class) {
            ("%clock" | "%clock_hi" | "%globaltimer_lo" | "%globaltimer_hi", B32) => 32,
            ("%clock64" | "%globaltimer", B64) => 64,
            _ => return Ok(None),
        };
        let fresh = VirtualOperand::Reg(self.scopes.register(class, bits));
        self.emit(Opcode::Clock, &[fresh], &[], 0)?;
        Ok(Some(fresh))
    }

    /// Lowers a destination operand of a register class; `_` is a register that nothing reads.
    pub(super) fn destination(
        &mut self,
        operand: &Operand<'a>,
        class: RegisterClass,
    ) -> Result<VirtualOperand> {
        let Operand::Name(name) = *operand else {
            return Err(self.error(format!("unexpected destination {operand:?}")));
        };
        if name == "_" {
            return Ok(self.fresh_register(class));
        }
        match self.find(name) {
            Some(Binding::Register(r)) if self.scopes.registers[r as usize].class == class => {
                Ok(VirtualOperand::Reg(r))
            }
            Some(Binding::Register(_)) => {
                Err(self.error(format!("register '{name}' does not have the width of the instruction type")))
            }
            _ => Err(self.error(format!("unknown register '{name}'"))),
        }
    }

    pub(super) fn fresh_register(&mut self, class: RegisterClass) -> VirtualOperand {
        let bits = match class {
            B32 => 32,
            B64 => 64,
            Predicate => 1,
        };
        VirtualOperand::Reg(self.scopes.register(class, bits))
    }

    /// Returns the register that an operand names, of any class.
    pub(super) fn any_register(
        &mut self,
        operand: &Operand<'a>,
    ) -> Option<(VirtualOperand, VirtualRegister)> {
        let Operand::Name(name) = *operand else { return None };
        match self.find(name) {
            Some(Binding::Register(r)) => Some((VirtualOperand::Reg(r), self.scopes.registers[r as usize])),
            _ => None,
        }
    }

    /// Returns the base (a register or a constant address) and the offset of `[...]`.
    pub(super) fn address(&mut self, operand: &Operand<'a>) -> Result<(VirtualOperand, i64)> {
        let Operand::Address(base, offset) = *operand else {
            return Err(self.error(format!("expected an address, found {operand:?}")));
        };
        let Some(base) = base else { return Ok((VirtualOperand::B64(0), offset)) };
        if let Some((register, _)) = self.any_register(&Operand::Name(base)) {
            return Ok((register, offset));
        }
        Ok((self.named(base, 0, B64)?, offset))
    }

    pub(super) fn operands<const N: usize>(&self, i: &'a Instruction<'a>) -> Result<&'a [Operand<'a>; N]> {
        i.operands.as_slice().try_into().map_err(|_| {
            self.error(format!("'{}' takes {N} operands, not {}", i.opcode.join("."), i.operands.len()))
        })
    }
}
