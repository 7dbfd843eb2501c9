//! Register allocation: virtual registers to rows, by liveness analysis and linear scan.

use super::KernelCode;
use super::builder::{VirtualInst, VirtualOperand, VirtualProgram};
use crate::control_flow::ControlFlowGraph;
use crate::error::{Error, Result};
use crate::inst::RegisterClass::{B32, B64, Predicate};
use crate::inst::{Inst, InstructionKind, MAX_DST, MAX_SRC, Opcode, RegisterSlot};
use crate::ptx::StateSpace;
use std::collections::HashMap;

/// Assigns a row to every register and to every constant. `line` is the line of the function, for errors.
pub fn allocate(mut program: VirtualProgram, line: u32) -> Result<KernelCode> {
    let n = program.insts.len() as u32;
    for table in program.tables.iter_mut() {
        table.iter_mut().for_each(|l| *l = program.labels[*l as usize].min(n - 1));
    }
    let insts = without_operands(&program);
    let graph = ControlFlowGraph::new(&insts, &program.tables);
    let (intervals, live_after) = liveness(&program, &graph);
    let mut code = KernelCode {
        branch_tables: std::mem::take(&mut program.tables),
        shared_bytes: program.shared_bytes,
        local_bytes: program.local_bytes,
        params: std::mem::take(&mut program.params),
        param_bytes: program.param_bytes,
        shared_granule: narrowest_access(&program.insts, StateSpace::Shared),
        global_granule: narrowest_access(&program.insts, StateSpace::Global),
        ..KernelCode::default()
    };
    let rows = linear_scan(&program, &intervals, &mut code);
    let rows_of =
        |(at, registers): &(u32, Vec<u32>)| (*at, registers.iter().map(|&r| rows[r as usize]).collect());
    code.live_after_barrier = live_after.iter().map(rows_of).collect();
    let mut constants = ConstantPool::default();
    for (source, mut inst) in program.insts.iter().zip(insts) {
        let mut slot = |arg: VirtualOperand| constants.slot(arg, &rows, program.shared_bytes);
        for (to, &from) in inst.dst.iter_mut().zip(&source.dst) {
            *to = slot(from);
        }
        for (to, &from) in inst.src.iter_mut().zip(&source.src) {
            *to = slot(from);
        }
        if let Some((register, negated)) = source.guard {
            (inst.guard, inst.guard_negated) = (slot(VirtualOperand::Reg(register)), negated);
        }
        code.access_index.push(code.access_count as u32);
        code.access_count += (inst.kind == InstructionKind::Memory) as usize;
        code.sleeps |= matches!(inst.op, Opcode::Sleep);
        code.insts.push(inst);
        code.locations.push(source.location);
    }
    code.b32_constants = constants.b32.0;
    code.b64_constants = constants.b64.0;
    code.predicate_constants = constants.predicates.0;
    let p = &code;
    let pools = [p.b32_rows, p.b64_rows, p.predicate_rows, p.b32_constants.len(), p.b64_constants.len()];
    match pools.iter().any(|&n| n > RegisterSlot::LIMIT) {
        true => Err(Error::ptx(
            line,
            format!("the kernel needs more than {} registers or constants of one width", RegisterSlot::LIMIT),
        )),
        false => Ok(code),
    }
}

/// Returns the instructions without their operands, with branch targets resolved.
fn without_operands(program: &VirtualProgram) -> Vec<Inst> {
    let n = program.insts.len() as u32;
    let inst = |d: &VirtualInst| Inst {
        op: d.op,
        // Any slot serves to mark the instruction as guarded.
        guard: if d.guard.is_some() { RegisterSlot::register(Predicate, 0) } else { RegisterSlot::NONE },
        guard_negated: false,
        dst: [RegisterSlot::NONE; MAX_DST],
        src: [RegisterSlot::NONE; MAX_SRC],
        imm: match d.op {
            Opcode::Branch => program.labels[d.imm as usize].min(n - 1) as i64,
            _ => d.imm,
        },
        kind: d.kind,
    };
    program.insts.iter().map(inst).collect()
}

