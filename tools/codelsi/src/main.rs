//! `codelsi`: from TypeScript sources to a tuned, measured code model. Without a command it runs the demo.

#![forbid(unsafe_code)]

mod args;
mod commands;

use clap::{Parser, Subcommand};
use codelsi_engine::Result;
use codelsi_experiment::output::Output;
use commands::{
    ablate, bench, curate, evaluate, generate, inspect, judge, merge, mkmodel, pipeline, plan, report, train,
};
use std::process::ExitCode;

/// From TypeScript sources to a tuned, measured code model: one binary, offline. Without a command: the demo.
#[derive(Parser)]
#[command(name = "codelsi", version)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    Pipeline(Box<pipeline::Pipeline>),
    Ablate(Box<ablate::Ablate>),
    Curate(curate::Curate),
    Train(Box<train::Train>),
    Generate(generate::Generate),
    Evaluate(evaluate::Evaluate),
    Judge(judge::Judge),
    Merge(merge::Merge),
    Inspect(inspect::Inspect),
    Plan(plan::Plan),
    Bench(bench::Bench),
    Report(report::Report),
    Mkmodel(mkmodel::Mkmodel),
    /// Train the demo's base model again from its seed.
    #[command(hide = true)]
    RemakeBase(pipeline::RemakeBase),
}

fn main() -> ExitCode {
    // A judged program's process is this binary again; it goes no further than this line.
    codelsi_eval::judge::child_entry();
    match run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("codelsi: {e}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> Result<()> {
    let out = Output::detect();
    match cli.command {
        None => pipeline::demo(&out),
        Some(Command::Pipeline(args)) => pipeline::run(&args, &out),
        Some(Command::Ablate(args)) => ablate::run(&args, &out),
        Some(Command::Curate(args)) => curate::run(&args, &out),
        Some(Command::Train(args)) => train::run(&args, &out),
        Some(Command::Generate(args)) => generate::run(&args, &out),
        Some(Command::Evaluate(args)) => evaluate::run(&args, &out),
        Some(Command::Judge(args)) => judge::run(&args, &out),
        Some(Command::Merge(args)) => merge::run(&args, &out),
        Some(Command::Inspect(args)) => inspect::run(&args, &out),
        Some(Command::Plan(args)) => plan::run(&args, &out),
        Some(Command::Bench(args)) => bench::run(&args, &out),
        Some(Command::Report(args)) => report::run(&args, &out),
        Some(Command::Mkmodel(args)) => mkmodel::run(&args, &out),
        Some(Command::RemakeBase(args)) => pipeline::remake_base(&args, &out),
    }
}
