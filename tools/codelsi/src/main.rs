//! `codelsi`: from TypeScript sources to a tuned, measured code model. Without a command it prints its help.

#![forbid(unsafe_code)]

mod args;
mod commands;
mod json;
mod signals;

use args::{help, number};
use clap::{CommandFactory, Parser, Subcommand};
use codelsi_engine::{Error, Result, interrupt};
use codelsi_experiment::command_line::command_line;
use codelsi_experiment::output::Output;
use codelsi_launch::start_threads;
use commands::{
    ablate, bench, chat, curate, evaluate, export, generate, inspect, judge, merge, mkmodel, pipeline, plan,
    problems, report, serve, tokenize, train,
};
use std::process::ExitCode;

const AFTER_HELP: &str = "\
Examples:
  codelsi demo                                         the whole paper in minutes, offline
  codelsi curate src/ --out data.jsonl                 rows from your code
  codelsi train --model DIR --data data.jsonl --out adapter
  codelsi generate --model DIR --adapter adapter --template paper --prompt TEXT
  codelsi train --help                                 the flags of a command

Exit status: 0 for success, 1 for a failure (one line on stderr), 2 for a wrong
command line; 130 after SIGINT and 143 after SIGTERM, which end long commands
in order, with what they have done saved. A second signal ends at once.";

/// From sources to a tuned, measured code model; `codelsi demo` shows all of it.
#[derive(Parser)]
#[command(name = "codelsi", version, after_help = AFTER_HELP)]
struct Cli {
    #[arg(long, help = help::THREADS, value_name = "N", global = true, value_parser = number::threads())]
    threads: Option<usize>,
    #[command(subcommand)]
    command: Option<CliCommand>,
}

/// The commands, in the order of work.
#[derive(Subcommand)]
enum CliCommand {
    /// Run the whole paper on an embedded model and generated sources, offline, into a new folder under `runs`.
    Demo,
    Curate(curate::CurateArgs),
    Problems(problems::ProblemsArgs),
    Plan(plan::PlanArgs),
    Train(Box<train::TrainArgs>),
    Generate(generate::GenerateArgs),
    Chat(chat::ChatArgs),
    Serve(Box<serve::ServeArgs>),
    Evaluate(evaluate::EvaluateArgs),
    Judge(judge::JudgeArgs),
    Merge(merge::MergeArgs),
    Export(export::ExportArgs),
    Pipeline(Box<pipeline::PipelineArgs>),
    Ablate(Box<ablate::AblateArgs>),
    Report(report::ReportArgs),
    Inspect(inspect::InspectArgs),
    Tokenize(tokenize::TokenizeArgs),
    Bench(bench::BenchArgs),
    Mkmodel(mkmodel::MkmodelArgs),
    #[command(hide = true)]
    RemakeBase(pipeline::RemakeBaseArgs),
}

fn main() -> ExitCode {
    // A judged program's process is this binary again; it goes no further than this line.
    codelsi_eval::judge::child_entry();
    let cli = Cli::parse();
    let command = cli.command.as_ref();
    let (ends_in_order, resumes) =
        (command.is_none_or(CliCommand::ends_in_order), command.is_some_and(CliCommand::resumes));
    let resume = match command {
        Some(CliCommand::Train(_)) => command_line(Some("--resume")),
        _ => command_line(None),
    };
    let handled = if ends_in_order { signals::handle() } else { Ok(()) };
    match handled.and_then(|()| start_threads(cli.threads)).and_then(|()| run(cli)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("codelsi: {e}");
            let Some(signal) = interrupt::requested().filter(|_| e.is_interrupted()) else {
                return ExitCode::FAILURE;
            };
            if resumes {
                eprintln!("go on with: {resume}");
            }
            signals::exit_code(signal)
        }
    }
}

impl CliCommand {
    /// Returns whether the command looks for a signal and then ends in order; a signal ends the others at once.
    fn ends_in_order(&self) -> bool {
        self.resumes() || matches!(self, CliCommand::Generate(_) | CliCommand::Bench(_))
    }

    /// Returns whether the command goes on with what it has done before.
    fn resumes(&self) -> bool {
        matches!(
            self,
            CliCommand::Curate(_)
                | CliCommand::Problems(_)
                | CliCommand::Train(_)
                | CliCommand::Evaluate(_)
                | CliCommand::Judge(_)
                | CliCommand::Pipeline(_)
                | CliCommand::Ablate(_)
        )
    }
}

