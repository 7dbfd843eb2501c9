//! Problems in MultiPL-E's JSONL format, and the programs assembled from a problem and a completion.

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
        let candidate = format!("{}{}\n", self.prompt, self.truncate_at_stop_token(completion));
        CandidateProgram { tests_at: candidate.len(), text: candidate + &self.tests }
    }
}

/// Reads a file of problems.
///
/// # Errors
/// When a line cannot be parsed, two problems have one name, or one has a prompt and no tests (the error names file and line), or
/// the file has no problem.
pub fn read_problems(path: impl AsRef<Path>) -> Result<Vec<Problem>> {
    let problems: Vec<(usize, Problem)> = crate::jsonl::read_numbered(path.as_ref())?;
    check_problems(&problems).at(path.as_ref().display().to_string())?;
    Ok(problems.into_iter().map(|(_, problem)| problem).collect())
}

/// Refuses problems with line numbers that cannot be measured: none, two of one name, one without tests.
fn check_problems(problems: &[(usize, Problem)]) -> Result<()> {
    if problems.is_empty() {
        return Err(Error::new("holds no problem; give a MultiPL-E JSONL file"));
    }
    let mut lines: HashMap<&str, usize> = HashMap::new();
    for (line, problem) in problems {
        let name = &problem.name;
        if let Some(earlier) = lines.insert(name, *line) {
            let message =
                format!("lines {earlier} and {line}: two problems are named `{name}`; a name must be unique");
            return Err(Error::new(message));
        }
        // Without a prompt the completion is a whole program, whose exit code is its test.
        if problem.tests.trim().is_empty() && !problem.prompt.trim().is_empty() {
            let message =
                format!("line {line}: problem `{name}` has no tests, so whatever runs would count as solved");
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
        assert!(read_problems(&path).unwrap_err().to_string().contains("no problem"));
    }

    /// Returns the error of a file of these problems, a blank line first.
    fn refused(problems: &[Problem]) -> String {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("p.jsonl");
        std::fs::write(&path, format!("\n{}", problems.iter().map(crate::jsonl::line).collect::<String>()))
            .unwrap();
        read_problems(&path).unwrap_err().to_string()
    }

    #[test]
    fn two_problems_of_one_name_are_refused_with_both_lines() {
        let other = Problem { name: "q".into(), ..problem() };
        let e = refused(&[problem(), other, problem()]);
        assert!(e.contains("p.jsonl") && e.contains("lines 2 and 4") && e.contains("`p`"), "{e}");
    }

    #[test]
    fn a_problem_without_tests_is_refused() {
        for tests in ["", " \n\t"] {
            let empty = Problem { name: "q".into(), tests: tests.into(), ..problem() };
            let e = refused(&[problem(), empty]);
            assert!(e.contains("line 3") && e.contains("`q` has no tests"), "{e}");
        }
        let whole_program = Problem { prompt: "".into(), tests: "\n".into(), ..problem() };
        assert!(check_problems(&[(1, whole_program)]).is_ok());
    }
}
