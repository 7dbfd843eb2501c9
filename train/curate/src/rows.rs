//! Rows of the kept items: one per style, filtered again because instructions may contain code.

use crate::candidate::KeptItem;
use crate::counts::{CurationCounts, DropReason};
use crate::filters::{Filters, RowPlace};
use crate::infill::CutHole;
use crate::instruction::file_context;
use crate::item_rng::ItemRng;
use crate::options::CurateOptions;
use crate::row::{CuratedRow, Hole};
use crate::style::InstructionStyle;
use crate::styles::{StyleInput, Task, task};
use rayon::prelude::*;

/// Makes every style of every item. The items are distinct, and therefore their rows are.
pub fn make_rows(
    kept: &[KeptItem],
    options: &CurateOptions,
    filters: &Filters,
    counts: &mut CurationCounts,
) -> Vec<CuratedRow> {
    let styled = |kept| options.styles.iter().map(move |style| row(kept, *style, options, filters));
    let candidates: Vec<Vec<_>> = kept.par_iter().map(|kept| styled(kept).collect()).collect();
    let mut rows = Vec::new();
    for candidate in candidates.into_iter().flatten() {
        match candidate {
            Err(reason) => counts.drop_one(reason),
            Ok((row, length)) => {
                rows.push(row);
                counts.lengths.push(length);
            }
        }
    }
    rows
}

/// The texts of a row.
struct RowTexts {
    /// Empty where there is a hole.
    instruction: String,
    hole: Option<Hole>,
    output: String,
}

impl RowTexts {
    /// Makes the texts of one item in one style, or returns the reason why it has none.
    fn of(kept: &KeptItem, style: InstructionStyle, options: &CurateOptions) -> Result<Self, &'static str> {
        let KeptItem { source, item, doc, hole } = kept;
        if style == InstructionStyle::Infill {
            let CutHole { hole, output } = hole.clone().ok_or(style.missing_reason())??;
            return Ok(RowTexts { instruction: String::new(), hole: Some(hole), output });
        }
        let repo = source.repo.as_deref().unwrap_or_default();
        let rng = ItemRng::new(options.seed, &[repo, &source.path, &item.name, style.name()]);
        let input = StyleInput { item, doc, tsx: source.path.ends_with(".tsx"), rng };
        let Task { mut instruction, output } = task(style, &input).ok_or(style.missing_reason())?;
        let context = file_context(item).filter(|_| options.context && style.answers_with_code());
        if let Some(context) = context {
            instruction = format!("{instruction}\n\n{context}");
        }
        Ok(RowTexts { instruction, hole: None, output })
    }
}

/// The row of one item in one style with its length, or the reason why it is dropped.
fn row(
    kept: &KeptItem,
    style: InstructionStyle,
    options: &CurateOptions,
    filters: &Filters,
) -> Result<(CuratedRow, usize), DropReason> {
    let KeptItem { source, item, .. } = kept;
    if !style.supports(item.language) {
        return Err("other-language".into());
    }
    let RowTexts { instruction, hole, output } = RowTexts::of(kept, style, options)?;
    let row = CuratedRow {
        instruction,
        hole,
        output,
        repo: source.repo.clone(),
        path: source.path.clone(),
        language: item.language,
        name: item.name.clone(),
        kind: item.kind,
        lines: item.lines,
        license: source.license.clone(),
        style,
        template: style.template().map(|template| template.name().into()),
        teacher: None,
        evolved: 0,
    };
    if !style.is_write() || options.context {
        // The instruction holds other text than the item: a seeded bug, for example, can make code equal to a problem.
        let (limits, text) = (&filters.limits, row.text());
        if row.prompt().chars().count() > limits.max_instruction + limits.max_chars {
            return Err("too-long".into());
        }
        filters.check_secrets(&[&text], RowPlace::of(source, item)).map_err(DropReason::Secret)?;
        if filters.benchmark_match(item.language, &item.name, &text, &item.code).is_some() {
            return Err("benchmark".into());
        }
    }
    let length = filters.measure(&row.prompt(), &row.output)?;
    Ok((row, length))
}
