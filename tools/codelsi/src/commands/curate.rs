//! `codelsi curate`: from sources to instruction rows.

use crate::args::{DeviceArgs, RankArgs, help, number};
use crate::json::print_json;
use clap::Args;
use codelsi_curate::teacher::TeacherSettings;
use codelsi_curate::{CurateOptions, InstructionStyle, Language, RowLimits};
use codelsi_engine::{Result, RunLock};
use codelsi_experiment::curation::{self, NEAR_DUPLICATE_THRESHOLD, card_path};
use codelsi_experiment::output::Output;
use codelsi_experiment::teacher::TeacherOptions;
use serde_json::to_value;
use std::path::PathBuf;

/// Make instruction rows (training data) from source code.
#[derive(Args)]
pub struct CurateArgs {
    /// Sources: folders, or .jsonl / .jsonl.gz files whose lines have `path` and `content`.
    #[arg(value_name = "PATH", required = true)]
    paths: Vec<PathBuf>,
    /// File for the rows: JSON Lines of {"instruction": .., "output": ..} with their provenance; a card is written beside it.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Language to read: typescript, javascript, python, java, cpp or rust; repeat the flag for more.
    #[arg(long = "language", default_value = "typescript")]
    languages: Vec<Language>,
    #[arg(long, help = help::AGAINST, value_name = "FILE")]
    against: Vec<PathBuf>,
    /// Drop a row that shares this fraction of its token 5-grams (Jaccard) or more with an earlier one, from 0 to 1; 0 drops
    /// only copies.
    #[arg(long, value_name = "FRACTION", default_value_t = NEAR_DUPLICATE_THRESHOLD)]
    #[arg(value_parser = number::fraction)]
    resemblance: f64,
    /// File tokenizer.json, or its folder: rows are measured in its tokens.
    #[arg(long, value_name = "PATH")]
    tokenizer: Option<PathBuf>,
    /// Maximum tokens per row, instruction and answer together [default: 4096]
    #[arg(long, alias = "max-tokens", value_name = "N", requires = "tokenizer", value_parser = number::tokens())]
    max_row_tokens: Option<usize>,
    /// File of further rules of secrets, in the format of gitleaks' configuration (TOML); a row with a secret is dropped.
    #[arg(long, value_name = "FILE")]
    secret_rules: Option<PathBuf>,
    /// Instruction styles, separated by commas: write, complete, explain, refactor, fix, test, continue, infill; an item gives a
    /// row of each where it can. Rows of infill are {prefix, suffix, output}: a hole in a function and the file around it.
    #[arg(long, value_name = "STYLE", value_delimiter = ',', default_value = "write")]
    styles: Vec<InstructionStyle>,
    /// Add to an instruction the imports and the signatures that its code uses.
    #[arg(long)]
    context: bool,
    #[arg(long, help = help::SEED, default_value_t = 42)]
    seed: u64,
    #[arg(long, help = help::JSON)]
    json: bool,
    #[command(flatten)]
    teacher: TeacherArgs,
}

/// The model that writes the instructions.
#[derive(Args)]
#[command(next_help_heading = "Teacher")]
pub struct TeacherArgs {
    /// Model that writes the instructions: the URL of a server with OpenAI's API, as https://host/v1 (the kept code is sent
    /// to it), or a model folder. Its answers are kept beside the rows in *.teacher.jsonl; an interrupted run goes on.
    #[arg(long, value_name = "URL|DIR")]
    teacher: Option<String>,
    /// Name of the model on the server.
    #[arg(long, value_name = "NAME", requires = "teacher")]
    teacher_model: Option<String>,
    /// Environment variable that holds the server's key [default: CODELSI_API_KEY or OPENAI_API_KEY]
    #[arg(long, value_name = "VARIABLE", requires = "teacher")]
    teacher_key_env: Option<String>,
    /// Rounds in which the teacher makes a harder task of each row, with its solution (Evol-Instruct).
    #[arg(long, value_name = "ROUNDS", requires = "teacher", default_value_t = 0)]
    #[arg(value_parser = number::rounds_or_none())]
    evolve: usize,
    #[command(flatten)]
    device: DeviceArgs,
    #[command(flatten)]
    ranks: RankArgs,
}

impl TeacherArgs {
    fn options(&self) -> Option<TeacherOptions> {
        self.teacher.clone().map(|teacher| TeacherOptions {
            address_or_folder: teacher,
            model: self.teacher_model.clone(),
            key_env: self.teacher_key_env.clone(),
            placement: self.ranks.placement(self.device),
        })
    }
}

/// Runs the command.
pub fn run(args: &CurateArgs, out: &Output) -> Result<()> {
    let _lock = RunLock::beside(&args.out)?;
    let limits = RowLimits::default();
    let mut teacher = args.teacher.options().map(|teacher| teacher.open()).transpose()?;
    let settings =
        teacher.as_ref().map(|t| TeacherSettings { teacher: t.name().into(), evolve: args.teacher.evolve });
    let options = CurateOptions {
        paths: args.paths.clone(),
        languages: args.languages.clone(),
        against: args.against.clone(),
        near_duplicate_threshold: (args.resemblance > 0.0).then_some(args.resemblance),
        limits: RowLimits { max_tokens: args.max_row_tokens.unwrap_or(limits.max_tokens), ..limits },
        tokenizer: args.tokenizer.clone(),
        secret_rules: args.secret_rules.clone(),
        styles: args.styles.clone(),
        context: args.context,
        seed: args.seed,
        teacher: settings,
    };
    let (mut rows, mut counts) = curation::curate_rows(&options, out)?;
    if let Some(teacher) = &mut teacher {
        rows = curation::rewrite_rows(&options, rows, &mut counts, &mut **teacher, &args.out, out)?;
    }
    curation::save(&options, &rows, &counts, &args.out)?;
    if !args.json {
        println!("{} of {} kept in {}", counts.kept, counts.read, args.out.display());
        println!("card: {}", card_path(&args.out).display());
        for (reason, n) in &counts.dropped {
            println!("  dropped {n:>6}  {reason}");
        }
        for file in &counts.unread {
            println!("  {}: not read, {}", file.path, file.reason);
        }
        for secret in &counts.secrets {
            println!("  {}:{}: {} holds a secret ({})", secret.path, secret.line, secret.name, secret.rule);
        }
        for rule in &counts.ignored_secret_rules {
            println!("  secret rule not taken: {rule}");
        }
        for repeat in &counts.repeats {
            let (problem, sign) = (&repeat.matched.problem, repeat.matched.reason.name());
            println!("  {}: {} repeats {problem} by its {sign}", repeat.path, repeat.name);
        }
    }
    print_json(args.json, &to_value(&counts).expect("plain counts"));
    Ok(())
}
