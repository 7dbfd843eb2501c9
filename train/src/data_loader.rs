//! The data loader: training sequences in their seeded order, micro-batch by micro-batch, and the validation sequences.

use crate::checkpoint::TrainerState;
use crate::data::{self, REPLAY_SITE, permutation};
use crate::options::TrainOptions;
use crate::pack::{Document, DocumentLoss, EncodedDataset, Encoder, EpochOrder, PackedSequence};
use crate::row_counts::RowCounts;
use crate::run_rows::RunRows;
use codelsi_engine::files::write_atomic_with;
use codelsi_engine::rng::RngKey;
use codelsi_engine::{Error, Result};
use codelsi_model::tokenizer::Tokenizer;
use serde_json::json;
use sha2::{Digest, Sha256};
use std::collections::HashSet;
use std::io::Write;
use std::path::Path;

/// The encoded training and validation rows, and the epoch being read.
pub struct DataLoader<'a> {
    options: &'a TrainOptions,
    pub training: EncodedDataset,
    pub validation: EncodedDataset,
    /// Counts of the rows of all files, by their fate.
    pub rows: RowCounts,
    /// Number of rows in the files `data`: rows from this one on are of `replay`.
    data_rows: usize,
    /// Number of rows in the file `replay`.
    replay_available: usize,
    /// Fresh documents of `replay`, in the order in which epochs take them; empty where every epoch has the same rows.
    fresh: Vec<usize>,
    epoch: u32,
    /// The sequences of `epoch`, each a list of indices into the training documents.
    sequences: Vec<Vec<usize>>,
}

impl<'a> DataLoader<'a> {
    /// Reads, splits, encodes and packs the data.
    ///
    /// # Errors
    /// A file that cannot be read or is malformed, or data in which no row fits into a sequence.
    pub fn open(options: &'a TrainOptions, tokenizer: &Tokenizer) -> Result<Self> {
        let run = RunRows::read(options)?;
        let encoder = Encoder::for_model(&options.model, tokenizer, options.template, options.seq)?;
        let (training, validation) = (encoder.documents(&run.training)?, encoder.documents(&run.validation)?);
        if training.documents.is_empty() {
            return Err(Error::io(data::place(&options.data), nothing_to_train_on(&training, options)));
        }
        let (data_rows, replay_available) = (run.data_rows, run.replay_available);
        let fresh = match options.replay_fresh {
            true => fresh_order(&training, data_rows, options.seed),
            false => Vec::new(),
        };
        let rows = run.counts(&training, &validation, options.seq);
        let (epoch, sequences) = (0, Vec::new());
        let mut loader = DataLoader {
            options,
            training,
            validation,
            rows,
            data_rows,
            replay_available,
            fresh,
            epoch,
            sequences,
        };
        loader.sequences = loader.sequences_of(0);
        Ok(loader)
    }

    /// Describes the options that have no effect on this data.
    pub fn notes(&mut self) -> Vec<String> {
        let (options, steps) = (self.options, self.total_steps());
        let TrainOptions { warmup, max_steps, replay_rows, validate_every, .. } = *options;
        let max_steps = max_steps.unwrap_or(0);
        let notes = [
            (
                warmup >= steps,
                format!("the learning rate ends in its warm-up of {warmup} steps: there are {steps}"),
            ),
            (
                max_steps > steps,
                format!("the epochs end after {steps} steps, before the {max_steps} of --max-steps"),
            ),
            (
                replay_rows > self.replay_available,
                format!(
                    "--replay has {} rows, fewer than the {replay_rows} of --replay-rows",
                    self.replay_available
                ),
            ),
            (
                validate_every > 0 && self.validation.documents.is_empty(),
                "--validate-every has no effect: there are no validation rows".to_string(),
            ),
            (
                options.distill > 0.0 && self.training.rows.iter().all(|&row| row < self.data_rows),
                "--distill has no effect: no row of --replay is left to train on".to_string(),
            ),
        ];
        notes.into_iter().filter(|(holds, _)| *holds).map(|(_, note)| note).collect()
    }

