//! Ranks: sums and gathers between the workers of one run, in a fixed order.

use crate::{DType, Elem, Error, Result, Tensor};
use half::bf16;
use std::sync::{Arc, Barrier, Mutex};

/// How values of several ranks become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reduce {
    /// Added in f32, in rank order.
    Sum,
    Max,
}

/// Collective operations of one rank, on tensors of its device. Every rank calls the same ones in the same order.
pub trait Comm: Send + Sync {
    /// This rank, from 0.
    fn rank(&self) -> usize;
    /// Number of ranks.
    fn world(&self) -> usize;
    /// `x` becomes what all ranks' `x` (f32 or bf16) reduce to: the same bits on every rank and in every run.
    ///
    /// # Errors
    /// When a rank is gone, or ranks differ in shape.
    fn all_reduce(&self, x: &mut Tensor, how: Reduce) -> Result<()>;
    /// Fills `out` with every rank's `x`, in rank order; `out` is `world` times as long as `x`.
    ///
    /// # Errors
    /// As [`Comm::all_reduce`].
    fn all_gather(&self, x: &Tensor, out: &mut Tensor) -> Result<()>;
    /// `out` becomes this rank's part of the sum of `x` over ranks; `x` is `world` times as long as `out`.
    ///
    /// # Errors
    /// As [`Comm::all_reduce`].
    fn reduce_scatter(&self, x: &Tensor, out: &mut Tensor) -> Result<()>;
    /// Returns when every rank has arrived.
    ///
    /// # Errors
    /// When a rank is gone.
    fn barrier(&self) -> Result<()>;
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
    fn all_reduce(&self, _: &mut Tensor, _: Reduce) -> Result<()> {
        Ok(())
    }
    fn all_gather(&self, x: &Tensor, out: &mut Tensor) -> Result<()> {
        out.copy_from(x)
    }
    fn reduce_scatter(&self, x: &Tensor, out: &mut Tensor) -> Result<()> {
        out.copy_from(x)
    }
    fn barrier(&self) -> Result<()> {
        Ok(())
    }
}

/// One rank of several on the planning device, where nothing has content to exchange.
pub struct Planned {
    pub rank: usize,
    pub world: usize,
}

impl Comm for Planned {
    fn rank(&self) -> usize {
        self.rank
    }
    fn world(&self) -> usize {
        self.world
    }
    fn all_reduce(&self, _: &mut Tensor, _: Reduce) -> Result<()> {
        Ok(())
    }
    fn all_gather(&self, _: &Tensor, _: &mut Tensor) -> Result<()> {
        Ok(())
    }
    fn reduce_scatter(&self, _: &Tensor, _: &mut Tensor) -> Result<()> {
        Ok(())
    }
    fn barrier(&self) -> Result<()> {
        Ok(())
    }
}

/// Ranks that are threads of one process, on the CPU or on GPUs of any kind: tensors go through host memory.
pub struct Threads {
    rank: usize,
    shared: Arc<Shared>,
}

struct Shared {
    parts: Vec<Mutex<Vec<u8>>>,
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
    fn exchange<T>(&self, x: &Tensor, read: impl FnOnce(&[Mutex<Vec<u8>>]) -> Result<T>) -> Result<T> {
        *self.shared.parts[self.rank].lock().unwrap() = x.to_bytes()?;
        self.barrier()?;
        let result = read(&self.shared.parts);
        self.barrier()?;
        result
    }
}

impl Comm for Threads {
    fn rank(&self) -> usize {
        self.rank
    }

    fn world(&self) -> usize {
        self.shared.parts.len()
    }

    fn all_reduce(&self, x: &mut Tensor, how: Reduce) -> Result<()> {
        let dtype = x.dtype();
        let reduced = self.exchange(x, |parts| reduce(parts, dtype, 0..x.byte_len(), how))?;
        x.write_bytes(&reduced)
    }

    fn all_gather(&self, x: &Tensor, out: &mut Tensor) -> Result<()> {
        let all = self.exchange(x, |parts| {
            Ok(parts.iter().flat_map(|part| part.lock().unwrap().clone()).collect::<Vec<u8>>())
        })?;
        out.write_bytes(&all)
    }

    fn reduce_scatter(&self, x: &Tensor, out: &mut Tensor) -> Result<()> {
        let (dtype, bytes) = (x.dtype(), out.byte_len());
        let mine = self.rank * bytes..(self.rank + 1) * bytes;
        let reduced = self.exchange(x, |parts| reduce(parts, dtype, mine, Reduce::Sum))?;
        out.write_bytes(&reduced)
    }

    fn barrier(&self) -> Result<()> {
        self.shared.barrier.wait();
        Ok(())
    }
}

/// What `range` of the ranks' `parts` reduces to, in rank order.
fn reduce(
    parts: &[Mutex<Vec<u8>>],
    dtype: DType,
    range: std::ops::Range<usize>,
    how: Reduce,
) -> Result<Vec<u8>> {
    match dtype {
        DType::F32 => reduce_as::<f32>(parts, range, how, |x| x, |x| x),
        DType::BF16 => reduce_as::<bf16>(parts, range, how, bf16::to_f32, bf16::from_f32),
        DType::I32 => Err(Error::new("integers are not reduced over ranks")),
    }
}

fn reduce_as<T: Elem>(
    parts: &[Mutex<Vec<u8>>],
    range: std::ops::Range<usize>,
    how: Reduce,
    widen: fn(T) -> f32,
    round: fn(f32) -> T,
) -> Result<Vec<u8>> {
    let mut sum: Option<Vec<f32>> = None;
    for part in parts {
        let part = part.lock().unwrap();
        let part = part.get(range.clone()).ok_or_else(|| Error::new("ranks differ in shape"))?;
        let values = part.chunks_exact(size_of::<T>()).map(|x| widen(bytemuck::pod_read_unaligned(x)));
        match &mut sum {
            None => sum = Some(values.collect()),
            Some(sum) => sum.iter_mut().zip(values).for_each(|(s, x)| match how {
                Reduce::Sum => *s += x,
                Reduce::Max => *s = s.max(x),
            }),
        }
    }
    let rounded: Vec<T> = sum.unwrap_or_default().into_iter().map(round).collect();
    Ok(bytemuck::cast_slice(&rounded).to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Device, Label};

    fn tensor(x: &[f32]) -> Tensor {
        Device::cpu().tensor(Label::Scratch, [x.len()], x).unwrap()
    }

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
            let (mut sum, mut max) = (tensor(&[values[c.rank()]]), tensor(&[values[c.rank()]]));
            c.all_reduce(&mut sum, Reduce::Sum).unwrap();
            c.all_reduce(&mut max, Reduce::Max).unwrap();
            [sum, max].map(|x| x.slice::<f32>().unwrap()[0])
        });
        assert_eq!(sums, [[(values[0] + values[1]) + values[2], values[1]]; 3]);
    }

    #[test]
    fn gather_and_scatter_are_each_other_s_shapes() {
        let results = on_ranks(2, |c| {
            let mut all = tensor(&[0.0; 4]);
            c.all_gather(&tensor(&[c.rank() as f32, 10.0]), &mut all).unwrap();
            let mut mine = tensor(&[0.0; 2]);
            c.reduce_scatter(&all, &mut mine).unwrap();
            [all, mine].map(|x| x.to_vec::<f32>().unwrap())
        });
        let all = vec![0.0, 10.0, 1.0, 10.0];
        assert_eq!(results, [[all.clone(), vec![0.0, 20.0]], [all, vec![2.0, 20.0]]]);
    }
}
