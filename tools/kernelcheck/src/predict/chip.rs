//! Rates of a chip, from data sheets and published microbenchmarks: `chips/*.json`, each number with its source.

use codelsi_engine::{At, Error, Result};
use serde_json::Value;

/// The chips that have a file.
const FILES: [(&str, &str); 3] = [
    ("a100", include_str!("../../chips/a100.json")),
    ("h100", include_str!("../../chips/h100.json")),
    ("h200", include_str!("../../chips/h200.json")),
];

/// A chip. Rates of a multiprocessor are for one clock.
#[derive(Clone, Debug)]
pub struct Chip {
    pub name: String,
    /// Architecture that the kernels are compiled for.
    pub arch: String,
    pub multiprocessors: f64,
    /// Clock in Hz.
    pub clock: f64,
    /// bf16 FLOP/s that mma.sync reaches, dense.
    pub mma_flops: f64,
    /// Bytes a second of device memory.
    pub dram_bytes: f64,
    /// Bytes a second that the L2 cache delivers.
    pub l2_bytes: f64,
    /// Instructions that the schedulers of a multiprocessor issue.
    pub schedulers: f64,
    /// Lanes of a multiprocessor for f32, for integers and for special functions.
    pub fp32_lanes: f64,
    pub int32_lanes: f64,
    pub special_lanes: f64,
    /// Bytes of shared memory of a multiprocessor.
    pub shared_bytes: f64,
}

impl Chip {
    /// Names of all chips.
    pub fn names() -> impl Iterator<Item = &'static str> {
        FILES.into_iter().map(|(name, _)| name)
    }

    /// Returns the chip of this name.
    ///
    /// # Errors
    /// When there is no such chip, or its file lacks a number or a source.
    pub fn find(name: &str) -> Result<Chip> {
        let file = FILES.into_iter().find(|(file, _)| file.eq_ignore_ascii_case(name));
        let Some((file, text)) = file else {
            let names: Vec<&str> = Chip::names().collect();
            return Err(Error::new(format!("no chip is called `{name}`: there are {}", names.join(", "))));
        };
        Chip::read(text).at(format!("chips/{file}.json"))
    }

    fn read(text: &str) -> Result<Chip> {
        let json: Value = serde_json::from_str(text).map_err(|e| Error::new(e.to_string()))?;
        let word = |key: &str| {
            json[key].as_str().map(str::to_owned).ok_or_else(|| Error::new(format!("{key} is no text")))
        };
        let number = |key: &str| {
            let number = json[key].as_f64().filter(|&x| x > 0.0);
            number.ok_or_else(|| Error::new(format!("{key} is no number above 0")))
        };
        Ok(Chip {
            name: word("name")?,
            arch: word("arch")?,
            multiprocessors: number("multiprocessors")?,
            clock: number("clock_ghz")? * 1e9,
            mma_flops: number("mma_tflops")? * 1e12,
            dram_bytes: number("dram_gb_per_s")? * 1e9,
            l2_bytes: number("l2_gb_per_s")? * 1e9,
            schedulers: number("schedulers")?,
            fp32_lanes: number("fp32_lanes")?,
            int32_lanes: number("int32_lanes")?,
            special_lanes: number("special_lanes")?,
            shared_bytes: number("shared_bytes_per_clock")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_chip_is_read_and_every_rate_has_a_source() {
        for (name, text) in FILES {
            assert!(!Chip::find(name).unwrap().name.is_empty());
            let json: Value = serde_json::from_str(text).unwrap();
            let sources = json["sources"].as_object().unwrap();
            let rates = json.as_object().unwrap().keys().filter(|key| json[*key].is_number());
            for rate in rates {
                assert!(sources.get(rate).is_some_and(|source| source.is_string()), "{name}: {rate}");
            }
        }
        assert!(Chip::find("b200").unwrap_err().to_string().contains("a100, h100, h200"));
        assert!(Chip::read("{}").unwrap_err().to_string().contains("name is no text"));
    }
}
