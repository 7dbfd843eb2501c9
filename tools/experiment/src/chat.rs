//! A conversation with a model: its messages, as many of them as fit the context, and the model's answers as they come.

use crate::inference_model::InferenceModel;
use codelsi_engine::{Error, Result};
use codelsi_model::chat_format::ChatFormat;
use codelsi_model::generate::{
    AddError, Engine, EngineConfig, EngineOutputs, Event, FinishReason, GenerationRequest, SamplingParams,
    SchedulerConfig,
};
use codelsi_model::message::{Message, Role};

/// Parameters of a conversation.
pub struct ChatOptions {
    /// System message.
    pub system: Option<String>,
    /// Maximum tokens of an answer.
    pub max_tokens: usize,
    /// Maximum tokens of the conversation that the model reads, its answer included.
    pub context_length: usize,
    pub sampling: SamplingParams,
    /// Tokens per KV page.
    pub page_size: usize,
}

/// News of an answer while it is made.
pub enum ChatEvent<'t> {
    /// The oldest turns, as many as stated, were dropped: they do not fit the context any more.
    Dropped(usize),
    /// The next text of the answer.
    Text(&'t str),
}

/// An answer that has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The reason of its end; none where it was interrupted.
    pub finish_reason: Option<FinishReason>,
    /// Tokens of the conversation that the model read, and those of them that it had in its cache.
    pub prompt_tokens: usize,
    pub cached_tokens: usize,
    /// Tokens of the answer.
    pub tokens: usize,
}

/// A conversation with a model.
pub struct Chat<'m> {
    loaded: &'m InferenceModel,
    engine: Engine<'m>,
    format: ChatFormat,
    stop: Vec<String>,
    history: History,
    options: ChatOptions,
}

impl<'m> Chat<'m> {
    /// Starts a conversation. A context beyond the model's positions is lowered to them.
    ///
    /// # Errors
    /// When the model's chat template is malformed, or the KV cache does not fit the memory.
    pub fn new(loaded: &'m InferenceModel, mut options: ChatOptions) -> Result<Self> {
        options.context_length = options.context_length.min(loaded.model.config().max_positions);
        let format = ChatFormat::load(loaded.checkpoint.folder())?;
        let scheduler =
            SchedulerConfig { max_sequences: 1, page_size: options.page_size, ..SchedulerConfig::default() };
        let pages = options.context_length.div_ceil(options.page_size) + 1;
        let config = EngineConfig::new(scheduler, pages, options.context_length);
        let engine = Engine::new(loaded.device(), &loaded.model, Some(&loaded.tokenizer), config);
        Ok(Chat {
            engine: engine.map_err(|e| explain(loaded, e))?,
            stop: format.end_of_turn(&loaded.tokenizer).into_iter().collect(),
            format,
            history: History::new(options.system.clone()),
            loaded,
            options,
        })
    }

    /// The form in which the conversation is put to the model.
    pub fn format(&self) -> &ChatFormat {
        &self.format
    }

    /// The largest number of tokens that the model reads and writes.
    pub fn context_length(&self) -> usize {
        self.options.context_length
    }

    /// Forgets all turns; the system message stays.
    pub fn reset(&mut self) {
        self.history.turns.clear();
    }

    /// Asks a question. `on_event` gets the answer's text as it comes; when `interrupted` says so, the answer ends, and
    /// what there is of it stays in the conversation. After an error the question is forgotten.
    ///
    /// # Errors
    /// When the question does not fit the context or cannot be encoded, the device fails, or `on_event` does.
    pub fn ask(
        &mut self,
        question: &str,
        on_event: &mut dyn FnMut(ChatEvent) -> Result<()>,
        interrupted: &dyn Fn() -> bool,
    ) -> Result<Answer> {
        self.history.push(Role::User, question);
        let mut text = String::new();
        let answer = self.answer(&mut text, on_event, interrupted);
        match &answer {
            Ok(_) if !text.is_empty() => self.history.push(Role::Assistant, &text),
            // A template has no form for a question without an answer in the middle of a conversation.
            _ => drop(self.history.turns.pop()),
        }
        answer
    }

