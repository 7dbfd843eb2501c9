//! Devices by name: the values of `--device` in every program.

use codelsi_engine::cuda::{Cuda, Nvrtc};
use codelsi_engine::{Device, Error, Result};
use std::str::FromStr;

/// A device by its name: `auto`, `cpu`, `cuda`, `cuda:1`, `emulated` or `emulated:sm_90a`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeviceChoice {
    /// The first card, where there is one that can be used; else the CPU.
    #[default]
    Auto,
    Cpu,
    /// The card of this number.
    Cuda(usize),
    /// The software GPU, of this architecture.
    Emulated(&'static str),
}

impl FromStr for DeviceChoice {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        match name.split_once(':').unwrap_or((name, "")) {
            ("auto", "") => Ok(DeviceChoice::Auto),
            ("cpu", "") => Ok(DeviceChoice::Cpu),
            ("cuda", "") => Ok(DeviceChoice::Cuda(0)),
            ("cuda", number) if number.parse::<usize>().is_ok() => {
                Ok(DeviceChoice::Cuda(number.parse().unwrap_or(0)))
            }
            ("emulated", "" | "sm_80") => Ok(DeviceChoice::Emulated("sm_80")),
            ("emulated", "sm_90a") => Ok(DeviceChoice::Emulated("sm_90a")),
            _ => Err(Error::new(format!(
                "there is no device {name}: auto, cpu, cuda[:N] or emulated[:sm_80|:sm_90a]"
            ))),
        }
    }
}

impl DeviceChoice {
    /// Opens the device, with memory accounting of its own.
    ///
    /// # Errors
    /// When a named device is missing, with advice.
    pub fn open(self) -> Result<Device> {
        match self {
            DeviceChoice::Auto => Ok(auto()),
            DeviceChoice::Cpu => Ok(Device::cpu()),
            DeviceChoice::Cuda(number) => Device::cuda(number),
            DeviceChoice::Emulated(arch) => Device::emulated(arch),
        }
    }
}

/// Opens the first card, or the CPU; prints a line when there is a driver whose card cannot be used.
fn auto() -> Device {
    let card = match Cuda::card_count() {
        Ok(0) => return Device::cpu(),
        Ok(_) => Nvrtc::get().and_then(|_| Device::cuda(0)),
        Err(_) if !Cuda::has_driver() => return Device::cpu(),
        Err(error) => Err(error),
    };
    card.unwrap_or_else(|error| {
        eprintln!("running on the CPU ({error})");
        Device::cpu()
    })
}

/// Returns the device's name with its hardware.
pub fn title(device: &Device) -> String {
    match device {
        Device::Cpu(_) => "cpu".into(),
        Device::Plan(_) => "plan".into(),
        Device::Cuda(cuda) => format!("{} ({})", cuda.name(), cuda.properties().name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_go_by_their_names() {
        let named = |name: &str| name.parse::<DeviceChoice>();
        assert_eq!(named("auto").unwrap(), DeviceChoice::Auto);
        assert_eq!(named("cuda:1").unwrap(), DeviceChoice::Cuda(1));
        assert_eq!(named("emulated").unwrap(), named("emulated:sm_80").unwrap());
        for bad in ["gpu", "cuda:x", "cpu:0", "emulated:sm_75", ""] {
            assert!(named(bad).unwrap_err().to_string().contains("there is no device"), "{bad}");
        }
    }
}
