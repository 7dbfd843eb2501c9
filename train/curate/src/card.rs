//! The dataset card: what a set of rows is, for those who are to train on it.

use crate::counts::Counts;
use crate::options::Options;
use crate::row::Row;
use crate::teacher::prompts_hash;
use std::collections::BTreeMap;
use std::fmt::Write;

/// Upper ends of the histogram's classes, in tokens.
const CLASSES: [usize; 9] = [32, 64, 128, 256, 512, 1024, 2048, 4096, usize::MAX];
const BAR: usize = 40;

/// The card in Markdown: counts, reasons, licences, repositories, kinds, lengths. Each row carries its own provenance.
pub fn card(options: &Options, rows: &[Row], counts: &Counts) -> String {
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
    if let Some(lessons) = &options.lessons {
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
    table(&mut text, "dropped because", dropped);
    let mut repeated: BTreeMap<String, usize> = BTreeMap::new();
    for repeat in &counts.repeats {
        *repeated.entry(format!("{} by its {}", repeat.of.problem, repeat.of.sign.told())).or_default() += 1;
    }
    table(&mut text, "repeats the problem", repeated);
    let count = |of: &dyn Fn(&Row) -> String| {
        let mut counts: BTreeMap<String, usize> = BTreeMap::new();
        rows.iter().for_each(|row| *counts.entry(of(row)).or_default() += 1);
        let mut counts: Vec<_> = counts.into_iter().collect();
        counts.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(&b.0)));
        counts
    };
    let unknown = || "unknown".to_string();
    table(&mut text, "licence", count(&|row| row.license.clone().unwrap_or_else(unknown)));
    table(&mut text, "repository", count(&|row| row.repo.clone().unwrap_or_else(unknown)));
    table(&mut text, "style", count(&|row| row.style.name().to_string()));
    if options.lessons.is_some() {
        table(&mut text, "round of evolution", count(&|row| row.evolved.to_string()));
    }
    table(&mut text, "kind", count(&|row| format!("{:?}", row.kind).to_lowercase()));
    text += &match &options.tokenizer {
        Some(tokenizer) => format!("Tokens of instruction and answer, by `{}`", tokenizer.display()),
        None => "Lexical tokens of the answer".to_string(),
    };
    histogram(&mut text, &counts.lengths);
    text += "\nEvery row of the file names its repository, path, item and licence where they are known.\n";
    text
}

fn table(text: &mut String, what: &str, rows: impl IntoIterator<Item = (String, usize)>) {
    let mut rows = rows.into_iter().peekable();
    if rows.peek().is_some() {
        let _ = writeln!(text, "| {what} | rows |\n|---|---:|");
        rows.for_each(|(name, n)| {
            let _ = writeln!(text, "| {} | {n} |", name.replace('|', "\\|"));
        });
        text.push('\n');
    }
}

fn histogram(text: &mut String, lengths: &[usize]) {
    let mut classes = [0usize; CLASSES.len()];
    for &length in lengths {
        classes[CLASSES.iter().position(|&end| length <= end).unwrap_or(CLASSES.len() - 1)] += 1;
    }
    let most = classes.iter().max().copied().unwrap_or(0).max(1);
    text.push_str(":\n\n```\n");
    for (end, n) in CLASSES.iter().zip(classes) {
        let name = if *end == usize::MAX { "more".to_string() } else { format!("to {end}") };
        let _ = writeln!(text, "{name:>8} {n:>7} {}", "#".repeat(n * BAR / most));
    }
    text.push_str("```\n");
}
