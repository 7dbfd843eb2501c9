//! Problems in MultiPL-E's JSONL format, and the programs assembled from a problem and a completion.

use crate::jsonl::{self, Placed};
use codelsi_engine::{At, Error, Result};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::path::Path;

/// One problem of a MultiPL-E file; the fields that judging does not need are ignored.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Problem {
    pub name: String,
    /// MultiPL-E's abbreviation of the language: `ts`, `js`, `py`, `java`, `cpp`, `rs`.
    pub language: String,
    /// The text that a completion continues: a comment and the head of a function.
    pub prompt: String,
    /// The tests, which follow the completion after a newline.
    pub tests: String,
    /// A completion is truncated where the first of these begins.
    pub stop_tokens: Vec<String>,
}

/// A program to judge, assembled from a problem and a completion.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CandidateProgram {
    /// Prompt, truncated completion, newline, tests.
    pub text: String,
    /// The byte at which the tests begin.
    pub tests_at: usize,
}

impl Problem {
    /// Truncates a completion at the first stop token. Only the completion is searched: a stop token that would begin
    /// in the prompt does not count.
    pub fn truncate_at_stop_token<'a>(&self, completion: &'a str) -> &'a str {
        let end = self.stop_tokens.iter().filter_map(|stop| completion.find(stop.as_str())).min();
        &completion[..end.unwrap_or(completion.len())]
    }

    /// Assembles MultiPL-E's program: prompt, truncated completion, newline, tests.
    ///
    /// ```
    /// let problem = codelsi_eval::problem::Problem {
    ///     name: "one".into(),
    ///     language: "ts".into(),
    ///     prompt: "function one(): number {\n".into(),
    ///     tests: "assert.deepEqual(one(), 1);".into(),
    ///     stop_tokens: vec!["\nfunction ".into()],
    /// };
    /// let program = problem.program("  return 1;\n}\nfunction two() {");
    /// assert_eq!(program.text, "function one(): number {\n  return 1;\n}\nassert.deepEqual(one(), 1);");
    /// ```
    pub fn program(&self, completion: &str) -> CandidateProgram {
        self.program_of_truncated(self.truncate_at_stop_token(completion))
    }

    /// Assembles the program of a completion that is truncated already, as MultiPL-E's own files hold it.
    pub fn program_of_truncated(&self, completion: &str) -> CandidateProgram {
        let candidate = format!("{}{completion}\n", self.prompt);
        CandidateProgram { tests_at: candidate.len(), text: candidate + &self.tests }
    }
}

/// Reads the problems of a file: MultiPL-E's data set (JSON Lines or an array), or its file of one problem with its
/// completions (`NAME.json.gz`); or those of a folder of such files. Files may be packed by gzip.
///
/// # Errors
/// When a line cannot be parsed, two problems have one name, or one has a prompt and no tests (the error names file and line), or
/// there is no problem.
pub fn read_problems(path: impl AsRef<Path>) -> Result<Vec<Problem>> {
    let problems = jsonl::read_placed(path.as_ref())?;
    check_problems(&problems).at(path.as_ref().display().to_string())?;
    Ok(problems.into_iter().map(|(_, problem)| problem).collect())
}

/// Refuses problems that cannot be measured: two of one name, one without tests.
pub(crate) fn check_problems(problems: &[Placed<Problem>]) -> Result<()> {
    let mut places: HashMap<&str, &str> = HashMap::new();
    for (place, problem) in problems {
        let name = &problem.name;
        if let Some(earlier) = places.insert(name, place) {
            let message =
                format!("{earlier} and {place}: two problems are named `{name}`; a name must be unique");
            return Err(Error::new(message));
        }
        // Without a prompt the completion is a whole program, whose exit code is its test.
        if problem.tests.trim().is_empty() && !problem.prompt.trim().is_empty() {
            let message =
                format!("{place}: problem `{name}` has no tests, so whatever runs would count as solved");
            return Err(Error::new(message));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem() -> Problem {
        Problem {
            name: "p".into(),
            language: "ts".into(),
            prompt: "function f(): number {\n".into(),
            tests: "test();".into(),
            stop_tokens: vec!["\nfunction ".into(), "\n//".into()],
        }
    }

    #[test]
    fn truncates_at_the_earliest_stop_token_of_the_completion_alone() {
        let truncated = |completion: &'static str| problem().truncate_at_stop_token(completion);
        assert_eq!(truncated("a\n// x\nfunction g"), "a");
        assert_eq!(
            truncated("// the newline before this belongs to the prompt"),
            "// the newline before this belongs to the prompt"
        );
        assert_eq!(truncated(""), "");
    }

    #[test]
    fn a_program_is_prompt_completion_newline_tests() {
        let program = problem().program("  return 1;\n}\n// more");
        assert_eq!(program.text, "function f(): number {\n  return 1;\n}\ntest();");
        assert_eq!(&program.text[program.tests_at..], "test();");
    }

    #[test]
    fn a_bad_line_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("p.jsonl");
        let good = serde_json::to_string(&problem()).unwrap();
        std::fs::write(&path, format!("{good}\n\n{{\"name\": 1}}\n")).unwrap();
        let e = read_problems(&path).unwrap_err().to_string();
        assert!(e.contains("p.jsonl") && e.contains("line 3"), "{e}");
        std::fs::write(&path, "").unwrap();
        assert!(read_problems(&path).unwrap_err().to_string().contains("holds no row"));
    }

    /// Returns the error of a file of these problems, a blank line first.
    fn refused(problems: &[Problem]) -> String {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("p.jsonl");
        std::fs::write(&path, format!("\n{}", problems.iter().map(jsonl::line).collect::<String>())).unwrap();
        read_problems(&path).unwrap_err().to_string()
    }

    #[test]
    fn two_problems_of_one_name_are_refused_with_both_lines() {
        let other = Problem { name: "q".into(), ..problem() };
        let e = refused(&[problem(), other, problem()]);
        assert!(e.contains("p.jsonl") && e.contains("line 2 and line 4") && e.contains("`p`"), "{e}");
    }

    #[test]
    fn a_problem_without_tests_is_refused() {
        for tests in ["", " \n\t"] {
            let empty = Problem { name: "q".into(), tests: tests.into(), ..problem() };
            let e = refused(&[problem(), empty]);
            assert!(e.contains("line 3") && e.contains("`q` has no tests"), "{e}");
        }
        let whole_program = Problem { prompt: "".into(), tests: "\n".into(), ..problem() };
        assert!(check_problems(&[("line 1".into(), whole_program)]).is_ok());
    }
}
