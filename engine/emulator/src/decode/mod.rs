//! The decoder: from a function of the syntax tree to the code that the interpreter executes.
//!
//! Names become registers, addresses and branch targets; calls are inlined, each with its own registers; then
//! register allocation by liveness maps them to few rows, so that the registers of a warp fit the cache.

mod arithmetic;
mod builder;
mod collective;
mod control;
mod data;
mod float;
mod instruction_kind;
mod modifiers;
mod register_allocation;
mod scopes;

pub use builder::{ModuleSymbol, Symbols};

use crate::control_flow;
use crate::error::Result;
use crate::inst::{Inst, RegisterSlot};
use crate::module::Param;
use crate::ptx::{Function, ParsedModule};

/// A special register: its value is set when a warp starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SpecialRegister {
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
    /// `%smid` and `%gridid`: zero.
    Zero,
}

/// The source lines of an instruction.
#[derive(Clone, Copy, Debug, Default)]
pub struct SourceLocation {
    pub ptx_line: u32,
    /// CUDA file, by its number in the module, and line; zero where unknown.
    pub file: u32,
    pub cuda_line: u32,
}

/// The code of a kernel in executable form.
#[derive(Debug, Default)]
pub struct KernelCode {
    pub insts: Vec<Inst>,
    pub locations: Vec<SourceLocation>,
    /// Reconvergence point of every branch; `insts.len()` denotes the exit.
    pub reconvergence: Vec<u32>,
    /// Targets of indexed branches.
    pub branch_tables: Vec<Vec<u32>>,
    pub b32_rows: usize,
    pub b64_rows: usize,
    pub predicate_rows: usize,
    pub b32_constants: Vec<u32>,
    pub b64_constants: Vec<u64>,
    pub predicate_constants: Vec<bool>,
    /// Rows that hold special registers when a warp starts.
    pub specials: Vec<(usize, SpecialRegister)>,
    /// Registers that some path reads before it writes them.
    pub read_before_write: Vec<RegisterSlot>,
    /// Registers that are live after each block barrier.
    pub live_after_barrier: Vec<(u32, Vec<RegisterSlot>)>,
    pub shared_bytes: u32,
    pub local_bytes: u32,
    pub params: Vec<Param>,
    pub param_bytes: usize,
    /// Number of instructions that access memory, and the index of each instruction among them.
    pub access_count: usize,
    pub access_index: Vec<u32>,
    /// Bytes of the narrowest access that may reach shared memory: the granularity of racecheck there.
    pub shared_granule: u32,
    /// Bytes of the narrowest access that may reach global memory.
    pub global_granule: u32,
    /// True if an instruction sleeps.
    pub sleeps: bool,
}

impl KernelCode {
    /// The source lines of an instruction.
    pub fn location(&self, pc: u32) -> SourceLocation {
        self.locations.get(pc as usize).copied().unwrap_or_default()
    }
}

/// Decodes an entry.
pub fn kernel_code(
    parsed: &ParsedModule<'_>,
    function: &Function<'_>,
    symbols: &Symbols<'_>,
) -> Result<KernelCode> {
    let virtual_program = builder::build(parsed, function, symbols)?;
    let mut code = register_allocation::allocate(virtual_program, function.line)?;
    code.reconvergence = control_flow::reconvergence_points(&code);
    Ok(code)
}