/// Returns the bytes of the narrowest access that may reach a state space.
fn narrowest_access(insts: &[VirtualInst], space: StateSpace) -> u32 {
    let reaches = |s: StateSpace| s == space || s == StateSpace::Generic;
    let width = |d: &VirtualInst| match d.op {
        Opcode::Load(a) | Opcode::Store(a) if reaches(a.space) => a.size as u32 * a.count as u32,
        Opcode::Atom { space, size, .. } if reaches(space) => size as u32,
        Opcode::CopyAsync(size) => size as u32,
        _ => 16,
    };
    insts.iter().map(width).min().unwrap_or(16)
}

fn registers(args: &[VirtualOperand]) -> impl Iterator<Item = u32> + '_ {
    args.iter().filter_map(|a| if let VirtualOperand::Reg(r) = a { Some(*r) } else { None })
}

fn uses(d: &VirtualInst) -> impl Iterator<Item = u32> + '_ {
    registers(&d.src).chain(d.guard.map(|g| g.0))
}

/// First and last position where a register is live: instruction i uses at 2i and defines at 2i + 1.
/// An interval starts at 0 where some path reads the register before it is written.
#[derive(Clone, Copy, Debug)]
struct LiveInterval {
    start: u32,
    end: u32,
}

/// Returns the live intervals, and the registers live after every barrier.
fn liveness(program: &VirtualProgram, graph: &ControlFlowGraph) -> (Vec<LiveInterval>, Vec<(u32, Vec<u32>)>) {
    let words = program.registers.len().div_ceil(64);
    let blocks = graph.len();
    let mut read = vec![vec![0u64; words]; blocks];
    let mut written = vec![vec![0u64; words]; blocks];
    for block in 0..blocks {
        for d in &program.insts[graph.block_starts[block] as usize..graph.block_starts[block + 1] as usize] {
            for r in uses(d) {
                let (word, bit) = (r as usize / 64, 1 << (r % 64));
                read[block][word] |= bit & !written[block][word];
            }
            // A guarded write keeps the old value in some lanes.
            if d.guard.is_none() {
                registers(&d.dst).for_each(|r| written[block][r as usize / 64] |= 1 << (r % 64));
            }
        }
    }
    let mut live_in = read;
    let mut live_out = vec![vec![0u64; words]; blocks];
    let mut changed = true;
    while changed {
        changed = false;
        for block in (0..blocks).rev() {
            for &next in graph.successors[block].iter().filter(|&&n| (n as usize) < blocks) {
                for word in 0..words {
                    live_out[block][word] |= live_in[next as usize][word];
                }
            }
            for word in 0..words {
                let new = live_in[block][word] | live_out[block][word] & !written[block][word];
                changed |= new != live_in[block][word];
                live_in[block][word] = new;
            }
        }
    }
    let mut found = vec![LiveInterval { start: u32::MAX, end: 0 }; program.registers.len()];
    let mut touch = |r: u32, at: u32| {
        let i = &mut found[r as usize];
        (i.start, i.end) = (i.start.min(at), i.end.max(at));
    };
    let bits = |set: &[u64]| {
        let set = set.to_vec();
        (0..set.len() as u32 * 64).filter(move |&r| set[r as usize / 64] >> (r % 64) & 1 != 0)
    };
    for block in 0..blocks {
        bits(&live_in[block]).for_each(|r| touch(r, 2 * graph.block_starts[block]));
        bits(&live_out[block]).for_each(|r| touch(r, 2 * graph.block_starts[block + 1]));
    }
    for (at, d) in program.insts.iter().enumerate() {
        uses(d).for_each(|r| touch(r, 2 * at as u32));
        registers(&d.dst).for_each(|r| touch(r, 2 * at as u32 + 1));
    }
    let mut after_barriers = Vec::new();
    for (block, mut live) in live_out.into_iter().enumerate() {
        for at in (graph.block_starts[block] as usize..graph.block_starts[block + 1] as usize).rev() {
            let d = &program.insts[at];
            if matches!(d.op, Opcode::Barrier | Opcode::BarrierReduce(_)) {
                after_barriers.push((at as u32, bits(&live).collect()));
            }
            if d.guard.is_none() {
                registers(&d.dst).for_each(|r| live[r as usize / 64] &= !(1 << (r % 64)));
            }
            uses(d).for_each(|r| live[r as usize / 64] |= 1 << (r % 64));
        }
    }
    after_barriers.sort_unstable_by_key(|b| b.0);
    (found, after_barriers)
}

