//! Sources to instruction rows, with progress, a teacher's answers and a card.

use crate::output::{Bar, Output};
use codelsi_curate::teacher::{AnswerCache, Teacher, rewrite_with_teacher};
use codelsi_curate::{self as curate, CurateOptions, CuratedRow, CurationCounts};
use codelsi_engine::Result;
use codelsi_engine::files::write_atomic;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};

/// From this resemblance on a row is a repetition.
pub const RESEMBLANCE: f64 = 0.85;

/// Curates without a teacher and writes the rows and their card.
///
/// # Errors
/// Those of the curation, and of files that cannot be written.
pub fn curate(options: &CurateOptions, to: &Path, out: &Output) -> Result<CurationCounts> {
    let (rows, counts) = offline(options, out)?;
    save(options, &rows, &counts, to)?;
    Ok(counts)
}

/// Makes the rows that need no teacher, with a progress bar.
///
/// # Errors
/// Those of [`curate::run`].
pub fn offline(options: &CurateOptions, out: &Output) -> Result<(Vec<CuratedRow>, CurationCounts)> {
    let bar = Mutex::new(None);
    let found = curate::run(options, &|done, total| {
        locked(&bar).get_or_insert_with(|| out.bar("curate", total)).at(done, "");
    })?;
    locked(&bar).iter().for_each(Bar::finish);
    Ok(found)
}

/// Has a teacher rewrite the rows, with a progress bar for each round. Its answers are kept beside `to`.
///
/// # Errors
/// Those of [`rewrite_with_teacher`].
pub fn taught(
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
        let mut bar = locked(&bar);
        let (shown, done) = bar.get_or_insert_with(|| (out.bar("teach", total), 0));
        *done += new;
        shown.at(*done, "");
        if *done == total {
            shown.finish();
            *bar = None;
        }
    });
    locked(&bar).iter().for_each(|(bar, _)| bar.finish());
    rows
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|e| e.into_inner())
}

/// Writes the rows and their card.
///
/// # Errors
/// When a file cannot be written.
pub fn save(options: &CurateOptions, rows: &[CuratedRow], counts: &CurationCounts, to: &Path) -> Result<()> {
    curate::write_rows(to, rows)?;
    write_atomic(card_path(to), curate::dataset_card(options, rows, counts).as_bytes())
}

/// Returns the path of the card of a file of rows.
pub fn card_path(rows: &Path) -> PathBuf {
    rows.with_extension("md")
}
