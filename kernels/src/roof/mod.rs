//! The roofs that timings are held to, measured on the machine itself: what its multiply-adds and its memory reach when
//! nothing else is in the way.

mod card;
mod cpu;

pub use card::{Roof, SOURCE};

use crate::stopwatch::Stopwatch;
use codelsi_engine::{DType, Device, Label, Result};

/// Bytes of the copy that measures a card's memory.
const COPY: usize = 1 << 30;
/// Products a warp and chain that measure a card's units.
const ROUNDS: usize = 20_000;

/// Flops a second of multiply-adds on `dtype`; on a card those of mma.sync on bf16 for either type. `None` where time
/// means nothing: on the software GPU and the planning device.
///
/// # Errors
/// The driver's.
pub fn flops(device: &Device, dtype: DType) -> Result<Option<f64>> {
    match device {
        Device::Cpu(_) if dtype == DType::BF16 => Ok(Some(cpu::bf16_flops())),
        Device::Cpu(_) => Ok(Some(cpu::f32_flops())),
        Device::Cuda(cuda) if is_card(device) => {
            let roof = Roof::new(device, cuda);
            best(device, || roof.products(ROUNDS)).map(Some)
        }
        _ => Ok(None),
    }
}

/// Bytes a second of a copy of more than the caches hold, read and write counted. `None` as [`flops`].
///
/// # Errors
/// The driver's; a card needs room for twice a gibibyte.
pub fn bytes(device: &Device) -> Result<Option<f64>> {
    match device {
        Device::Cpu(_) => Ok(Some(cpu::copy_bytes())),
        Device::Cuda(cuda) if is_card(device) => {
            let roof = Roof::new(device, cuda);
            let x = device.zeros(Label::Scratch, [COPY / 4], DType::F32);
            let mut y = device.zeros(Label::Scratch, [COPY / 4], DType::F32);
            best(device, || roof.copy(&mut y, &x)).map(Some)
        }
        _ => Ok(None),
    }
}

fn is_card(device: &Device) -> bool {
    matches!(device, Device::Cuda(cuda) if cuda.emulator().is_none() && !cuda.is_plan())
}

/// Work a second, at best of five runs after a first one.
fn best(device: &Device, mut f: impl FnMut() -> Result<f64>) -> Result<f64> {
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
