//! Walks a function body and emits instructions on virtual registers.

use super::kind::kind;
use super::names::{Name, Names, Register, special};
use super::{Origin, Special};
use crate::error::{Error, Result};
use crate::inst::{Class, Kind, MAX_DST, MAX_SRC, Op};
use crate::layout::LOCAL_ALIGN;
use crate::module::{Param, ParamKind};
use crate::ptx::{Function, Instruction, Operand, Space, StatementKind, Unit, Variable, type_size};
use std::collections::HashMap;

/// An operand on virtual registers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Arg {
    None,
    Reg(u32),
    Word(u32),
    Double(u64),
    Truth(bool),
    /// An offset from where dynamic shared memory begins, known once all static variables are.
    Dynamic(Class, u64),
}

/// An instruction on virtual registers; a branch's `imm` is a label number.
#[derive(Clone, Debug)]
pub struct Draft {
    pub op: Op,
    pub guard: Option<(u32, bool)>,
    pub dst: [Arg; MAX_DST],
    pub src: [Arg; MAX_SRC],
    pub imm: i64,
    pub kind: Kind,
    pub origin: Origin,
}

/// A module variable as kernels see it.
#[derive(Clone, Copy, Debug)]
pub enum Symbol {
    /// In device memory.
    Device(u64),
    /// Shared memory of stated size and alignment.
    Shared(u32, u32),
    /// `extern .shared`: starts where the static variables end.
    Dynamic(u32),
}

/// Module variables by name.
pub type Symbols<'a> = HashMap<&'a str, Symbol>;

/// All that slot assignment needs.
#[derive(Debug, Default)]
pub struct Built {
    pub drafts: Vec<Draft>,
    /// Instruction index of every label.
    pub labels: Vec<u32>,
    pub tables: Vec<Vec<u32>>,
    pub registers: Vec<Register>,
    /// Static shared memory; dynamic begins here.
    pub shared_bytes: u32,
    pub local_bytes: u32,
    pub params: Vec<Param>,
    pub param_bytes: usize,
}

/// Calls may nest this deep; PTX that NVRTC emits for kernels does not recurse.
const MAX_DEPTH: usize = 24;
/// Instructions of one kernel after all calls are expanded.
const MAX_INSTRUCTIONS: usize = 1 << 18;

pub(super) struct Builder<'a> {
    unit: &'a Unit<'a>,
    symbols: &'a Symbols<'a>,
    pub(super) names: Names<'a>,
    pub(super) built: Built,
    shared: HashMap<&'a str, u32>,
    dynamic_align: u32,
    /// The scope where the current function's own names begin.
    floor: usize,
    /// Where `ret` of an expanded function goes; an entry's ends the thread.
    pub(super) return_label: Option<u32>,
    depth: usize,
    origin: Origin,
    guard: Option<(u32, bool)>,
    kind: Kind,
}

/// Decodes an entry to drafts.
pub fn build<'a>(unit: &'a Unit<'a>, function: &'a Function<'a>, symbols: &'a Symbols<'a>) -> Result<Built> {
    let mut b = Builder {
        unit,
        symbols,
        names: Names::default(),
        built: Built::default(),
        shared: HashMap::new(),
        dynamic_align: 1,
        floor: 0,
        return_label: None,
        depth: 0,
        origin: Origin::default(),
        guard: None,
        kind: Kind::Other,
    };
    b.names.open();
    b.entry_params(function)?;
    b.body(function)?;
    b.emit(Op::Exit, &[], &[], 0)?;
    b.built.shared_bytes = align_up(b.built.shared_bytes as u64, b.dynamic_align) as u32;
    b.built.registers = std::mem::take(&mut b.names.registers);
    Ok(b.built)
}

fn align_up(value: u64, align: u32) -> u64 {
    value.next_multiple_of(align.max(1) as u64)
}