    /// Says what the loss of a step holds, where that is not cross-entropy alone.
    pub fn loss_in_words(&self) -> Option<String> {
        let weight = self.options.distill;
        (weight > 0.0).then(|| {
            format!("cross-entropy on rows of --data; on replayed rows {weight} times the divergence from the adapter of --from")
        })
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

    /// Writes the rows of every step of the run to `path`, a line a step: the rows of each of its sequences, in order,
    /// counted from 0 over the rows of the data file and on over those of `replay`.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn write_order(&mut self, path: &Path) -> Result<()> {
        let (total, mut step) = (self.total_steps(), 0);
        write_atomic_with(path, |out| {
            for epoch in 0..self.options.epochs as u32 {
                self.load_epoch(epoch);
                for sequences in self.sequences.chunks(self.options.batch).take(total - step) {
                    step += 1;
                    let row = |&document: &usize| self.training.rows[document];
                    let rows = |sequence: &Vec<usize>| sequence.iter().map(row).collect::<Vec<_>>();
                    let sequences: Vec<Vec<usize>> = sequences.iter().map(rows).collect();
                    writeln!(out, "{}", json!({"step": step, "epoch": epoch, "sequences": sequences}))?;
                }
                if step == total {
                    break;
                }
            }
            Ok(())
        })
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

    /// The largest micro-batch of the first epoch, or of all where epochs have other rows, for the memory plan. Where the
    /// run distills, it stands for a micro-batch of rows of both losses.
    pub fn largest_micro_batch(&mut self) -> PackedSequence {
        let epochs = if self.fresh.is_empty() { 1 } else { self.options.epochs as u32 };
        let largest_of = |epoch| {
            self.load_epoch(epoch);
            let all = self.micro_batches(&self.sequences);
            all.into_iter().max_by_key(|micro| micro.tokens.len()).expect("an epoch has a sequence")
        };
        let largest = (0..epochs).map(largest_of).max_by_key(|micro| micro.tokens.len());
        let largest = largest.expect("a run has an epoch");
        if self.options.distill > 0.0 { largest.with_both_losses() } else { largest }
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
            self.sequences = self.sequences_of(epoch);
            self.epoch = epoch;
        }
    }

    fn sequences_of(&self, epoch: u32) -> Vec<Vec<usize>> {
        let TrainOptions { shuffle, packing, seed, seq, .. } = *self.options;
        let documents = &self.training.documents;
        let chosen = epoch_documents(documents.len(), &self.fresh, self.options.replay_rows, epoch);
        EpochOrder { shuffle, packing, seed }.sequences(documents, chosen, seq, epoch)
    }

    fn micro_batches(&self, sequences: &[Vec<usize>]) -> Vec<PackedSequence> {
        let packed = |micro: &[Vec<usize>]| {
            let mut all = PackedSequence::default();
            micro.iter().flatten().for_each(|&i| all.push(&self.training.documents[i], self.loss_of(i)));
            all
        };
        sequences.chunks(self.options.micro_batch).map(packed).collect()
    }

    /// The loss on a training document.
    fn loss_of(&self, document: usize) -> DocumentLoss {
        match self.options.distill > 0.0 && self.training.rows[document] >= self.data_rows {
            true => DocumentLoss::Distillation,
            false => DocumentLoss::CrossEntropy,
        }
    }
}

/// Returns the documents whose rows come after the `rows` of the data, in a random order.
fn fresh_order(training: &EncodedDataset, rows: usize, seed: u64) -> Vec<usize> {
    let replayed: Vec<usize> = (0..training.rows.len()).filter(|&i| training.rows[i] >= rows).collect();
    let order = permutation(replayed.len(), RngKey { seed, step: 0, site: REPLAY_SITE });
    order.into_iter().map(|i| replayed[i]).collect()
}

/// Returns the documents of an epoch: of `all` those that are not fresh, and the next `count` fresh ones.
fn epoch_documents(all: usize, fresh: &[usize], count: usize, epoch: u32) -> Vec<usize> {
    let fresh_ones: HashSet<usize> = fresh.iter().copied().collect();
    let mut chosen: Vec<usize> = (0..all).filter(|document| !fresh_ones.contains(document)).collect();
    let count = count.min(fresh.len());
    let start = (epoch as usize * count).checked_rem(fresh.len()).unwrap_or(0);
    chosen.extend(fresh.iter().cycle().skip(start).take(count));
    chosen
}

/// Says why no row became a document.
fn nothing_to_train_on(training: &EncodedDataset, options: &TrainOptions) -> String {
    match training.too_long.len() {
        0 => format!("the template {} can write none of the conversations", options.template.name()),
        _ => {
            format!("no row leaves room for an output in {} tokens; train with longer sequences", options.seq)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fresh_rows_come_once_before_any_comes_again() {
        let fresh = [7, 4, 6, 3, 5];
        let epochs: Vec<Vec<usize>> = (0..5).map(|epoch| epoch_documents(8, &fresh, 2, epoch)).collect();
        assert!(epochs.iter().all(|chosen| chosen[..3] == [0, 1, 2] && chosen.len() == 5));
        assert_eq!(
            epochs.iter().map(|chosen| chosen[3..].to_vec()).collect::<Vec<_>>().concat(),
            fresh.repeat(2)
        );
        assert_eq!(epoch_documents(8, &fresh, 99, 3), [0, 1, 2, 7, 4, 6, 3, 5]);
        assert_eq!(epoch_documents(3, &[], 2, 9), [0, 1, 2]);
    }
}
