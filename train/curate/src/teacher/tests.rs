use super::*;
use crate::{BenchmarkProblem, InstructionStyle, run};
use std::path::Path;
use std::sync::Mutex;

/// A teacher that answers by a closure of the request's last message, and may fail after a number of answers.
struct Scripted<F> {
    answer: F,
    patience: usize,
    asked: Mutex<usize>,
}

impl<F: Fn(&str) -> String + Sync> Teacher for Scripted<F> {
    fn name(&self) -> &str {
        "scripted"
    }

    fn answer(&mut self, requests: &[&TeacherRequest], answered: &OnAnswer) -> Result<()> {
        for (i, request) in requests.iter().enumerate() {
            let mut asked = self.asked.lock().unwrap();
            if *asked == self.patience {
                return Err(Error::new("gone"));
            }
            *asked += 1;
            answered(i, (self.answer)(&request.messages[1].content))?;
        }
        Ok(())
    }
}

fn scripted<F: Fn(&str) -> String + Sync>(answer: F) -> Scripted<F> {
    Scripted { answer, patience: usize::MAX, asked: Mutex::new(0) }
}

/// Writes three functions; returns options that read them.
fn test_options(folder: &Path, evolve: usize) -> CurateOptions {
    let function = |i: usize| {
        format!(
            "/** Computes the number {i} of something. */\nexport function compute{i}(a: number): number {{\n  \
             const b = a * {i};\n  return b * b + {i};\n}}\n"
        )
    };
    std::fs::create_dir_all(folder.join("src")).unwrap();
    std::fs::write(folder.join("src/a.ts"), (0..3).map(function).collect::<String>()).unwrap();
    let lessons = Some(TeacherSettings { teacher: "scripted".into(), evolve });
    CurateOptions { paths: vec![folder.join("src")], teacher: lessons, ..CurateOptions::default() }
}

/// A task and its solution, as JSON.
fn solved(instruction: &str, code: &str) -> String {
    serde_json::json!({"instruction": instruction, "code": code}).to_string()
}

/// The name of the function in a message.
fn name(message: &str) -> &str {
    let at = message.rfind("function ").unwrap() + "function ".len();
    message[at..].split('(').next().unwrap()
}

fn rewrite(
    options: &CurateOptions,
    folder: &Path,
    teacher: &mut dyn Teacher,
) -> Result<(Vec<CuratedRow>, CurationCounts)> {
    let (rows, mut counts) = run(options, &|_, _| ()).unwrap();
    let mut cache = AnswerCache::open(&folder.join("data.teacher.jsonl")).unwrap();
    let rows = rewrite_with_teacher(options, rows, &mut counts, teacher, &mut cache, &|_, _| ())?;
    Ok((rows, counts))
}

#[test]
fn the_teacher_writes_instructions_and_every_bad_answer_is_counted() {
    let folder = tempfile::tempdir().unwrap();
    let options = test_options(folder.path(), 0);
    let mut teacher = scripted(|message| match name(message) {
        "compute0" => r#"{"instruction": "Write compute0, which computes."}"#.into(),
        "compute1" => "I would rather not.".into(),
        _ => r#"{"instruction": "Write to jane.doe@company.io about it."}"#.into(),
    });
    let (rows, counts) = rewrite(&options, folder.path(), &mut teacher).unwrap();
    assert_eq!(rows.len(), 1);
    assert_eq!(
        (rows[0].instruction.as_str(), rows[0].name.as_str()),
        ("Write compute0, which computes.", "compute0")
    );
    assert_eq!((rows[0].teacher.as_deref(), rows[0].evolved), (Some("scripted"), 0));
    assert_eq!(counts.dropped, [("secret", 1), ("teacher-malformed", 1)].into());
    assert_eq!((counts.read, counts.kept, counts.lengths.len()), (3, 1, 1));
}

#[test]
fn an_instruction_that_quotes_its_code_or_repeats_another_is_dropped() {
    let folder = tempfile::tempdir().unwrap();
    let options = test_options(folder.path(), 0);
    let mut teacher = scripted(|message| match name(message) {
        "compute0" => r#"{"instruction": "Write it with `return b * b + 0;` at its end."}"#.into(),
        "compute1" => r#"{"instruction": "Write a function that computes."}"#.into(),
        _ => r#"{"instruction": "Write a function\nthat computes."}"#.into(),
    });
    let (rows, counts) = rewrite(&options, folder.path(), &mut teacher).unwrap();
    assert_eq!(rows.iter().map(|row| row.name.as_str()).collect::<Vec<_>>(), ["compute1"]);
    assert_eq!(counts.dropped, [("duplicate", 1), ("teacher-quotes", 1)].into());
}

