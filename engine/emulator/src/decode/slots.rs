//! Virtual registers to rows: liveness, then a linear scan, so that few rows stay in use.

use super::Program;
use super::builder::{Arg, Built, Draft};
use crate::error::{Error, Result};
use crate::flow::Graph;
use crate::inst::{Class, Inst, Kind, MAX_DST, MAX_SRC, Op, Slot};
use crate::ptx::Space;
use std::collections::HashMap;

/// Gives every register a row and every constant a place. `line` is the function's, for errors.
pub fn assign(mut built: Built, line: u32) -> Result<Program> {
    let n = built.drafts.len() as u32;
    for table in built.tables.iter_mut() {
        table.iter_mut().for_each(|l| *l = built.labels[*l as usize].min(n - 1));
    }
    let skeleton = skeleton(&built);
    let graph = Graph::new(&skeleton, &built.tables);
    let (live, behind) = liveness(&built, &graph);
    let mut program = Program {
        tables: std::mem::take(&mut built.tables),
        shared_bytes: built.shared_bytes,
        local_bytes: built.local_bytes,
        params: std::mem::take(&mut built.params),
        param_bytes: built.param_bytes,
        shared_grain: grain(&built.drafts, Space::Shared),
        global_grain: grain(&built.drafts, Space::Global),
        ..Program::default()
    };
    let rows = scan(&built, &live, &mut program);
    let live =
        |(at, registers): &(u32, Vec<u32>)| (*at, registers.iter().map(|&r| rows[r as usize]).collect());
    program.live = behind.iter().map(live).collect();
    let mut constants = Constants::default();
    for (draft, mut inst) in built.drafts.iter().zip(skeleton) {
        let mut slot = |arg: Arg| constants.slot(arg, &rows, built.shared_bytes);
        for (to, &from) in inst.dst.iter_mut().zip(&draft.dst) {
            *to = slot(from);
        }
        for (to, &from) in inst.src.iter_mut().zip(&draft.src) {
            *to = slot(from);
        }
        if let Some((register, negated)) = draft.guard {
            (inst.guard, inst.guard_negated) = (slot(Arg::Reg(register)), negated);
        }
        program.access_of.push(program.accesses as u32);
        program.accesses += (inst.kind == Kind::Memory) as usize;
        program.insts.push(inst);
        program.origins.push(draft.origin);
    }
    program.word_constants = constants.words.0;
    program.double_constants = constants.doubles.0;
    program.predicate_constants = constants.truths.0;
    let p = &program;
    let pools = [p.words, p.doubles, p.predicates, p.word_constants.len(), p.double_constants.len()];
    match pools.iter().any(|&n| n > Slot::LIMIT) {
        true => Err(Error::ptx(line, "the kernel needs more registers or constants than this GPU has")),
        false => Ok(program),
    }
}

/// The instructions without their operands, branch targets resolved.
fn skeleton(built: &Built) -> Vec<Inst> {
    let n = built.drafts.len() as u32;
    let inst = |d: &Draft| Inst {
        op: d.op,
        // Any slot will do to say that there is a guard.
        guard: if d.guard.is_some() { Slot::register(Class::Predicate, 0) } else { Slot::NONE },
        guard_negated: false,
        dst: [Slot::NONE; MAX_DST],
        src: [Slot::NONE; MAX_SRC],
        imm: match d.op {
            Op::Branch => built.labels[d.imm as usize].min(n - 1) as i64,
            _ => d.imm,
        },
        kind: d.kind,
    };
    built.drafts.iter().map(inst).collect()
}

/// The narrowest access that may reach a space.
fn grain(drafts: &[Draft], space: Space) -> u32 {
    let reaches = |s: Space| s == space || s == Space::Generic;
    let width = |d: &Draft| match d.op {
        Op::Load(a) | Op::Store(a) if reaches(a.space) => a.size as u32 * a.count as u32,
        Op::Atom { space, size, .. } if reaches(space) => size as u32,
        Op::CopyAsync(size) => size as u32,
        _ => 16,
    };
    drafts.iter().map(width).min().unwrap_or(16)
}

fn registers(args: &[Arg]) -> impl Iterator<Item = u32> + '_ {
    args.iter().filter_map(|a| if let Arg::Reg(r) = a { Some(*r) } else { None })
}

fn uses(d: &Draft) -> impl Iterator<Item = u32> + '_ {
    registers(&d.src).chain(d.guard.map(|g| g.0))
}

/// First and last position where a register holds something needed: uses at 2i, definitions at 2i + 1.
/// A register that some path reads before it writes it starts at 0.
#[derive(Clone, Copy, Debug)]
struct Interval {
    start: u32,
    end: u32,
}

