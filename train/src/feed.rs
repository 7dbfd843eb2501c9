//! The data of a run in the order in which it is learned.

use crate::checkpoint::State;
use crate::data;
use crate::options::TrainOptions;
use crate::pack::{Document, Documents, Encoder, Sequence, pack};
use codelsi_engine::{Error, Result};
use codelsi_model::tokenizer::Tokenizer;
use sha2::{Digest, Sha256};

/// Encoded training and validation rows, and the way through them.
pub struct Feed<'a> {
    options: &'a TrainOptions,
    pub training: Documents,
    pub validation: Documents,
    /// The epoch in hand: its number and its sequences.
    epoch: u32,
    sequences: Vec<Vec<usize>>,
}

impl<'a> Feed<'a> {
    /// Reads, splits and encodes the data.
    pub fn open(options: &'a TrainOptions, tokenizer: &Tokenizer) -> Result<Self> {
        let rows = data::read(&options.data)?;
        let (mut training, validation) = match &options.validation_data {
            Some(held_out) => (rows, data::read(held_out)?),
            None => data::split(rows, options.validation, options.seed)?,
        };
        if let Some(replay) = &options.replay {
            training.extend(data::spread(data::read(replay)?, options.replay_rows));
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
        Ok(Feed { options, training, validation, epoch: 0, sequences })
    }

    /// Optimizer steps of the whole run.
    pub fn planned(&mut self) -> usize {
        let steps = |feed: &Self| feed.sequences.len().div_ceil(self.options.batch);
        let mut planned = 0;
        for epoch in 0..self.options.epochs as u32 {
            self.enter(epoch);
            planned += steps(self);
        }
        self.options.max_steps.map_or(planned, |max| max.min(planned))
    }

    /// The next step's micro-batches; moves the cursor of `state`. A step's sequences are of one epoch.
    pub fn next(&mut self, state: &mut State) -> Vec<Sequence> {
        self.enter(state.epoch);
        let end = (state.sequence + self.options.batch).min(self.sequences.len());
        let micro_batches = self.micro_batches(&self.sequences[state.sequence..end]);
        (state.epoch, state.sequence) =
            if end == self.sequences.len() { (state.epoch + 1, 0) } else { (state.epoch, end) };
        micro_batches
    }

    /// The largest micro-batch of the first epoch: what the memory plan is made for.
    pub fn largest(&mut self) -> Sequence {
        self.enter(0);
        let all = self.micro_batches(&self.sequences);
        all.into_iter().max_by_key(|micro| micro.tokens.len()).expect("an epoch has a sequence")
    }

    /// Validation rows, packed in their order.
    pub fn validation(&self) -> Vec<Sequence> {
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
        sequences.into_iter().map(Sequence::of).collect()
    }

    /// A digest of every token and label: two runs with the same one learn from the same data.
    pub fn digest(&self) -> String {
        let mut hash = Sha256::new();
        for document in self.training.documents.iter().chain(&self.validation.documents) {
            hash.update((document.tokens.len() as u64).to_le_bytes());
            hash.update(bytemuck::cast_slice(&document.tokens));
            hash.update(bytemuck::cast_slice(&document.targets));
        }
        hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn enter(&mut self, epoch: u32) {
        if epoch != self.epoch {
            self.sequences = pack(&self.training.documents, self.options.seq, self.options.seed, epoch);
            self.epoch = epoch;
        }
    }

    fn micro_batches(&self, sequences: &[Vec<usize>]) -> Vec<Sequence> {
        let documents = |micro: &[Vec<usize>]| {
            Sequence::of(micro.iter().flatten().map(|&index| &self.training.documents[index]))
        };
        sequences.chunks(self.options.micro_batch).map(documents).collect()
    }
}