#[test]
fn evolved_tasks_pass_every_filter_and_continue_from_the_last_one_that_passed() {
    let folder = tempfile::tempdir().unwrap();
    let mut options = test_options(folder.path(), 2);
    let problem = BenchmarkProblem {
        name: "20_median".into(),
        prompt: "//Return median of elements in the array l.\nfunction median(l: number[]): number {\n"
            .into(),
        tests: String::new(),
        language: None,
        solution: None,
    };
    codelsi_model::jsonl::write(folder.path().join("problems.jsonl"), &[problem]).unwrap();
    options.against = vec![folder.path().join("problems.jsonl")];
    let code = |name: &str, op: &str| {
        format!(
            "```ts\nfunction {name}(a: number[]): number {{\n  let sum = 0;\n  for (const b of a) sum {op} b;\n  return sum;\n}}\n```"
        )
    };
    let mut teacher = scripted(|message| {
        let instruct = message.contains("first draft");
        match (name(message), instruct) {
            (name, true) => format!("{{\"instruction\": \"Write {name}, which computes.\"}}"),
            // Passes twice, each time from the previous row.
            ("compute0", _) => solved("Add up all the numbers.", &code("total", "+=")),
            ("total", _) => solved("Multiply all the numbers.", &code("product", "*=")),
            // A benchmark problem, in both rounds.
            ("compute1", _) => solved("Find the median.", &code("median", "-=")),
            // Code that does not parse, or is not a function, depending on the kind of evolution.
            _ => solved(
                "Do something else now.",
                "function broken( {\n  return 1111111111 + 2222222222 + 3333333333;\n",
            ),
        }
    });
    let (rows, counts) = rewrite(&options, folder.path(), &mut teacher).unwrap();
    let names: Vec<(&str, usize)> = rows.iter().map(|row| (row.name.as_str(), row.evolved)).collect();
    assert_eq!(names, [("compute0", 0), ("compute1", 0), ("compute2", 0), ("total", 1), ("product", 2)]);
    assert!(rows[3].output.starts_with("function total(") && rows[3].path == "a.ts");
    assert_eq!(counts.dropped, [("benchmark", 2), ("syntax", 2)].into());
    assert_eq!((counts.read, counts.kept, counts.lengths.len()), (9, 5, 5));
    let card = crate::dataset_card(&options, &rows, &counts);
    assert!(card.contains("written by `scripted` (prompts ") && card.contains("| 2 | 1 |"), "{card}");
    options.near_duplicate_threshold = Some(0.5);
    let (rows, counts) = rewrite(&options, folder.path(), &mut teacher).unwrap();
    assert_eq!((rows.len(), counts.dropped["near-duplicate"], counts.kept), (4, 1, 4));
}

#[test]
fn an_interrupted_run_continues_and_asks_nothing_twice() {
    let folder = tempfile::tempdir().unwrap();
    let options = test_options(folder.path(), 1);
    let answer = |message: &str| match message.contains("first draft") {
        true => format!("{{\"instruction\": \"Write {}, which computes.\"}}", name(message)),
        false => solved("Do it.", "g"),
    };
    let mut teacher = Scripted { answer, patience: 2, asked: Mutex::new(0) };
    let error = rewrite(&options, folder.path(), &mut teacher).unwrap_err().to_string();
    assert!(
        error.starts_with("gone; 2 answers are kept in ") && error.ends_with("data.teacher.jsonl"),
        "{error}"
    );
    // The last line is incomplete.
    let cache = folder.path().join("data.teacher.jsonl");
    let kept = std::fs::read_to_string(&cache).unwrap();
    std::fs::write(&cache, &kept[..kept.len() - 9]).unwrap();
    let mut teacher = scripted(answer);
    let first = rewrite(&options, folder.path(), &mut teacher).unwrap();
    assert_eq!(*teacher.asked.lock().unwrap(), 5, "two of three instructions and three tasks");
    assert_eq!(first.1.dropped, [("teacher-malformed", 3)].into());
    assert_eq!(rewrite(&options, folder.path(), &mut teacher).unwrap(), first);
    assert_eq!(*teacher.asked.lock().unwrap(), 5);
    // Another seed is another request; a line that is not an answer is named.
    let other = CurateOptions { seed: 1, ..options };
    rewrite(&other, folder.path(), &mut teacher).unwrap();
    assert_eq!(*teacher.asked.lock().unwrap(), 11);
    std::fs::write(&cache, format!("{kept}{{}}\n")).unwrap();
    let error = AnswerCache::open(&cache).err().unwrap().to_string();
    assert!(error.contains("data.teacher.jsonl: line 3 is not an answer (missing field `key`"), "{error}");
}

#[test]
fn only_rows_of_style_write_are_rewritten() {
    let folder = tempfile::tempdir().unwrap();
    let mut options = test_options(folder.path(), 0);
    let mut teacher = scripted(|m| format!("{{\"instruction\": \"Write {} at once.\"}}", name(m)));
    options.styles = vec![InstructionStyle::Fix, InstructionStyle::Write];
    let (rows, _) = rewrite(&options, folder.path(), &mut teacher).unwrap();
    let by = rows.iter().map(|row| row.teacher.is_some()).collect::<Vec<_>>();
    assert_eq!(by, [false, true, false, true, false, true]);
    options.styles = vec![InstructionStyle::Fix];
    let error = rewrite(&options, folder.path(), &mut teacher).unwrap_err().to_string();
    assert!(error.contains("nothing to teach"), "{error}");
}
