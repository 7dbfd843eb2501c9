//! The flags of every command that runs a model, and the model they name.

use crate::place::DeviceArg;
use clap::{Args, ValueEnum};
use codelsi_engine::{At, DType, Device, Error, Result};
use codelsi_model::adapter::Adapter;
use codelsi_model::checkpoint::Checkpoint;
use codelsi_model::llama::{Llama, Train};
use codelsi_model::tokenizer::Tokenizer;
use std::path::{Path, PathBuf};

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
#[derive(Args, Clone, Copy, Debug, Default)]
pub struct PlaceArgs {
    /// Where to run: auto, cpu, cuda, cuda:N, emulated or emulated:sm_90a.
    #[arg(long, default_value = "auto")]
    pub device: DeviceArg,
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

impl PlaceArgs {
    /// The storage type of activations over a checkpoint.
    pub fn compute(self, checkpoint: &Checkpoint) -> DType {
        match (self.compute, checkpoint.dtype()) {
            (Some(ComputeArg::F32), _) => DType::F32,
            (Some(ComputeArg::Bf16), _) => DType::BF16,
            (None, stored) => stored,
        }
    }
}

/// A model ready to run.
pub struct Loaded {
    pub device: Device,
    pub checkpoint: Checkpoint,
    pub tokenizer: Tokenizer,
    pub model: Llama,
}

impl Loaded {
    /// Opens the model, its tokenizer and perhaps an adapter, for inference.
    ///
    /// # Errors
    /// One line on what does not load or fit.
    pub fn open(args: &ModelArgs, adapter: Option<&Path>) -> Result<Self> {
        Loaded::on(args.place.device.open()?, args, adapter)
    }

    /// [`Loaded::open`] on a device that has been opened.
    ///
    /// # Errors
    /// As [`Loaded::open`].
    pub fn on(device: Device, args: &ModelArgs, adapter: Option<&Path>) -> Result<Self> {
        let checkpoint = Checkpoint::open(&args.model)?;
        let tokenizer = Tokenizer::load(&args.model)?;
        tokenizer.check_fits(checkpoint.config().vocab).at(args.model.display().to_string())?;
        let compute = args.place.compute(&checkpoint);
        let model = Llama::load(&device, &checkpoint, compute, Train::Nothing)?;
        let mut loaded = Loaded { device, checkpoint, tokenizer, model };
        if let Some(folder) = adapter {
            loaded.put_on(folder)?;
        }
        Ok(loaded)
    }

    /// Puts an adapter on, replacing any other.
    pub fn put_on(&mut self, folder: &Path) -> Result<()> {
        let adapter = Adapter::load(folder, self.checkpoint.config())?;
        self.model.attach(&self.device, &adapter, Train::Nothing)
    }

    /// Says which weight is to blame when an op met numbers that are not finite.
    pub fn blame(&self, error: Error) -> Error {
        if !error.to_string().contains("finite") {
            return error;
        }
        match self.checkpoint.first_non_finite() {
            Some(weight) => Error::new(format!("{weight}; the checkpoint is damaged ({error})")),
            None => error,
        }
    }
}
