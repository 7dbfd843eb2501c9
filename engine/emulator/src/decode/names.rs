//! Names in scope, and the registers behind them.

use super::Special;
use crate::error::{Error, Result};
use crate::inst::Class;
use std::collections::HashMap;

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Name {
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
pub struct Register {
    pub class: Class,
    /// Declared width: 16, 32 or 64 (8-bit registers count as 16); 1 for predicates.
    pub bits: u8,
    pub special: Option<Special>,
}

/// `.reg .b32 %r<9>`: the registers are made when first used.
#[derive(Debug)]
struct Family {
    ty: Register,
    count: u32,
    made: HashMap<u32, u32>,
}

/// One `{ … }`.
#[derive(Debug, Default)]
struct Scope<'a> {
    names: HashMap<&'a str, Name>,
    families: HashMap<&'a str, Family>,
}

/// The scopes around the statement being decoded, and all registers.
#[derive(Debug, Default)]
pub struct Names<'a> {
    scopes: Vec<Scope<'a>>,
    specials: HashMap<Special, u32>,
    pub registers: Vec<Register>,
}

impl<'a> Names<'a> {
    pub fn open(&mut self) {
        self.scopes.push(Scope::default());
    }

    pub fn close(&mut self) {
        self.scopes.pop();
    }

    /// Sets the scopes aside while an expanded function's own are in force.
    pub fn enter_function(&mut self) -> usize {
        self.open();
        self.scopes.len() - 1
    }

    pub fn leave_function(&mut self, depth: usize) {
        self.scopes.truncate(depth);
    }

    pub fn register(&mut self, class: Class, bits: u8) -> u32 {
        self.registers.push(Register { class, bits, special: None });
        self.registers.len() as u32 - 1
    }

    pub fn special(&mut self, special: Special) -> u32 {
        if let Some(&r) = self.specials.get(&special) {
            return r;
        }
        self.registers.push(Register { class: Class::Word, bits: 32, special: Some(special) });
        let r = self.registers.len() as u32 - 1;
        self.specials.insert(special, r);
        r
    }

    pub fn define(&mut self, name: &'a str, value: Name, line: u32) -> Result<()> {
        let Some(scope) = self.scopes.last_mut() else { return Err(Error::ptx(line, "no open scope")) };
        match scope.names.insert(name, value) {
            None => Ok(()),
            Some(_) => Err(Error::ptx(line, format!("'{name}' is declared twice"))),
        }
    }

    pub fn declare(&mut self, ty: &str, name: &'a str, count: Option<u32>, line: u32) -> Result<()> {
        let (class, bits) = match ty {
            ".pred" => (Class::Predicate, 1),
            ".b8" | ".u8" | ".s8" | ".b16" | ".u16" | ".s16" | ".f16" | ".bf16" => (Class::Word, 16),
            ".b32" | ".u32" | ".s32" | ".f32" | ".f16x2" | ".bf16x2" => (Class::Word, 32),
            ".b64" | ".u64" | ".s64" | ".f64" => (Class::Double, 64),
            _ => return Err(Error::ptx(line, format!("registers of type {ty} are unknown"))),
        };
        let ty = Register { class, bits, special: None };
        let Some(count) = count else {
            let r = self.register(class, bits);
            return self.define(name, Name::Register(r), line);
        };
        let Some(scope) = self.scopes.last_mut() else { return Err(Error::ptx(line, "no open scope")) };
        scope.families.insert(name, Family { ty, count, made: HashMap::new() });
        Ok(())
    }

    /// What `name` stands for in the innermost scope that knows it, down to scope `floor`.
    pub fn find(&mut self, name: &'a str, floor: usize) -> Option<Name> {
        let stem = name.trim_end_matches(|c: char| c.is_ascii_digit());
        let number = name[stem.len()..].parse::<u32>().ok();
        for scope in self.scopes[floor..].iter_mut().rev() {
            if let Some(&found) = scope.names.get(name) {
                return Some(found);
            }
            let Some(number) = number else { continue };
            if let Some(family) = scope.families.get_mut(stem)
                && number < family.count
            {
                let registers = &mut self.registers;
                let r = *family.made.entry(number).or_insert_with(|| {
                    registers.push(family.ty);
                    registers.len() as u32 - 1
                });
                return Some(Name::Register(r));
            }
        }
        None
    }
}

/// The special register of a name, where it is one whose value is fixed during a launch.
pub fn special(name: &str) -> Option<Special> {
    let axis = |rest: &str| match rest {
        "x" => Some(0),
        "y" => Some(1),
        "z" => Some(2),
        _ => None,
    };
    if let Some((base, rest)) = name.split_once('.') {
        let axis = axis(rest)?;
        return Some(match base {
            "%tid" => Special::Tid(axis),
            "%ntid" => Special::Ntid(axis),
            "%ctaid" => Special::Ctaid(axis),
            "%nctaid" => Special::Nctaid(axis),
            _ => return None,
        });
    }
    Some(match name {
        "%laneid" => Special::LaneId,
        "%warpid" => Special::WarpId,
        "%nwarpid" => Special::WarpCount,
        "%lanemask_eq" => Special::LaneMaskEq,
        "%lanemask_le" => Special::LaneMaskLe,
        "%lanemask_lt" => Special::LaneMaskLt,
        "%lanemask_ge" => Special::LaneMaskGe,
        "%lanemask_gt" => Special::LaneMaskGt,
        "%dynamic_smem_size" => Special::DynamicShared,
        "%total_smem_size" => Special::TotalShared,
        "%smid" | "%gridid" => Special::Zero,
        _ => return None,
    })
}
