//! Curation with progress bars: sources to instruction rows, a teacher's rewrites, and the dataset card.

use crate::output::{Bar, Output};
use codelsi_curate::teacher::{AnswerCache, Teacher, rewrite_with_teacher};
use codelsi_curate::{self as curate, CurateOptions, CuratedRow, CurationCounts};
use codelsi_engine::Result;
use codelsi_engine::files::write_atomic;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};

/// Default threshold of near-duplicate rows (share of common token 5-grams).
pub const NEAR_DUPLICATE_THRESHOLD: f64 = 0.85;

/// Curates without a teacher and writes the rows and their dataset card.
///
/// # Errors
/// When a source cannot be read or a file cannot be written.
pub fn curate(options: &CurateOptions, to: &Path, out: &Output) -> Result<CurationCounts> {
    let (rows, counts) = curate_rows(options, out)?;
    save(options, &rows, &counts, to)?;
    Ok(counts)
}

/// Curates without a teacher, with a progress bar, and returns the rows.
///
/// # Errors
/// As [`curate::run`].
pub fn curate_rows(options: &CurateOptions, out: &Output) -> Result<(Vec<CuratedRow>, CurationCounts)> {
    let bar = Mutex::new(None);
    let rows_and_counts = curate::run(options, &|done, total| {
        lock(&bar).get_or_insert_with(|| out.bar("curate", total)).update(done, "");
    })?;
    lock(&bar).iter().for_each(Bar::finish);
    Ok(rows_and_counts)
}

/// Rewrites the rows with a teacher, with a progress bar for each round, and caches its answers next to `to`.
///
/// # Errors
/// As [`rewrite_with_teacher`].
pub fn rewrite_rows(
    options: &CurateOptions,
    rows: Vec<CuratedRow>,
    counts: &mut CurationCounts,
    teacher: &mut dyn Teacher,
    to: &Path,
    out: &Output,
) -> Result<Vec<CuratedRow>> {
    let mut cache = AnswerCache::open(&to.with_extension("teacher.jsonl"))?;
    let bar: Mutex<Option<(Bar, usize)>> = Mutex::new(None);
    let rows = rewrite_with_teacher(options, rows, counts, teacher, &mut cache, &|new, total| {
        let mut bar = lock(&bar);
        let (bar_of_round, done) = bar.get_or_insert_with(|| (out.bar("teach", total), 0));
        *done += new;
        bar_of_round.update(*done, "");
        if *done == total {
            bar_of_round.finish();
            *bar = None;
        }
    });
    lock(&bar).iter().for_each(|(bar, _)| bar.finish());
    rows
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|e| e.into_inner())
}

/// Writes the rows and their dataset card.
///
/// # Errors
/// When a file cannot be written.
pub fn save(options: &CurateOptions, rows: &[CuratedRow], counts: &CurationCounts, to: &Path) -> Result<()> {
    curate::write_rows(to, rows)?;
    write_atomic(card_path(to), curate::dataset_card(options, rows, counts).as_bytes())
}

/// Returns the path of the dataset card of a file of rows.
pub fn card_path(rows: &Path) -> PathBuf {
    rows.with_extension("md")
}
