//! The protocol of a measurement: everything that Pass@1 depends on except the model.

use crate::extract::extract_completion;
use crate::problem::Problem;
use codelsi_engine::{Error, Result};
use codelsi_model::template::PromptTemplate;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fmt;

/// The form of the prompt that the model receives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PromptFormat {
    /// The problem's prompt, which the model continues, as in MultiPL-E; for base models.
    Completion,
    /// An instruction after the paper's header.
    Paper,
    /// An instruction in Llama's `[INST]` form.
    Inst,
    /// An instruction under the model's own chat template.
    Chat,
}

impl PromptFormat {
    /// All formats.
    pub const ALL: [PromptFormat; 4] =
        [PromptFormat::Completion, PromptFormat::Paper, PromptFormat::Inst, PromptFormat::Chat];

    /// Returns the text that the answer follows; with [`PromptFormat::Chat`] the message that the chat template puts.
    pub fn prompt(self, problem: &Problem) -> String {
        match self.template() {
            None => problem.prompt.clone(),
            Some(template) => template.wrap(&instruction(problem)),
        }
    }

    /// Returns the message for a chat model; `None` if the model continues a text.
    pub fn message(self, problem: &Problem) -> Option<String> {
        match self {
            PromptFormat::Completion => None,
            PromptFormat::Paper => Some(self.prompt(problem)),
            PromptFormat::Inst | PromptFormat::Chat => Some(instruction(problem)),
        }
    }

    /// Returns the completion in an answer: the answer itself, or the one that [`extract_completion`] finds.
    pub fn completion(self, problem: &Problem, answer: &str) -> String {
        match self {
            PromptFormat::Completion => answer.to_string(),
            PromptFormat::Paper | PromptFormat::Inst | PromptFormat::Chat => {
                extract_completion(problem, answer)
            }
        }
    }

    /// Returns the stop strings of generation. An answer to an instruction has none: it may contain a stop token
    /// before its function, and it ends with the end-of-sequence token.
    pub fn stop(self, problem: &Problem) -> Vec<String> {
        match self {
            PromptFormat::Completion => problem.stop_tokens.clone(),
            PromptFormat::Paper | PromptFormat::Inst | PromptFormat::Chat => Vec::new(),
        }
    }

    /// Returns the name used on the command line and in reports.
    pub fn name(self) -> &'static str {
        match self {
            PromptFormat::Completion => "completion",
            PromptFormat::Paper => "paper",
            PromptFormat::Inst => "inst",
            PromptFormat::Chat => "chat",
        }
    }

    /// Refuses problems that this format does not support: the function is found in answers in these languages only.
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

    /// Returns the template of the instruction; `None` if the model continues a text.
    pub fn template(self) -> Option<PromptTemplate> {
        match self {
            PromptFormat::Completion => None,
            PromptFormat::Paper => Some(PromptTemplate::Paper),
            PromptFormat::Inst => Some(PromptTemplate::Inst),
            PromptFormat::Chat => Some(PromptTemplate::Chat),
        }
    }
}

impl std::str::FromStr for PromptFormat {
    type Err = Error;

    fn from_str(s: &str) -> Result<Self> {
        PromptFormat::ALL.into_iter().find(|format| format.name() == s).ok_or_else(|| {
            Error::new(format!("prompt format `{s}` is unknown; choose completion, paper, inst or chat"))
        })
    }
}

/// Returns a problem's prompt as an instruction in the form that curation makes: the signature, then the comment.
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

/// The settings of a measurement; two results are comparable if the hashes of their protocols are equal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Protocol {
    pub format: PromptFormat,
    pub temperature: f32,
    pub top_p: f32,
    /// Samples per problem.
    pub samples: usize,
    pub max_tokens: usize,
    pub seed: u64,
    /// [`crate::judge::Judge::describe`].
    pub judge: String,
    /// The reason for which the judge was chosen; empty if it was named. Not part of the hash: the judge is.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub judge_choice: String,
    /// Number of problems.
    pub problems: usize,
    /// SHA-256 over the contents of all problems, in hexadecimal.
    pub problems_hash: String,
    /// Problems whose answers may not have `max_tokens`, since they would not fit the model's context with their prompts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub limited: Vec<LimitedProblem>,
}

