//! Devices by name.

use codelsi_engine::{Device, Error, Result};

/// `cpu`, `emulated`, `emulated:sm_90a`, `cuda` or `cuda:1`.
///
/// # Errors
/// When the name is none of these, or there is no such device.
pub fn device(name: &str) -> Result<Device> {
    match name.split_once(':').unwrap_or((name, "")) {
        ("cpu", "") => Ok(Device::cpu()),
        ("emulated", "") => Device::emulated("sm_80"),
        ("emulated", arch) => Device::emulated(arch),
        ("cuda", "") => Device::cuda(0),
        ("cuda", ordinal) if ordinal.parse::<usize>().is_ok() => Device::cuda(ordinal.parse().unwrap_or(0)),
        _ => Err(Error::new(format!("there is no device {name}: cpu, emulated[:sm_80|:sm_90a] or cuda[:N]"))),
    }
}

/// The device's name with its hardware.
pub fn title(device: &Device) -> String {
    match device {
        Device::Cpu(_) => "cpu".into(),
        Device::Plan(_) => "plan".into(),
        Device::Cuda(cuda) => format!("{} ({})", cuda.name(), cuda.properties().name),
    }
}