    fn answer(
        &mut self,
        text: &mut String,
        on_event: &mut dyn FnMut(ChatEvent) -> Result<()>,
        interrupted: &dyn Fn() -> bool,
    ) -> Result<Answer> {
        let ChatOptions { context_length, max_tokens, .. } = self.options;
        let room = context_length - max_tokens.min(context_length / 2);
        let encode = |messages: &[Message]| self.format.encode(&self.loaded.tokenizer, messages);
        let (prompt, dropped) = self.history.fit(room, encode)?;
        if dropped > 0 {
            on_event(ChatEvent::Dropped(dropped))?;
        }
        let prompt_tokens = prompt.len();
        let request = GenerationRequest {
            sampling: self.options.sampling.clone(),
            stop: self.stop.clone(),
            ..GenerationRequest::greedy(prompt, max_tokens.min(context_length - prompt_tokens))
        };
        let id = self.engine.add(request).map_err(AddError::into_error)?;
        let mut answer = Answer { finish_reason: None, prompt_tokens, cached_tokens: 0, tokens: 0 };
        let mut show = |new: &str| {
            text.push_str(new);
            on_event(ChatEvent::Text(new))
        };
        while self.engine.has_work() {
            if interrupted() {
                self.engine.cancel(id);
                return Ok(answer);
            }
            let outputs = self.engine.step().and_then(EngineOutputs::into_events);
            for event in outputs.map_err(|e| explain(self.loaded, e))? {
                let shown = match event {
                    Event::Prefilled { cached, .. } => {
                        answer.cached_tokens = cached;
                        Ok(())
                    }
                    Event::Token { text, .. } => {
                        answer.tokens += 1;
                        show(&text)
                    }
                    Event::Finished { reason, text, .. } => {
                        answer.finish_reason = Some(reason);
                        show(&text)
                    }
                };
                if let Err(e) = shown {
                    self.engine.cancel(id);
                    return Err(e);
                }
            }
        }
        Ok(answer)
    }
}

fn explain(loaded: &InferenceModel, error: Error) -> Error {
    match error.is_out_of_memory() {
        true => error.advise("lower --context-length, or use --compute bf16"),
        false => loaded.explain(error),
    }
}

/// The messages of a conversation: a system message, and turns of a question and its answer.
struct History {
    system: Option<Message>,
    turns: Vec<Message>,
}

impl History {
    fn new(system: Option<String>) -> Self {
        let system = system.map(|content| Message { role: Role::System, content });
        History { system, turns: Vec::new() }
    }

    fn push(&mut self, role: Role, content: &str) {
        self.turns.push(Message { role, content: content.into() });
    }

    /// Encodes the conversation, and drops its oldest turns until it has at most `room` tokens. Returns the tokens and
    /// how many turns were dropped.
    ///
    /// # Errors
    /// When the last question alone, with the system message, has more.
    fn fit(
        &mut self,
        room: usize,
        encode: impl Fn(&[Message]) -> Result<Vec<u32>>,
    ) -> Result<(Vec<u32>, usize)> {
        for dropped in 0.. {
            let first = 2 * dropped;
            let messages: Vec<Message> = self.system.iter().chain(&self.turns[first..]).cloned().collect();
            let tokens = encode(&messages)?;
            if tokens.len() <= room {
                self.turns.drain(..first);
                return Ok((tokens, dropped));
            }
            if first + 1 == self.turns.len() {
                return Err(Error::new(format!(
                    "the question has {} tokens, and the context has room for {room}; shorten it, or raise --context-length",
                    tokens.len()
                )));
            }
        }
        unreachable!("the last question is the last turn")
    }
}

