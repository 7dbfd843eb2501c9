//! The control-flow graph of a kernel, and the reconvergence points of its branches (immediate post-dominators).

use crate::decode::KernelCode;
use crate::inst::{Inst, Opcode};

/// Control-flow graph: the basic blocks of an instruction list.
#[derive(Debug)]
pub struct ControlFlowGraph {
    /// First instruction of each block, ascending; one more entry marks the end.
    pub block_starts: Vec<u32>,
    /// Successors of each block; the number of blocks denotes the exit.
    pub successors: Vec<Vec<u32>>,
}

/// Returns the instructions that may follow instruction `at`; `n` denotes the exit.
fn branch_targets(inst: &Inst, at: usize, n: usize, tables: &[Vec<u32>]) -> Vec<u32> {
    let mut out = match inst.op {
        Opcode::Branch => vec![inst.imm as u32],
        Opcode::BranchIndexed => tables[inst.imm as usize].clone(),
        Opcode::Exit => vec![n as u32],
        // The launch ends there: it has no bearing on where the other lanes reconverge.
        Opcode::Trap => vec![],
        _ => return vec![at as u32 + 1],
    };
    if !inst.guard.is_none() {
        out.push(at as u32 + 1);
    }
    out
}

impl ControlFlowGraph {
    /// Divides `insts`, whose branch targets are instruction indices, into basic blocks.
    pub fn new(insts: &[Inst], tables: &[Vec<u32>]) -> ControlFlowGraph {
        let n = insts.len();
        let mut leader = vec![false; n + 1];
        leader[0] = true;
        leader[n] = true;
        for (at, inst) in insts.iter().enumerate() {
            let to = branch_targets(inst, at, n, tables);
            if to.as_slice() != [at as u32 + 1] {
                leader[at + 1] = true;
                to.iter().for_each(|&t| leader[t as usize] = true);
            }
        }
        let block_starts: Vec<u32> = (0..=n as u32).filter(|&at| leader[at as usize]).collect();
        let mut block_of = vec![0u32; n + 1];
        for (block, range) in block_starts.windows(2).enumerate() {
            block_of[range[0] as usize..range[1] as usize].fill(block as u32);
        }
        block_of[n] = block_starts.len() as u32 - 1;
        let successors = block_starts
            .windows(2)
            .map(|range| {
                let last = range[1] as usize - 1;
                let mut to: Vec<u32> = branch_targets(&insts[last], last, n, tables)
                    .iter()
                    .map(|&t| block_of[t as usize])
                    .collect();
                to.sort_unstable();
                to.dedup();
                to
            })
            .collect();
        ControlFlowGraph { block_starts, successors }
    }

    /// Returns the number of blocks.
    pub fn len(&self) -> usize {
        self.successors.len()
    }

    /// Returns the immediate post-dominator of every block; the exit for blocks that never reach it (Cooper, Harvey,
    /// Kennedy: A Simple, Fast Dominance Algorithm).
    fn post_dominators(&self) -> Vec<u32> {
        let n = self.len();
        let mut predecessors = vec![Vec::new(); n + 1];
        for (block, successors) in self.successors.iter().enumerate() {
            successors.iter().for_each(|&s| predecessors[s as usize].push(block as u32));
        }
        // Reverse post-order of the reversed graph.
        let mut order = Vec::with_capacity(n + 1);
        let mut rank = vec![u32::MAX; n + 1];
        let mut seen = vec![false; n + 1];
        let mut stack = vec![(n as u32, 0usize)];
        seen[n] = true;
        while let Some((block, at)) = stack.pop() {
            match predecessors[block as usize].get(at) {
                Some(&p) => {
                    stack.push((block, at + 1));
                    if !std::mem::replace(&mut seen[p as usize], true) {
                        stack.push((p, 0));
                    }
                }
                None => order.push(block),
            }
        }
        order.reverse();
        order.iter().enumerate().for_each(|(i, &b)| rank[b as usize] = i as u32);
        const UNKNOWN: u32 = u32::MAX;
        let mut dominator = vec![UNKNOWN; n + 1];
        dominator[n] = n as u32;
        let mut changed = true;
        while changed {
            changed = false;
            for &block in &order[1..] {
                let mut found = UNKNOWN;
                for &s in &self.successors[block as usize] {
                    if dominator[s as usize] != UNKNOWN {
                        found = if found == UNKNOWN {
                            s
                        } else {
                            common_post_dominator(&dominator, &rank, found, s)
                        };
                    }
                }
                changed |= std::mem::replace(&mut dominator[block as usize], found) != found;
            }
        }
        dominator.truncate(n);
        dominator.iter_mut().for_each(|d| *d = if *d == UNKNOWN { n as u32 } else { *d });
        dominator
    }
}

/// Returns the nearest common post-dominator of two blocks.
fn common_post_dominator(dominator: &[u32], rank: &[u32], mut a: u32, mut b: u32) -> u32 {
    while a != b {
        while rank[a as usize] > rank[b as usize] {
            a = dominator[a as usize];
        }
        while rank[b as usize] > rank[a as usize] {
            b = dominator[b as usize];
        }
    }
    a
}

/// Returns the reconvergence point of every instruction that ends a basic block; 0 for the others.
pub fn reconvergence_points(code: &KernelCode) -> Vec<u32> {
    let graph = ControlFlowGraph::new(&code.insts, &code.branch_tables);
    let dominators = graph.post_dominators();
    let mut out = vec![0; code.insts.len()];
    for (block, range) in graph.block_starts.windows(2).enumerate() {
        out[range[1] as usize - 1] = graph.block_starts[dominators[block] as usize];
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn graph(successors: &[&[u32]]) -> ControlFlowGraph {
        ControlFlowGraph {
            block_starts: (0..=successors.len() as u32).collect(),
            successors: successors.iter().map(|n| n.to_vec()).collect(),
        }
    }

    #[test]
    fn a_diamond_meets_at_its_foot() {
        assert_eq!(graph(&[&[1, 2], &[3], &[3], &[4]]).post_dominators(), [3, 3, 3, 4]);
    }

    #[test]
    fn a_loop_with_two_exits_meets_behind_both() {
        // 0 -> 1; 1 -> 2 or 4; 2 -> 1 or 3; 3 -> 4; 4 -> exit.
        assert_eq!(graph(&[&[1], &[2, 4], &[1, 3], &[4], &[5]]).post_dominators(), [1, 4, 4, 4, 5]);
    }

    #[test]
    fn an_early_exit_meets_nowhere() {
        assert_eq!(graph(&[&[1, 3], &[2], &[3]]).post_dominators(), [3, 2, 3]);
    }

    #[test]
    fn an_endless_loop_has_no_post_dominator() {
        assert_eq!(graph(&[&[1, 2], &[1], &[3]]).post_dominators(), [2, 3, 3]);
    }
}
