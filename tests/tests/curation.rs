//! Curation on real corpora: what becomes a row, and that no benchmark problem gets through.

use codelsi_train::curate::{self, Counts, Kind, Limits, Options, Problem, Row};
use codelsi_train::jsonl;
use std::path::{Path, PathBuf};

/// A file or folder of the shared data, or `None` (said aloud) where it is absent.
fn shared(name: &str) -> Option<PathBuf> {
    let default = concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared");
    let path = Path::new(&std::env::var("CODELSI_SHARED").unwrap_or_else(|_| default.into())).join(name);
    if path.exists() {
        return Some(path);
    }
    assert!(std::env::var("CODELSI_REQUIRE").as_deref() != Ok("all"), "{} is absent", path.display());
    println!("skipped: {} is absent", path.display());
    None
}

fn corpora(folder: &Path) -> Vec<PathBuf> {
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> = files.filter(|f| f.to_string_lossy().ends_with(".jsonl.gz")).collect();
    files.sort();
    files
}

fn run(options: &Options) -> (Vec<Row>, Counts) {
    curate::run(options, &|_, _| ()).unwrap()
}

#[test]
fn the_public_corpus_becomes_rows_that_read_like_tasks() {
    let (Some(corpus), Some(problems)) =
        (shared("data/ts-corpus-public"), shared("data/multipl-e-humaneval/humaneval-ts.jsonl"))
    else {
        return;
    };
    let options = Options { paths: corpora(&corpus), against: vec![problems], ..Options::default() };
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
    for kind in [Kind::Function, Kind::Method, Kind::Class] {
        assert!(rows.iter().filter(|row| row.kind == kind).count() > 50, "{kind:?}");
    }
    let again = run(&Options { paths: options.paths.clone(), ..options });
    assert_eq!(again, (rows, counts));
}

#[test]
fn what_the_public_corpus_shares_with_humaneval_is_two_functions() {
    let (Some(corpus), Some(problems)) =
        (shared("data/ts-corpus-public"), shared("data/multipl-e-humaneval/humaneval-ts.jsonl"))
    else {
        return;
    };
    let all = run(&Options { paths: corpora(&corpus), ..Options::default() }).0;
    let kept = run(&Options { paths: corpora(&corpus), against: vec![problems], ..Options::default() }).0;
    let dropped: Vec<&str> =
        all.iter().filter(|row| !kept.contains(row)).map(|row| row.name.as_str()).collect();
    // Both are HumanEval problems (25 and 31) down to name and signature; anything more is a false alarm.
    assert_eq!(dropped, ["factorize", "isPrime"]);
}

/// A prompt taken apart: `prose` with doctests, the name, the parameters' names, the function's head.
struct Parts {
    prose: Vec<String>,
    name: String,
    params: Vec<String>,
    head: String,
}

impl Parts {
    fn of(problem: &Problem) -> Parts {
        let at = problem.prompt.rfind("function ").unwrap();
        let (comment, head) = problem.prompt.split_at(at);
        let prose = comment.lines().filter(|l| l.starts_with("//"));
        let prose = prose.map(|l| l.trim_start_matches('/').trim().to_string()).collect();
        let (name, rest) = head["function ".len()..].split_once('(').unwrap();
        let list = rest.split(')').next().unwrap();
        let params = list.split(", ").filter_map(|part| Some(part.split_once(':')?.0.to_string())).collect();
        Parts { prose, name: name.into(), params, head: head.trim_end().into() }
    }

    /// The problem as somebody else's source would have it.
    fn source(&self, comment: &str) -> String {
        format!("{comment}\nexport {}\n  const answer: any = undefined;\n  return answer;\n}}\n", self.head)
    }

    fn jsdoc(&self, prose: &[String]) -> String {
        // Seven words a line, as no prompt has it.
        let text = prose.join(" ").replace("*/", "");
        let words: Vec<&str> = text.split_whitespace().collect();
        let lines: Vec<String> = words.chunks(7).map(|line| format!(" * {}", line.join(" "))).collect();
        format!("/**\n{}\n */", lines.join("\n"))
    }

    fn without_examples(&self) -> Vec<String> {
        self.prose.iter().take_while(|line| !line.starts_with(">>>")).cloned().collect()
    }

    /// The same problem, its function and parameters renamed wherever they are named.
    fn renamed(&self) -> Parts {
        let rename = |text: &str| {
            let mut text = replace_word(text, &self.name, "computeIt");
            for (i, param) in self.params.iter().enumerate() {
                text = replace_word(&text, param, &format!("input{i}"));
            }
            text
        };
        Parts {
            prose: self.prose.iter().map(|line| rename(line)).collect(),
            name: rename(&self.name),
            params: Vec::new(),
            head: rename(&self.head),
        }
    }
}

fn replace_word(text: &str, word: &str, by: &str) -> String {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(word).filter(|_| !word.is_empty()) {
        let (before, after) = (&rest[..at], &rest[at + word.len()..]);
        let whole = !before.ends_with(is_word) && !after.starts_with(is_word);
        out.push_str(before);
        out.push_str(if whole { by } else { word });
        rest = after;
    }
    out + rest
}

/// How many of the planted sources come through although decontamination knows the problems.
fn survivors(problems: &Path, sources: &[String]) -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    let corpus = folder.path().join("planted.jsonl");
    let lines: Vec<_> = sources
        .iter()
        .enumerate()
        .map(|(i, source)| serde_json::json!({"path": format!("{i:03}.ts"), "content": source}))
        .collect();
    jsonl::write(&corpus, &lines).unwrap();
    let limits = Limits { min_words: 0, max_line: 10_000, max_instruction: 10_000, ..Limits::default() };
    let (rows, counts) = run(&Options {
        paths: vec![corpus],
        against: vec![problems.to_path_buf()],
        limits,
        ..Options::default()
    });
    let seen = rows.len() + counts.dropped.get("benchmark").unwrap_or(&0);
    assert_eq!(seen, sources.len(), "every planted copy reaches decontamination: {counts:?}");
    rows.into_iter().map(|row| row.path).collect()
}

#[test]
fn planted_copies_of_problems_are_caught() {
    let Some(file) = shared("data/multipl-e-humaneval/humaneval-ts.jsonl") else {
        return;
    };
    let problems: Vec<Problem> = jsonl::read(&file).unwrap();
    let parts: Vec<Parts> = problems.iter().map(Parts::of).collect();
    let all =
        |plant: &dyn Fn(&Parts) -> String| survivors(&file, &parts.iter().map(plant).collect::<Vec<_>>());
    let line_comments = |p: &Parts| format!("// {}", p.prose.join("\n// "));
    let none: Vec<String> = Vec::new();

    assert_eq!(all(&|p| p.source(&line_comments(p))), none, "as they are");
    assert_eq!(all(&|p| p.source(&p.jsdoc(&p.prose))), none, "as JSDoc, wrapped differently");
    assert_eq!(all(&|p| p.source("/** Does as it is told to do. */")), none, "head alone");
    let renamed = all(&|p| p.renamed().source(&p.renamed().jsdoc(&p.renamed().prose)));
    assert_eq!(renamed, none, "renamed throughout");
    // Without examples a prompt may be a phrase that anybody might write.
    let prose_only = all(&|p| p.renamed().source(&p.renamed().jsdoc(&p.renamed().without_examples())));
    assert!(prose_only.len() <= 4, "renamed, examples left out: {prose_only:?}");
}
