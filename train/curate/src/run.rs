//! The curation run: reads sources, filters candidates, removes duplicates, and makes rows.

use crate::candidate::{Candidate, file_candidates};
use crate::counts::CurationCounts;
use crate::duplicates::{near_duplicates, without_whitespace};
use crate::filters::Filters;
use crate::options::CurateOptions;
use crate::row::CuratedRow;
use crate::style::InstructionStyle;
use crate::{rows, source};
use codelsi_engine::{Error, Result, interrupt};
use rayon::prelude::*;
use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Reads every source and makes the rows. Calls `progress` with (files done, all files), from any thread.
///
/// # Errors
/// A source or problem file that cannot be read, is malformed (the message names file and line) or is empty; a signal
/// that wished for the end of the process.
pub fn run(
    options: &CurateOptions,
    progress: &(dyn Fn(usize, usize) + Sync),
) -> Result<(Vec<CuratedRow>, CurationCounts)> {
    if options.paths.is_empty() {
        return Err(Error::new("nothing to curate: give a folder, a .jsonl or a .jsonl.gz"));
    }
    let repeated = (1..).zip(&options.styles).find(|(next, style)| options.styles[*next..].contains(style));
    if let Some((_, style)) = repeated {
        return Err(Error::new(format!("style {} is asked for twice", style.name())));
    }
    let filters = Filters::open(options)?;
    let ignored_secret_rules = filters.secret_rules.ignored.clone();
    let mut counts = CurationCounts { ignored_secret_rules, ..CurationCounts::default() };
    let mut sources = Vec::new();
    for path in &options.paths {
        let read = source::read(path, &options.languages)?;
        if read.not_utf8 > 0 {
            counts.drop("not-utf8", read.not_utf8);
        }
        sources.extend(read.sources);
    }
    let infill_seed = options.styles.contains(&InstructionStyle::Infill).then_some(options.seed);
    let done = AtomicUsize::new(0);
    let candidates: Vec<Vec<Candidate>> = sources
        .par_iter()
        .map(|source| {
            interrupt::check("no row was written")?;
            let candidates = file_candidates(source, &filters, infill_seed);
            progress(done.fetch_add(1, Ordering::Relaxed) + 1, sources.len());
            Ok(candidates)
        })
        .collect::<Result<_>>()?;

    let mut seen = HashSet::new();
    let mut kept = Vec::new();
    for candidate in candidates.into_iter().flatten() {
        match candidate {
            Err(reason) => counts.drop_one(reason),
            Ok(kept_item) if !seen.insert(without_whitespace(&kept_item.item.code)) => {
                counts.drop("duplicate", 1)
            }
            Ok(kept_item) => kept.push(kept_item),
        }
    }
    if let Some(threshold) = options.near_duplicate_threshold {
        let code: Vec<&str> = kept.iter().map(|kept| kept.item.code.as_str()).collect();
        let mut duplicate = near_duplicates(&code, threshold).into_iter();
        let before = kept.len();
        kept.retain(|_| !duplicate.next().unwrap_or(false));
        if kept.len() < before {
            counts.drop("near-duplicate", before - kept.len());
        }
    }
    let rows = rows::make_rows(&kept, options, &filters, &mut counts);
    counts.read += rows.len();
    counts.kept = rows.len();
    Ok((rows, counts))
}
