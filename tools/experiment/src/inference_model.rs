//! A model loaded for inference, with its tokenizer and an optional adapter.

use crate::output::Output;
use codelsi_engine::memory::Usage;
use codelsi_engine::{At, DType, Device, Error, Result};
use codelsi_model::adapter::Adapter;
use codelsi_model::chat_template::ChatTemplate;
use codelsi_model::checkpoint::{Checkpoint, PackWeights};
use codelsi_model::end_tokens::describe_end_tokens;
use codelsi_model::generate::{GenerationRequest, SchedulerConfig};
use codelsi_model::llama::Llama;
use codelsi_model::message::{Message, Role};
use codelsi_model::parallel::RankLayout;
use codelsi_model::template::PromptTemplate;
use codelsi_model::tokenizer::Tokenizer;
use codelsi_model::trainable::Trainable;
use codelsi_train::plan::plan_generation;
use sha2::{Digest, Sha256};
use std::path::Path;
use std::sync::OnceLock;

/// A model loaded for inference, or a rank's part of it.
pub struct InferenceModel {
    pub checkpoint: Checkpoint,
    pub tokenizer: Tokenizer,
    pub model: Llama,
    /// Shapes of the attached adapter, for memory plans.
    adapter: Option<Adapter>,
    /// See [`InferenceModel::fingerprint`].
    fingerprint: String,
    /// The model's chat template, once it is asked for.
    chat_template: OnceLock<ChatTemplate>,
}

impl InferenceModel {
    /// Loads the model, its tokenizer and an optional adapter. Activations are stored as `compute`, by default the
    /// weights' type.
    ///
    /// # Errors
    /// When a part does not load or fit.
    pub fn open(
        folder: &Path,
        device: &Device,
        compute: Option<DType>,
        adapter: Option<&Path>,
    ) -> Result<Self> {
        InferenceModel::open_on_rank(RankLayout::from(device), folder, compute, PackWeights::Off, adapter)
    }

    /// Loads a rank's part of the model, as [`InferenceModel::open`] does the whole.
    ///
    /// # Errors
    /// As [`InferenceModel::open`].
    pub fn open_on_rank(
        rank_layout: RankLayout,
        folder: &Path,
        compute: Option<DType>,
        pack_weights: PackWeights,
        adapter: Option<&Path>,
    ) -> Result<Self> {
        let checkpoint = Checkpoint::open(folder)?;
        let rank = rank_layout.comm().rank();
        let packing = pack_weights.decide(&checkpoint, &rank_layout);
        let mut checkpoint = checkpoint.with_packing(packing.packed);
        if rank == 0 {
            checkpoint = checkpoint.with_progress(Output::detect().load_progress());
        }
        let tokenizer = Tokenizer::load(folder)?;
        tokenizer.check_fits(checkpoint.config().vocab).at(folder.display().to_string())?;
        let compute = compute.unwrap_or(checkpoint.dtype());
        let model = Llama::load(rank_layout, &checkpoint, compute, Trainable::Nothing)?;
        let mut loaded = InferenceModel {
            fingerprint: fingerprint(&checkpoint, None)?,
            checkpoint,
            tokenizer,
            model,
            adapter: None,
            chat_template: OnceLock::new(),
        };
        if let Some(folder) = adapter {
            loaded.attach_adapter(folder)?;
        }
        if rank == 0 {
            eprintln!("{}", describe_end_tokens(loaded.checkpoint.config(), &loaded.tokenizer));
            packing.line().iter().for_each(|line| eprintln!("{line}"));
        }
        Ok(loaded)
    }

    /// Returns the device of this rank's part.
    pub fn device(&self) -> &Device {
        self.model.rank_layout().device()
    }

    /// Attaches an adapter, replacing any other.
    ///
    /// # Errors
    /// When it does not load or fit.
    pub fn attach_adapter(&mut self, folder: &Path) -> Result<()> {
        let adapter = Adapter::load(folder, self.checkpoint.config())?;
        self.adapter = Some(adapter.shapes_only()?);
        self.fingerprint = fingerprint(&self.checkpoint, Some(&adapter))?;
        self.model.attach(&adapter, Trainable::Nothing)
    }

