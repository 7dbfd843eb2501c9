//! The loss of each row under a model: what it has learned or forgotten, row by row.

use crate::data::Example;
use crate::pack::{Document, Encoder, PackedSequence};
use codelsi_engine::{Ctx, DType, Device, Result};
use codelsi_kernels::xent::Targets;
use codelsi_model::adapter::Adapter;
use codelsi_model::checkpoint::Checkpoint;
use codelsi_model::llama::{ForwardOptions, Llama, PackedBatch};
use codelsi_model::template::PromptTemplate;
use codelsi_model::tokenizer::Tokenizer;
use codelsi_model::trainable::Trainable;
use std::path::{Path, PathBuf};

/// Tokens of a forward pass over rows packed together.
const BATCH_TOKENS: usize = 4096;

/// A model that scores rows.
pub struct RowScorer {
    model: Llama,
    tokenizer: Tokenizer,
    folder: PathBuf,
    template: PromptTemplate,
    seq: usize,
}

/// The loss of one row.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RowLoss {
    /// Negative log-likelihood of the answer in nats, summed over its tokens and the end.
    pub nats: f64,
    /// Number of these tokens.
    pub tokens: usize,
}

impl RowLoss {
    /// The mean over the tokens.
    pub fn mean(self) -> f64 {
        self.nats / self.tokens.max(1) as f64
    }
}

impl RowScorer {
    /// Loads the model in `folder`; rows are put in `template` and cut to `seq` tokens.
    ///
    /// # Errors
    /// When the model does not load.
    pub fn open(
        folder: &Path,
        device: &Device,
        compute: DType,
        template: PromptTemplate,
        seq: usize,
    ) -> Result<Self> {
        let checkpoint = Checkpoint::open(folder)?;
        Ok(RowScorer {
            model: Llama::load(device, &checkpoint, compute, Trainable::Nothing)?,
            tokenizer: Tokenizer::load(folder)?,
            folder: folder.into(),
            template,
            seq,
        })
    }

    /// Attaches an adapter, replacing any other.
    ///
    /// # Errors
    /// When it does not load or fit.
    pub fn attach(&mut self, adapter: &Path) -> Result<()> {
        let adapter = Adapter::load(adapter, self.model.config())?;
        self.model.attach(&adapter, Trainable::Nothing)
    }

    /// Returns the loss of each row; `None` for a row of which no answer fits into a sequence.
    ///
    /// # Errors
    /// When a row cannot be encoded, or a kernel fails.
    pub fn losses(&self, rows: &[Example]) -> Result<Vec<Option<RowLoss>>> {
        let encoder = Encoder::for_model(&self.folder, &self.tokenizer, self.template, self.seq)?;
        let numbered: Vec<Example> =
            rows.iter().enumerate().map(|(row, example)| Example { row, ..example.clone() }).collect();
        let encoded = encoder.documents(&numbered)?;
        let mut losses = vec![None; rows.len()];
        let (mut first, mut tokens) = (0, 0);
        for (i, document) in encoded.documents.iter().enumerate() {
            if tokens + document.tokens.len() > BATCH_TOKENS && i > first {
                self.batch(&encoded.documents[first..i], &encoded.rows[first..i], &mut losses)?;
                (first, tokens) = (i, 0);
            }
            tokens += document.tokens.len();
        }
        self.batch(&encoded.documents[first..], &encoded.rows[first..], &mut losses)?;
        Ok(losses)
    }

    /// Scores documents in one forward pass.
    fn batch(&self, documents: &[Document], rows: &[usize], losses: &mut [Option<RowLoss>]) -> Result<()> {
        if documents.is_empty() {
            return Ok(());
        }
        let device = self.model.rank_layout().device();
        let packed = PackedSequence::concat(documents);
        let tokens: Vec<&[u32]> = documents.iter().map(|document| &document.tokens[..]).collect();
        let batch = PackedBatch::new(device, &tokens)?;
        let targets = Targets::new(device, &packed.targets)?;
        let cx = Ctx::inference(device);
        let (_, logprobs) = self.model.loss(&cx, &batch, &targets, 1.0, ForwardOptions::default())?;
        let mut logprobs = &logprobs.to_vec::<f32>()?[..];
        for (document, &row) in documents.iter().zip(rows) {
            let (own, rest) = logprobs.split_at(document.tokens.len());
            // Tokens without a label have the log-probability 0.
            let nats = -own.iter().map(|&x| f64::from(x)).sum::<f64>();
            losses[row] = Some(RowLoss { nats, tokens: document.labelled() });
            logprobs = rest;
        }
        Ok(())
    }
}
