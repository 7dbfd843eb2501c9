//! `report.html`: one self-contained page with charts in SVG, without scripts and without network access.
//!
//! The page shows results and how they were measured. It is made from plain data; results that a run has not measured
//! are left out.

mod bars;
mod chart;
mod cost;
mod curves;
mod data;
mod failures;
mod held_out;
mod infilling;
mod markdown;
mod matrix;
mod memorization;
mod page;
mod paper;
mod story;
mod sweep;
mod table;
mod tradeoff;

pub use chart::{count, size};
pub use cost::costs;
pub use data::{
    CurationSummary, Exposure, HostedTokens, LossCurve, ModelComparison, ProblemSet, Report,
    RepositoryResult, StageTiming, Sweep, TrainingSummary,
};
pub use held_out::differences as held_out_differences;
pub use infilling::{
    InfillDifference, difference_lines as infill_difference_lines, differences as infill_differences,
};
pub use memorization::{HEADER as EXPOSURE_HEADER, cells as exposure_cells, legend as exposure_legend};

use codelsi_engine::Result;
use codelsi_engine::files::write_atomic;
use std::path::Path;

impl Report {
    /// Renders the HTML page.
    pub fn html(&self) -> String {
        page::html(self)
    }

    /// Renders the same figures as Markdown.
    pub fn markdown(&self) -> String {
        markdown::markdown(self)
    }

    /// Writes the HTML page atomically.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self, path: impl AsRef<Path>) -> Result<()> {
        write_atomic(path, self.html().as_bytes())
    }
}

#[cfg(test)]
mod tests;
