//! The little world in other programming languages: files in each one's style, and held-out problems in MultiPL-E's form.
//!
//! Programs are drawn from the operations on numbers that every language has; their meaning is that of the TypeScript world.

mod operations;
mod templates;

pub use templates::{LANGUAGES, LanguageTemplates};

use crate::corpus::{NOUNS, SourceFile, composed_of, function_name};
use crate::op::Kind;
use crate::problems::{Problem, novel};
use crate::program::{Program, capitalized};
use crate::recipe;
use crate::rng::Rng;
use crate::world::write_lines;
use codelsi_engine::Result;
use operations::{body, known};
use std::collections::HashSet;
use std::path::{Path, PathBuf};

impl LanguageTemplates {
    /// MultiPL-E's name of the language.
    pub fn code(&self) -> &'static str {
        self.language.table().extensions[0].trim_start_matches('.')
    }

    /// Writes repository and problems of `seed` into `folder`, which must exist; returns where they are.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub fn write(&self, folder: &Path, seed: u64) -> Result<(PathBuf, PathBuf)> {
        let [public, problems] =
            ["public", "problems"].map(|what| folder.join(format!("{what}-{}.jsonl", self.code())));
        write_lines(&public, self.files(seed, recipe::LANGUAGE_FILES).iter().map(SourceFile::json))?;
        write_lines(&problems, self.problems(seed, recipe::LANGUAGE_PROBLEMS).iter().map(Problem::json))?;
        Ok((public, problems))
    }

    /// A repository of `count` files, each with two to five documented functions; no function holds a held-out pair.
    pub fn files(&self, seed: u64, count: usize) -> Vec<SourceFile> {
        let mut rng = Rng::new(seed, &format!("public {}", self.code()));
        (0..count).map(|i| self.file(i, &mut rng)).collect()
    }

    fn file(&self, index: usize, rng: &mut Rng) -> SourceFile {
        let noun = format!("{}{index}", rng.pick(&NOUNS));
        let functions: Vec<String> = (0..2 + rng.below(4)).map(|_| self.documented(rng)).collect();
        let (before, after) = self.file;
        SourceFile {
            path: format!("src/{noun}.{}", self.code()),
            content: before.replace("NOUN", &noun) + &functions.join("\n") + after,
        }
    }

    fn documented(&self, rng: &mut Rng) -> String {
        let program = composed_of(known, &[12, 44, 44], rng);
        let name = function_name(&program, rng);
        let list = rng.pick(Kind::Nums.parameters());
        let code = self.documented.replace("BODY", &body(self.language, &program, list, self.indent));
        self.told(&code, &name, list, &program, rng)
    }

    /// `form` with head and description in place.
    fn told(&self, form: &str, name: &str, list: &str, program: &Program, rng: &mut Rng) -> String {
        let head = self.head(name, list, program.to() == Kind::Nums);
        form.replace("HEAD", &head).replace("DOC", &program.description(rng))
    }

    /// Problems of compositions that no file holds, no two the same.
    pub fn problems(&self, seed: u64, count: usize) -> Vec<Problem> {
        let mut rng = Rng::new(seed, &format!("problems {}", self.code()));
        let mut seen = HashSet::new();
        (0..count).map(|i| self.problem(i, &mut seen, &mut rng)).collect()
    }

    fn problem(&self, index: usize, seen: &mut HashSet<String>, rng: &mut Rng) -> Problem {
        let (program, cases) = novel(known, &[2, 2, 3], seen, rng);
        let name = format!("task{index}");
        let list = rng.pick(Kind::Nums.parameters());
        Problem {
            name: format!("{}_{index}", capitalized(self.code())),
            language: self.code(),
            prompt: self.told(self.prompt, &name, list, &program, rng),
            solution: body(self.language, &program, list, self.indent) + self.close,
            tests: self.tests(&name, &cases),
            stop_tokens: self.stop_tokens,
            composition: program.composition(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use codelsi_curate::Language;

    #[test]
    fn files_parse_and_a_seed_decides_them() {
        for templates in &LANGUAGES {
            let text = |seed| templates.files(seed, 20).into_iter().map(|f| f.content).collect::<Vec<_>>();
            assert_eq!(text(1), text(1));
            assert_ne!(text(1), text(2));
            for file in templates.files(1, 20) {
                assert_eq!(Language::from_path(&file.path), Some(templates.language), "{}", file.path);
                assert!(templates.language.parses(&file.content, &file.path), "{}", file.content);
            }
        }
    }

    #[test]
    fn forms_are_filled() {
        for templates in &LANGUAGES {
            let problem = &templates.problems(1, 1)[0];
            let file = &templates.files(1, 1)[0].content;
            for word in ["DOC", "HEAD", "BODY", "NAME", "LIST", "TYPE", "NOUN", "GIVEN", "WANTED", "ITEM"] {
                assert!(!file.contains(word), "{word} in {file}");
                let line = problem.json().to_string() + &problem.solution;
                assert!(!line.contains(word), "{word} in {line}");
            }
        }
    }
}
