//! Ranks: sums and gathers between the workers of one run, in a fixed order.

use std::sync::{Arc, Barrier, Mutex};

/// Collective operations of one rank. Every rank calls the same ones in the same order.
pub trait Comm: Send + Sync {
    /// This rank, from 0.
    fn rank(&self) -> usize;
    /// Number of ranks.
    fn world(&self) -> usize;
    /// `x` becomes the sum over ranks, added in rank order: the same bits on every rank and in every run.
    fn all_reduce(&self, x: &mut [f32]);
    /// Fills `out` with every rank's `x`, in rank order; `out` is `world` times as long as `x`.
    fn all_gather(&self, x: &[f32], out: &mut [f32]);
    /// `out` becomes this rank's part of the sum of `x` over ranks; `x` is `world` times as long as `out`.
    fn reduce_scatter(&self, x: &[f32], out: &mut [f32]);
    /// Returns when every rank has arrived.
    fn barrier(&self);
}

/// The only rank.
pub struct Solo;

impl Comm for Solo {
    fn rank(&self) -> usize {
        0
    }
    fn world(&self) -> usize {
        1
    }
    fn all_reduce(&self, _: &mut [f32]) {}
    fn all_gather(&self, x: &[f32], out: &mut [f32]) {
        out.copy_from_slice(x);
    }
    fn reduce_scatter(&self, x: &[f32], out: &mut [f32]) {
        out.copy_from_slice(x);
    }
    fn barrier(&self) {}
}

/// Ranks that are threads of one process.
pub struct Threads {
    rank: usize,
    shared: Arc<Shared>,
}

struct Shared {
    parts: Vec<Mutex<Vec<f32>>>,
    barrier: Barrier,
}

impl Threads {
    /// One handle a rank.
    pub fn group(world: usize) -> Vec<Threads> {
        let parts = (0..world).map(|_| Mutex::default()).collect();
        let shared = Arc::new(Shared { parts, barrier: Barrier::new(world) });
        (0..world).map(|rank| Threads { rank, shared: shared.clone() }).collect()
    }

    /// Shows `x` to every rank while `read` runs.
    fn exchange(&self, x: &[f32], read: impl FnOnce(&[Mutex<Vec<f32>>])) {
        x.clone_into(&mut self.shared.parts[self.rank].lock().unwrap());
        self.barrier();
        read(&self.shared.parts);
        self.barrier();
    }
}

impl Comm for Threads {
    fn rank(&self) -> usize {
        self.rank
    }

    fn world(&self) -> usize {
        self.shared.parts.len()
    }

    fn all_reduce(&self, x: &mut [f32]) {
        let mine = x.to_vec();
        self.exchange(&mine, |parts| sum(parts, 0, x));
    }

    fn all_gather(&self, x: &[f32], out: &mut [f32]) {
        self.exchange(x, |parts| {
            for (part, out) in parts.iter().zip(out.chunks_exact_mut(x.len())) {
                out.copy_from_slice(&part.lock().unwrap());
            }
        });
    }

    fn reduce_scatter(&self, x: &[f32], out: &mut [f32]) {
        self.exchange(x, |parts| sum(parts, self.rank * out.len(), out));
    }

    fn barrier(&self) {
        self.shared.barrier.wait();
    }
}

/// `out` = the ranks' `parts[from..]`, added in rank order.
fn sum(parts: &[Mutex<Vec<f32>>], from: usize, out: &mut [f32]) {
    out.fill(0.0);
    for part in parts {
        let part = part.lock().unwrap();
        out.iter_mut().zip(&part[from..]).for_each(|(o, p)| *o += p);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn on_ranks<T: Send>(world: usize, f: impl Fn(&Threads) -> T + Sync) -> Vec<T> {
        let f = &f;
        std::thread::scope(|scope| {
            let ranks: Vec<_> =
                Threads::group(world).into_iter().map(|c| scope.spawn(move || f(&c))).collect();
            ranks.into_iter().map(|r| r.join().unwrap()).collect()
        })
    }

    #[test]
    fn sums_come_in_rank_order_on_every_rank() {
        // 1 + 2^24 - 2^24 is 0 or 1 in f32, by the order of addition.
        let values = [1.0f32, 16777216.0, -16777216.0];
        let sums = on_ranks(3, |c| {
            let mut x = [values[c.rank()]];
            c.all_reduce(&mut x);
            x[0]
        });
        assert_eq!(sums, [(values[0] + values[1]) + values[2]; 3]);
    }

    #[test]
    fn gather_and_scatter_are_each_other_s_shapes() {
        let results = on_ranks(2, |c| {
            let mut all = [0.0; 4];
            c.all_gather(&[c.rank() as f32, 10.0], &mut all);
            let mut mine = [0.0; 2];
            c.reduce_scatter(&all, &mut mine);
            (all, mine)
        });
        assert_eq!(results, [([0.0, 10.0, 1.0, 10.0], [0.0, 20.0]), ([0.0, 10.0, 1.0, 10.0], [2.0, 20.0])]);
    }
}
