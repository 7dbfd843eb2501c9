//! Curation on real corpora: what becomes a row, and that no benchmark problem gets through.

use codelsi_curate::{self as curate, CurateOptions, CuratedRow, CurationCounts, ItemKind};
use codelsi_testing::shared;
use std::path::{Path, PathBuf};

fn corpora(folder: &Path) -> Vec<PathBuf> {
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> = files.filter(|f| f.to_string_lossy().ends_with(".jsonl.gz")).collect();
    files.sort();
    files
}

fn run(options: &CurateOptions) -> (Vec<CuratedRow>, CurationCounts) {
    curate::run(options, &|_, _| ()).unwrap()
}

#[test]
fn the_public_corpus_becomes_rows_that_read_like_tasks() {
    let (Some(corpus), Some(problems)) =
        (shared("data/ts-corpus-public"), shared("data/multipl-e-humaneval/humaneval-ts.jsonl"))
    else {
        return;
    };
    let options =
        CurateOptions { paths: corpora(&corpus), against: vec![problems], ..CurateOptions::default() };
    let (rows, counts) = run(&options);
    assert_eq!(
        (counts.kept, counts.read),
        (rows.len(), counts.kept + counts.dropped.values().sum::<usize>())
    );
    assert!(rows.len() > 2000, "{counts:?}");
    for row in &rows {
        let (first, rest) = row.instruction.split_once("\n\n").expect("a description follows the task");
        assert!(first.starts_with("Write the ") && first.contains("TypeScript"), "{first}");
        assert!(rest.split_whitespace().count() >= 3, "{rest}");
        for mark in ["/**", "*/", "{@link", "```", "@param", "@example"] {
            assert!(!row.instruction.contains(mark), "{mark} in {}", row.instruction);
        }
        assert!(!row.output.starts_with("export ") && row.repo.is_some() && row.license.is_some());
    }
    for kind in [ItemKind::Function, ItemKind::Method, ItemKind::Class] {
        assert!(rows.iter().filter(|row| row.kind == kind).count() > 50, "{kind:?}");
    }
    let again = run(&CurateOptions { paths: options.paths.clone(), ..options });
    assert_eq!(again, (rows, counts));
}

#[test]
fn what_the_public_corpus_shares_with_humaneval_is_two_functions_and_a_class() {
    let (Some(corpus), Some(problems)) =
        (shared("data/ts-corpus-public"), shared("data/multipl-e-humaneval/humaneval-ts.jsonl"))
    else {
        return;
    };
    let all = run(&CurateOptions { paths: corpora(&corpus), ..CurateOptions::default() }).0;
    let kept =
        run(&CurateOptions { paths: corpora(&corpus), against: vec![problems], ..CurateOptions::default() })
            .0;
    let dropped: Vec<&str> =
        all.iter().filter(|row| !kept.contains(row)).map(|row| row.name.as_str()).collect();
    // HumanEval's problems 25 and 31 down to name and signature, and a class with a method `multiply(a: number, b: number)`,
    // the head of 97; anything more is a false alarm.
    assert_eq!(dropped, ["factorize", "isPrime", "MyMath"]);
}