/// A problem whose prompt leaves less room in the model's context than an answer may take.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LimitedProblem {
    pub name: String,
    /// Tokens that an answer may have; 0 if the prompt alone does not fit, which leaves the problem unanswered.
    pub max_tokens: usize,
}

impl fmt::Display for LimitedProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.max_tokens {
            0 => write!(f, "{} (its prompt does not fit: no answer)", self.name),
            n => write!(f, "{} (at most {n})", self.name),
        }
    }
}

impl Protocol {
    /// Returns the fields `problems` and `problems_hash`.
    pub fn fingerprint_problems(problems: &[Problem]) -> (usize, String) {
        let text: String = problems.iter().map(crate::jsonl::line).collect();
        (problems.len(), sha256(&text))
    }

    /// Refuses settings under which nothing can be measured.
    ///
    /// # Errors
    /// When a setting is outside its range; the error names it.
    pub fn check(&self) -> Result<()> {
        check_sampling(self.samples, self.max_tokens, self.temperature, self.top_p)?;
        match self.problems {
            0 => Err(Error::new("there is no problem to measure on")),
            _ => Ok(()),
        }
    }

    /// Describes the limited problems in one line; `None` if there is none.
    pub fn limits(&self) -> Option<String> {
        const NAMED: usize = 20;
        let names: Vec<String> = self.limited.iter().take(NAMED).map(ToString::to_string).collect();
        let more = match self.limited.len().saturating_sub(NAMED) {
            0 => String::new(),
            n => format!(" and {n} more, named in protocol.json"),
        };
        (!names.is_empty()).then(|| {
            format!(
                "{} of {} problems leave less than {} tokens of the context for an answer: {}{more}",
                self.limited.len(),
                self.problems,
                self.max_tokens,
                names.join(", ")
            )
        })
    }

    /// Returns the SHA-256 over all fields but the choice of the judge, in hexadecimal.
    pub fn hash(&self) -> String {
        sha256(&crate::jsonl::line(&Protocol { judge_choice: String::new(), ..self.clone() }))
    }

    /// Returns the seed of a problem's samples; sample i uses random stream i of it.
    pub fn problem_seed(&self, problem: &str) -> u64 {
        derive_seed(self.seed, problem)
    }
}

/// Refuses settings of sampling that give no samples, or samples of no distribution.
///
/// # Errors
/// When a setting is outside its range; the error names it and its value.
pub fn check_sampling(samples: usize, max_tokens: usize, temperature: f32, top_p: f32) -> Result<()> {
    let refused = |message: String| Err(Error::new(message));
    if samples == 0 {
        return refused("0 samples: at least 1 is needed".into());
    }
    if max_tokens == 0 {
        return refused("0 tokens per sample: at least 1 is needed".into());
    }
    if !(temperature >= 0.0 && temperature.is_finite()) {
        return refused(format!(
            "a temperature of {temperature}: 0 or more is needed, and 0 is greedy decoding"
        ));
    }
    if !(top_p > 0.0 && top_p <= 1.0) {
        return refused(format!("a top-p of {top_p}: a number above 0 and at most 1 is needed"));
    }
    Ok(())
}

/// Derives the seed for the samples of a request from the seed of the run and the request's name.
pub fn derive_seed(seed: u64, name: &str) -> u64 {
    let digest = Sha256::new().chain_update(seed.to_le_bytes()).chain_update(name).finalize();
    u64::from_le_bytes(digest[..8].try_into().expect("eight bytes"))
}

