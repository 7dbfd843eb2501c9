//! From items that are worth it to rows: every style of each, filtered by what it shows.

use crate::candidate::Found;
use crate::counts::Counts;
use crate::draw::Draw;
use crate::filters::{Filters, secret};
use crate::instruction::surroundings;
use crate::options::Options;
use crate::row::Row;
use crate::style::Style;
use crate::styles::{Subject, Task, task};
use rayon::prelude::*;

/// Every style of every item. Items differ, so their rows do.
pub fn styled(kept: &[Found], options: &Options, filters: &Filters, counts: &mut Counts) -> Vec<Row> {
    let of_item = |found| options.styles.iter().map(move |style| row(found, *style, options, filters));
    let candidates: Vec<Vec<_>> = kept.par_iter().map(|found| of_item(found).collect()).collect();
    let mut rows = Vec::new();
    for candidate in candidates.into_iter().flatten() {
        match candidate {
            Err(reason) => counts.drop(reason, 1),
            Ok((row, length)) => {
                rows.push(row);
                counts.lengths.push(length);
            }
        }
    }
    rows
}

/// One item in one style with its length, or why not.
fn row(
    found: &Found,
    style: Style,
    options: &Options,
    filters: &Filters,
) -> Result<(Row, usize), &'static str> {
    let Found { source, item, doc } = found;
    let repo = source.repo.as_deref().unwrap_or_default();
    let draw = Draw::new(options.seed, &[repo, &source.path, &item.name, style.name()]);
    let subject = Subject { item, doc, tsx: source.path.ends_with(".tsx"), draw };
    if !style.knows(item.language) {
        return Err("other-language");
    }
    let Task { mut instruction, output } = task(style, &subject).ok_or(style.lacking())?;
    let around = surroundings(item).filter(|_| options.context && style.answers_with_code());
    if let Some(around) = around {
        instruction = format!("{instruction}\n\n{around}");
    }
    if !style.is_write() || options.context {
        // Instructions hold code, and a bug can make a problem of what was none.
        let limits = &filters.limits;
        let too_long = instruction.chars().count() > limits.max_instruction + limits.max_chars;
        let told = format!("{instruction}\n{output}");
        let objection = too_long.then_some("too-long").or_else(|| secret(&[&told]));
        let objection = objection
            .or_else(|| filters.repeats(item.language, &item.name, &told, &item.code).map(|_| "benchmark"));
        objection.map_or(Ok(()), Err)?;
    }
    let length = filters.length(&instruction, &output)?;
    let row = Row {
        instruction,
        output,
        repo: source.repo.clone(),
        path: source.path.clone(),
        language: item.language,
        name: item.name.clone(),
        kind: item.kind,
        lines: item.lines,
        license: source.license.clone(),
        style,
        teacher: None,
        evolved: 0,
    };
    Ok((row, length))
}
