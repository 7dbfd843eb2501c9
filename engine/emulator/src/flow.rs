//! Control flow: blocks, their successors, and where divergent lanes come together again.

use crate::decode::Program;
use crate::inst::{Inst, Op};

/// Basic blocks of an instruction list.
#[derive(Debug)]
pub struct Graph {
    /// First instruction of each block, ascending; one more entry marks the end.
    pub starts: Vec<u32>,
    /// Successor blocks; the number of blocks stands for the exit.
    pub next: Vec<Vec<u32>>,
}

/// Where instruction `at` may go: instruction indices, `n` for the exit.
fn targets(inst: &Inst, at: usize, n: usize, tables: &[Vec<u32>]) -> Vec<u32> {
    let mut out = match inst.op {
        Op::Branch => vec![inst.imm as u32],
        Op::BranchIndexed => tables[inst.imm as usize].clone(),
        Op::Exit => vec![n as u32],
        // The launch ends there: it does not matter to where the other lanes meet.
        Op::Trap => vec![],
        _ => return vec![at as u32 + 1],
    };
    if !inst.guard.is_none() {
        out.push(at as u32 + 1);
    }
    out
}

impl Graph {
    /// Cuts `insts`, whose branch targets are instruction indices.
    pub fn new(insts: &[Inst], tables: &[Vec<u32>]) -> Graph {
        let n = insts.len();
        let mut leader = vec![false; n + 1];
        leader[0] = true;
        leader[n] = true;
        for (at, inst) in insts.iter().enumerate() {
            let to = targets(inst, at, n, tables);
            if to.as_slice() != [at as u32 + 1] {
                leader[at + 1] = true;
                to.iter().for_each(|&t| leader[t as usize] = true);
            }
        }
        let starts: Vec<u32> = (0..=n as u32).filter(|&at| leader[at as usize]).collect();
        let mut block_of = vec![0u32; n + 1];
        for (block, range) in starts.windows(2).enumerate() {
            block_of[range[0] as usize..range[1] as usize].fill(block as u32);
        }
        block_of[n] = starts.len() as u32 - 1;
        let next = starts
            .windows(2)
            .map(|range| {
                let last = range[1] as usize - 1;
                let mut to: Vec<u32> =
                    targets(&insts[last], last, n, tables).iter().map(|&t| block_of[t as usize]).collect();
                to.sort_unstable();
                to.dedup();
                to
            })
            .collect();
        Graph { starts, next }
    }

    /// The number of blocks.
    pub fn len(&self) -> usize {
        self.next.len()
    }

    /// The immediate post-dominator of every block; the exit for blocks that never reach it.
    fn post_dominators(&self) -> Vec<u32> {
        let n = self.len();
        let mut before = vec![Vec::new(); n + 1];
        for (block, next) in self.next.iter().enumerate() {
            next.iter().for_each(|&s| before[s as usize].push(block as u32));
        }
        // Reverse post-order of the reversed graph.
        let mut order = Vec::with_capacity(n + 1);
        let mut rank = vec![u32::MAX; n + 1];
        let mut seen = vec![false; n + 1];
        let mut stack = vec![(n as u32, 0usize)];
        seen[n] = true;
        while let Some((block, at)) = stack.pop() {
            match before[block as usize].get(at) {
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
                for &s in &self.next[block as usize] {
                    if dominator[s as usize] != UNKNOWN {
                        found = if found == UNKNOWN { s } else { meet(&dominator, &rank, found, s) };
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

/// The nearest common dominator of two blocks.
fn meet(dominator: &[u32], rank: &[u32], mut a: u32, mut b: u32) -> u32 {
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

/// For every instruction that branches, where its lanes come together again; 0 for the others.
pub fn reconvergence(program: &Program) -> Vec<u32> {
    let graph = Graph::new(&program.insts, &program.tables);
    let dominators = graph.post_dominators();
    let mut out = vec![0; program.insts.len()];
    for (block, range) in graph.starts.windows(2).enumerate() {
        out[range[1] as usize - 1] = graph.starts[dominators[block] as usize];
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn graph(next: &[&[u32]]) -> Graph {
        Graph { starts: (0..=next.len() as u32).collect(), next: next.iter().map(|n| n.to_vec()).collect() }
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
