//! `codelsi curate`: from sources to instruction rows.

use crate::model_args::PlaceArgs;
use crate::output::{Bar, Output};
use crate::ranks::RankArgs;
use crate::server::is_address;
use crate::teacher::{LocalTeacher, RemoteTeacher};
use clap::Args;
use codelsi_curate::teacher::{Cache, Lessons, Teacher, teach};
use codelsi_curate::{self as curate, Counts, Language, Limits, Options, Row, Style};
use codelsi_engine::files::write_atomic;
use codelsi_engine::{Error, Result};
use serde_json::to_value;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};

/// From this resemblance on a row is a repetition.
pub const RESEMBLANCE: f64 = 0.85;

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
    styles: Vec<Style>,
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
    /// The teacher that is asked for.
    ///
    /// # Errors
    /// What the server's address or the model's folder lacks.
    fn open(&self) -> Result<Option<Box<dyn Teacher>>> {
        let Some(teacher) = &self.teacher else { return Ok(None) };
        if !is_address(teacher) {
            if self.teacher_model.is_some() || self.teacher_key_env.is_some() {
                return Err(Error::new(format!(
                    "--teacher-model and --teacher-key-env are for a server, and `{teacher}` is no address; give one as \
                     https://host/v1"
                )));
            }
            self.ranks.in_one_process()?;
            return Ok(Some(Box::new(LocalTeacher::open(Path::new(teacher), self.place, self.ranks)?)));
        }
        let Some(model) = &self.teacher_model else {
            return Err(Error::new("a server has many models: name the teacher with --teacher-model"));
        };
        let key = self.teacher_key_env.as_deref();
        Ok(Some(Box::new(RemoteTeacher::new(teacher, model, key)?)))
    }
}

/// Runs the command.
pub fn run(args: &Curate, out: &Output) -> Result<()> {
    if !(0.0..=1.0).contains(&args.resemblance) {
        return Err(Error::new(format!("--resemblance is a share from 0 to 1, not {}", args.resemblance)));
    }
    let limits = Limits::default();
    let mut teacher = args.teacher.open()?;
    let lessons = teacher.as_ref().map(|t| Lessons { teacher: t.name().into(), evolve: args.teacher.evolve });
    let options = Options {
        paths: args.paths.clone(),
        languages: args.languages.clone(),
        against: args.against.clone(),
        resemblance: (args.resemblance > 0.0).then_some(args.resemblance),
        limits: Limits { max_tokens: args.max_tokens.unwrap_or(limits.max_tokens), ..limits },
        tokenizer: args.tokenizer.clone(),
        styles: args.styles.clone(),
        context: args.context,
        seed: args.seed,
        lessons,
    };
    let (mut rows, mut counts) = offline(&options, out)?;
    if let Some(teacher) = &mut teacher {
        rows = taught(&options, rows, &mut counts, &mut **teacher, &args.out, out)?;
    }
    save(&options, &rows, &counts, &args.out)?;
    if !args.json {
        println!("{} of {} kept in {}", counts.kept, counts.read, args.out.display());
        println!("card: {}", card_beside(&args.out).display());
        for (reason, n) in &counts.dropped {
            println!("  dropped {n:>6}  {reason}");
        }
        for repeat in &counts.repeats {
            let (problem, sign) = (&repeat.of.problem, repeat.of.sign.told());
            println!("  {}: {} repeats {problem} by its {sign}", repeat.path, repeat.name);
        }
    }
    out.json(args.json, &to_value(&counts).expect("plain counts"));
    Ok(())
}

/// Curates without a teacher and writes the rows and their card; the pipeline does the same.
pub fn curate(options: &Options, to: &Path, out: &Output) -> Result<Counts> {
    let (rows, counts) = offline(options, out)?;
    save(options, &rows, &counts, to)?;
    Ok(counts)
}

/// The rows that need no teacher, with a bar.
fn offline(options: &Options, out: &Output) -> Result<(Vec<Row>, Counts)> {
    let bar = Mutex::new(None);
    let found = curate::run(options, &|done, total| {
        locked(&bar).get_or_insert_with(|| out.bar("curate", total)).at(done, "");
    })?;
    locked(&bar).iter().for_each(Bar::finish);
    Ok(found)
}

/// The rows as a teacher makes them, with a bar for each round.
fn taught(
    options: &Options,
    rows: Vec<Row>,
    counts: &mut Counts,
    teacher: &mut dyn Teacher,
    to: &Path,
    out: &Output,
) -> Result<Vec<Row>> {
    let mut cache = Cache::open(&to.with_extension("teacher.jsonl"))?;
    let bar: Mutex<Option<(Bar, usize)>> = Mutex::new(None);
    let rows = teach(options, rows, counts, teacher, &mut cache, &|new, total| {
        let mut bar = locked(&bar);
        let (shown, done) = bar.get_or_insert_with(|| (out.bar("teach", total), 0));
        *done += new;
        shown.at(*done, "");
        if *done == total {
            shown.finish();
            *bar = None;
        }
    });
    locked(&bar).iter().for_each(|(bar, _)| bar.finish());
    rows
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|e| e.into_inner())
}

fn save(options: &Options, rows: &[Row], counts: &Counts, to: &Path) -> Result<()> {
    curate::write(to, rows)?;
    write_atomic(card_beside(to), curate::card(options, rows, counts).as_bytes())
}

/// Where the card of a set of rows is.
fn card_beside(rows: &Path) -> PathBuf {
    rows.with_extension("md")
}