/// The intervals, and the registers live behind every barrier.
fn liveness(built: &Built, graph: &Graph) -> (Vec<Interval>, Vec<(u32, Vec<u32>)>) {
    let words = built.registers.len().div_ceil(64);
    let blocks = graph.len();
    let mut read = vec![vec![0u64; words]; blocks];
    let mut written = vec![vec![0u64; words]; blocks];
    for block in 0..blocks {
        for d in &built.drafts[graph.starts[block] as usize..graph.starts[block + 1] as usize] {
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
            for &next in graph.next[block].iter().filter(|&&n| (n as usize) < blocks) {
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
    let mut found = vec![Interval { start: u32::MAX, end: 0 }; built.registers.len()];
    let mut touch = |r: u32, at: u32| {
        let i = &mut found[r as usize];
        (i.start, i.end) = (i.start.min(at), i.end.max(at));
    };
    let bits = |set: &[u64]| {
        let set = set.to_vec();
        (0..set.len() as u32 * 64).filter(move |&r| set[r as usize / 64] >> (r % 64) & 1 != 0)
    };
    for block in 0..blocks {
        bits(&live_in[block]).for_each(|r| touch(r, 2 * graph.starts[block]));
        bits(&live_out[block]).for_each(|r| touch(r, 2 * graph.starts[block + 1]));
    }
    for (at, d) in built.drafts.iter().enumerate() {
        uses(d).for_each(|r| touch(r, 2 * at as u32));
        registers(&d.dst).for_each(|r| touch(r, 2 * at as u32 + 1));
    }
    let mut behind = Vec::new();
    for (block, mut live) in live_out.into_iter().enumerate() {
        for at in (graph.starts[block] as usize..graph.starts[block + 1] as usize).rev() {
            let d = &built.drafts[at];
            if matches!(d.op, Op::Barrier | Op::BarrierReduce(_)) {
                behind.push((at as u32, bits(&live).collect()));
            }
            if d.guard.is_none() {
                registers(&d.dst).for_each(|r| live[r as usize / 64] &= !(1 << (r % 64)));
            }
            uses(d).for_each(|r| live[r as usize / 64] |= 1 << (r % 64));
        }
    }
    behind.sort_unstable_by_key(|b| b.0);
    (found, behind)
}

/// Rows by linear scan; a row is free again when its register's interval has ended.
fn scan(built: &Built, live: &[Interval], program: &mut Program) -> Vec<Slot> {
    let mut order: Vec<u32> =
        (0..live.len() as u32).filter(|&r| live[r as usize].start != u32::MAX).collect();
    order.sort_by_key(|&r| live[r as usize].start);
    let mut free: [Vec<usize>; 3] = Default::default();
    let mut count = [0usize; 3];
    let mut active = std::collections::BinaryHeap::new();
    let mut slots = vec![Slot::NONE; live.len()];
    for r in order {
        let register = built.registers[r as usize];
        let Interval { start, end } = live[r as usize];
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
        // Beyond the limit the slot is wrong, and the program refused in the end.
        let slot = Slot::register(register.class, row % Slot::LIMIT);
        slots[r as usize] = slot;
        match register.special {
            Some(special) => program.specials.push((row, special)),
            None if start == 0 => program.undefined.push(slot),
            None => {}
        }
        active.push(std::cmp::Reverse((end, register.class, row)));
    }
    [program.words, program.doubles, program.predicates] = count;
    slots
}

/// The distinct constants, each in one row.
#[derive(Default)]
struct Constants {
    words: (Vec<u32>, HashMap<u32, usize>),
    doubles: (Vec<u64>, HashMap<u64, usize>),
    truths: (Vec<bool>, HashMap<bool, usize>),
}

fn place<T: Copy + Eq + std::hash::Hash>(pool: &mut (Vec<T>, HashMap<T, usize>), value: T) -> usize {
    *pool.1.entry(value).or_insert_with(|| {
        pool.0.push(value);
        pool.0.len() - 1
    })
}

impl Constants {
    fn slot(&mut self, arg: Arg, rows: &[Slot], dynamic: u32) -> Slot {
        match arg {
            Arg::None => Slot::NONE,
            Arg::Reg(r) => rows[r as usize],
            Arg::Word(w) => Slot::constant(Class::Word, place(&mut self.words, w) % Slot::LIMIT),
            Arg::Double(w) => Slot::constant(Class::Double, place(&mut self.doubles, w) % Slot::LIMIT),
            Arg::Truth(t) => Slot::constant(Class::Predicate, place(&mut self.truths, t)),
            Arg::Dynamic(Class::Double, offset) => {
                self.slot(Arg::Double(offset.wrapping_add(dynamic as u64)), rows, dynamic)
            }
            Arg::Dynamic(_, offset) => {
                self.slot(Arg::Word((offset as u32).wrapping_add(dynamic)), rows, dynamic)
            }
        }
    }
}
