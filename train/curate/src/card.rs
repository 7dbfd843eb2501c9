//! The dataset card: a description of the rows for their users.

use crate::counts::CurationCounts;
use crate::options::CurateOptions;
use crate::row::CuratedRow;
use crate::teacher::prompts_hash;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

/// Upper bounds of the histogram's bins, in tokens.
const BIN_ENDS: [usize; 9] = [32, 64, 128, 256, 512, 1024, 2048, 4096, usize::MAX];
/// Characters of the longest bar.
const BAR_WIDTH: usize = 40;

/// Renders the card in Markdown: counts, drop reasons, licences, repositories, styles, kinds and lengths.
pub fn dataset_card(options: &CurateOptions, rows: &[CuratedRow], counts: &CurationCounts) -> String {
    let mut text = String::from("# Dataset card\n\n");
    let list = |paths: &[std::path::PathBuf]| {
        paths.iter().map(|path| format!("`{}`", path.display())).collect::<Vec<_>>().join(", ")
    };
    let _ = writeln!(
        text,
        "Instructions made from the comments and signatures of code in {}; seed {}.",
        list(&options.paths),
        options.seed
    );
    if let Some(lessons) = &options.teacher {
        let _ = writeln!(
            text,
            "Those of style `write` are written by `{}` (prompts {}), their tasks evolved {} times.",
            lessons.teacher,
            prompts_hash(),
            lessons.evolve
        );
    }
    match options.against.is_empty() {
        true => text += "No benchmark was given: rows may repeat one.\n",
        false => {
            let _ = writeln!(text, "No row repeats a problem of {}.", list(&options.against));
        }
    }
    let _ = writeln!(text, "\n{} of {} items are kept.\n", counts.kept, counts.read);
    let dropped = counts.dropped.iter().map(|(reason, n)| (reason.to_string(), *n));
    write_table(&mut text, "dropped because", dropped);
    let mut repeated: BTreeMap<String, usize> = BTreeMap::new();
    for repeat in &counts.repeats {
        *repeated
            .entry(format!("{} by its {}", repeat.matched.problem, repeat.matched.reason.name()))
            .or_default() += 1;
    }
    write_table(&mut text, "repeats the problem", repeated);
    for file in &counts.unread {
        let _ = writeln!(text, "`{}` is not read: {}.\n", file.path, file.reason);
    }
    write_secrets(&mut text, counts);
    let count_by = |key: &dyn Fn(&CuratedRow) -> String| {
        let mut counts: BTreeMap<String, usize> = BTreeMap::new();
        rows.iter().for_each(|row| *counts.entry(key(row)).or_default() += 1);
        let mut counts: Vec<_> = counts.into_iter().collect();
        counts.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(&b.0)));
        counts
    };
    let unknown = || "unknown".to_string();
    write_table(&mut text, "licence", count_by(&|row| row.license.clone().unwrap_or_else(unknown)));
    write_table(&mut text, "repository", count_by(&|row| row.repo.clone().unwrap_or_else(unknown)));
    write_table(&mut text, "style", count_by(&|row| row.style.name().to_string()));
    if options.teacher.is_some() {
        write_table(&mut text, "round of evolution", count_by(&|row| row.evolved.to_string()));
    }
    write_table(&mut text, "kind", count_by(&|row| format!("{:?}", row.kind).to_lowercase()));
    text += &match &options.tokenizer {
        Some(tokenizer) => format!("Tokens of instruction and answer, by `{}`", tokenizer.display()),
        None => "Lexical tokens of the answer".to_string(),
    };
    write_histogram(&mut text, &counts.lengths);
    text += "\nEvery row of the file names its repository, path, item and licence where they are known.\n";
    text
}

/// Writes where the dropped secrets are, by rule, and never a secret.
fn write_secrets(text: &mut String, counts: &CurationCounts) {
    let mut by_rule: BTreeMap<&str, usize> = BTreeMap::new();
    counts.secrets.iter().for_each(|secret| *by_rule.entry(&secret.rule).or_default() += 1);
    write_table(text, "secret found by the rule", by_rule.into_iter().map(|(rule, n)| (rule.to_string(), n)));
    let places: BTreeSet<String> = counts
        .secrets
        .iter()
        .map(|s| format!("- `{}:{}`: {} ({})", s.path, s.line, s.rule, s.name))
        .collect();
    places.iter().for_each(|place| {
        let _ = writeln!(text, "{place}");
    });
    if !places.is_empty() {
        text.push('\n');
    }
    for rule in &counts.ignored_secret_rules {
        let _ = writeln!(text, "Secret rule not taken: {rule}.\n");
    }
}

fn write_table(text: &mut String, title: &str, rows: impl IntoIterator<Item = (String, usize)>) {
    let mut rows = rows.into_iter().peekable();
    if rows.peek().is_some() {
        let _ = writeln!(text, "| {title} | rows |\n|---|---:|");
        rows.for_each(|(name, n)| {
            let _ = writeln!(text, "| {} | {n} |", name.replace('|', "\\|"));
        });
        text.push('\n');
    }
}

fn write_histogram(text: &mut String, lengths: &[usize]) {
    let mut bins = [0usize; BIN_ENDS.len()];
    for &length in lengths {
        bins[BIN_ENDS.iter().position(|&end| length <= end).unwrap_or(BIN_ENDS.len() - 1)] += 1;
    }
    let max = bins.iter().max().copied().unwrap_or(0).max(1);
    text.push_str(":\n\n```\n");
    for (end, n) in BIN_ENDS.iter().zip(bins) {
        let name = if *end == usize::MAX { "more".to_string() } else { format!("to {end}") };
        let _ = writeln!(text, "{name:>8} {n:>7} {}", "#".repeat(n * BAR_WIDTH / max));
    }
    text.push_str("```\n");
}
