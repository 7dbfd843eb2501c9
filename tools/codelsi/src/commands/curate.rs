//! `codelsi curate`: from sources to instruction rows.

use crate::args::{PlaceArgs, RankArgs};
use clap::Args;
use codelsi_curate::teacher::TeacherSettings;
use codelsi_curate::{CurateOptions, InstructionStyle, Language, RowLimits};
use codelsi_engine::{Error, Result};
use codelsi_experiment::curation::{self, RESEMBLANCE, card_path};
use codelsi_experiment::output::Output;
use codelsi_experiment::teacher::TeacherOptions;
use serde_json::to_value;
use std::path::PathBuf;

/// Make instruction rows from sources.
#[derive(Args)]
pub struct Curate {
    /// Folders of sources, or .jsonl / .jsonl.gz files with `path` and `content`.
    #[arg(required = true)]
    paths: Vec<PathBuf>,
    /// The rows: JSON Lines of {"instruction": …, "output": …}, with their provenance.
    #[arg(long)]
    out: PathBuf,
    /// Language whose files count, repeated for more: typescript, javascript, python, java, cpp, rust.
    #[arg(long = "language", default_value = "typescript")]
    languages: Vec<Language>,
    /// Problem files that no row may repeat.
    #[arg(long)]
    against: Vec<PathBuf>,
    /// Drop a row that resembles an earlier one by this share of their token 5-grams or more; 0 keeps all but copies.
    #[arg(long, default_value_t = RESEMBLANCE)]
    resemblance: f64,
    /// A tokenizer.json or its folder: rows are measured in its tokens.
    #[arg(long)]
    tokenizer: Option<PathBuf>,
    /// Tokens of an instruction and its answer at most [default: 4096]
    #[arg(long, requires = "tokenizer")]
    max_tokens: Option<usize>,
    /// Ways to ask, of: write, complete, explain, refactor, fix, test; an item gives a row of each where it can.
    #[arg(long, value_delimiter = ',', default_value = "write")]
    styles: Vec<InstructionStyle>,
    /// Tell in each instruction for code what the code uses of its file: imports, and signatures of what it calls.
    #[arg(long)]
    context: bool,
    /// Decides what is drawn: where code is cut, which bug it gets, what a teacher is asked.
    #[arg(long, default_value_t = 42)]
    seed: u64,
    #[command(flatten)]
    teacher: TeacherArgs,
    /// End with one JSON object on stdout.
    #[arg(long)]
    json: bool,
}

/// Who writes the instructions, if not we.
#[derive(Args)]
pub struct TeacherArgs {
    /// A model that writes the instructions: a server that speaks OpenAI's protocol, as https://host/v1, which is sent the
    /// code that is kept; or a model folder. Its answers are kept in OUT.teacher.jsonl beside the rows; a run that was cut
    /// short goes on.
    #[arg(long)]
    teacher: Option<String>,
    /// The server's name for that model.
    #[arg(long, requires = "teacher")]
    teacher_model: Option<String>,
    /// The environment variable that holds the server's key [default: CODELSI_API_KEY or OPENAI_API_KEY]
    #[arg(long, requires = "teacher")]
    teacher_key_env: Option<String>,
    /// Rounds in which the teacher makes another, harder task of each, and its solution.
    #[arg(long, requires = "teacher", default_value_t = 0)]
    evolve: usize,
    #[command(flatten)]
    place: PlaceArgs,
    #[command(flatten)]
    ranks: RankArgs,
}

impl TeacherArgs {
    fn options(&self) -> Option<TeacherOptions> {
        self.teacher.clone().map(|teacher| TeacherOptions {
            teacher,
            model: self.teacher_model.clone(),
            key_env: self.teacher_key_env.clone(),
            placement: self.ranks.placement(self.place),
        })
    }
}

/// Runs the command.
pub fn run(args: &Curate, out: &Output) -> Result<()> {
    if !(0.0..=1.0).contains(&args.resemblance) {
        return Err(Error::new(format!("--resemblance is a share from 0 to 1, not {}", args.resemblance)));
    }
    let limits = RowLimits::default();
    let mut teacher = args.teacher.options().map(|teacher| teacher.open()).transpose()?;
    let lessons =
        teacher.as_ref().map(|t| TeacherSettings { teacher: t.name().into(), evolve: args.teacher.evolve });
    let options = CurateOptions {
        paths: args.paths.clone(),
        languages: args.languages.clone(),
        against: args.against.clone(),
        near_duplicate_threshold: (args.resemblance > 0.0).then_some(args.resemblance),
        limits: RowLimits { max_tokens: args.max_tokens.unwrap_or(limits.max_tokens), ..limits },
        tokenizer: args.tokenizer.clone(),
        styles: args.styles.clone(),
        context: args.context,
        seed: args.seed,
        teacher: lessons,
    };
    let (mut rows, mut counts) = curation::offline(&options, out)?;
    if let Some(teacher) = &mut teacher {
        rows = curation::taught(&options, rows, &mut counts, &mut **teacher, &args.out, out)?;
    }
    curation::save(&options, &rows, &counts, &args.out)?;
    if !args.json {
        println!("{} of {} kept in {}", counts.kept, counts.read, args.out.display());
        println!("card: {}", card_path(&args.out).display());
        for (reason, n) in &counts.dropped {
            println!("  dropped {n:>6}  {reason}");
        }
        for repeat in &counts.repeats {
            let (problem, sign) = (&repeat.matched.problem, repeat.matched.reason.name());
            println!("  {}: {} repeats {problem} by its {sign}", repeat.path, repeat.name);
        }
    }
    out.json(args.json, &to_value(&counts).expect("plain counts"));
    Ok(())
}