impl<'a> Builder<'a> {
    pub(super) fn error(&self, what: impl Into<String>) -> Error {
        Error::ptx(self.origin.ptx_line, what)
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
            self.names.define(p.name, Name::Param(offset as u32), p.line)?;
            self.built.params.push(param);
            offset += size;
            if offset > 1 << 16 {
                return Err(Error::ptx(p.line, "the parameters are too large"));
            }
        }
        self.built.param_bytes = offset as usize;
        Ok(())
    }

    fn body(&mut self, function: &'a Function<'a>) -> Result<()> {
        for statement in &function.body {
            if let StatementKind::Label(name) = statement.kind {
                let label = self.label();
                self.names.define(name, Name::Label(label), statement.line)?;
            }
        }
        for statement in &function.body {
            if let StatementKind::Targets { name, labels } = &statement.kind {
                let found: Option<Vec<_>> = labels
                    .iter()
                    .map(|l| match self.names.find(l, self.floor) {
                        Some(Name::Label(n)) => Some(n),
                        _ => None,
                    })
                    .collect();
                let found = found.ok_or_else(|| Error::ptx(statement.line, "a target that is no label"))?;
                self.built.tables.push(found);
                let number = self.built.tables.len() as u32 - 1;
                self.names.define(name, Name::Table(number), statement.line)?;
            }
        }
        for statement in &function.body {
            self.origin.ptx_line = statement.line;
            match &statement.kind {
                StatementKind::Open => self.names.open(),
                StatementKind::Close => self.names.close(),
                StatementKind::Label(name) => {
                    if let Some(Name::Label(label)) = self.names.find(name, self.floor) {
                        self.place(label);
                    }
                }
                StatementKind::Registers { ty, name, count } => {
                    self.names.declare(ty, name, *count, statement.line)?;
                }
                StatementKind::Variable(v) => self.variable(v)?,
                StatementKind::Location { file, line } => {
                    (self.origin.file, self.origin.cuda_line) = (*file, *line);
                }
                StatementKind::Targets { .. } => {}
                StatementKind::Instruction(i) => self.guarded(i)?,
            }
        }
        Ok(())
    }

    fn variable(&mut self, v: &'a Variable<'a>) -> Result<()> {
        let size = type_size(v.ty).unwrap_or(1) as u64 * v.count;
        let name = match v.space {
            Space::Shared => Name::Shared(self.allot_shared(size, v.align)?),
            Space::Local => Name::Local(self.allot_local(size, v.align)?),
            // A parameter of a call: a register where it is a scalar.
            Space::Param if !v.array => {
                let (class, bits) = match size {
                    8 => (Class::Double, 64),
                    4 => (Class::Word, 32),
                    _ => (Class::Word, 16),
                };
                Name::Register(self.names.register(class, bits))
            }
            Space::Param => Name::Local(self.allot_local(size, v.align)?),
            _ => return Err(self.error(format!("'{}' cannot be declared inside a function", v.name))),
        };
        self.names.define(v.name, name, v.line)
    }

    fn allot_shared(&mut self, size: u64, align: u32) -> Result<u32> {
        let at = align_up(self.built.shared_bytes as u64, align);
        if at + size > 1 << 24 {
            return Err(self.error("more shared memory than any GPU has"));
        }
        self.built.shared_bytes = (at + size) as u32;
        Ok(at as u32)
    }

    fn allot_local(&mut self, size: u64, align: u32) -> Result<u32> {
        let at = align_up(self.built.local_bytes as u64, align.max(LOCAL_ALIGN));
        if at + size > 1 << 19 {
            return Err(self.error("more local memory than any GPU has"));
        }
        self.built.local_bytes = (at + size) as u32;
        Ok(at as u32)
    }

    pub(super) fn label(&mut self) -> u32 {
        self.built.labels.push(u32::MAX);
        self.built.labels.len() as u32 - 1
    }

    pub(super) fn place(&mut self, label: u32) {
        self.built.labels[label as usize] = self.built.drafts.len() as u32;
    }

    pub(super) fn emit(&mut self, op: Op, dst: &[Arg], src: &[Arg], imm: i64) -> Result<()> {
        if self.built.drafts.len() >= MAX_INSTRUCTIONS {
            return Err(self.error("more instructions than a kernel may have"));
        }
        let mut draft = Draft {
            op,
            guard: self.guard,
            dst: [Arg::None; MAX_DST],
            src: [Arg::None; MAX_SRC],
            imm,
            kind: self.kind,
            origin: self.origin,
        };
        draft.dst[..dst.len()].copy_from_slice(dst);
        draft.src[..src.len()].copy_from_slice(src);
        self.built.drafts.push(draft);
        Ok(())
    }

    fn guarded(&mut self, i: &'a Instruction<'a>) -> Result<()> {
        self.guard = match i.guard {
            None => None,
            Some((name, negated)) => match self.arg(&Operand::Name(name), Class::Predicate)? {
                Arg::Reg(r) => Some((r, negated)),
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
        self.kind = kind(i);
        let known = self.arithmetic(root, i)?
            || self.float(root, i)?
            || self.data(root, i)?
            || self.collective(root, i)?
            || self.control(root, i)?;
        if known { Ok(()) } else { Err(self.error(format!("unknown instruction '{}'", i.opcode.join(".")))) }
    }

    /// Everything between `{` and `}` of a called function, in place of the call.
    pub(super) fn expand(&mut self, name: &'a str, returns: &[Name], args: &[Name]) -> Result<()> {
        let unit = self.unit;
        let function = unit.functions.iter().find(|f| f.name == name && !f.entry);
        let function = function.ok_or_else(|| self.error(format!("unknown function '{name}'")))?;
        if self.depth >= MAX_DEPTH {
            return Err(self.error(format!("calls of '{name}' nest too deep")));
        }
        if function.params.len() != args.len() || function.returns.len() != returns.len() {
            return Err(self.error(format!("'{name}' is called with the wrong number of parameters")));
        }
        let (guard, origin) = (self.guard.take(), self.origin);
        let skip = self.label();
        if let Some((r, negated)) = guard {
            self.guard = Some((r, !negated));
            self.emit(Op::Branch, &[], &[], skip as i64)?;
            self.guard = None;
        }
        let outer = (self.floor, self.return_label);
        self.floor = self.names.enter_function();
        self.return_label = Some(skip);
        self.depth += 1;
        for (formal, actual) in function.returns.iter().zip(returns).chain(function.params.iter().zip(args)) {
            self.names.define(formal.name, *actual, formal.line)?;
        }
        self.body(function)?;
        self.depth -= 1;
        self.names.leave_function(self.floor);
        (self.floor, self.return_label) = outer;
        self.origin = origin;
        self.place(skip);
        Ok(())
    }

    pub(super) fn find(&mut self, name: &'a str) -> Option<Name> {
        if let Some(found) = self.names.find(name, self.floor) {
            return Some(found);
        }
        match *self.symbols.get(name)? {
            Symbol::Device(address) => Some(Name::Global(address)),
            Symbol::Shared(size, align) => {
                if let Some(&at) = self.shared.get(name) {
                    return Some(Name::Shared(at));
                }
                let at = self.allot_shared(size as u64, align).ok()?;
                self.shared.insert(name, at);
                Some(Name::Shared(at))
            }
            Symbol::Dynamic(_) => None,
        }
    }

    /// Whether `name` is a dynamic shared variable; its alignment is honoured from then on.
    fn dynamic(&mut self, name: &str) -> bool {
        match self.symbols.get(name) {
            Some(&Symbol::Dynamic(align)) => {
                self.dynamic_align = self.dynamic_align.max(align);
                true
            }
            _ => false,
        }
    }

    fn constant(&self, value: u64, class: Class) -> Arg {
        match class {
            Class::Word => Arg::Word(value as u32),
            Class::Double => Arg::Double(value),
            Class::Predicate => Arg::Truth(value != 0),
        }
    }

    /// A source operand of a class. Integers and floats of any spelling become its bits.
    pub(super) fn arg(&mut self, operand: &Operand<'a>, class: Class) -> Result<Arg> {
        match *operand {
            Operand::Int(v) => Ok(self.constant(v as u64, class)),
            Operand::Float(bits, double) => Ok(match (class, double) {
                (Class::Double, false) => Arg::Double((f32::from_bits(bits as u32) as f64).to_bits()),
                (Class::Word, true) => Arg::Word((f64::from_bits(bits) as f32).to_bits()),
                (class, _) => self.constant(bits, class),
            }),
            Operand::Not(name) if class == Class::Predicate => {
                let source = self.arg(&Operand::Name(name), class)?;
                let guard = self.guard.take();
                let fresh = Arg::Reg(self.names.register(Class::Predicate, 1));
                self.emit(Op::Logic(crate::inst::Logic::Not), &[fresh], &[source], 0)?;
                self.guard = guard;
                Ok(fresh)
            }
            Operand::Name(name) => self.named(name, 0, class),
            Operand::Offset(name, offset) => self.named(name, offset, class),
            _ => Err(self.error(format!("unexpected operand {operand:?}"))),
        }
    }

    fn named(&mut self, name: &'a str, offset: i64, class: Class) -> Result<Arg> {
        if self.dynamic(name) {
            return Ok(Arg::Dynamic(class, offset as u64));
        }
        if let Some(s) = special(name) {
            return self.special(s, class);
        }
        if let Some(found) = self.clock(name, class)? {
            return Ok(found);
        }
        let address = match self.find(name) {
            Some(Name::Register(r)) if offset == 0 => {
                let found = self.names.registers[r as usize].class;
                return match found == class {
                    true => Ok(Arg::Reg(r)),
                    false => Err(self.error(format!("'{name}' has the wrong width here"))),
                };
            }
            Some(Name::Shared(at) | Name::Local(at) | Name::Param(at)) => at as u64,
            Some(Name::Global(address)) => address,
            _ => return Err(self.error(format!("unknown name '{name}'"))),
        };
        Ok(self.constant(address.wrapping_add(offset as u64), class))
    }

    fn special(&mut self, s: Special, class: Class) -> Result<Arg> {
        let word = Arg::Reg(self.names.special(s));
        match class {
            Class::Word => Ok(word),
            Class::Double => {
                let wide = Arg::Reg(self.names.register(Class::Double, 64));
                self.emit(Op::Convert(crate::inst::Convert::U32ToU64), &[wide], &[word], 0)?;
                Ok(wide)
            }
            Class::Predicate => Err(self.error("a special register is no predicate")),
        }
    }

    fn clock(&mut self, name: &str, class: Class) -> Result<Option<Arg>> {
        let bits = match (name, class) {
            ("%clock" | "%clock_hi" | "%globaltimer_lo" | "%globaltimer_hi", Class::Word) => 32,
            ("%clock64" | "%globaltimer", Class::Double) => 64,
            _ => return Ok(None),
        };
        let fresh = Arg::Reg(self.names.register(class, bits));
        self.emit(Op::Clock, &[fresh], &[], 0)?;
        Ok(Some(fresh))
    }

    /// A destination register of a class; `_` is a register nothing reads.
    pub(super) fn destination(&mut self, operand: &Operand<'a>, class: Class) -> Result<Arg> {
        let Operand::Name(name) = *operand else {
            return Err(self.error(format!("unexpected destination {operand:?}")));
        };
        if name == "_" {
            return Ok(self.fresh(class));
        }
        match self.find(name) {
            Some(Name::Register(r)) if self.names.registers[r as usize].class == class => Ok(Arg::Reg(r)),
            Some(Name::Register(_)) => Err(self.error(format!("'{name}' has the wrong width here"))),
            _ => Err(self.error(format!("unknown register '{name}'"))),
        }
    }

    pub(super) fn fresh(&mut self, class: Class) -> Arg {
        let bits = match class {
            Class::Word => 32,
            Class::Double => 64,
            Class::Predicate => 1,
        };
        Arg::Reg(self.names.register(class, bits))
    }

    /// A register, of whatever class it has.
    pub(super) fn any_register(&mut self, operand: &Operand<'a>) -> Option<(Arg, Register)> {
        let Operand::Name(name) = *operand else { return None };
        match self.find(name) {
            Some(Name::Register(r)) => Some((Arg::Reg(r), self.names.registers[r as usize])),
            _ => None,
        }
    }

    /// The base and offset of `[…]`: a register, or a constant address.
    pub(super) fn address(&mut self, operand: &Operand<'a>) -> Result<(Arg, i64)> {
        let Operand::Address(base, offset) = *operand else {
            return Err(self.error(format!("expected an address, found {operand:?}")));
        };
        let Some(base) = base else { return Ok((Arg::Double(0), offset)) };
        if let Some((register, _)) = self.any_register(&Operand::Name(base)) {
            return Ok((register, offset));
        }
        Ok((self.named(base, 0, Class::Double)?, offset))
    }

    pub(super) fn operands<const N: usize>(&self, i: &'a Instruction<'a>) -> Result<&'a [Operand<'a>; N]> {
        i.operands.as_slice().try_into().map_err(|_| {
            self.error(format!("'{}' takes {N} operands, not {}", i.opcode.join("."), i.operands.len()))
        })
    }
}
