//! The kernels that measure a card: a copy, and products in registers.

use crate::cuda::HEADERS;
use codelsi_engine::cuda::{Arg, Cuda, Define, Grid, Source, Variant};
use codelsi_engine::{DType, Device, Label, Result, Tensor};

/// The copy and the products.
pub static SOURCE: Source = Source {
    name: "roof.cu",
    text: include_str!("roof.cu"),
    headers: HEADERS,
    constants: &[Define::int("CHAINS", CHAINS)],
    variants: || vec![Variant::PLAIN],
};

/// Independent accumulators of a warp: the latency of one product is hidden by the others.
const CHAINS: usize = 8;
/// Warps of a block.
const WARPS: usize = 8;

/// Measures a card's memory and tensor cores.
pub struct PeakKernels<'a> {
    cuda: &'a Cuda,
    device: &'a Device,
}

impl<'a> PeakKernels<'a> {
    /// Measures `cuda`, which is `device`.
    pub fn new(device: &'a Device, cuda: &'a Cuda) -> Self {
        PeakKernels { cuda, device }
    }

    /// Copies x to y; returns the bytes moved.
    ///
    /// # Errors
    /// When the driver fails.
    pub fn copy(&self, y: &mut Tensor, x: &Tensor) -> Result<f64> {
        let words = x.byte_len().min(y.byte_len()) / 16 * 4;
        let args = &mut [Arg::InOut(y), Arg::In(x), Arg::I64(words as i64)];
        self.start("copy", Grid::new(words.div_ceil(4 * 256), 256), args)?;
        Ok(8.0 * words as f64)
    }

    /// Multiplies bf16 matrices in registers, on every multiprocessor; returns the flops.
    ///
    /// # Errors
    /// When the driver fails.
    pub fn products(&self, rounds: usize) -> Result<f64> {
        let blocks = 2 * self.cuda.properties().multiprocessors;
        let mut y = self.device.empty(Label::Scratch, [blocks * WARPS], DType::F32);
        let args = &mut [Arg::Out(&mut y), Arg::I32(rounds as i32)];
        self.start("products", Grid::new(blocks, 32 * WARPS), args)?;
        Ok((2 * 16 * 16 * 8 * CHAINS * WARPS * blocks * rounds) as f64)
    }

    fn start(&self, kernel: &str, grid: Grid, args: &mut [Arg]) -> Result<()> {
        let kernel = self.cuda.kernel(&SOURCE, Variant::PLAIN, kernel)?;
        // SAFETY: both kernels keep to the elements that their arguments count.
        unsafe { kernel.launch(grid, args) }
    }
}
