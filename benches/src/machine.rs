//! The machine that benches run on, with its roofs: a GPU if there is one, the CPU otherwise.

use codelsi_engine::team::{self, Team};
use codelsi_engine::{DType, Device, Error, Result};
use codelsi_kernels::roof;
use codelsi_kernels::spec::{Cost, Spec};
use codelsi_kernels::stopwatch::Stopwatch;
use std::time::Duration;

/// Maximum cost of one call on a CPU: the rows of larger cases are halved until they cost no more.
const CPU_CALL: Cost = Cost { bytes: 1e9, flops: 2e10 };

/// A device, its clock and its roofs.
pub struct Machine {
    pub device: Device,
    pub stopwatch: Stopwatch,
    /// Bytes per second of a copy, reads and writes counted.
    bytes: f64,
    /// FLOP/s by storage type: bf16, f32. On a GPU both are those of mma.sync.
    flops: [f64; 2],
}

impl Machine {
    /// Opens the device that `CODELSI_BENCH_DEVICE` names (`cpu` or `cuda`); without it a GPU if there is one, else the
    /// CPU. Measures its roofs.
    ///
    /// # Errors
    /// When there is no device of that name, or its roofs cannot be measured.
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
        // As the commands do.
        Team::gather(team::threads())?.keep();
        let watch = Stopwatch::new(&device);
        let mut machine = Machine { device, stopwatch: watch, bytes: 0.0, flops: [0.0; 2] };
        machine.measure()?;
        Ok(machine)
    }

    /// Measures the roofs, and keeps the highest of all measurements, since clock frequencies vary. Call it before and
    /// after a bench.
    ///
    /// # Errors
    /// When the driver fails.
    pub fn measure(&mut self) -> Result<()> {
        let measured =
            (roof::bytes(&self.device)?, [DType::BF16, DType::F32].map(|d| roof::flops(&self.device, d)));
        let (Some(bytes), [bf16, f32]) = measured else {
            return Err(Error::new("time has no meaning on this device: benches run on a CPU or a GPU"));
        };
        let flops = [bf16?.unwrap_or(0.0), f32?.unwrap_or(0.0)];
        self.bytes = self.bytes.max(bytes);
        self.flops = [0, 1].map(|i| self.flops[i].max(flops[i]));
        Ok(())
    }

    /// Returns whether the machine is a GPU.
    pub fn is_gpu(&self) -> bool {
        matches!(self.device, Device::Cuda(_))
    }

    /// Describes the device and its roofs in one line.
    pub fn title(&self) -> String {
        let name = match &self.device {
            Device::Cuda(cuda) => cuda.properties().name.clone(),
            _ => format!("{}, {} threads", cpu_name(), rayon::current_num_threads()),
        };
        let [bytes, bf16, f32] = [self.bytes, self.flops[0], self.flops[1]].map(|x| x / 1e9);
        format!("{name}: copy {bytes:.0} GB/s, bf16 {bf16:.0} GFLOP/s, f32 {f32:.0} GFLOP/s")
    }

    /// Returns the sizes to time on this machine: `real` on a GPU; on a CPU fewer rows where a call costs too much.
    pub fn sizes(&self, spec: &Spec, dtype: DType, real: &[usize]) -> Vec<usize> {
        let mut sizes = real.to_vec();
        let costly = |sizes: &[usize]| {
            let cost = (spec.shapes.case)(dtype, sizes).cost;
            cost.flops > CPU_CALL.flops || cost.bytes > CPU_CALL.bytes
        };
        while !self.is_gpu() && sizes[0] > 1 && costly(&sizes) {
            sizes[0] /= 2;
        }
        sizes
    }

    /// Returns the rate of a call from its cost and time.
    pub fn rate(&self, cost: Cost, dtype: DType, time: Duration) -> Rate {
        let (bytes, flops) = (cost.bytes / time.as_secs_f64(), cost.flops / time.as_secs_f64());
        let (memory, units) = (bytes / self.bytes, flops / self.flops[(dtype == DType::F32) as usize]);
        match memory > units {
            true => Rate { unit: "gb_per_s", value: bytes / 1e9, roof: roof::share(memory, 1.0) },
            false => Rate { unit: "tflop_per_s", value: flops / 1e12, roof: roof::share(units, 1.0) },
        }
    }
}

/// A rate in the unit of the binding roof, and its share of that roof ([`roof::share`]).
#[derive(Clone, Copy, Debug)]
pub struct Rate {
    pub unit: &'static str,
    pub value: f64,
    pub roof: Option<f64>,
}

/// The model name of the CPU, from `/proc/cpuinfo`.
pub fn cpu_name() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = text.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    name.map_or("unknown CPU".into(), |(_, name)| name.trim().to_owned())
}