fn run(cli: Cli) -> Result<()> {
    let out = Output::detect();
    match cli.command {
        None => Cli::command().print_help().map_err(|e| Error::new(e.to_string())),
        Some(CliCommand::Demo) => pipeline::demo(&out),
        Some(CliCommand::Curate(args)) => curate::run(&args, &out),
        Some(CliCommand::Problems(args)) => problems::run(&args, &out),
        Some(CliCommand::Plan(args)) => plan::run(&args),
        Some(CliCommand::Train(args)) => train::run(&args, &out),
        Some(CliCommand::Generate(args)) => generate::run(&args, &out),
        Some(CliCommand::Serve(args)) => serve::run(&args),
        Some(CliCommand::Chat(args)) => chat::run(&args),
        Some(CliCommand::Evaluate(args)) => evaluate::run(&args, &out),
        Some(CliCommand::Judge(args)) => judge::run(&args, &out),
        Some(CliCommand::Merge(args)) => merge::run(&args, &out),
        Some(CliCommand::Export(args)) => export::run(&args, &out),
        Some(CliCommand::Pipeline(args)) => pipeline::run(&args, &out),
        Some(CliCommand::Ablate(args)) => ablate::run(&args, &out),
        Some(CliCommand::Report(args)) => report::run(&args),
        Some(CliCommand::Inspect(args)) => inspect::run(&args),
        Some(CliCommand::Tokenize(args)) => tokenize::run(&args),
        Some(CliCommand::Bench(args)) => bench::run(&args),
        Some(CliCommand::Mkmodel(args)) => mkmodel::run(&args, &out),
        Some(CliCommand::RemakeBase(args)) => pipeline::remake_base(&args, &out),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::error::ErrorKind;
    use clap::{Arg, ArgAction, Command};
    use std::any::TypeId;
    use std::collections::BTreeMap;

    /// True for a flag with a text of its own: `--out` describes what its own command writes, `--help` is clap's, and
    /// `serve --adapter` gives names.
    fn has_own_text(command: &Command, flag: &str) -> bool {
        matches!((command.get_name(), flag), (_, "out" | "help") | ("serve", "adapter"))
    }

    /// The command line as in a terminal of 80 columns.
    fn built() -> Command {
        let mut command = Cli::command().term_width(80);
        command.build();
        command
    }

    /// The help text in one line, without its default.
    fn text(arg: &Arg) -> String {
        let text = arg.get_help().map(ToString::to_string).unwrap_or_default();
        let words: Vec<&str> = text.split_whitespace().collect();
        words.join(" ").split(" [default: ").next().unwrap_or_default().to_owned()
    }

    #[test]
    fn clap_finds_no_contradiction_in_the_flags() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_flag_has_one_text_and_one_value_name_in_all_commands() {
        let mut flags = BTreeMap::new();
        for command in built().get_subcommands().filter(|command| command.get_name() != "help") {
            for arg in command.get_arguments() {
                let Some(name) = arg.get_long().filter(|name| !has_own_text(command, name)) else { continue };
                let values = format!("{:?} {:?}", arg.get_short(), arg.get_value_names());
                // A flag that may be repeated says so.
                let repeated = matches!(arg.get_action(), ArgAction::Append);
                let here = (text(arg), values, command.get_name().to_owned());
                let first = flags.entry((name.to_owned(), repeated)).or_insert_with(|| here.clone());
                let same = (&here.0, &here.1) == (&first.0, &first.1);
                assert!(same, "--{name} differs between two commands:\n{first:?}\n{here:?}");
            }
        }
        assert!(flags.len() > 60, "{} flags", flags.len());
    }

    #[test]
    fn a_help_text_is_no_fragment() {
        for command in built().get_subcommands() {
            let about = command.get_about().map(ToString::to_string).unwrap_or_default();
            let flags = command.get_arguments().map(|arg| (arg.get_id().to_string(), text(arg)));
            for (id, text) in flags.chain([("about".into(), about)]) {
                let first = text.split_whitespace().next().unwrap_or_default();
                let fragment = ["", "Of", "What", "Whether", "How", "Where", "Which", "The", "By"];
                assert!(!fragment.contains(&first), "{} {id}: `{text}`", command.get_name());
                assert!(
                    first.starts_with(|c: char| c.is_uppercase()),
                    "{} {id}: `{text}`",
                    command.get_name()
                );
            }
        }
    }

    /// A line that clap writes in one piece.
    fn unbreakable(line: &str) -> bool {
        line.starts_with("Usage: ") || line.contains("[possible values: rank,")
    }

    #[test]
    fn help_fits_a_terminal_of_80_columns() {
        let mut command = built();
        let names: Vec<String> = command.get_subcommands().map(|c| c.get_name().to_owned()).collect();
        let mut texts = vec![command.render_help().to_string()];
        for name in names {
            let command = command.find_subcommand_mut(&name).unwrap();
            texts.extend([command.render_help().to_string(), command.render_long_help().to_string()]);
        }
        for line in texts.iter().flat_map(|text| text.lines()).filter(|line| !unbreakable(line)) {
            assert!(line.chars().count() <= 80, "{line}");
        }
    }

    /// Clap puts what follows a flattened group under the group's heading.
    #[test]
    fn data_and_output_stand_under_no_group_s_heading() {
        for command in built().get_subcommands() {
            for arg in command.get_arguments() {
                let essential = ["out", "data", "json", "adapter", "model", "prompt"];
                let misplaced =
                    essential.contains(&arg.get_id().as_str()) && arg.get_help_heading().is_some();
                assert!(!misplaced, "{} --{}", command.get_name(), arg.get_id());
            }
        }
    }

    /// Numbers that no flag takes, and one that seeds alone take.
    const EXTREMES: [&str; 9] =
        ["-1", "9223372036854775808", "18446744073709551616", "1e400", "nan", "inf", "", " ", "0x10"];

    /// A parser of numbers refuses what is no number of its range in one line, and no parser panics.
    #[test]
    fn every_number_has_a_range() {
        // The floating-point options of a training run are checked with its other options, the timeout with CODELSI_TIMEOUT.
        const CHECKED_WITH_THE_RUN: [&str; 7] =
            ["lr", "weight-decay", "clip", "dropout", "alpha", "distill", "timeout"];
        const SIGNED: [&str; 2] = ["frequency-penalty", "presence-penalty"];
        let numbers = [
            TypeId::of::<usize>(),
            TypeId::of::<u64>(),
            TypeId::of::<u32>(),
            TypeId::of::<u16>(),
            TypeId::of::<f32>(),
            TypeId::of::<f64>(),
        ];
        const NAME: &str = "codelsi";
        let very_long = "9".repeat(100_000);
        let mut found = 0;
        for command in built().get_subcommands().filter(|command| command.get_name() != "help") {
            for arg in command.get_arguments().filter(|arg| arg.get_action().takes_values()) {
                let Some(name) = arg.get_long() else { continue };
                let is_number = numbers.iter().any(|id| arg.get_value_parser().type_id() == *id);
                found += usize::from(is_number);
                for text in EXTREMES.into_iter().chain([very_long.as_str()]) {
                    let parsed = command.clone().try_get_matches_from([NAME, &format!("--{name}={text}")]);
                    let refused = parsed.is_err_and(|e| {
                        matches!(e.kind(), ErrorKind::ValueValidation | ErrorKind::InvalidValue)
                    });
                    let seed = name == "seed" && text == "9223372036854775808";
                    let negative = SIGNED.contains(&name) && text == "-1";
                    if is_number && !seed && !negative && !CHECKED_WITH_THE_RUN.contains(&name) {
                        let shown: String = text.chars().take(20).collect();
                        assert!(refused, "{} --{name} takes `{shown}`", command.get_name());
                    }
                }
            }
        }
        assert!(found > 50, "{found} numbers");
    }

    #[test]
    fn a_text_may_begin_with_a_hyphen() {
        for line in [
            ["generate", "--model", "m", "--prompt", "- item one"],
            ["generate", "--model", "m", "--prompt", "--json"],
            ["generate", "--prompt=x", "--model=m", "--stop", "-"],
            ["tokenize", "--model", "m", "--text", "-n"],
        ] {
            let parsed = Cli::try_parse_from([&["codelsi"], &line[..]].concat());
            assert!(parsed.is_ok(), "{line:?}: {:?}", parsed.err().map(|e| e.to_string()));
        }
    }

    #[test]
    fn old_spellings_are_accepted() {
        for line in [
            "codelsi pipeline --n 3",
            "codelsi generate --model m --prompt p -n 2",
            "codelsi curate src --out rows.jsonl --tokenizer t --max-tokens 8",
        ] {
            assert!(Cli::try_parse_from(line.split(' ')).is_ok(), "{line}");
        }
    }
}
