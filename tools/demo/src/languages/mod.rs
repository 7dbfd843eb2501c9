//! The generated code in other programming languages: files in each one's style, and held-out problems in MultiPL-E's
//! format.
//!
//! Chains are drawn from the operations on numbers that every language has; the semantics are those of the TypeScript
//! corpus.

mod operations;
mod templates;

pub use templates::{LANGUAGES, LanguageTemplates};

use crate::chain::{OperationChain, capitalized};
use crate::corpus::{GeneratedFile, NOUNS, function_name, training_chain_of};
use crate::dataset::write_lines;
use crate::operation::ValueType;
use crate::problems::{GeneratedProblem, draw_held_out};
use crate::recipe;
use crate::rng::Rng;
use codelsi_engine::Result;
use operations::{body, is_supported};
use std::collections::HashSet;
use std::path::{Path, PathBuf};

impl LanguageTemplates {
    /// Returns MultiPL-E's code of the language.
    pub fn multipl_e_code(&self) -> &'static str {
        self.language.table().extensions[0].trim_start_matches('.')
    }

    /// Writes the repository and problems of `seed` into `folder`, which must exist; returns the two paths.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub fn write(&self, folder: &Path, seed: u64) -> Result<(PathBuf, PathBuf)> {
        let [public, problems] = ["public", "problems"]
            .map(|prefix| folder.join(format!("{prefix}-{}.jsonl", self.multipl_e_code())));
        write_lines(&public, self.files(seed, recipe::LANGUAGE_FILES).iter().map(GeneratedFile::json))?;
        write_lines(
            &problems,
            self.problems(seed, recipe::LANGUAGE_PROBLEMS).iter().map(GeneratedProblem::json),
        )?;
        Ok((public, problems))
    }

    /// Generates a repository of `count` files, each with two to five documented functions without held-out pairs.
    pub fn files(&self, seed: u64, count: usize) -> Vec<GeneratedFile> {
        let mut rng = Rng::new(seed, &format!("public {}", self.multipl_e_code()));
        (0..count).map(|i| self.file(i, &mut rng)).collect()
    }

    fn file(&self, index: usize, rng: &mut Rng) -> GeneratedFile {
        let noun = format!("{}{index}", rng.pick(&NOUNS));
        let functions: Vec<String> = (0..2 + rng.below(4)).map(|_| self.documented(rng)).collect();
        let (before, after) = self.file;
        GeneratedFile {
            path: format!("src/{noun}.{}", self.multipl_e_code()),
            content: before.replace("NOUN", &noun) + &functions.join("\n") + after,
        }
    }

    fn documented(&self, rng: &mut Rng) -> String {
        let chain = training_chain_of(is_supported, &[12, 44, 44], rng);
        let name = function_name(&chain, rng);
        let list = rng.pick(ValueType::Nums.parameters());
        let code = self.documented.replace("BODY", &body(self.language, &chain, list, self.indent));
        self.fill_signature_and_doc(&code, &name, list, &chain, rng)
    }

    /// Fills the signature and the description into a template.
    fn fill_signature_and_doc(
        &self,
        template: &str,
        name: &str,
        list: &str,
        chain: &OperationChain,
        rng: &mut Rng,
    ) -> String {
        let signature = self.signature(name, list, chain.to() == ValueType::Nums);
        template.replace("SIGNATURE", &signature).replace("DOC", &chain.description(rng))
    }

    /// Generates problems with compositions that no file holds, all different.
    pub fn problems(&self, seed: u64, count: usize) -> Vec<GeneratedProblem> {
        let mut rng = Rng::new(seed, &format!("problems {}", self.multipl_e_code()));
        let mut seen = HashSet::new();
        (0..count).map(|i| self.problem(i, &mut seen, &mut rng)).collect()
    }

    fn problem(&self, index: usize, seen: &mut HashSet<String>, rng: &mut Rng) -> GeneratedProblem {
        let (chain, cases) = draw_held_out(is_supported, &[2, 2, 3], seen, rng);
        let name = format!("task{index}");
        let list = rng.pick(ValueType::Nums.parameters());
        GeneratedProblem {
            name: format!("{}_{index}", capitalized(self.multipl_e_code())),
            language: self.multipl_e_code(),
            prompt: self.fill_signature_and_doc(self.prompt, &name, list, &chain, rng),
            solution: body(self.language, &chain, list, self.indent) + self.close,
            tests: self.tests(&name, &cases),
            stop_tokens: self.stop_tokens,
            composition: chain.composition(),
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
    fn templates_are_filled() {
        for templates in &LANGUAGES {
            let problem = &templates.problems(1, 1)[0];
            let file = &templates.files(1, 1)[0].content;
            for word in
                ["DOC", "SIGNATURE", "BODY", "NAME", "LIST", "TYPE", "NOUN", "ARGUMENT", "EXPECTED", "ITEM"]
            {
                assert!(!file.contains(word), "{word} in {file}");
                let line = problem.json().to_string() + &problem.solution;
                assert!(!line.contains(word), "{word} in {line}");
            }
        }
    }
}
