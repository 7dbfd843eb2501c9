//! The roofs of the roofline model, measured on the machine itself: peak rate of multiply-adds, and memory bandwidth.

mod cpu;
mod gpu;

pub use gpu::{PeakKernels, SOURCE};

use crate::stopwatch::Stopwatch;
use codelsi_engine::{DType, Device, Label, Result, Tensor};

/// Bytes of the copy that measures the memory bandwidth of a GPU.
const COPY_BYTES: usize = 1 << 30;
/// Bytes of an array that exceeds a processor's caches.
const HOST_BYTES: usize = 256 << 20;
/// Matrix products per warp and chain in the measurement of a GPU's tensor cores.
const ROUNDS: usize = 20_000;

/// Measures the peak FLOP/s of multiply-adds on `dtype`; on a GPU that of mma.sync on bf16 for either type. `None`
/// where time has no meaning: on the software GPU and the planning device.
///
/// # Errors
/// When the driver fails.
pub fn flops(device: &Device, dtype: DType) -> Result<Option<f64>> {
    match device {
        Device::Cpu(_) if dtype == DType::BF16 => Ok(Some(cpu::bf16_flops())),
        Device::Cpu(_) => Ok(Some(cpu::f32_flops())),
        Device::Cuda(cuda) if is_gpu(device) => {
            let kernels = PeakKernels::new(device, cuda);
            best_rate(device, || kernels.products(ROUNDS)).map(Some)
        }
        _ => Ok(None),
    }
}

/// Measures the bytes per second of a copy that exceeds the caches, reads and writes counted. `None` as in [`flops`].
///
/// # Errors
/// When the driver fails; a GPU needs 2 GiB of free memory.
pub fn bytes(device: &Device) -> Result<Option<f64>> {
    match device {
        Device::Cpu(_) => {
            let [mut y, x] = host_arrays();
            Ok(Some(cpu::copy_bytes(y.slice_mut()?, x.slice()?)))
        }
        Device::Cuda(cuda) if is_gpu(device) => {
            let kernels = PeakKernels::new(device, cuda);
            let x = device.zeros(Label::Scratch, [COPY_BYTES / 4], DType::F32);
            let mut y = device.zeros(Label::Scratch, [COPY_BYTES / 4], DType::F32);
            best_rate(device, || kernels.copy(&mut y, &x)).map(Some)
        }
        _ => Ok(None),
    }
}

/// Measures the bytes per second of plain reading, as of weights in decoding; on a GPU it is that of [`bytes`]. `None` as
/// in [`flops`].
///
/// # Errors
/// As in [`bytes`].
pub fn read_bytes(device: &Device) -> Result<Option<f64>> {
    match device {
        Device::Cpu(_) => {
            let [x] = host_arrays();
            Ok(Some(cpu::read_bytes(x.slice()?)))
        }
        _ => bytes(device),
    }
}

/// Returns arrays that exceed the caches, in memory and outside of the measured device's account.
fn host_arrays<const N: usize>() -> [Tensor; N] {
    let device = Device::cpu();
    [(); N].map(|()| device.zeros(Label::Scratch, [HOST_BYTES / 4], DType::F32))
}

/// Returns a rate's share of its roof, both measured. `None` above 1, where the roof does not bind: the work's data stay in
/// caches, or the loop that measures the roof had less of the machine than the work.
pub fn share(rate: f64, roof: f64) -> Option<f64> {
    Some(rate / roof).filter(|share| *share <= 1.0)
}

/// Shows a [`share`] in a table.
pub fn share_text(share: Option<f64>) -> String {
    share.map_or("above the measured roof".into(), |share| format!("{:.1} % of the roof", 100.0 * share))
}

fn is_gpu(device: &Device) -> bool {
    matches!(device, Device::Cuda(cuda) if cuda.emulator().is_none() && !cuda.is_plan())
}

/// Returns the best rate (work per second) of five runs after a warm-up.
fn best_rate(device: &Device, mut f: impl FnMut() -> Result<f64>) -> Result<f64> {
    let mut watch = Stopwatch::new(device);
    let mut rate = 0.0f64;
    for run in 0..6 {
        let mut work = 0.0;
        let time = watch.time(|| {
            work = f()?;
            Ok(())
        })?;
        if run > 0 {
            rate = rate.max(work / time.as_secs_f64());
        }
    }
    Ok(rate)
}
