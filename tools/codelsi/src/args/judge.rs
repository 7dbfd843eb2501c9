//! The flags that choose a judge.

use crate::args::help;
use clap::Args;
use codelsi_eval::judge::JudgeKind;
use codelsi_experiment::judging::JudgeOptions;
use std::path::PathBuf;

/// The judge and its tools.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Judge")]
pub struct JudgeToolArgs {
    #[arg(long, help = format!("{} [default: by the problems' language; for TypeScript tsc where it is found, else node, else embedded]", help::JUDGE))]
    judge: Option<JudgeKind>,
    /// TypeScript compiler of the tsc judge [default: found on PATH or in .tools]
    #[arg(long, value_name = "FILE")]
    tsc: Option<PathBuf>,
    /// Node.js of the tsc and the node judge [default: found on PATH]
    #[arg(long, value_name = "FILE")]
    node: Option<PathBuf>,
}

impl JudgeToolArgs {
    /// Returns the options of these flags.
    pub fn options(&self) -> JudgeOptions {
        JudgeOptions { judge: self.judge, tsc: self.tsc.clone(), node: self.node.clone() }
    }
}
