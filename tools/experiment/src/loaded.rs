//! A model that is loaded for inference, with its tokenizer and perhaps an adapter.

use crate::output::Output;
use codelsi_engine::memory::Usage;
use codelsi_engine::{At, DType, Device, Error, Result};
use codelsi_model::adapter::Adapter;
use codelsi_model::checkpoint::Checkpoint;
use codelsi_model::generate::{GenerationRequest, SchedulerConfig};
use codelsi_model::llama::Llama;
use codelsi_model::parallel::RankLayout;
use codelsi_model::tokenizer::Tokenizer;
use codelsi_model::trainable::Trainable;
use codelsi_train::plan::plan_generation;
use std::path::Path;

/// A model ready to run.
pub struct Loaded {
    pub checkpoint: Checkpoint,
    pub tokenizer: Tokenizer,
    pub model: Llama,
    /// The sizes of the adapter that is on.
    adapter: Option<Adapter>,
}

impl Loaded {
    /// Opens the model, its tokenizer and perhaps an adapter, for inference; activations are stored as `compute`, by default
    /// as the weights are.
    ///
    /// # Errors
    /// One line on what does not load or fit.
    pub fn open(
        folder: &Path,
        device: &Device,
        compute: Option<DType>,
        adapter: Option<&Path>,
    ) -> Result<Self> {
        Loaded::on(RankLayout::from(device), folder, compute, adapter)
    }

    /// [`Loaded::open`] of a rank's part.
    ///
    /// # Errors
    /// As [`Loaded::open`].
    pub fn on(
        split: RankLayout,
        folder: &Path,
        compute: Option<DType>,
        adapter: Option<&Path>,
    ) -> Result<Self> {
        let mut checkpoint = Checkpoint::open(folder)?;
        if split.comm().rank() == 0 {
            checkpoint = checkpoint.with_progress(Output::detect().loading());
        }
        let tokenizer = Tokenizer::load(folder)?;
        tokenizer.check_fits(checkpoint.config().vocab).at(folder.display().to_string())?;
        let compute = compute.unwrap_or(checkpoint.dtype());
        let model = Llama::load(split, &checkpoint, compute, Trainable::Nothing)?;
        let mut loaded = Loaded { checkpoint, tokenizer, model, adapter: None };
        if let Some(folder) = adapter {
            loaded.put_on(folder)?;
        }
        Ok(loaded)
    }

    /// Where this rank's part of the model is.
    pub fn device(&self) -> &Device {
        self.model.rank_layout().device()
    }

    /// Puts an adapter on, replacing any other.
    pub fn put_on(&mut self, folder: &Path) -> Result<()> {
        let adapter = Adapter::load(folder, self.checkpoint.config())?;
        self.adapter = Some(adapter.shapes_only()?);
        self.model.attach(&adapter, Trainable::Nothing)
    }

    /// Bytes by label at the peak of a generation, from the planning device.
    ///
    /// # Errors
    /// The generation's own.
    pub fn plan(&self, requests: &[GenerationRequest], limits: SchedulerConfig) -> Result<Usage> {
        let (compute, adapter) = (self.model.compute(), self.adapter.as_ref());
        plan_generation(self.model.rank_layout(), &self.checkpoint, compute, adapter, requests, limits)
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
