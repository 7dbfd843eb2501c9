//! The decision to keep a copy of the weights in the order in which products on the CPU read them.

use super::Checkpoint;
use crate::parallel::{Layout, RankLayout};
use codelsi_engine::Device;
use codelsi_engine::memory::available_bytes;
use std::fmt;
use std::str::FromStr;

/// The part of the available memory that the copies may take by [`PackWeights::Auto`]: one in so many.
const SHARE_OF_MEMORY: usize = 4;

/// The values of `--pack-weights`. Results do not depend on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PackWeights {
    /// Where the copies take at most a quarter of the memory that is available.
    #[default]
    Auto,
    On,
    Off,
}

impl FromStr for PackWeights {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "auto" => Ok(PackWeights::Auto),
            "on" => Ok(PackWeights::On),
            "off" => Ok(PackWeights::Off),
            _ => Err(format!("`{name}` is none of auto, on and off")),
        }
    }
}

impl fmt::Display for PackWeights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            PackWeights::Auto => "auto",
            PackWeights::On => "on",
            PackWeights::Off => "off",
        })
    }
}

impl PackWeights {
    /// Decides for a model that the ranks of `rank_layout` hold, all on this machine.
    pub fn decide(self, checkpoint: &Checkpoint, rank_layout: &RankLayout) -> Packing {
        let (device, layout) = (rank_layout.device(), rank_layout.layout());
        let bytes = match layout {
            Layout::Replicate => checkpoint.packed_len() * rank_layout.comm().world(),
            Layout::Shard | Layout::Tensor => checkpoint.packed_len(),
        };
        let available = available_bytes();
        let fits = available.is_none_or(|available| bytes <= available / SHARE_OF_MEMORY);
        let can = !matches!(device, Device::Cuda(_)) && layout != Layout::Shard;
        let packed = can && (self == PackWeights::On || self == PackWeights::Auto && fits);
        Packing { wish: self, can, packed, bytes, available }
    }
}

/// A decision on packed weights, and what it rests on.
#[derive(Clone, Copy, Debug)]
pub struct Packing {
    wish: PackWeights,
    /// False on a GPU, and where weights are gathered for each use.
    can: bool,
    /// True if the weights are copied.
    pub packed: bool,
    /// Size of the copies.
    bytes: usize,
    available: Option<usize>,
}

impl Packing {
    /// Returns the line that a run prints at its start; none where there was nothing to decide.
    pub fn line(&self) -> Option<String> {
        let gib = |bytes: usize| bytes as f64 / (1u64 << 30) as f64;
        match (self.wish, self.can, self.packed) {
            (PackWeights::On, false, _) => {
                Some("--pack-weights on has no effect: not on a GPU nor under --layout shard".into())
            }
            (_, _, true) => Some(format!("weights: {:.2} GiB more for a packed copy", gib(self.bytes))),
            (PackWeights::Auto, true, false) => Some(format!(
                "weights: read in place, since a packed copy of {:.1} GiB exceeds a quarter of the {:.1} GiB available \
                 (--pack-weights on)",
                gib(self.bytes),
                gib(self.available.unwrap_or(0))
            )),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::synthetic;
    use codelsi_engine::Device;
    use codelsi_engine::cuda::DeviceProperties;
    use safetensors::Dtype;

    #[test]
    fn small_copies_are_made_and_large_ones_are_said() {
        let decide = |shape: &str, wish: PackWeights, device: Device| {
            let checkpoint = Checkpoint::shapes_only(synthetic::config(shape).unwrap(), Dtype::BF16);
            wish.decide(&checkpoint, &RankLayout::from(&device))
        };
        let on_cpu = |shape: &str, wish: PackWeights| decide(shape, wish, Device::cpu());
        assert!(on_cpu("tiny", PackWeights::Auto).packed);
        assert!(!on_cpu("tiny", PackWeights::Off).packed);
        assert!(on_cpu("code-llama-13b", PackWeights::On).packed);
        let large = on_cpu("code-llama-13b", PackWeights::Auto);
        assert!(!large.packed && large.line().unwrap().contains("--pack-weights on"));
        assert_eq!(on_cpu("code-llama-13b", PackWeights::Off).line(), None);
        let card = decide("tiny", PackWeights::On, Device::plan_card(DeviceProperties::a100()));
        assert!(!card.packed && card.line().unwrap().contains("no effect"));
    }
}
