//! The data loader: training sequences in their seeded order, micro-batch by micro-batch, and the validation sequences.

use crate::checkpoint::TrainerState;
use crate::data;
use crate::options::TrainOptions;
use crate::pack::{Document, EncodedDataset, Encoder, PackedSequence, pack};
use codelsi_engine::{Error, Result};
use codelsi_model::tokenizer::Tokenizer;
use sha2::{Digest, Sha256};

/// The encoded training and validation rows, and the epoch being read.
pub struct DataLoader<'a> {
    options: &'a TrainOptions,
    pub training: EncodedDataset,
    pub validation: EncodedDataset,
    epoch: u32,
    /// The packed sequences of `epoch`, each a list of indices into the training documents.
    sequences: Vec<Vec<usize>>,
}

impl<'a> DataLoader<'a> {
    /// Reads, splits, encodes and packs the data.
    ///
    /// # Errors
    /// A file that cannot be read or is malformed, or data in which no row fits into a sequence.
    pub fn open(options: &'a TrainOptions, tokenizer: &Tokenizer) -> Result<Self> {
        let rows = data::read(&options.data)?;
        let (mut training, validation) = match &options.validation_data {
            Some(held_out) => (rows, data::read(held_out)?),
            None => data::split(rows, options.validation, options.seed)?,
        };
        if let Some(replay) = &options.replay {
            training.extend(data::take_evenly(data::read(replay)?, options.replay_rows));
        }
        let encoder = Encoder { tokenizer, template: options.template, seq: options.seq };
        let (training, validation) = (encoder.documents(&training)?, encoder.documents(&validation)?);
        if training.documents.is_empty() {
            let message = format!(
                "no row leaves room for an output in {} tokens; train with longer sequences",
                options.seq
            );
            return Err(Error::io(&options.data, message));
        }
        let sequences = pack(&training.documents, options.seq, options.seed, 0);
        Ok(DataLoader { options, training, validation, epoch: 0, sequences })
    }

    /// The number of optimizer steps of the whole run.
    pub fn total_steps(&mut self) -> usize {
        let max = self.options.max_steps.unwrap_or(usize::MAX);
        let mut steps = 0;
        for epoch in 0..self.options.epochs as u32 {
            self.load_epoch(epoch);
            steps += self.sequences.len().div_ceil(self.options.batch);
            if steps >= max {
                return max;
            }
        }
        steps
    }

    /// Returns the next step's micro-batches and advances the data cursor in `state`. A step does not cross the end of
    /// an epoch, so the last step of an epoch may be smaller.
    pub fn next_step(&mut self, state: &mut TrainerState) -> Vec<PackedSequence> {
        self.load_epoch(state.epoch);
        let end = (state.sequence + self.options.batch).min(self.sequences.len());
        let micro_batches = self.micro_batches(&self.sequences[state.sequence..end]);
        (state.epoch, state.sequence) =
            if end == self.sequences.len() { (state.epoch + 1, 0) } else { (state.epoch, end) };
        micro_batches
    }

    /// Checks that the data cursor of a saved state is within the data.
    ///
    /// # Errors
    /// When it is not.
    pub fn check_cursor(&mut self, state: &TrainerState) -> Result<()> {
        self.load_epoch(state.epoch);
        let (at, of) = (state.sequence, self.sequences.len());
        match at < of {
            true => Ok(()),
            false => Err(Error::new(format!(
                "cannot resume: state.json stands at sequence {at} of {of}; it is damaged"
            ))),
        }
    }

    /// The largest micro-batch of the first epoch, for the memory plan.
    pub fn largest_micro_batch(&mut self) -> PackedSequence {
        self.load_epoch(0);
        let all = self.micro_batches(&self.sequences);
        all.into_iter().max_by_key(|micro| micro.tokens.len()).expect("an epoch has a sequence")
    }

    /// The most micro-batches of a step of the first epoch, for the memory plan.
    pub fn micro_batches_of_a_step(&mut self) -> usize {
        self.load_epoch(0);
        self.sequences.len().min(self.options.batch).div_ceil(self.options.micro_batch)
    }

    /// The validation rows, packed in the order of the file.
    pub fn validation_sequences(&self) -> Vec<PackedSequence> {
        let mut sequences: Vec<Vec<&Document>> = Vec::new();
        let mut room = 0;
        for document in &self.validation.documents {
            if document.tokens.len() > room {
                sequences.push(Vec::new());
                room = self.options.seq;
            }
            room -= document.tokens.len();
            sequences.last_mut().expect("opened above").push(document);
        }
        sequences.into_iter().map(PackedSequence::concat).collect()
    }

    /// SHA-256 of every token and label; equal digests mean equal data.
    pub fn digest(&self) -> String {
        let mut hash = Sha256::new();
        for document in self.training.documents.iter().chain(&self.validation.documents) {
            hash.update((document.tokens.len() as u64).to_le_bytes());
            hash.update(bytemuck::cast_slice(&document.tokens));
            hash.update(bytemuck::cast_slice(&document.targets));
        }
        hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn load_epoch(&mut self, epoch: u32) {
        if epoch != self.epoch {
            self.sequences = pack(&self.training.documents, self.options.seq, self.options.seed, epoch);
            self.epoch = epoch;
        }
    }

    fn micro_batches(&self, sequences: &[Vec<usize>]) -> Vec<PackedSequence> {
        let documents = |micro: &[Vec<usize>]| {
            PackedSequence::concat(micro.iter().flatten().map(|&index| &self.training.documents[index]))
        };
        sequences.chunks(self.options.micro_batch).map(documents).collect()
    }
}
