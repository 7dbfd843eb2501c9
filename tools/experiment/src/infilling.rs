//! Held-out rows of holes to fill, and the evaluation of models on them.

use crate::evaluation::with_progress;
use crate::output::Output;
use crate::protocol::ProtocolOptions;
use codelsi_engine::{Error, Result};
use codelsi_eval::infilling::{InfillProtocol, InfillResult, InfillRow, evaluate_infilling};
use codelsi_eval::sampling::Generator;
use codelsi_train::data;
use std::path::Path;

/// Holes to fill, and the sampling.
pub struct InfillSet {
    rows: Vec<InfillRow>,
    protocol: InfillProtocol,
}

impl InfillSet {
    /// Reads the rows with a hole of a file or folder of training rows, up to the options' limit; others are counted on
    /// stderr.
    ///
    /// # Errors
    /// When the file cannot be read, or has no such row.
    pub fn read(path: &Path, options: &ProtocolOptions) -> Result<InfillSet> {
        options.check()?;
        let dataset = data::read(path)?;
        let holes = dataset.examples.iter().filter_map(data::Example::infilled);
        let mut rows: Vec<InfillRow> = holes
            .map(|(hole, reference)| InfillRow {
                prefix: hole.prefix.clone(),
                suffix: hole.suffix.clone(),
                reference: reference.into(),
            })
            .collect();
        if rows.is_empty() {
            return Err(Error::io(path, "has no row with `prefix`, `suffix` and `output`"));
        }
        let others = dataset.rows - rows.len();
        if others > 0 {
            eprintln!("{}: {others} rows without a hole to fill are left out", path.display());
        }
        rows.truncate(options.limit.unwrap_or(usize::MAX));
        let settings = InfillProtocol {
            samples: options.n,
            temperature: options.temperature,
            top_p: options.top_p,
            max_tokens: options.max_tokens,
            seed: options.seed,
            ..InfillProtocol::default()
        };
        Ok(InfillSet { protocol: settings.over(&rows), rows })
    }

    /// Evaluates one model, with a progress bar.
    ///
    /// # Errors
    /// As [`evaluate_infilling`].
    pub fn evaluate(
        &self,
        name: &str,
        model: &mut dyn Generator,
        folder: &Path,
        out: &Output,
    ) -> Result<InfillResult> {
        let result = with_progress(name, out, |progress| {
            evaluate_infilling(name, model, &self.rows, &self.protocol, folder, progress)
        })?;
        if result.limited > 0 {
            let (limited, rows) = (result.limited, self.rows.len());
            eprintln!(
                "{name}: {limited} of {rows} holes leave less than {} tokens to fill them",
                self.protocol.max_tokens
            );
        }
        Ok(result)
    }
}
