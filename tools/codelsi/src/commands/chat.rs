//! `codelsi chat`: a conversation in the terminal.

use crate::args::{ModelArgs, SamplingArgs, folder, help, number};
use crate::signals;
use clap::Args;
use codelsi_engine::printable::for_terminal;
use codelsi_engine::{Error, Result};
use codelsi_experiment::chat::{Answer, Chat, ChatEvent, ChatOptions, Line};
use codelsi_experiment::inference_model::InferenceModel;
use codelsi_model::checkpoint::PackWeights;
use codelsi_model::generate::FinishReason;
use codelsi_model::parallel::RankLayout;
use std::io::{self, BufRead, IsTerminal, Write};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

const HELP: &str = "\
/reset forgets the conversation, /exit or Ctrl-D leaves, Ctrl-C ends an answer.
\"\"\" begins a question of several lines, which ends with \"\"\".";

/// Talk to a model in the terminal, in its own chat template or the instruct form.
#[derive(Args)]
pub struct ChatArgs {
    #[arg(long, help = help::ADAPTER, value_name = "DIR", value_parser = folder())]
    adapter: Option<PathBuf>,
    /// System message, which stands before the conversation.
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    system: Option<String>,
    #[arg(long, help = help::MAX_TOKENS, value_name = "N", default_value_t = 1024)]
    #[arg(value_parser = number::tokens())]
    max_tokens: usize,
    #[arg(long, help = help::CONTEXT_LENGTH, value_name = "N", default_value_t = 4096)]
    #[arg(value_parser = number::tokens())]
    context_length: usize,
    #[arg(long, help = help::PAGE_SIZE, value_name = "N", default_value_t = 16)]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=4096))]
    page_size: u16,
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    sampling: SamplingArgs,
}

/// Runs the command.
pub fn run(args: &ChatArgs) -> Result<()> {
    let device = args.model.device.device.open()?;
    let compute = args.model.device.compute.map(Into::into);
    let (model, adapter) = (&args.model.model, args.adapter.as_deref());
    let layout = RankLayout::from(&device);
    let loaded = InferenceModel::open_on_rank(layout, model, compute, PackWeights::default(), adapter)?;
    let options = ChatOptions {
        system: args.system.clone(),
        max_tokens: args.max_tokens,
        context_length: args.context_length,
        sampling: args.sampling.into(),
        page_size: args.page_size.into(),
    };
    let mut chat = Chat::new(&loaded, options)?;
    // From here on; while the model loads, a signal ends the program.
    let interrupted = signals::catch_interrupts()?;
    eprintln!("{}; a context of {} tokens; /help", chat.format().describe(), chat.context_length());
    let mut input = Questions { input: io::stdin().lock(), prompts: io::stdin().is_terminal() };
    while let Some(question) = input.next(&mut chat)? {
        interrupted.store(false, Ordering::Relaxed);
        answer(&mut chat, &question, &interrupted)?;
    }
    Ok(())
}

/// Shows the answer to a question. A question that cannot be answered is an error of its own, not of the conversation.
fn answer(chat: &mut Chat, question: &str, interrupted: &AtomicBool) -> Result<()> {
    let (mut closed, mut ends_line) = (None, true);
    let mut on_event = |event: ChatEvent| match event {
        ChatEvent::Dropped(turns) => {
            eprintln!("(the oldest {turns} turns do not fit the context any more, and were dropped)");
            Ok(())
        }
        ChatEvent::Text(text) => {
            ends_line = text.is_empty() && ends_line || text.ends_with('\n');
            let mut stdout = io::stdout().lock();
            let shown = if stdout.is_terminal() { for_terminal(text) } else { text.to_owned() };
            let written = stdout.write_all(shown.as_bytes()).and_then(|()| stdout.flush());
            written.map_err(|e| {
                closed = Some(e.to_string());
                Error::new("the answer cannot be shown")
            })
        }
    };
    let answered = chat.ask(question, &mut on_event, &|| interrupted.load(Ordering::Relaxed));
    if let Some(reason) = closed {
        return Err(Error::new(format!("the answer cannot be shown: {reason}")));
    }
    if !ends_line {
        println!();
    }
    match answered {
        Ok(Answer { finish_reason: Some(FinishReason::Stop), .. }) => {}
        Ok(Answer { finish_reason: None, .. }) => eprintln!("(interrupted)"),
        Ok(Answer { tokens, .. }) => eprintln!("(cut after {tokens} tokens: --max-tokens, or the context)"),
        Err(e) => eprintln!("codelsi: {e}"),
    }
    Ok(())
}

/// The questions of an input, line by line.
struct Questions<R> {
    input: R,
    /// Shows that a line is awaited.
    prompts: bool,
}

impl<R: BufRead> Questions<R> {
    /// Returns the next question after the commands before it are done; `None` at the end.
    fn next(&mut self, chat: &mut Chat) -> Result<Option<String>> {
        while let Some(line) = self.line("> ")? {
            match Line::parse(&line) {
                Line::Empty => {}
                Line::Exit => return Ok(None),
                Line::Help => eprintln!("{HELP}"),
                Line::Unknown(command) => eprintln!("{command} is no command; /help lists them"),
                Line::Reset => {
                    chat.reset();
                    eprintln!("(the conversation is forgotten)");
                }
                Line::Block(first) => return self.block(first).map(Some),
                Line::Question(question) => return Ok(Some(question.to_owned())),
            }
        }
        Ok(None)
    }

    /// Reads a question of several lines whose first one is given.
    fn block(&mut self, first: &str) -> Result<String> {
        let mut text = first.to_owned();
        while !text.trim_end().ends_with("\"\"\"") {
            let Some(line) = self.line(". ")? else { return Ok(text) };
            text.push('\n');
            text.push_str(line.trim_end_matches(['\r', '\n']));
        }
        Ok(text.trim_end().trim_end_matches("\"\"\"").trim_matches('\n').to_owned())
    }

    fn line(&mut self, prompt: &str) -> Result<Option<String>> {
        if self.prompts {
            eprint!("{prompt}");
        }
        let mut line = String::new();
        match self.input.read_line(&mut line) {
            Ok(0) => {
                if self.prompts {
                    eprintln!();
                }
                Ok(None)
            }
            Ok(_) => Ok(Some(line)),
            Err(e) => Err(Error::new(format!("no question can be read: {e}"))),
        }
    }
}