/// Assigns rows by linear scan (Poletto and Sarkar, 1999); a row is free again when the interval of its register has
/// ended.
fn linear_scan(program: &VirtualProgram, live: &[LiveInterval], code: &mut KernelCode) -> Vec<RegisterSlot> {
    let mut order: Vec<u32> =
        (0..live.len() as u32).filter(|&r| live[r as usize].start != u32::MAX).collect();
    order.sort_by_key(|&r| live[r as usize].start);
    let mut free: [Vec<usize>; 3] = Default::default();
    let mut count = [0usize; 3];
    let mut active = std::collections::BinaryHeap::new();
    let mut slots = vec![RegisterSlot::NONE; live.len()];
    for r in order {
        let register = program.registers[r as usize];
        let LiveInterval { start, end } = live[r as usize];
        while let Some(&std::cmp::Reverse((until, class, row))) = active.peek()
            && until < start
        {
            active.pop();
            free[class as usize].push(row);
        }
        let class = register.class as usize;
        let row = free[class].pop().unwrap_or_else(|| {
            count[class] += 1;
            count[class] - 1
        });
        // Beyond the limit the slot is wrong; `allocate` then refuses the kernel.
        let slot = RegisterSlot::register(register.class, row % RegisterSlot::LIMIT);
        slots[r as usize] = slot;
        match register.special {
            Some(special) => code.specials.push((row, special)),
            None if start == 0 => code.read_before_write.push(slot),
            None => {}
        }
        active.push(std::cmp::Reverse((end, register.class, row)));
    }
    [code.b32_rows, code.b64_rows, code.predicate_rows] = count;
    slots
}

/// The distinct constants, each in one row.
#[derive(Default)]
struct ConstantPool {
    b32: (Vec<u32>, HashMap<u32, usize>),
    b64: (Vec<u64>, HashMap<u64, usize>),
    predicates: (Vec<bool>, HashMap<bool, usize>),
}

fn intern<T: Copy + Eq + std::hash::Hash>(pool: &mut (Vec<T>, HashMap<T, usize>), value: T) -> usize {
    *pool.1.entry(value).or_insert_with(|| {
        pool.0.push(value);
        pool.0.len() - 1
    })
}

impl ConstantPool {
    fn slot(&mut self, arg: VirtualOperand, rows: &[RegisterSlot], dynamic: u32) -> RegisterSlot {
        match arg {
            VirtualOperand::None => RegisterSlot::NONE,
            VirtualOperand::Reg(r) => rows[r as usize],
            VirtualOperand::B32(w) => {
                RegisterSlot::constant(B32, intern(&mut self.b32, w) % RegisterSlot::LIMIT)
            }
            VirtualOperand::B64(w) => {
                RegisterSlot::constant(B64, intern(&mut self.b64, w) % RegisterSlot::LIMIT)
            }
            VirtualOperand::Pred(t) => RegisterSlot::constant(Predicate, intern(&mut self.predicates, t)),
            VirtualOperand::DynamicShared(B64, offset) => {
                self.slot(VirtualOperand::B64(offset.wrapping_add(dynamic as u64)), rows, dynamic)
            }
            VirtualOperand::DynamicShared(_, offset) => {
                self.slot(VirtualOperand::B32((offset as u32).wrapping_add(dynamic)), rows, dynamic)
            }
        }
    }
}
