//! Styles of instruction on a real corpus: what is made worse still does what the comment's examples say, and most bugs
//! do not. Programs are run, in re-executions of this binary; so it has a `main`.

use codelsi_curate::{self as curate, CurateOptions, CuratedRow, InstructionStyle};
use codelsi_eval::judge::embedded::EmbeddedJudge;
use codelsi_eval::judge::{Judge, Status, child_entry};
use codelsi_eval::problem::CandidateProgram;
use codelsi_eval::sandbox::Sandbox;
use codelsi_testing::shared;
use rayon::prelude::*;
use std::collections::BTreeMap;

fn main() {
    child_entry();
    let Some(corpus) = shared("data/ts-corpus-public") else { return };
    let options = CurateOptions {
        paths: vec![corpus],
        styles: InstructionStyle::ALL.to_vec(),
        ..CurateOptions::default()
    };
    let (rows, counts) = curate::run(&options, &|_, _| ()).unwrap();
    println!("{} of {} kept", counts.kept, counts.read);
    let of = |style| rows.iter().filter(move |row| row.style == style);
    for style in InstructionStyle::ALL {
        println!("{:>8} {}", style.name(), of(style).count());
        assert!(of(style).count() > 200, "{style:?}");
    }
    assert_eq!(curate::run(&options, &|_, _| ()).unwrap().0, rows, "the seed decides");
    let written: Vec<&str> = of(InstructionStyle::Write).map(|row| row.output.as_str()).collect();
    for style in [InstructionStyle::Complete, InstructionStyle::Refactor, InstructionStyle::Fix] {
        assert!(of(style).all(|row| written.contains(&row.output.as_str())));
    }
    println!("test every_style_is_made_of_a_real_corpus ... ok");
    run_examples(&rows);
    println!("test refactored_code_does_the_same_and_broken_code_mostly_does_not ... ok");
    println!("\ntest result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out");
}

/// Runs the examples of every function that needs nothing from its file.
fn run_examples(rows: &[CuratedRow]) {
    let judge = EmbeddedJudge::new(Sandbox::checked().expect("the sandbox must hold where the tests run"));
    let mut items: BTreeMap<_, BTreeMap<&str, &CuratedRow>> = BTreeMap::new();
    for row in rows {
        items.entry((&row.repo, &row.path, &row.name)).or_default().insert(row.style.name(), row);
    }
    let items: Vec<_> = items.into_values().filter(|styles| styles.contains_key("test")).collect();
    let passes = |code: &str, test: &CuratedRow| {
        let tests = test
            .output
            .replace("import assert from 'node:assert';", "const assert = require('node:assert');");
        let program = CandidateProgram { tests_at: code.len(), text: format!("{code}\n{tests}\n") };
        judge.judge(&program).unwrap().status == Status::Ok
    };
    let given = |styles: &BTreeMap<&str, &CuratedRow>, style: &str| {
        let row = styles.get(style)?;
        let passes = passes(given(row), styles["test"]);
        assert!(passes || style != "refactor", "{}: {} is no more the same", row.path, row.instruction);
        Some(passes)
    };
    let works: Vec<_> = items.par_iter().filter(|s| passes(&s["write"].output, s["test"])).collect();
    let same = works.par_iter().filter_map(|styles| given(styles, "refactor")).count();
    let fixes: Vec<bool> = works.par_iter().filter_map(|styles| given(styles, "fix")).collect();
    let unseen = fixes.iter().filter(|passes| **passes).count();
    println!(
        "{} of {} examples hold; {same} refactored do the same; {unseen} of {} bugs pass the examples",
        works.len(),
        items.len(),
        fixes.len()
    );
    assert!(works.len() > 50 && same > 30 && unseen * 4 < fixes.len());
}

/// The code that an instruction ends with.
fn given(row: &CuratedRow) -> &str {
    let fenced = row.instruction.rsplit_once("```typescript\n").expect("a fence").1;
    fenced.strip_suffix("\n```").expect("its end")
}
