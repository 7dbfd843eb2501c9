//! The whole of curation: every source read, every candidate filtered, the rows of what is kept.

use crate::candidate::{Candidate, Dropped, curate_file};
use crate::counts::Counts;
use crate::duplicates::{repeats, unspaced};
use crate::filters::Filters;
use crate::options::Options;
use crate::row::Row;
use crate::{rows, source};
use codelsi_engine::{At, Error, Result};
use rayon::prelude::*;
use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Reads every source and makes the rows. `progress` hears (files done, files in all), from any thread.
///
/// # Errors
/// A source or problem file that cannot be read, is malformed (file and line named) or empty.
pub fn run(options: &Options, progress: &(dyn Fn(usize, usize) + Sync)) -> Result<(Vec<Row>, Counts)> {
    if options.paths.is_empty() {
        return Err(Error::new("nothing to curate: give a folder, a .jsonl or a .jsonl.gz"));
    }
    let twice = (1..).zip(&options.styles).find(|(after, style)| options.styles[*after..].contains(style));
    if let Some((_, style)) = twice {
        return Err(Error::new(format!("style {} is asked for twice", style.name())));
    }
    let filters = Filters::open(options)?;
    let mut counts = Counts::default();
    let mut sources = Vec::new();
    for path in &options.paths {
        let found = source::read(path, &options.languages)?;
        if found.unreadable > 0 {
            counts.drop("not-utf8", found.unreadable);
        }
        sources.extend(found.sources);
    }
    let done = AtomicUsize::new(0);
    let candidates: Vec<Vec<Candidate>> = sources
        .par_iter()
        .map(|source| {
            let candidates = curate_file(source, &filters).at(&source.path);
            progress(done.fetch_add(1, Ordering::Relaxed) + 1, sources.len());
            candidates
        })
        .collect::<Result<_>>()?;

    let mut seen = HashSet::new();
    let mut kept = Vec::new();
    for candidate in candidates.into_iter().flatten() {
        match candidate {
            Err(Dropped::Because(reason)) => counts.drop(reason, 1),
            Err(Dropped::Repeats(repeat)) => counts.repeat(repeat),
            Ok(found) if !seen.insert(unspaced(&found.item.code)) => counts.drop("duplicate", 1),
            Ok(found) => kept.push(found),
        }
    }
    if let Some(least) = options.resemblance {
        let code: Vec<&str> = kept.iter().map(|found| found.item.code.as_str()).collect();
        let mut repeated = repeats(&code, least).into_iter();
        let found = kept.len();
        kept.retain(|_| !repeated.next().unwrap_or(false));
        if kept.len() < found {
            counts.drop("near-duplicate", found - kept.len());
        }
    }
    let rows = rows::styled(&kept, options, &filters, &mut counts);
    counts.read += rows.len();
    counts.kept = rows.len();
    Ok((rows, counts))
}
