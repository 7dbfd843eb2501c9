//! A function of the syntax tree to a program the interpreter executes.
//!
//! Names become registers, addresses and targets; calls are expanded in place, each with registers of its own;
//! then registers get rows by liveness, so that a warp's registers fit the cache.

mod arithmetic;
mod builder;
mod collective;
mod control;
mod data;
mod float;
mod kind;
mod modifiers;
mod names;
mod slots;

pub use builder::{Symbol, Symbols};

use crate::error::Result;
use crate::flow;
use crate::inst::{Inst, Slot};
use crate::module::Param;
use crate::ptx::{Function, Unit};

/// A register whose value the launch provides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Special {
    Tid(u8),
    Ntid(u8),
    Ctaid(u8),
    Nctaid(u8),
    LaneId,
    WarpId,
    WarpCount,
    LaneMaskEq,
    LaneMaskLe,
    LaneMaskLt,
    LaneMaskGe,
    LaneMaskGt,
    DynamicShared,
    TotalShared,
    /// Launch and machine identity: zero here.
    Zero,
}

/// Where an instruction came from.
#[derive(Clone, Copy, Debug, Default)]
pub struct Origin {
    pub ptx_line: u32,
    /// Number in the module's files, and line; zero where unknown.
    pub file: u32,
    pub cuda_line: u32,
}

/// A kernel in executable form.
#[derive(Debug, Default)]
pub struct Program {
    pub insts: Vec<Inst>,
    pub origins: Vec<Origin>,
    /// For every branch: where its lanes come together again, `insts.len()` for the end.
    pub reconverge: Vec<u32>,
    /// Targets of indexed branches.
    pub tables: Vec<Vec<u32>>,
    pub words: usize,
    pub doubles: usize,
    pub predicates: usize,
    pub word_constants: Vec<u32>,
    pub double_constants: Vec<u64>,
    pub predicate_constants: Vec<bool>,
    /// Registers that hold special values when a warp starts: row, and which.
    pub specials: Vec<(usize, Special)>,
    /// Registers that some path reads before it writes them.
    pub undefined: Vec<Slot>,
    /// For every block barrier the registers that are read later on.
    pub live: Vec<(u32, Vec<Slot>)>,
    pub shared_bytes: u32,
    pub local_bytes: u32,
    pub params: Vec<Param>,
    pub param_bytes: usize,
    /// The number of instructions that access memory, and each one's number among them.
    pub accesses: usize,
    pub access_of: Vec<u32>,
    /// The narrowest access that may reach shared memory, in bytes: how fine its race records must be.
    pub shared_grain: u32,
    /// The same of global memory.
    pub global_grain: u32,
}

impl Program {
    /// Where an instruction came from.
    pub fn origin(&self, pc: u32) -> Origin {
        self.origins.get(pc as usize).copied().unwrap_or_default()
    }
}

/// Decodes an entry.
pub fn program(unit: &Unit<'_>, function: &Function<'_>, symbols: &Symbols<'_>) -> Result<Program> {
    let built = builder::build(unit, function, symbols)?;
    let mut program = slots::assign(built, function.line)?;
    program.reconverge = flow::reconvergence(&program);
    Ok(program)
}
