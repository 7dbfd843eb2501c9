//! How a model is asked and judged: all that a Pass@1 depends on besides the model.

use crate::extract;
use crate::problem::Problem;
use codelsi_engine::{Error, Result};
use codelsi_model::template::Template;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fmt;

/// What the model is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PromptFormat {
    /// The problem's prompt, to be gone on with: MultiPL-E's way, for base models.
    Completion,
    /// An instruction behind the paper's header.
    Paper,
    /// An instruction in Llama's `[INST]` form.
    Inst,
}

impl PromptFormat {
    /// The text before the answer.
    pub fn prompt(self, problem: &Problem) -> String {
        match self.template() {
            None => problem.prompt.clone(),
            Some(template) => template.wrap(&instruction(problem)),
        }
    }

    /// The same for a model that chats; none where it is to go on with a text.
    pub fn message(self, problem: &Problem) -> Option<String> {
        match self {
            PromptFormat::Completion => None,
            PromptFormat::Paper => Some(self.prompt(problem)),
            PromptFormat::Inst => Some(instruction(problem)),
        }
    }

    /// The completion that an answer amounts to: itself, or what [`extract::completion`] finds in it.
    pub fn completion(self, problem: &Problem, answer: &str) -> String {
        match self {
            PromptFormat::Completion => answer.to_string(),
            PromptFormat::Paper | PromptFormat::Inst => extract::completion(problem, answer),
        }
    }

    /// Where generation may end early. A whole answer may hold a stop token before its function; it ends by itself.
    pub fn stop(self, problem: &Problem) -> Vec<String> {
        match self {
            PromptFormat::Completion => problem.stop_tokens.clone(),
            PromptFormat::Paper | PromptFormat::Inst => Vec::new(),
        }
    }

    /// The name used on the command line and in reports.
    pub fn name(self) -> &'static str {
        match self {
            PromptFormat::Completion => "completion",
            PromptFormat::Paper => "paper",
            PromptFormat::Inst => "inst",
        }
    }

    /// Refuses problems that this way of asking does not know: only of these languages is the function found in an answer.
    pub(crate) fn check(self, problems: &[Problem]) -> Result<()> {
        let other = problems.iter().find(|p| !["ts", "js"].contains(&p.language.as_str()));
        match (self, other) {
            (PromptFormat::Completion, _) | (_, None) => Ok(()),
            (_, Some(problem)) => Err(Error::new(format!(
                "problem `{}` is in `{}`, and --prompt-format {} is for TypeScript and JavaScript; use completion",
                problem.name,
                problem.language,
                self.name()
            ))),
        }
    }

    fn template(self) -> Option<Template> {
        match self {
            PromptFormat::Completion => None,
            PromptFormat::Paper => Some(Template::Paper),
            PromptFormat::Inst => Some(Template::Inst),
        }
    }
}

impl std::str::FromStr for PromptFormat {
    type Err = Error;

    fn from_str(s: &str) -> Result<Self> {
        [PromptFormat::Completion, PromptFormat::Paper, PromptFormat::Inst]
            .into_iter()
            .find(|format| format.name() == s)
            .ok_or_else(|| {
                Error::new(format!("prompt format `{s}` is unknown; choose completion, paper or inst"))
            })
    }
}

/// A prompt as the instruction that curation would have made of such a function: the signature, then the comment.
pub fn instruction(problem: &Problem) -> String {
    let prompt = &problem.prompt;
    let language = if problem.language == "js" { "JavaScript" } else { "TypeScript" };
    let Some((before, signature)) = prompt.rsplit_once("function ") else { return prompt.trim().to_string() };
    let signature = signature.trim_end().trim_end_matches('{').trim_end();
    let comment: Vec<&str> = before
        .lines()
        .map(|line| line.strip_prefix("//").unwrap_or(line))
        .map(|line| line.strip_prefix(' ').unwrap_or(line))
        .collect();
    format!("Write the {language} function `{signature}`.\n\n{}", comment.join("\n").trim())
}

/// One way of measuring; two figures are comparable when their protocols' hashes are equal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Protocol {
    pub format: PromptFormat,
    pub temperature: f32,
    pub top_p: f32,
    /// Samples a problem.
    pub samples: usize,
    pub max_tokens: usize,
    pub seed: u64,
    /// [`crate::judge::Judge::describe`].
    pub judge: String,
    /// Number of problems, and a hash over all they say.
    pub problems: usize,
    pub problems_hash: String,
}

impl Protocol {
    /// The protocol's parts that belong to the problems.
    pub fn of_problems(problems: &[Problem]) -> (usize, String) {
        let text: String = problems.iter().map(crate::jsonl::line).collect();
        (problems.len(), sha256(&text))
    }

    /// SHA-256 over all fields, in hexadecimal.
    pub fn hash(&self) -> String {
        sha256(&crate::jsonl::line(self))
    }

