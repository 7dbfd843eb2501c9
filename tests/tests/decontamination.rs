//! Benchmark problems planted as somebody else's sources would have them, in six languages: none gets through.

use codelsi_curate::{self as curate, BenchmarkProblem, CurateOptions, Language, RowLimits};
use codelsi_model::jsonl;
use codelsi_testing::shared;
use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};

const CODES: [(Language, &str); 6] = [
    (Language::TypeScript, "ts"),
    (Language::JavaScript, "js"),
    (Language::Python, "py"),
    (Language::Java, "java"),
    (Language::Cpp, "cpp"),
    (Language::Rust, "rs"),
];

/// HumanEval in the language with this code.
fn problems(code: &str) -> Option<PathBuf> {
    shared(format!("data/multipl-e-humaneval/humaneval-{code}.jsonl"))
}

/// A problem taken apart: prose with doctests, the function's head and name, its parameters' names, lines of tests.
#[derive(Clone)]
struct Parts {
    language: Language,
    prose: Vec<String>,
    name: String,
    params: Vec<String>,
    head: String,
    tests: Vec<String>,
}

impl Parts {
    fn of(problem: &BenchmarkProblem, language: Language) -> Parts {
        let lines: Vec<&str> = problem.prompt.lines().map(str::trim).collect();
        let (prose, head): (Vec<String>, &str) = match problem.prompt.split_once("\"\"\"") {
            Some((before, docstring)) if language == Language::Python => {
                let docstring = docstring.rsplit_once("\"\"\"").unwrap().0;
                (docstring.lines().map(|l| l.trim().into()).collect(), before.trim().lines().last().unwrap())
            }
            _ => {
                let comments = lines.iter().filter(|line| line.starts_with("//"));
                (comments.map(|l| l.trim_start_matches('/').trim().into()).collect(), *lines.last().unwrap())
            }
        };
        let open = head.find('(').unwrap();
        let name = head[..open].rsplit(|c: char| !is_word(c)).next().unwrap();
        let params = split(&head[open + 1..]);
        let typed_first = matches!(language, Language::Java | Language::Cpp);
        let of_param = |param: &String| match typed_first {
            true => param.rsplit(' ').next().unwrap().to_string(),
            false => param.split(':').next().unwrap().trim().to_string(),
        };
        let calls = [format!("{name}("), "candidate(".to_string()];
        let tests = problem.tests.lines().filter(|line| calls.iter().any(|call| line.contains(call)));
        let tests = tests.map(|line| replace_word(line.trim(), "candidate", name)).collect();
        let params = params.iter().map(of_param).filter(|name| !name.is_empty()).collect();
        Parts { language, prose, name: name.into(), params, head: head.trim().into(), tests }
    }

    /// The problem as somebody else's source would have it, under this comment.
    fn source(&self, comment: &str) -> String {
        let head = &self.head;
        match self.language {
            Language::TypeScript | Language::JavaScript => {
                format!("{comment}\nexport {head}\n  const answer = undefined;\n  return answer;\n}}\n")
            }
            Language::Python => {
                format!(
                    "{head}\n    \"\"\"{comment}\"\"\"\n    answer = None\n    print(answer)\n    return answer\n"
                )
            }
            Language::Java => format!(
                "class Holder {{\n{comment}\n{head}\n    var answer = make();\n    show(answer);\n    return answer;\n}}\n}}\n"
            ),
            Language::Cpp => {
                format!("{comment}\n{head}\n  auto answer = make();\n  show(answer);\n  return answer;\n}}\n")
            }
            Language::Rust => format!(
                "{comment}\npub {head}\n    let answer = make();\n    show(answer);\n    answer\n}}\n"
            ),
        }
    }

    /// These lines as the language's plainest comment.
    fn plain(&self, lines: &[String]) -> String {
        match self.language {
            Language::Python => lines.join("\n    "),
            Language::Rust => format!("/// {}", lines.join("\n/// ")),
            _ => format!("// {}", lines.join("\n// ")),
        }
    }

    /// Reflows the prompt as documentation of seven words a line, as no prompt has it.
    fn wrapped(&self, lines: &[String]) -> String {
        let text = lines.join(" ").replace("*/", "");
        let words: Vec<&str> = text.split_whitespace().collect();
        self.documentation(&words.chunks(7).map(|line| line.join(" ")).collect::<Vec<_>>())
    }

    fn documentation(&self, lines: &[String]) -> String {
        match self.language {
            Language::Python => format!("\n    {}\n    ", lines.join("\n    ")),
            Language::Rust => format!("/// {}", lines.join("\n/// ")),
            _ => format!("/**\n * {}\n */", lines.join("\n * ")),
        }
    }

    fn without_examples(&self) -> Vec<String> {
        self.prose.iter().take_while(|line| !line.starts_with(">>>")).cloned().collect()
    }

