//! The keys of training rows.

/// Keys of a prompt and its answer. `input` alone is a prompt where there is no other.
pub(super) const PAIRS: [(&str, &str); 9] = [
    ("instruction", "output"),
    ("instruction", "response"),
    ("prompt", "completion"),
    ("prompt", "response"),
    ("question", "answer"),
    ("question", "response"),
    ("query", "response"),
    ("problem", "solution"),
    ("input", "output"),
];
/// Keys of a list of messages.
pub(super) const CONVERSATIONS: [&str; 3] = ["messages", "conversations", "conversation"];
/// Keys of a hole in a text: what stands before it, what stands after it, and what fills it.
pub(super) const INFILL: [&str; 3] = ["prefix", "suffix", "output"];
/// Keys of text that belongs to the prompt, after a blank line.
pub(super) const INPUTS: [&str; 2] = ["input", "context"];
/// Keys of a system text.
pub(super) const SYSTEMS: [&str; 2] = ["system", "system_prompt"];
/// Key of earlier turns, each a list of a prompt and its answer.
pub(super) const HISTORY: &str = "history";
/// Key of a row's own prompt template.
pub(super) const TEMPLATE: &str = "template";

/// All of them, some more than once.
pub(super) fn all() -> impl Iterator<Item = &'static str> {
    let pairs = PAIRS.into_iter().flat_map(|(prompt, answer)| [prompt, answer]);
    pairs.chain(CONVERSATIONS).chain(INFILL).chain(INPUTS).chain(SYSTEMS).chain([HISTORY, TEMPLATE])
}