    /// The seed of a problem's samples; sample i uses number i under it.
    pub fn seed_of(&self, problem: &str) -> u64 {
        seed_of(self.seed, problem)
    }
}

/// The seed of what is drawn for a question of that name.
pub fn seed_of(seed: u64, name: &str) -> u64 {
    let digest = Sha256::new().chain_update(seed.to_le_bytes()).chain_update(name).finalize();
    u64::from_le_bytes(digest[..8].try_into().expect("eight bytes"))
}

/// A short description, one line a part.
impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let prompt = match self.format {
            PromptFormat::Completion => "the problem's prompt, completed; cut at its first stop token",
            PromptFormat::Paper => {
                "instruction behind the paper's header; the function is taken from the answer"
            }
            PromptFormat::Inst => "instruction in [INST] … [/INST]; the function is taken from the answer",
        };
        let hash = |hash: &str| hash.chars().take(12).collect::<String>();
        writeln!(f, "prompt    {}: {prompt}", self.format.name())?;
        writeln!(
            f,
            "sampling  temperature {}, top-p {}, {} samples a problem, at most {} tokens, seed {}",
            self.temperature, self.top_p, self.samples, self.max_tokens, self.seed
        )?;
        writeln!(f, "problems  {} (sha256 {}…)", self.problems, hash(&self.problems_hash))?;
        writeln!(f, "judge     {}", self.judge)?;
        write!(f, "protocol  sha256 {}…", hash(&self.hash()))
    }
}

fn sha256(text: &str) -> String {
    Sha256::digest(text).iter().map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem() -> Problem {
        Problem {
            name: "p".into(),
            language: "ts".into(),
            prompt: "//Adds two.\n// >>> add(1, 2)\n// 3\nfunction add(a: number, b: number): number {\n"
                .into(),
            tests: String::new(),
            stop_tokens: vec!["\n//".into()],
        }
    }

    fn protocol() -> Protocol {
        let (problems, problems_hash) = Protocol::of_problems(&[problem()]);
        let format = PromptFormat::Completion;
        Protocol {
            format,
            temperature: 0.2,
            top_p: 0.95,
            samples: 20,
            max_tokens: 512,
            seed: 1,
            judge: "j".into(),
            problems,
            problems_hash,
        }
    }

    #[test]
    fn each_format_asks_in_its_own_way() {
        let p = problem();
        assert_eq!(PromptFormat::Completion.prompt(&p), p.prompt);
        let asked = "Write the TypeScript function `add(a: number, b: number): number`.\n\nAdds two.\n>>> add(1, 2)\n3";
        assert_eq!(PromptFormat::Inst.prompt(&p), format!("[INST] {asked} [/INST]"));
        assert!(PromptFormat::Paper.prompt(&p).contains(asked));
        assert_eq!(PromptFormat::Completion.completion(&p, "```"), "```");
        assert!("chat".parse::<PromptFormat>().is_err());
        let js = Problem { language: "js".into(), ..problem() };
        let message = PromptFormat::Inst.message(&js).unwrap();
        assert!(message.starts_with("Write the JavaScript function `add("), "{message}");
        assert_eq!(PromptFormat::Completion.message(&p), None);
    }

    #[test]
    fn instructions_are_for_the_languages_whose_functions_are_found() {
        let python = Problem { language: "py".into(), ..problem() };
        assert!(PromptFormat::Inst.check(&[problem()]).is_ok());
        assert!(PromptFormat::Completion.check(std::slice::from_ref(&python)).is_ok());
        let refused = PromptFormat::Paper.check(&[problem(), python]).unwrap_err().to_string();
        assert!(refused.contains("`p` is in `py`") && refused.contains("use completion"), "{refused}");
    }

    #[test]
    fn the_hash_covers_every_field() {
        let (base, mut hashes) = (protocol(), std::collections::HashSet::new());
        hashes.insert(base.hash());
        let changed = [
            Protocol { format: PromptFormat::Paper, ..base.clone() },
            Protocol { temperature: 0.3, ..base.clone() },
            Protocol { top_p: 0.9, ..base.clone() },
            Protocol { samples: 10, ..base.clone() },
            Protocol { max_tokens: 100, ..base.clone() },
            Protocol { seed: 2, ..base.clone() },
            Protocol { judge: "k".into(), ..base.clone() },
            Protocol { problems_hash: "other".into(), ..base.clone() },
        ];
        assert!(changed.iter().all(|p| hashes.insert(p.hash())));
        assert_eq!(base.hash(), protocol().hash());
        assert!(
            base.to_string().contains("temperature 0.2") && base.to_string().contains(&base.hash()[..12])
        );
        assert_ne!(base.seed_of("p"), base.seed_of("q"));
    }
}
