//! The prompts of a teacher, and the parsing of its answers.
//!
//! Instructions for existing code follow Self-Instruct (arXiv 2212.10560); evolved tasks with solutions follow
//! Evol-Instruct (arXiv 2304.12244). The wording is our own.

use super::request::ChatMessage;
use crate::row::CuratedRow;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};

const SYSTEM: &str =
    "You write programming tasks for a training set. You answer with one JSON object and nothing else.";

const INSTRUCT: &str = "Below is LANGUAGE code, and a first draft of the instruction that it answers. Write the \
instruction as somebody would who does not have the code and wants just this: its name, what goes in, what comes out, and \
every behaviour that a caller relies on. Quote no line of the code's body and do not say that the code exists.\n\nAnswer as \
{\"instruction\": \"...\"}.";

/// The ways to evolve a task; one is chosen at random for each.
const EVOLUTIONS: [&str; 5] = [
    "Deepen this task: add one case that its solution does not handle yet, such as an input at the edge, an error that has \
     to be reported, or one more kind of input.",
    "Constrain this task: add one requirement that changes how the solution has to work, such as no change of its arguments, \
     a single pass, bounded memory, or a stable order.",
    "Make this task concrete: replace one general notion in it by a definite one with rules of its own.",
    "Make this task need one more step of thought: its result is to depend on something that has to be derived first.",
    "Write another task from the same field, about as long, that is asked for less often.",
];

const EVOLVE: &str = "Say all that a solution needs to know, and keep it to one function or one class. Then solve it in \
LANGUAGE: complete, without exports, without imports that are not needed, without a usage example.\n\nAnswer as {\"instruction\": \"...\", \
\"code\": \"...\"}.";

/// A hash of the wording of all prompts, for the dataset card.
pub fn hash() -> String {
    let parts = [&[SYSTEM, INSTRUCT, EVOLVE][..], &EVOLUTIONS].concat();
    let digest = Sha256::digest(parts.join("\n"));
    digest.iter().take(6).map(|byte| format!("{byte:02x}")).collect()
}

/// The number of ways to evolve a task.
pub const EVOLUTION_COUNT: usize = EVOLUTIONS.len();

/// The prompt for the instruction of a row's code.
pub fn instruction_prompt(row: &CuratedRow) -> Vec<ChatMessage> {
    let ask = in_language(INSTRUCT, row);
    chat(format!("{ask}\n\nDraft:\n{}\n\nCode:\n{}", row.instruction, fenced(row)))
}

/// The prompt for an evolved task and its solution; `evolution` is below [`EVOLUTION_COUNT`].
pub fn evolution_prompt(row: &CuratedRow, evolution: usize) -> Vec<ChatMessage> {
    let (ask, solve) = (EVOLUTIONS[evolution], in_language(EVOLVE, row));
    chat(format!("{ask} {solve}\n\nTask:\n{}\n\nSolution:\n{}", row.instruction, fenced(row)))
}

fn chat(user: String) -> Vec<ChatMessage> {
    vec![ChatMessage { role: "system", content: SYSTEM.into() }, ChatMessage { role: "user", content: user }]
}

fn in_language(text: &str, row: &CuratedRow) -> String {
    text.replace("LANGUAGE", row.language.table().name)
}

fn fenced(row: &CuratedRow) -> String {
    format!("```{}\n{}\n```", row.language.name(), row.output)
}

/// An answer to [`instruction_prompt`].
#[derive(Deserialize)]
struct InstructionAnswer {
    instruction: String,
}

/// An answer to [`evolution_prompt`].
#[derive(Deserialize)]
struct TaskAnswer {
    instruction: String,
    code: String,
}

/// Parses the instruction in an answer to [`instruction_prompt`].
pub fn parse_instruction(answer: &str) -> Option<String> {
    find_object::<InstructionAnswer>(answer).map(|found| found.instruction.trim().to_string())
}

/// Parses the instruction and the code in an answer to [`evolution_prompt`].
pub fn parse_task(answer: &str) -> Option<(String, String)> {
    let found = find_object::<TaskAnswer>(answer)?;
    Some((found.instruction.trim().to_string(), unfenced(&found.code).trim().to_string()))
}

/// Finds the first JSON object that is a `T`; models put text and fences around it.
fn find_object<T: DeserializeOwned>(text: &str) -> Option<T> {
    text.match_indices('{').find_map(|(at, _)| {
        let mut values = serde_json::Deserializer::from_str(&text[at..]).into_iter::<T>();
        values.next()?.ok()
    })
}

/// Removes a fence around code.
fn unfenced(code: &str) -> &str {
    let inside = code.trim().strip_prefix("```").and_then(|rest| rest.strip_suffix("```"));
    inside.and_then(|rest| rest.split_once('\n')).map_or(code, |(_, code)| code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_is_found_in_what_a_model_says_around_it() {
        let found = |answer| parse_instruction(answer).unwrap_or_default();
        assert_eq!(found(r#"{"instruction": " Add {two} numbers. "}"#), "Add {two} numbers.");
        assert_eq!(found("Sure {ok}:\n```json\n{\"instruction\": \"Add.\", \"why\": 1}\n``` Done."), "Add.");
        for malformed in
            ["", "Add.", "{\"instruction\": \"Add", "{\"instruction\": 1}", "{\"task\": \"Add.\"}"]
        {
            assert_eq!(parse_instruction(malformed), None, "{malformed}");
        }
    }

    #[test]
    fn code_comes_without_its_fence() {
        let found = |code: &str| {
            parse_task(&serde_json::json!({"instruction": "Add.", "code": code}).to_string()).unwrap().1
        };
        assert_eq!(found("```ts\nf();\n```"), "f();");
        assert_eq!(found("\nf();\n"), "f();");
        assert_eq!(parse_task(r#"{"instruction": "Add."}"#), None);
    }
}
