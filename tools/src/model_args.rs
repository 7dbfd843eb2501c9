//! The flags of every command that runs a model, and the model they name.

use crate::output::Output;
use crate::place::DeviceArg;
use clap::{Args, ValueEnum};
use codelsi_engine::memory::Usage;
use codelsi_engine::{At, DType, Device, Error, Result};
use codelsi_model::adapter::Adapter;
use codelsi_model::checkpoint::Checkpoint;
use codelsi_model::generate::{Limits, Request};
use codelsi_model::llama::Llama;
use codelsi_model::parallel::Split;
use codelsi_model::tokenizer::Tokenizer;
use codelsi_model::trainable::Train;
use codelsi_train::plan::generation;
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
    pub checkpoint: Checkpoint,
    pub tokenizer: Tokenizer,
    pub model: Llama,
    /// The sizes of the adapter that is on.
    adapter: Option<Adapter>,
}

impl Loaded {
    /// Opens the model, its tokenizer and perhaps an adapter, for inference.
    ///
    /// # Errors
    /// One line on what does not load or fit.
    pub fn open(args: &ModelArgs, adapter: Option<&Path>) -> Result<Self> {
        Loaded::on(Split::from(&args.place.device.open()?), args, adapter)
    }

    /// [`Loaded::open`] of a rank's part.
    ///
    /// # Errors
    /// As [`Loaded::open`].
    pub fn on(split: Split, args: &ModelArgs, adapter: Option<&Path>) -> Result<Self> {
        let mut checkpoint = Checkpoint::open(&args.model)?;
        if split.comm().rank() == 0 {
            checkpoint = checkpoint.watched(Output::detect().loading());
        }
        let tokenizer = Tokenizer::load(&args.model)?;
        tokenizer.check_fits(checkpoint.config().vocab).at(args.model.display().to_string())?;
        let compute = args.place.compute(&checkpoint);
        let model = Llama::load(split, &checkpoint, compute, Train::Nothing)?;
        let mut loaded = Loaded { checkpoint, tokenizer, model, adapter: None };
        if let Some(folder) = adapter {
            loaded.put_on(folder)?;
        }
        Ok(loaded)
    }

    /// Where this rank's part of the model is.
    pub fn device(&self) -> &Device {
        self.model.split().device()
    }

    /// Puts an adapter on, replacing any other.
    pub fn put_on(&mut self, folder: &Path) -> Result<()> {
        let adapter = Adapter::load(folder, self.checkpoint.config())?;
        self.adapter = Some(adapter.without_values()?);
        self.model.attach(&adapter, Train::Nothing)
    }

    /// Bytes by label at the peak of a generation, from the planning device.
    ///
    /// # Errors
    /// The generation's own.
    pub fn plan(&self, requests: &[Request], limits: Limits) -> Result<Usage> {
        let (compute, adapter) = (self.model.compute(), self.adapter.as_ref());
        generation(self.model.split(), &self.checkpoint, compute, adapter, requests, limits)
    }

    /// The highest total so far beside the plan, for people.
    pub fn peak(&self, planned: &Usage) -> String {
        let mib = |bytes: usize| bytes as f64 / (1 << 20) as f64;
        format!(
            "peak {:.1} MiB, planned {:.1} MiB",
            mib(self.device().ledger().usage().peak),
            mib(planned.peak)
        )
    }

    /// Says which weight is to blame when an op met numbers that are not finite, and what would help a device that had
    /// no memory left.
    pub fn blame(&self, error: Error) -> Error {
        if error.is_out_of_memory() {
            return error
                .advise("ask for fewer completions (-n) or tokens (--max-tokens), or --compute bf16");
        }
        if !error.to_string().contains("finite") {
            return error;
        }
        match self.checkpoint.first_non_finite() {
            Some(weight) => Error::new(format!("{weight}; the checkpoint is damaged ({error})")),
            None => error,
        }
    }
}