    /// Returns a digest that tells this model and adapter from others: of the configuration and the last norm's weights,
    /// which every training changes, and of all of the adapter. Not all weights are read, which may be 26 GB.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// Encodes a prompt, written by a template if there is one.
    ///
    /// # Errors
    /// When the text cannot be spelled in the vocabulary, or the model has no chat template and is to use it.
    pub fn encode_prompt(&self, text: &str, template: Option<PromptTemplate>) -> Result<Vec<u32>> {
        match template {
            None => self.tokenizer.encode(text, true),
            Some(PromptTemplate::Chat) => {
                let message = Message { role: Role::User, content: text.to_string() };
                self.chat_template()?.encode_prompt(&self.tokenizer, &[message])
            }
            Some(template) => self.tokenizer.encode(&template.wrap(text), true),
        }
    }

    /// Returns the strings at which an answer ends: the given ones, and the end of a turn if the chat template has one.
    ///
    /// # Errors
    /// When the model has no chat template and is to use it.
    pub fn stop_strings(&self, stop: &[String], template: Option<PromptTemplate>) -> Result<Vec<String>> {
        let mut stop = stop.to_vec();
        if template == Some(PromptTemplate::Chat) {
            stop.extend(self.chat_template()?.end_of_turn(&self.tokenizer));
        }
        Ok(stop)
    }

    fn chat_template(&self) -> Result<&ChatTemplate> {
        if let Some(template) = self.chat_template.get() {
            return Ok(template);
        }
        let template = ChatTemplate::require(self.checkpoint.folder())?;
        Ok(self.chat_template.get_or_init(|| template))
    }

    /// Plans the memory of a generation: bytes by label at its peak.
    ///
    /// # Errors
    /// When a request is invalid for the model.
    pub fn plan_memory(&self, requests: &[GenerationRequest], scheduler: SchedulerConfig) -> Result<Usage> {
        let (compute, adapter) = (self.model.compute(), self.adapter.as_ref());
        plan_generation(self.model.rank_layout(), &self.checkpoint, compute, adapter, requests, scheduler)
    }

    /// Formats the peak memory so far and the planned peak.
    pub fn format_peak(&self, planned: &Usage) -> String {
        let mib = |bytes: usize| bytes as f64 / (1 << 20) as f64;
        format!(
            "peak {:.1} MiB, planned {:.1} MiB",
            mib(self.device().ledger().usage().peak),
            mib(planned.peak)
        )
    }

    /// Adds the cause to a generation's error: the damaged weight after a non-finite value, advice after out of memory.
    pub fn explain(&self, error: Error) -> Error {
        if error.is_out_of_memory() {
            return error
                .advise("ask for fewer completions (-n) or tokens (--max-tokens), or --compute bf16");
        }
        if !error.is_not_finite() {
            return error;
        }
        match self.checkpoint.first_non_finite() {
            Some(weight) => Error::new(format!("{weight}; the checkpoint is damaged ({error})")),
            None => error,
        }
    }
}

/// The digest of [`InferenceModel::fingerprint`].
fn fingerprint(checkpoint: &Checkpoint, adapter: Option<&Adapter>) -> Result<String> {
    let mut hash = Sha256::new();
    hash.update(checkpoint.config().to_json(checkpoint.dtype()).to_string());
    hash.update(checkpoint.copy_f32(&Device::cpu(), "model.norm.weight")?.to_bytes()?);
    for (path, module) in adapter.iter().flat_map(|adapter| &adapter.modules) {
        hash.update(path);
        for tensor in module.tensors() {
            hash.update(tensor.to_bytes()?);
        }
    }
    if let Some(adapter) = adapter {
        hash.update(adapter.config.default_scaling().to_le_bytes());
        let own = adapter.config.patterns.iter().flat_map(|_| adapter.modules.keys());
        own.for_each(|path| hash.update(adapter.config.scaling(path).to_le_bytes()));
        for (name, t) in &adapter.saved {
            hash.update(name);
            hash.update(t.to_bytes()?);
        }
    }
    Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}
