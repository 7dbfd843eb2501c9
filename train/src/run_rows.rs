//! The rows of all files of a run, split into those to train on and those to validate with.

use crate::data::{self, Columns, Dataset, Example};
use crate::file_counts::{FileCounts, LeftOut};
use crate::options::TrainOptions;
use crate::pack::EncodedDataset;
use crate::row_counts::RowCounts;
use codelsi_engine::{Error, Result};
use std::path::PathBuf;
use std::slice;

/// The rows of a run before they are encoded.
#[derive(Default)]
pub(crate) struct RunRows {
    /// Rows of the data and, numbered on after all of them, of the replay.
    pub training: Vec<Example>,
    pub validation: Vec<Example>,
    /// Number of rows of the data.
    pub data_rows: usize,
    /// Number of rows with an answer that the replay has.
    pub replay_available: usize,
    /// Files of the data and the replay.
    files: Vec<FileCounts>,
    /// Files of validation rows that are no rows of the data.
    held_out_files: Vec<FileCounts>,
    /// Counts of what was not read.
    unread: RowCounts,
}

impl RunRows {
    /// Reads and splits the rows.
    ///
    /// # Errors
    /// A file that cannot be read or is malformed, or data of which no row is left to train on.
    pub fn read(options: &TrainOptions) -> Result<Self> {
        let mut run = RunRows::default();
        let data = run.read_files(&options.data, &options.columns, options)?;
        if data.examples.is_empty() {
            let message = format!("all {} rows are without an answer", data.without_answer());
            return Err(Error::io(data::place(&options.data), message));
        }
        (run.data_rows, run.files) = (data.rows, data.files);
        (run.training, run.validation) = match &options.validation_data {
            Some(path) => {
                let held_out = run.read_files(slice::from_ref(path), &options.columns, options)?;
                run.held_out_files = held_out.files;
                (data.examples, held_out.examples)
            }
            None => {
                let count = match options.validation_share {
                    Some(share) => data::rows_of_share(data.examples.len(), share)?,
                    None => options.validation,
                };
                data::split(data.examples, count, options.seed)?
            }
        };
        if let Some(replay) = &options.replay {
            let replay = run.read_files(slice::from_ref(replay), &Columns::default(), options)?;
            run.add_replay(replay, options);
        }
        Ok(run)
    }

    fn read_files(
        &mut self,
        paths: &[PathBuf],
        columns: &Columns,
        options: &TrainOptions,
    ) -> Result<Dataset> {
        let mut dataset = data::read_all(paths, columns, options.blank_answers)?;
        for (key, rows) in &dataset.unused_keys {
            *self.unread.unused_keys.entry(key.clone()).or_default() += rows;
        }
        self.unread.other_files.append(&mut dataset.other_files);
        Ok(dataset)
    }

    fn add_replay(&mut self, mut replay: Dataset, options: &TrainOptions) {
        self.replay_available = replay.examples.len();
        replay.examples.iter_mut().for_each(|example| example.row += self.data_rows);
        self.files.extend(replay.files.into_iter().map(|file| file.after(self.data_rows)));
        let taken = if options.replay_fresh { self.replay_available } else { options.replay_rows };
        self.training.extend(data::take_evenly(replay.examples, taken));
    }

    /// Counts the rows by what became of them in documents of at most `seq` tokens.
    pub fn counts(mut self, training: &EncodedDataset, validation: &EncodedDataset, seq: usize) -> RowCounts {
        training.count_by_file(&mut self.files);
        let of_data = self.held_out_files.is_empty();
        validation.count_by_file(if of_data { &mut self.files } else { &mut self.held_out_files });
        self.files.append(&mut self.held_out_files);
        RowCounts {
            training: training.documents.len(),
            validation: validation.documents.len(),
            seq,
            left_out: LeftOut::of(&self.files),
            own_template: training.own_template + validation.own_template,
            infilling: training.infilling + validation.infilling,
            files: self.files,
            ..self.unread
        }
    }
}
