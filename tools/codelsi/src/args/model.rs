//! The flags that name a model, its device and its precision.

use crate::args::help;
use clap::builder::{PathBufValueParser, TypedValueParser};
use clap::{Args, ValueEnum};
use codelsi_engine::DType;
use codelsi_launch::DeviceChoice;
use codelsi_model::hub;
use std::path::PathBuf;

/// Parser of a folder, or of `org/name` in the Hugging Face cache.
pub fn folder() -> impl TypedValueParser<Value = PathBuf> {
    PathBufValueParser::new().map(|path| hub::resolve(&path))
}

/// A model, its device and its precision.
#[derive(Args, Clone, Debug)]
pub struct ModelArgs {
    #[arg(long, help = help::MODEL, value_name = "DIR", value_parser = folder())]
    pub model: PathBuf,
    #[command(flatten)]
    pub device: DeviceArgs,
}

/// The device of a model and the precision of its activations.
#[derive(Args, Clone, Copy, Debug)]
#[command(next_help_heading = "Device and ranks")]
pub struct DeviceArgs {
    #[arg(long, help = help::DEVICE, default_value = "auto")]
    pub device: DeviceChoice,
    #[arg(long, help = help::COMPUTE, value_name = "TYPE", value_enum)]
    pub compute: Option<ComputeArg>,
}

/// The values of `--compute`.
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
