//! The flags that name a model, its device and its precision.

use clap::{Args, ValueEnum};
use codelsi_engine::DType;
use codelsi_launch::DeviceChoice;
use std::path::PathBuf;

/// Which model, where, and in what precision.
#[derive(Args, Clone, Debug)]
pub struct ModelArgs {
    /// Model folder in the Hugging Face layout.
    #[arg(long)]
    pub model: PathBuf,
    #[command(flatten)]
    pub place: PlaceArgs,
}

/// Where a model runs, and in what precision.
#[derive(Args, Clone, Copy, Debug)]
pub struct PlaceArgs {
    /// Where to run: auto, cpu, cuda, cuda:N, emulated or emulated:sm_90a.
    #[arg(long, default_value = "auto")]
    pub device: DeviceChoice,
    /// Storage of activations; by default bf16 for a bf16 checkpoint and f32 for any other.
    #[arg(long, value_enum)]
    pub compute: Option<ComputeArg>,
}

/// `--compute`.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum ComputeArg {
    F32,
    Bf16,
}

impl From<ComputeArg> for DType {
    fn from(compute: ComputeArg) -> Self {
        match compute {
            ComputeArg::F32 => DType::F32,
            ComputeArg::Bf16 => DType::BF16,
        }
    }
}
