//! A checkpoint's chat template: Jinja source that writes a conversation as the model was trained to read it.
//!
//! It is rendered as transformers renders it: `trim_blocks` and `lstrip_blocks`, Python's methods of strings and lists,
//! Python's spelling of values, `raise_exception`, `strftime_now`, `tojson`, loop controls and `{% generation %}`. A
//! template comes from strangers: its instructions, its recursion and its output are limited, and it reads no file.

mod control_tokens;
mod conversation;
mod generation_tags;
mod python;

pub use conversation::EncodedConversation;

use crate::message::Message;
use chrono::{DateTime, FixedOffset, Local};
use codelsi_engine::{At, Error, Result};
use minijinja::{Environment, ErrorKind, Value};
use serde_json::{Value as Json, json};
use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::path::Path;

/// Instructions that a template may run, and more for each message.
const FUEL: u64 = 100_000;
const FUEL_PER_MESSAGE: u64 = 20_000;
/// Nested blocks, macros and calls.
const RECURSION: usize = 100;
/// Bytes that a template may write, beyond four times its messages.
const OUTPUT: usize = 1 << 20;
/// Bytes of a template's source.
const SOURCE: usize = 1 << 20;
/// Stack of a rendering, in bytes: values that a template nests are walked recursively.
const STACK: usize = 256 << 20;

/// The special tokens that a template may name.
const VARIABLES: [&str; 7] =
    ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

/// A chat template, and the special tokens that it may name.
pub struct ChatTemplate {
    environment: Environment<'static>,
    source: String,
    /// The file that holds it, for messages.
    file: String,
    variables: BTreeMap<String, String>,
}

impl ChatTemplate {
    /// Loads the chat template of a model folder: `chat_template.jinja`, else `chat_template` in
    /// `tokenizer_config.json`, a string or a list of named ones, of which `default` is taken. `None` if the model has
    /// none.
    ///
    /// # Errors
    /// When a file is malformed, or the template is no Jinja.
    pub fn load(folder: impl AsRef<Path>) -> Result<Option<Self>> {
        let folder = folder.as_ref();
        let read = |name: &str| read_if_there(&folder.join(name));
        let parse = |name: &str| -> Result<Json> {
            let text = read(name)?.unwrap_or_else(|| "null".into());
            serde_json::from_str(&text).map_err(|e| Error::io(folder.join(name), format!("not JSON: {e}")))
        };
        let (config, map) = (parse("tokenizer_config.json")?, parse("special_tokens_map.json")?);
        let (file, source) = match read("chat_template.jinja")? {
            Some(source) => (folder.join("chat_template.jinja"), Some(source)),
            None => {
                let file = folder.join("tokenizer_config.json");
                let source = template_of_config(&config["chat_template"]).at(file.display().to_string())?;
                (file, source)
            }
        };
        let Some(source) = source else { return Ok(None) };
        let text = |name: &str| {
            let value = [&config, &map].into_iter().map(|file| &file[name]).find(|value| !value.is_null())?;
            value.as_str().or_else(|| value["content"].as_str()).map(String::from)
        };
        let variables = VARIABLES.iter().filter_map(|&name| Some((name.to_string(), text(name)?))).collect();
        ChatTemplate::new(&source, variables, file.display().to_string()).map(Some)
    }

    /// Loads the chat template of a model folder that must have one.
    ///
    /// # Errors
    /// When it has none; otherwise as [`ChatTemplate::load`].
    pub fn require(folder: impl AsRef<Path>) -> Result<Self> {
        let missing = || {
            Error::io(
                &folder,
                "the model has no chat template (chat_template.jinja, or chat_template in tokenizer_config.json); use \
                 another one: paper, inst or plain",
            )
        };
        ChatTemplate::load(&folder)?.ok_or_else(missing)
    }

    /// Makes a template of Jinja source. `variables` are special tokens by name, e.g. `bos_token`; `file` names the
    /// template in messages.
    ///
    /// # Errors
    /// When the source is no Jinja.
    pub fn new(source: &str, variables: BTreeMap<String, String>, file: String) -> Result<Self> {
        ChatTemplate::at_time(source, variables, file, now())
    }

    fn at_time(
        source: &str,
        variables: BTreeMap<String, String>,
        file: String,
        now: DateTime<FixedOffset>,
    ) -> Result<Self> {
        if source.len() > SOURCE {
            return Err(Error::io(
                file,
                format!("a chat template of {} bytes; {SOURCE} are allowed", source.len()),
            ));
        }
        let mut environment = Environment::new();
        environment.set_trim_blocks(true);
        environment.set_lstrip_blocks(true);
        environment.set_recursion_limit(RECURSION);
        environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
        python::add_to(&mut environment, now);
        let jinja = generation_tags::pass_through(source);
        environment.add_template_owned("chat_template", jinja).map_err(|e| explain(&e)).at(&file)?;
        Ok(ChatTemplate { environment, source: source.to_string(), file, variables })
    }