/// A short description, one line per part.
impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let prompt = match self.format {
            PromptFormat::Completion => "the problem's prompt, completed; truncated at its first stop token",
            PromptFormat::Paper => {
                "instruction after the paper's header; the function is extracted from the answer"
            }
            PromptFormat::Inst => {
                "instruction in [INST] … [/INST]; the function is extracted from the answer"
            }
            PromptFormat::Chat => {
                "instruction in the model's chat template; the function is extracted from the answer"
            }
        };
        let short = |hash: &str| hash.chars().take(12).collect::<String>();
        writeln!(f, "prompt    {}: {prompt}", self.format.name())?;
        writeln!(
            f,
            "sampling  temperature {}, top-p {}, {} samples per problem, at most {} tokens, seed {}",
            self.temperature, self.top_p, self.samples, self.max_tokens, self.seed
        )?;
        writeln!(f, "problems  {} (sha256 {}…)", self.problems, short(&self.problems_hash))?;
        writeln!(f, "judge     {}", self.judge)?;
        if !self.judge_choice.is_empty() {
            writeln!(f, "          chosen, because: {}", self.judge_choice)?;
        }
        self.limits().map_or(Ok(()), |limits| writeln!(f, "context   {limits}"))?;
        write!(f, "protocol  sha256 {}…", short(&self.hash()))
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
        let (problems, problems_hash) = Protocol::fingerprint_problems(&[problem()]);
        let format = PromptFormat::Completion;
        Protocol {
            format,
            temperature: 0.2,
            top_p: 0.95,
            samples: 20,
            max_tokens: 512,
            seed: 1,
            judge: "j".into(),
            judge_choice: String::new(),
            problems,
            problems_hash,
            limited: Vec::new(),
        }
    }

    #[test]
    fn settings_that_measure_nothing_are_refused() {
        let refused = |changed: Protocol| changed.check().map_err(|e| e.to_string()).unwrap_err();
        assert!(protocol().check().is_ok());
        assert!(refused(Protocol { samples: 0, ..protocol() }).contains("samples"));
        assert!(refused(Protocol { max_tokens: 0, ..protocol() }).contains("tokens"));
        assert!(refused(Protocol { problems: 0, ..protocol() }).contains("problem"));
        for temperature in [f32::NAN, -0.1, f32::INFINITY] {
            assert!(refused(Protocol { temperature, ..protocol() }).contains("temperature"));
        }
        for top_p in [f32::NAN, 0.0, -1.0, 2.0] {
            assert!(refused(Protocol { top_p, ..protocol() }).contains("top-p"));
        }
    }

    #[test]
    fn a_protocol_of_an_earlier_version_keeps_its_hash() {
        let text = serde_json::to_string(&protocol()).unwrap();
        assert!(!text.contains("limited"), "{text}");
        assert_eq!(serde_json::from_str::<Protocol>(&text).unwrap().hash(), protocol().hash());
    }

    #[test]
    fn each_format_asks_in_its_own_way() {
        let p = problem();
        assert_eq!(PromptFormat::Completion.prompt(&p), p.prompt);
        let asked = "Write the TypeScript function `add(a: number, b: number): number`.\n\nAdds two.\n>>> add(1, 2)\n3";
        assert_eq!(PromptFormat::Inst.prompt(&p), format!("[INST] {asked} [/INST]"));
        assert!(PromptFormat::Paper.prompt(&p).contains(asked));
        assert_eq!(PromptFormat::Completion.completion(&p, "```"), "```");
        assert_eq!(PromptFormat::Chat.prompt(&p), asked);
        assert_eq!(PromptFormat::Chat.message(&p).as_deref(), Some(asked));
        assert!("talk".parse::<PromptFormat>().is_err());
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
            Protocol { limited: vec![LimitedProblem { name: "p".into(), max_tokens: 0 }], ..base.clone() },
        ];
        assert!(changed.iter().all(|p| hashes.insert(p.hash())));
        assert_eq!(base.hash(), protocol().hash());
        let chosen = Protocol { judge_choice: "it is there".into(), ..base.clone() };
        assert!(chosen.hash() == base.hash() && chosen.to_string().contains("because: it is there"));
        assert!(
            base.to_string().contains("temperature 0.2") && base.to_string().contains(&base.hash()[..12])
        );
        assert_ne!(base.problem_seed("p"), base.problem_seed("q"));
    }
}