/// A line that the user writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Line<'l> {
    Empty,
    /// `/exit`.
    Exit,
    /// `/reset`.
    Reset,
    /// `/help`.
    Help,
    /// A word that begins with a slash and is no command.
    Unknown(&'l str),
    /// `"""`, with the text after it: a question of several lines, up to a line that ends so.
    Block(&'l str),
    Question(&'l str),
}

impl<'l> Line<'l> {
    /// Parses a line.
    pub fn parse(line: &'l str) -> Self {
        let line = line.trim();
        let is_word = |name: &str| !name.is_empty() && name.chars().all(char::is_alphabetic);
        match line {
            "" => Line::Empty,
            "/exit" | "/quit" | "/bye" => Line::Exit,
            "/reset" | "/clear" => Line::Reset,
            "/help" | "/?" => Line::Help,
            _ if line.strip_prefix('/').is_some_and(is_word) => Line::Unknown(line),
            _ => line.strip_prefix("\"\"\"").map_or(Line::Question(line), Line::Block),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use codelsi_engine::Device;
    use codelsi_model::synthetic::{config, write_random_model};

    /// A token for each character of the messages.
    fn encode(messages: &[Message]) -> Result<Vec<u32>> {
        Ok(messages.iter().flat_map(|m| m.content.chars()).map(|c| c as u32).collect())
    }

    fn history() -> History {
        let mut history = History::new(Some("s".into()));
        for (question, answer) in [("aaaa", "bb"), ("cc", "dddd")] {
            history.push(Role::User, question);
            history.push(Role::Assistant, answer);
        }
        history.push(Role::User, "eee");
        history
    }

    fn text(tokens: &[u32]) -> String {
        tokens.iter().filter_map(|&t| char::from_u32(t)).collect()
    }

    #[test]
    fn the_oldest_turns_are_dropped_and_the_system_message_stays() {
        for (room, expected, dropped) in [
            (16, "saaaabbccddddeee", 0),
            (15, "sccddddeee", 1),
            (10, "sccddddeee", 1),
            (9, "seee", 2),
            (4, "seee", 2),
        ] {
            let mut history = history();
            let (tokens, count) = history.fit(room, encode).unwrap();
            assert_eq!((text(&tokens).as_str(), count), (expected, dropped), "{room}");
            // What was dropped is gone.
            assert_eq!(text(&history.fit(100, encode).unwrap().0), expected);
        }
    }

    #[test]
    fn a_question_that_is_too_long_is_refused_and_drops_nothing() {
        let mut history = history();
        let message = history.fit(3, encode).unwrap_err().to_string();
        assert!(message.contains("has 4 tokens, and the context has room for 3"), "{message}");
        assert_eq!(history.turns.len(), 5);
    }

    fn with_chat(test: impl FnOnce(&mut Chat)) {
        let temporary = tempfile::tempdir().unwrap();
        let folder = temporary.path().join("m");
        write_random_model(&folder, &config("tiny").unwrap(), 7, &mut |_, _| ()).unwrap();
        let loaded = InferenceModel::open(&folder, &Device::cpu(), None, None).unwrap();
        let options = ChatOptions {
            system: None,
            max_tokens: 12,
            context_length: 4096,
            sampling: SamplingParams::default(),
            page_size: 16,
        };
        test(&mut Chat::new(&loaded, options).unwrap());
    }

    const QUESTION: &str = "bana kalo mire, tuso pelo; nadi?";

    #[test]
    fn a_turn_costs_what_it_adds() {
        with_chat(|chat| {
            assert_eq!(chat.context_length(), 512, "the model's positions");
            let mut ask = |question: &str| chat.ask(question, &mut |_| Ok(()), &|| false).unwrap();
            let first = ask(QUESTION);
            assert_eq!(first.cached_tokens, 0);
            let second = ask("bana");
            let full_pages = (first.prompt_tokens + first.tokens - 1) / 16 * 16;
            assert!(second.prompt_tokens > first.prompt_tokens + first.tokens, "{first:?} {second:?}");
            assert!(second.cached_tokens >= full_pages, "{first:?} {second:?}");
        });
    }

    #[test]
    fn an_interrupted_or_failed_answer_does_not_end_the_conversation() {
        with_chat(|chat| {
            let mut text = String::new();
            let answer = chat.ask(QUESTION, &mut |_| Ok(()), &|| true).unwrap();
            assert_eq!((answer.finish_reason, answer.tokens, chat.history.turns.len()), (None, 0, 0));
            let failed = chat.ask(QUESTION, &mut |_| Err(Error::new("no terminal")), &|| false);
            assert!(failed.unwrap_err().to_string().contains("no terminal"));
            let mut show = |event: ChatEvent| {
                if let ChatEvent::Text(new) = event {
                    text.push_str(new);
                }
                Ok(())
            };
            let answer = chat.ask(QUESTION, &mut show, &|| false).unwrap();
            assert_eq!((answer.finish_reason, answer.tokens), (Some(FinishReason::Length), 12));
            assert!(!text.is_empty());
            assert_eq!(chat.history.turns[1].content, text);
            assert_eq!(chat.engine.stats().running, 0);
            chat.reset();
            assert!(chat.history.turns.is_empty());
        });
    }

    #[test]
    fn commands_are_single_words() {
        for (line, expected) in [
            (" \n", Line::Empty),
            ("/exit\n", Line::Exit),
            ("/reset", Line::Reset),
            ("/help", Line::Help),
            ("/foo", Line::Unknown("/foo")),
            ("/foo bar", Line::Question("/foo bar")),
            ("/etc/passwd", Line::Question("/etc/passwd")),
            ("/", Line::Question("/")),
            ("\"\"\"let a\n", Line::Block("let a")),
            (" add(a, b)\r\n", Line::Question("add(a, b)")),
        ] {
            assert_eq!(Line::parse(line), expected, "{line:?}");
        }
    }
}