    /// The Jinja source.
    pub(crate) fn source(&self) -> &str {
        &self.source
    }

    /// Renders a conversation. With `add_generation_prompt`, what comes before an answer of the assistant is written at
    /// the end.
    ///
    /// # Errors
    /// When the template raises an exception or exceeds a limit.
    pub fn render(&self, messages: &[Message], add_generation_prompt: bool) -> Result<String> {
        // A thread of its own has a stack of its own.
        std::thread::scope(|scope| {
            let render = || self.render_here(messages, add_generation_prompt);
            let thread = std::thread::Builder::new().stack_size(STACK).spawn_scoped(scope, render);
            let thread = thread.map_err(|e| Error::new(format!("no thread for a chat template: {e}")))?;
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
        .at(&self.file)
    }

    fn render_here(&self, messages: &[Message], add_generation_prompt: bool) -> Result<String> {
        let mut environment = self.environment.clone();
        environment.set_fuel(Some(FUEL + FUEL_PER_MESSAGE * messages.len() as u64));
        let template = environment.get_template("chat_template").map_err(|e| explain(&e))?;
        let rows: Vec<Json> =
            messages.iter().map(|m| json!({ "role": m.role.name(), "content": m.content })).collect();
        let mut context: BTreeMap<&str, Value> =
            self.variables.iter().map(|(name, text)| (name.as_str(), Value::from(text))).collect();
        context.insert("messages", Value::from_serialize(rows));
        context.insert("tools", Value::from(()));
        context.insert("documents", Value::from(()));
        context.insert("add_generation_prompt", Value::from(add_generation_prompt));
        let content: usize = messages.iter().map(|message| message.content.len()).sum();
        let mut output = LimitedOutput { text: Vec::new(), limit: OUTPUT + 4 * content };
        template.render_captured_to(context, &mut output).map_err(|e| explain(&e))?;
        String::from_utf8(output.text).map_err(|e| Error::new(e.to_string()))
    }
}

/// Text that may not grow beyond a limit.
struct LimitedOutput {
    text: Vec<u8>,
    limit: usize,
}

impl Write for LimitedOutput {
    fn write(&mut self, new: &[u8]) -> io::Result<usize> {
        if self.text.len() + new.len() > self.limit {
            return Err(io::Error::other(format!("it writes more than {} bytes", self.limit)));
        }
        self.text.extend_from_slice(new);
        Ok(new.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Returns the template in `tokenizer_config.json`: a string, or the one named `default` of several.
fn template_of_config(value: &Json) -> Result<Option<String>> {
    let named: Vec<(&str, &Json)> = match value {
        Json::Null => return Ok(None),
        Json::String(source) => return Ok(Some(source.clone())),
        Json::Array(list) => {
            list.iter().map(|one| (one["name"].as_str().unwrap_or_default(), &one["template"])).collect()
        }
        Json::Object(map) => map.iter().map(|(name, source)| (name.as_str(), source)).collect(),
        _ => return Err(Error::new("`chat_template` is neither a text nor a list of named ones")),
    };
    match named.iter().find(|(name, _)| *name == "default").and_then(|(_, source)| source.as_str()) {
        Some(source) => Ok(Some(source.to_string())),
        None => {
            let names: Vec<&str> = named.iter().map(|(name, _)| *name).collect();
            Err(Error::new(format!("no chat template is named `default`; there are {}", names.join(", "))))
        }
    }
}

fn read_if_there(file: &Path) -> Result<Option<String>> {
    match fs::read_to_string(file) {
        Ok(text) => Ok(Some(text)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Error::io(file, e)),
    }
}

/// The time that a template sees: `SOURCE_DATE_EPOCH`, in seconds since 1970, where it is set, so that a run can be
/// repeated.
fn now() -> DateTime<FixedOffset> {
    let epoch = std::env::var("SOURCE_DATE_EPOCH").ok().and_then(|seconds| seconds.parse().ok());
    match epoch.and_then(|seconds| DateTime::from_timestamp(seconds, 0)) {
        Some(time) => time.fixed_offset(),
        None => Local::now().fixed_offset(),
    }
}

/// Turns an error of the template engine into one line.
fn explain(e: &minijinja::Error) -> Error {
    let line = e.line().map(|line| format!(" (line {line})")).unwrap_or_default();
    let what = match e.kind() {
        ErrorKind::OutOfFuel => "it runs too long".to_string(),
        kind => e.detail().map_or_else(|| kind.to_string(), String::from),
    };
    let cause = std::error::Error::source(e).map(|cause| format!(": {cause}")).unwrap_or_default();
    Error::new(format!("chat template{line}: {what}{cause}").replace('\n', " "))
}

#[cfg(test)]
mod tests;
