//! `codelsi tokenize`: the tokens of a text or of a training row.

use crate::args::{folder, help, number};
use crate::json::print_json;
use clap::Args;
use codelsi_engine::{Error, Result};
use codelsi_experiment::tokenization::{Input, Token, tokenize};
use codelsi_model::template::PromptTemplate;
use codelsi_train::data::Columns;
use serde_json::{Map, Value, json};
use std::io::Read;
use std::path::PathBuf;

/// Show the tokens of a text, or of a training row with its loss mask.
#[derive(Args)]
pub struct TokenizeArgs {
    #[arg(long, help = help::MODEL, value_name = "DIR", value_parser = folder())]
    model: PathBuf,
    /// Text to encode [default: standard input]
    #[arg(long, alias = "prompt", value_name = "TEXT", allow_hyphen_values = true)]
    text: Option<String>,
    /// File whose text is encoded.
    #[arg(long, value_name = "FILE", conflicts_with = "text")]
    file: Option<PathBuf>,
    #[arg(long, help = help::DATA, value_name = "PATH", num_args = 1.., conflicts_with_all = ["text", "file"])]
    #[arg(requires = "row")]
    data: Vec<PathBuf>,
    #[arg(long, help = help::COLUMNS, value_name = "MAP", requires = "data")]
    columns: Option<Columns>,
    /// Row of --data to encode as training encodes it, counted from 0.
    #[arg(long, value_name = "N", requires = "data", value_parser = number::rows_or_none())]
    row: Option<usize>,
    #[arg(long, help = format!("{} [default: the text as it is; paper for a row]", help::TEMPLATE))]
    template: Option<PromptTemplate>,
    #[arg(long, help = help::JSON)]
    json: bool,
}

/// Runs the command.
pub fn run(args: &TokenizeArgs) -> Result<()> {
    let tokens = tokenize(&args.model, &input(args)?)?;
    if !args.json {
        tokens.iter().for_each(|token| println!("{}", line(token)));
    }
    print_json(args.json, &summary(&tokens));
    Ok(())
}

fn input(args: &TokenizeArgs) -> Result<Input> {
    if !args.data.is_empty() {
        return Ok(Input::Row {
            data: args.data.clone(),
            columns: args.columns.clone().unwrap_or_default(),
            row: args.row.unwrap_or(0),
            template: args.template.unwrap_or(PromptTemplate::Paper),
        });
    }
    let text = match (&args.text, &args.file) {
        (Some(text), _) => text.clone(),
        (None, Some(file)) => std::fs::read_to_string(file).map_err(|e| Error::io(file, e))?,
        (None, None) => {
            let mut text = String::new();
            let read = std::io::stdin().read_to_string(&mut text);
            read.map_err(|e| Error::new(format!("standard input: {e}")))?;
            text
        }
    };
    Ok(Input::Text(text, args.template))
}

/// One token: its id, its piece, and a mark where it is in the loss.
fn line(token: &Token) -> String {
    let mark = if token.in_loss == Some(true) { "  loss" } else { "" };
    format!("{:>7}  {}{mark}", token.id, token.piece.escape_debug())
}

fn summary(tokens: &[Token]) -> Value {
    let mut summary = Map::new();
    summary.insert("token_ids".into(), tokens.iter().map(|token| token.id).collect());
    summary.insert("pieces".into(), tokens.iter().map(|token| token.piece.as_str()).collect());
    if tokens.iter().any(|token| token.in_loss.is_some()) {
        summary.insert("in_loss".into(), tokens.iter().map(|token| json!(token.in_loss)).collect());
    }
    Value::Object(summary)
}
