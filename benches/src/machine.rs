//! What benches run on, and its roofs: a card if there is one, the CPU otherwise.

use codelsi_engine::{DType, Device, Error, Result};
use codelsi_kernels::roof;
use codelsi_kernels::spec::{Cost, Spec};
use codelsi_kernels::stopwatch::Stopwatch;
use std::time::Duration;

/// The most a CPU is asked for in one call: large sizes are cut in rows until they cost no more.
const CPU_CALL: Cost = Cost { bytes: 1e9, flops: 2e10 };

/// A device, its clock and its roofs.
pub struct Machine {
    pub device: Device,
    pub watch: Stopwatch,
    /// Bytes a second of a copy, read and write counted.
    bytes: f64,
    /// Flops a second by storage type: bf16, f32. On a card both are those of mma.sync.
    flops: [f64; 2],
}

impl Machine {
    /// The device that `CODELSI_BENCH_DEVICE` names (`cpu` or `cuda`); without it a card if there is one, else the CPU.
    ///
    /// # Errors
    /// When the device named is none, or its roofs cannot be measured.
    pub fn new() -> Result<Self> {
        let device = match std::env::var("CODELSI_BENCH_DEVICE").as_deref() {
            Ok("cpu") => Device::cpu(),
            Ok("cuda") => Device::cuda(0)?,
            Ok(name) => {
                return Err(Error::new(format!("CODELSI_BENCH_DEVICE={name}: benches run on cpu or cuda")));
            }
            Err(_) => Device::cuda(0).unwrap_or_else(|none| {
                println!("on the CPU ({none})");
                Device::cpu()
            }),
        };
        let watch = Stopwatch::new(&device);
        let mut machine = Machine { device, watch, bytes: 0.0, flops: [0.0; 2] };
        machine.measure()?;
        Ok(machine)
    }

    /// Measures the roofs, and keeps the highest ever measured: clocks wander. Before a bench and after it will do.
    ///
    /// # Errors
    /// The driver's.
    pub fn measure(&mut self) -> Result<()> {
        let measured =
            (roof::bytes(&self.device)?, [DType::BF16, DType::F32].map(|d| roof::flops(&self.device, d)));
        let (Some(bytes), [bf16, f32]) = measured else {
            return Err(Error::new("benches run where time means something: on a CPU or a card"));
        };
        let flops = [bf16?.unwrap_or(0.0), f32?.unwrap_or(0.0)];
        self.bytes = self.bytes.max(bytes);
        self.flops = [0, 1].map(|i| self.flops[i].max(flops[i]));
        Ok(())
    }

    /// Whether it is a card.
    pub fn is_card(&self) -> bool {
        matches!(self.device, Device::Cuda(_))
    }

    /// The device and its roofs, for people.
    pub fn title(&self) -> String {
        let name = match &self.device {
            Device::Cuda(cuda) => cuda.properties().name.clone(),
            _ => format!("CPU, {} threads", rayon::current_num_threads()),
        };
        let [bytes, bf16, f32] = [self.bytes, self.flops[0], self.flops[1]].map(|x| x / 1e9);
        format!("{name}: copy {bytes:.0} GB/s, bf16 {bf16:.0} GFLOP/s, f32 {f32:.0} GFLOP/s")
    }

    /// Sizes that this machine times: a card all of them, a CPU as many rows as one call may cost.
    pub fn sizes(&self, spec: &Spec, dtype: DType, real: &[usize]) -> Vec<usize> {
        let mut sizes = real.to_vec();
        let costly = |sizes: &[usize]| {
            let cost = (spec.shapes.case)(dtype, sizes).cost;
            cost.flops > CPU_CALL.flops || cost.bytes > CPU_CALL.bytes
        };
        while !self.is_card() && sizes[0] > 1 && costly(&sizes) {
            sizes[0] /= 2;
        }
        sizes
    }

    /// What a call of this cost and time amounts to.
    pub fn rate(&self, cost: Cost, dtype: DType, time: Duration) -> Rate {
        let (bytes, flops) = (cost.bytes / time.as_secs_f64(), cost.flops / time.as_secs_f64());
        let (memory, units) = (bytes / self.bytes, flops / self.flops[(dtype == DType::F32) as usize]);
        match memory > units {
            true => Rate { unit: "gb_per_s", value: bytes / 1e9, roof: memory },
            false => Rate { unit: "tflop_per_s", value: flops / 1e12, roof: units },
        }
    }
}

/// A speed in the unit of the nearer roof, and its share of that roof.
#[derive(Clone, Copy, Debug)]
pub struct Rate {
    pub unit: &'static str,
    pub value: f64,
    pub roof: f64,
}
