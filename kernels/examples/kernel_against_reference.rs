//! One kernel against its reference: RMSNorm by its CUDA kernel on the software GPU (by its CPU twin where NVRTC is not
//! installed), and by plain float64 loops. Run with `cargo run --release -p codelsi-kernels --example kernel_against_reference`.

use codelsi_engine::{Ctx, DType, Device, Label, Result, rng::RngKey};
use codelsi_kernels::check::random;
use codelsi_kernels::rmsnorm::rmsnorm;

const ROWS: usize = 5;
const C: usize = 264;
const EPS: f32 = 1e-5;

fn main() -> Result<()> {
    let device = Device::emulated("sm_80").unwrap_or_else(|e| {
        println!("{e}");
        Device::cpu()
    });
    let input = |rows, site| {
        random(&Device::cpu(), [rows, C].into(), DType::F32, 1.0, RngKey { seed: 42, step: 0, site })
    };
    let (x, w) = (input(ROWS, 0)?, input(1, 1)?.reshape([C]));

    let cx = Ctx::inference(&device);
    let y = rmsnorm(&cx, &x.to(&device, Label::Scratch)?, &w.to(&device, Label::Scratch)?, EPS)?;
    let y = y.to_vec::<f32>()?;

    let (x, w) = (x.slice::<f32>()?, w.slice::<f32>()?);
    let mut worst = 0.0f64;
    for (x, y) in x.chunks_exact(C).zip(y.chunks_exact(C)) {
        let mean_square = x.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>() / C as f64;
        let r = 1.0 / (mean_square + f64::from(EPS)).sqrt();
        for ((&x, &w), &y) in x.iter().zip(w).zip(y) {
            worst = worst.max((f64::from(x) * r * f64::from(w) - f64::from(y)).abs());
        }
    }
    println!("rmsnorm of {ROWS} rows of {C} on {}: largest error {worst:.1e}", device.name());
    assert!(worst < 1e-5, "the kernel departs from its reference");
    Ok(())
}
