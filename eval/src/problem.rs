//! Problems in MultiPL-E's JSONL form, and the program a completion makes of one.

use codelsi_engine::{Error, Result};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// One problem of a MultiPL-E file; fields that judging does not need are ignored.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Problem {
    pub name: String,
    /// `ts` for the problems that the judges here take.
    pub language: String,
    /// The text a completion goes on from: a comment and an open function.
    pub prompt: String,
    /// The text that checks the function, behind a newline.
    pub tests: String,
    /// A completion ends where the first of these begins.
    pub stop_tokens: Vec<String>,
}

/// A program to judge: what a completion makes of a problem.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Program {
    /// Prompt, cut completion, newline, tests.
    pub text: String,
    /// The byte at which the tests begin.
    pub tests_at: usize,
}

impl Problem {
    /// The completion up to the first place where a stop token begins. Only the completion is searched, so a token
    /// that would need the end of the prompt is none.
    pub fn cut<'a>(&self, completion: &'a str) -> &'a str {
        let end = self.stop_tokens.iter().filter_map(|stop| completion.find(stop.as_str())).min();
        &completion[..end.unwrap_or(completion.len())]
    }

    /// MultiPL-E's program: prompt, cut completion, newline, tests.
    pub fn program(&self, completion: &str) -> Program {
        let candidate = format!("{}{}\n", self.prompt, self.cut(completion));
        Program { tests_at: candidate.len(), text: candidate + &self.tests }
    }
}

/// Reads a problems file. An error names the file and the line.
pub fn read_problems(path: impl AsRef<Path>) -> Result<Vec<Problem>> {
    let problems: Vec<Problem> = crate::jsonl::read(path.as_ref())?;
    if problems.is_empty() {
        return Err(Error::new("holds no problem; give a MultiPL-E JSONL file")
            .at(path.as_ref().display().to_string()));
    }
    Ok(problems)
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
    fn cuts_at_the_earliest_stop_token_of_the_completion_alone() {
        let p = problem();
        assert_eq!(p.cut("a\n// x\nfunction g"), "a");
        assert_eq!(
            p.cut("// the newline before this belongs to the prompt"),
            "// the newline before this belongs to the prompt"
        );
        assert_eq!(p.cut(""), "");
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
}
