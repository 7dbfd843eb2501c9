//! Scopes: what the names of a function are bound to, and its virtual registers.

use super::SpecialRegister;
use crate::error::{Error, Result};
use crate::inst::RegisterClass;
use std::collections::HashMap;

/// The entity that a name is bound to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Binding {
    Register(u32),
    /// An offset in shared memory.
    Shared(u32),
    /// An offset in the thread's local memory.
    Local(u32),
    /// A device address of a module variable.
    Global(u64),
    /// An offset in the kernel's parameters.
    Param(u32),
    Label(u32),
    Table(u32),
}

/// A virtual register.
#[derive(Clone, Copy, Debug)]
pub struct VirtualRegister {
    pub class: RegisterClass,
    /// Declared width: 16, 32 or 64 (8-bit registers count as 16); 1 for predicates.
    pub bits: u8,
    pub special: Option<SpecialRegister>,
}

/// A declaration like `.reg .b32 %r<9>`; its registers are allocated at first use.
#[derive(Debug)]
struct RegisterRange {
    ty: VirtualRegister,
    count: u32,
    allocated: HashMap<u32, u32>,
}

/// The names declared between `{` and `}`.
#[derive(Debug, Default)]
struct Scope<'a> {
    bindings: HashMap<&'a str, Binding>,
    ranges: HashMap<&'a str, RegisterRange>,
}

/// The open scopes, innermost last, and all virtual registers.
#[derive(Debug, Default)]
pub struct Scopes<'a> {
    scopes: Vec<Scope<'a>>,
    specials: HashMap<SpecialRegister, u32>,
    pub registers: Vec<VirtualRegister>,
}

impl<'a> Scopes<'a> {
    pub fn open(&mut self) {
        self.scopes.push(Scope::default());
    }

    pub fn close(&mut self) {
        self.scopes.pop();
    }

    /// Opens the outermost scope of an inlined function. Returns its index: lookups stop there.
    pub fn enter_function(&mut self) -> usize {
        self.open();
        self.scopes.len() - 1
    }

    pub fn leave_function(&mut self, depth: usize) {
        self.scopes.truncate(depth);
    }

    pub fn register(&mut self, class: RegisterClass, bits: u8) -> u32 {
        self.registers.push(VirtualRegister { class, bits, special: None });
        self.registers.len() as u32 - 1
    }

    pub fn special(&mut self, special: SpecialRegister) -> u32 {
        if let Some(&r) = self.specials.get(&special) {
            return r;
        }
        self.registers.push(VirtualRegister { class: RegisterClass::B32, bits: 32, special: Some(special) });
        let r = self.registers.len() as u32 - 1;
        self.specials.insert(special, r);
        r
    }

    pub fn define(&mut self, name: &'a str, value: Binding, line: u32) -> Result<()> {
        let Some(scope) = self.scopes.last_mut() else { return Err(Error::ptx(line, "no open scope")) };
        match scope.bindings.insert(name, value) {
            None => Ok(()),
            Some(_) => Err(Error::ptx(line, format!("'{name}' is declared twice"))),
        }
    }

    pub fn declare(&mut self, ty: &str, name: &'a str, count: Option<u32>, line: u32) -> Result<()> {
        let (class, bits) = match ty {
            ".pred" => (RegisterClass::Predicate, 1),
            ".b8" | ".u8" | ".s8" | ".b16" | ".u16" | ".s16" | ".f16" | ".bf16" => (RegisterClass::B32, 16),
            ".b32" | ".u32" | ".s32" | ".f32" | ".f16x2" | ".bf16x2" => (RegisterClass::B32, 32),
            ".b64" | ".u64" | ".s64" | ".f64" => (RegisterClass::B64, 64),
            _ => return Err(Error::ptx(line, format!("registers of type {ty} are unknown"))),
        };
        let ty = VirtualRegister { class, bits, special: None };
        let Some(count) = count else {
            let r = self.register(class, bits);
            return self.define(name, Binding::Register(r), line);
        };
        let Some(scope) = self.scopes.last_mut() else { return Err(Error::ptx(line, "no open scope")) };
        scope.ranges.insert(name, RegisterRange { ty, count, allocated: HashMap::new() });
        Ok(())
    }

    /// Returns the binding of `name` in the innermost scope that has one, no further out than scope `function_scope`.
    pub fn find(&mut self, name: &'a str, function_scope: usize) -> Option<Binding> {
        let stem = name.trim_end_matches(|c: char| c.is_ascii_digit());
        let number = name[stem.len()..].parse::<u32>().ok();
        for scope in self.scopes[function_scope..].iter_mut().rev() {
            if let Some(&found) = scope.bindings.get(name) {
                return Some(found);
            }
            let Some(number) = number else { continue };
            if let Some(range) = scope.ranges.get_mut(stem)
                && number < range.count
            {
                let registers = &mut self.registers;
                let r = *range.allocated.entry(number).or_insert_with(|| {
                    registers.push(range.ty);
                    registers.len() as u32 - 1
                });
                return Some(Binding::Register(r));
            }
        }
        None
    }
}

/// Returns the special register of a name, if it is one whose value does not change during a launch.
pub fn special_register(name: &str) -> Option<SpecialRegister> {
    let axis = |rest: &str| match rest {
        "x" => Some(0),
        "y" => Some(1),
        "z" => Some(2),
        _ => None,
    };
    if let Some((base, rest)) = name.split_once('.') {
        let n = axis(rest)?;
        return Some(match base {
            "%tid" => SpecialRegister::Tid(n),
            "%ntid" => SpecialRegister::Ntid(n),
            "%ctaid" => SpecialRegister::Ctaid(n),
            "%nctaid" => SpecialRegister::Nctaid(n),
            _ => return None,
        });
    }
    Some(match name {
        "%laneid" => SpecialRegister::LaneId,
        "%warpid" => SpecialRegister::WarpId,
        "%nwarpid" => SpecialRegister::WarpCount,
        "%lanemask_eq" => SpecialRegister::LaneMaskEq,
        "%lanemask_le" => SpecialRegister::LaneMaskLe,
        "%lanemask_lt" => SpecialRegister::LaneMaskLt,
        "%lanemask_ge" => SpecialRegister::LaneMaskGe,
        "%lanemask_gt" => SpecialRegister::LaneMaskGt,
        "%dynamic_smem_size" => SpecialRegister::DynamicShared,
        "%total_smem_size" => SpecialRegister::TotalShared,
        "%smid" | "%gridid" => SpecialRegister::Zero,
        _ => return None,
    })
}
