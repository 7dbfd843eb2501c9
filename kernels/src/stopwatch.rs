//! Timing of an op on any device: by CUDA events on a GPU, with a flushed L2 cache; by the host's clock elsewhere.

use crate::check::{inputs, random};
use crate::spec::Case;
use codelsi_engine::cuda::Stream;
use codelsi_engine::rng::RngKey;
use codelsi_engine::{Ctx, DType, Device, Grads, Label, Result, Tensor};
use std::time::{Duration, Instant};

/// Bytes that evict everything else from the L2 cache of any GPU.
pub const L2_FLUSH_BYTES: usize = 256 << 20;

/// A device and its clock.
pub struct Stopwatch {
    device: Device,
    /// Tensor that is overwritten before each timing to flush the cache; `None` off a GPU.
    flush: Option<Tensor>,
}

impl Stopwatch {
    /// Returns the clock of `device`.
    pub fn new(device: &Device) -> Self {
        let is_gpu = matches!(device, Device::Cuda(cuda) if cuda.emulator().is_none());
        let flush = is_gpu.then(|| device.zeros(Label::Scratch, [L2_FLUSH_BYTES / 4], DType::F32));
        Stopwatch { device: device.clone(), flush }
    }

    /// Returns the time of the work that `f` starts. On a GPU the flush precedes it: while it runs, the host
    /// enqueues the work, so that launch latency is not measured.
    ///
    /// # Errors
    /// When `f` or the driver fails.
    pub fn time<T>(&mut self, f: impl FnOnce() -> Result<T>) -> Result<Duration> {
        let Device::Cuda(cuda) = &self.device else {
            let start = Instant::now();
            f()?;
            return Ok(start.elapsed());
        };
        if let Some(flush) = &mut self.flush {
            flush.zero()?;
        }
        let start = cuda.record(Stream::COMPUTE)?;
        let result = f()?;
        let end = cuda.record(Stream::COMPUTE)?;
        drop(result);
        Ok(Duration::from_secs_f64(cuda.elapsed(&start, &end)? as f64 / 1e3))
    }
}

/// Forward or backward pass of an op.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pass {
    /// Forward as in training: on a tape, with everything that backward needs.
    Forward,
    /// Backward from random gradients of the outputs.
    Backward,
}

/// A case with its inputs on a device, to be timed repeatedly.
pub struct TimedCase {
    device: Device,
    case: Case,
    inputs: Vec<Tensor>,
    /// Gradients of the outputs; empty before the first backward.
    seeds: Vec<Tensor>,
}

impl TimedCase {
    /// Prepares `case` with random inputs of type `dtype`.
    ///
    /// # Errors
    /// When the inputs cannot be allocated on the device.
    pub fn new(device: &Device, case: Case, dtype: DType) -> Result<Self> {
        let tensors = inputs(device, &case, dtype, 1)?;
        Ok(TimedCase { device: device.clone(), case, inputs: tensors, seeds: Vec::new() })
    }

    /// Times one pass of the op.
    ///
    /// # Errors
    /// When the op fails.
    pub fn time(&mut self, pass: Pass, watch: &mut Stopwatch) -> Result<Duration> {
        match pass {
            Pass::Forward => self.forward(watch),
            Pass::Backward => self.backward(watch),
        }
    }

    /// Times one forward.
    fn forward(&self, watch: &mut Stopwatch) -> Result<Duration> {
        let (cx, x) = (Ctx::training(&self.device, 1, 0), self.inputs.iter().collect::<Vec<_>>());
        watch.time(|| (self.case.run)(&cx, &x))
    }

    /// Times one backward from random gradients; its forward is not timed.
    fn backward(&mut self, watch: &mut Stopwatch) -> Result<Duration> {
        let cx = Ctx::training(&self.device, 1, 0);
        let outputs = (self.case.run)(&cx, &self.inputs.iter().collect::<Vec<_>>())?;
        let differentiable: Vec<&Tensor> = outputs.iter().filter(|y| y.id().is_some()).collect();
        if self.seeds.is_empty() {
            let seed = |(site, y): (u32, &&Tensor)| {
                random(&self.device, *y.shape(), y.dtype(), 1.0, RngKey { seed: 1, step: 1, site })
            };
            self.seeds = (0..).zip(&differentiable).map(seed).collect::<Result<_>>()?;
        }
        // Copies, since backward may overwrite a gradient that nothing else references.
        let copies = self.seeds.iter().map(|dy| dy.to(&self.device, Label::Gradients));
        let pairs = differentiable.into_iter().zip(copies.collect::<Result<Vec<_>>>()?).collect::<Vec<_>>();
        let mut grads = Grads::default();
        watch.time(|| cx.backward(pairs, &mut grads))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ALL;

    /// Times the passes of every op repeatedly, on the host.
    #[test]
    fn work_can_be_repeated() {
        let device = Device::cpu();
        let mut watch = Stopwatch::new(&device);
        for spec in ALL {
            let mut cases = (spec.cases)(DType::F32);
            let with_gradient = cases.iter().position(|case| case.inputs.iter().any(|input| input.grad));
            let case = cases.swap_remove(with_gradient.unwrap_or(0));
            let mut work = TimedCase::new(&device, case, DType::F32).unwrap();
            for _ in 0..2 {
                work.time(Pass::Forward, &mut watch).unwrap();
                if spec.shapes.backward.is_some() {
                    work.time(Pass::Backward, &mut watch).unwrap();
                }
            }
            assert_eq!(!work.seeds.is_empty(), spec.shapes.backward.is_some(), "{}", spec.name);
        }
    }

    #[test]
    fn time_is_that_of_the_work() {
        let nap = Duration::from_millis(20);
        let mut watch = Stopwatch::new(&Device::cpu());
        let timed = watch.time(|| {
            std::thread::sleep(nap);
            Ok(())
        });
        assert!((nap..10 * nap).contains(&timed.unwrap()));
    }
}