    /// The problem with its function and parameters renamed everywhere.
    fn renamed(&self) -> Parts {
        let rename = |text: &String| {
            let mut text = replace_word(text, &self.name, "computeIt");
            for (i, param) in self.params.iter().enumerate() {
                text = replace_word(&text, param, &format!("input{i}"));
            }
            text
        };
        Parts {
            language: self.language,
            prose: self.prose.iter().map(rename).collect(),
            name: "computeIt".into(),
            params: Vec::new(),
            head: rename(&self.head),
            tests: self.tests.iter().map(|line| replace_word(line, &self.name, "computeIt")).collect(),
        }
    }
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The parts of a bracket that was opened before `text`.
fn split(text: &str) -> Vec<String> {
    let (mut parts, mut depth) = (vec![String::new()], 0);
    for c in text.chars() {
        match c {
            ')' if depth == 0 => break,
            ',' if depth == 0 => {
                parts.push(String::new());
                continue;
            }
            '<' | '[' | '(' => depth += 1,
            '>' | ']' | ')' => depth -= 1,
            _ => {}
        }
        parts.last_mut().unwrap().push(c);
    }
    parts.iter().map(|part| part.trim().to_string()).collect()
}

fn replace_word(text: &str, word: &str, by: &str) -> String {
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

/// Returns the planted sources that decontamination misses, although it knows the problems.
fn survivors(problems: &Path, code: &str, language: Language, sources: &[String]) -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    let corpus = folder.path().join("planted.jsonl");
    let path = |i: usize| format!("{i:03}.{code}");
    let lines: Vec<_> = sources
        .iter()
        .enumerate()
        .map(|(i, source)| serde_json::json!({"path": path(i), "content": source}))
        .collect();
    jsonl::write(&corpus, &lines).unwrap();
    let far = 100_000;
    let limits = RowLimits {
        min_words: 0,
        min_chars: 0,
        min_lines: 0,
        max_chars: far,
        max_line: far,
        max_lines: far,
        max_instruction: far,
        max_mean_line: far,
        max_commented: 100,
        max_tokens: far,
    };
    let options = CurateOptions {
        paths: vec![corpus],
        languages: vec![language],
        against: vec![problems.to_path_buf()],
        limits,
        ..CurateOptions::default()
    };
    let (_, counts) = curate::run(&options, &|_, _| ()).unwrap();
    // What is left of two problems when names and examples are gone may be the same; one test cannot be parsed.
    let other = |reason: &&str| !matches!(*reason, "benchmark" | "duplicate" | "syntax");
    let others: Vec<&str> = counts.dropped.keys().copied().filter(other).collect();
    assert!(others.is_empty(), "every planted copy reaches decontamination: {others:?}");
    let caught: BTreeSet<String> = counts.repeats.into_iter().map(|repeat| repeat.path).collect();
    (0..sources.len()).map(path).filter(|path| !caught.contains(path)).collect()
}

/// Counts the problems of each language that a plant gets through; `of` is true for problems that have what it plants.
fn through(plant: &dyn Fn(&Parts) -> Option<String>) -> Option<Vec<(Language, usize, Vec<String>)>> {
    CODES
        .into_iter()
        .map(|(language, code)| {
            let file = problems(code)?;
            let problems: Vec<BenchmarkProblem> = jsonl::read(&file).unwrap();
            let sources: Vec<String> =
                problems.iter().filter_map(|problem| plant(&Parts::of(problem, language))).collect();
            Some((language, sources.len(), survivors(&file, code, language, &sources)))
        })
        .collect()
}

/// Asserts that in no language more than `most` of at least 100 come through.
fn assert_caught(what: &str, most: usize, plant: &dyn Fn(&Parts) -> Option<String>) {
    for (language, planted, through) in through(plant).into_iter().flatten() {
        println!("{what}, {language:?}: {} of {planted} come through: {through:?}", through.len());
        assert!(planted >= 100 && through.len() <= most, "{what}, {language:?}: {through:?} of {planted}");
    }
}

#[test]
fn prompts_are_caught_in_any_dress() {
    assert_caught("as they are", 0, &|p| Some(p.source(&p.plain(&p.prose))));
    assert_caught("wrapped differently", 0, &|p| Some(p.source(&p.wrapped(&p.prose))));
    assert_caught("head alone", 0, &|p| Some(p.source(&p.wrapped(&["Does as it is told to do.".into()]))));
}

#[test]
fn renamed_prompts_are_caught() {
    assert_caught("renamed throughout", 0, &|p| {
        Some(p.renamed().source(&p.renamed().wrapped(&p.renamed().prose)))
    });
    // Without examples a prompt may be a phrase that anybody might write.
    assert_caught("renamed, examples left out", 4, &|p| {
        Some(p.renamed().source(&p.renamed().wrapped(&p.renamed().without_examples())))
    });
}

#[test]
fn tests_are_caught_under_another_name() {
    // The rest has two tests with next to nothing in them, as `f([1, 2, 3, 4]) == [1, 2, 3, 4]`, or cannot be parsed.
    assert_caught("tests, renamed", 4, &|p| {
        let body = p.renamed().tests.join("\n    ");
        Some(match p.language {
            Language::Python => format!("def verify():\n    {body}\n"),
            Language::Java => format!("class Holder {{\n  static void verify() {{\n    {body}\n  }}\n}}\n"),
            Language::Cpp => format!("void verify() {{\n    {body}\n}}\n"),
            Language::Rust => format!("fn verify() {{\n    {body}\n}}\n"),
            _ => format!("function verify() {{\n    {body}\n}}\n"),
        })
    });
}

/// Python's tests as doctests in the documentation of a function of another name, in every language.
#[test]
fn translated_tests_are_caught_as_doctests() {
    let Some(python) = problems("py") else {
        return;
    };
    let python: Vec<BenchmarkProblem> = jsonl::read(&python).unwrap();
    let parts = python.iter().map(|problem| Parts::of(problem, Language::Python));
    let examples = |p: Parts| {
        let tests = p.tests.iter().filter_map(|line| line.strip_prefix("assert ")?.split_once(" == "));
        tests
            .map(|(call, result)| format!("{} => {result}", replace_word(call, &p.name, "computeIt")))
            .collect()
    };
    let by_name: HashMap<String, Vec<String>> =
        parts.map(|p| (p.name.replace('_', "").to_lowercase(), examples(p))).collect();
    assert_caught("translated tests", 7, &|p| {
        let examples = by_name.get(&p.name.replace('_', "").to_lowercase())?;
        Some(p.renamed().source(&p.documentation(examples)))
    });
}
