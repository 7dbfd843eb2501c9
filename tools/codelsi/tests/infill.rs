//! Infilling as a user meets it: rows with holes are curated, mixed into training and measured, and a suffix is given to
//! `generate`.

use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const CODE_LLAMA: [&str; 4] = ["▁<PRE>", "▁<SUF>", "▁<MID>", "▁<EOT>"];
const QWEN: [&str; 4] = ["<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>", "<|endoftext|>"];

const SOURCE: &str = "/** Adds up all the amounts. */
export function total(amounts: number[]): number {
  let sum = 0;
  for (const amount of amounts) {
    sum += amount;
  }
  return sum;
}

/** Says what the total of them is. */
export function say(amounts: number[]): string {
  const sum = total(amounts);
  return 'The total is ' + sum + '.';
}
";

/// A folder to work in, with a tiny random model.
struct Desk(tempfile::TempDir);

impl Desk {
    fn new() -> Desk {
        let desk = Desk(tempfile::tempdir().unwrap());
        fs::create_dir(desk.path("src")).unwrap();
        fs::write(desk.path("src/a.ts"), SOURCE).unwrap();
        desk.succeed("mkmodel --shape tiny --out model");
        desk
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Gives the last ids of the model's vocabulary to markers; the end marker has the id `end`.
    fn add_markers(&self, markers: [&str; 4], end: u64) {
        let file = self.path("model/tokenizer.json");
        let mut json: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
        let size = json["model"]["vocab"].as_object().unwrap().len() as u64;
        let ids = [size - 3, size - 2, size - 1, end];
        let vocab = json["model"]["vocab"].as_object_mut().unwrap();
        vocab.retain(|_, id| !ids.contains(&id.as_u64().unwrap()));
        vocab.extend(markers.iter().zip(ids).map(|(marker, id)| (marker.to_string(), id.into())));
        let kept = vocab.clone();
        let is_whole = |merge: &Value| {
            let (left, right) = merge.as_str().unwrap().split_once(' ').unwrap();
            [left, right, &format!("{left}{right}")].iter().all(|piece| kept.contains_key(*piece))
        };
        json["model"]["merges"].as_array_mut().unwrap().retain(is_whole);
        fs::write(&file, json.to_string()).unwrap();
    }

    fn run(&self, words: &str, more: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_codelsi"));
        command.args(words.split_whitespace()).args(more).current_dir(self.0.path()).output().unwrap()
    }

    /// Runs a command that must succeed, and returns its standard error.
    fn succeed(&self, words: &str) -> String {
        let output = self.run(words, &[]);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{words}: {stderr}");
        stderr
    }

    /// Fills a hole and returns the completion.
    fn fill(&self, flags: &str) -> Value {
        let words = format!("generate --model model --device cpu --json --temperature 0 {flags}");
        let output = self.run(&words, &["--prompt", "f(", "--suffix", ");\n"]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let all: Value = serde_json::from_slice(&output.stdout).unwrap();
        all["completions"][0].clone()
    }

    /// The last line of a command that must fail.
    fn refusal(&self, words: &str, more: &[&str], status: i32) -> String {
        let output = self.run(words, more);
        let text = String::from_utf8_lossy(&output.stderr).trim().to_string();
        assert_eq!(output.status.code(), Some(status), "{words}: {text}");
        text.lines().last().unwrap().to_string()
    }

    fn rows(&self, name: &str) -> Vec<Value> {
        let text = fs::read_to_string(self.path(name)).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

fn lines_of(path: &Path) -> String {
    fs::read_to_string(path).unwrap()
}

#[test]
fn generation_of_infilled_text_stops_at_the_end_marker_of_the_family() {
    for markers in [CODE_LLAMA, QWEN] {
        let desk = Desk::new();
        desk.add_markers(markers, 300);
        let free = desk.fill("--max-tokens 8");
        assert_eq!(free["finish_reason"], "length");
        let ids: Vec<u64> = serde_json::from_value(free["token_ids"].clone()).unwrap();
        // The model's weights do not know names: the marker now has the id that the model chooses third.
        let end = ids[2];
        assert!(end > 10 && !ids[..2].contains(&end), "{ids:?}");
        desk.succeed("mkmodel --shape tiny --out model");
        desk.add_markers(markers, end);
        let stopped = desk.fill("--max-tokens 8");
        assert_eq!((&stopped["finish_reason"], &stopped["token_ids"]), (&json!("stop"), &json!(ids[..3])));
        let text = stopped["text"].as_str().unwrap();
        assert!(free["text"].as_str().unwrap().starts_with(text) && !text.contains(markers[3]), "{text:?}");
        let on = desk.fill("--max-tokens 8 --ignore-eos");
        assert_eq!(on["token_ids"].as_array().unwrap().len(), 8);
    }
}

#[test]
fn holes_are_curated_learned_among_instructions_and_measured() {
    let desk = Desk::new();
    desk.add_markers(CODE_LLAMA, 300);
    desk.succeed("curate src --styles write,infill --tokenizer model --out rows.jsonl");
    let rows = desk.rows("rows.jsonl");
    let holes: Vec<&Value> = rows.iter().filter(|row| row["style"] == "infill").collect();
    assert_eq!((rows.len(), holes.len()), (4, 2), "{rows:?}");
    for row in &holes {
        let part = |key: &str| row[key].as_str().unwrap().to_string();
        assert_eq!(part("prefix") + &part("output") + &part("suffix"), SOURCE);
        assert!(row.get("instruction").is_none() && row["path"] == "a.ts", "{row}");
    }
    let train = "train --model model --data rows.jsonl --out tuned --rank 16 --alpha 64 --dropout 0 --lr 1e-2 --warmup 4 --seq 512 --batch 1 \
                 --validation 0 --template plain --device cpu --max-steps 60 --epochs 60";
    let stderr = desk.succeed(train);
    assert!(
        stderr.contains("rows: 4 to train on, 0 to validate") && stderr.contains("; 2 to infill"),
        "{stderr}"
    );

    let evaluate = "evaluate --model model --adapter tuned --infill rows.jsonl --out run -n 1 --temperature 0 \
                    --max-tokens 64 --device cpu --json";
    let output = desk.run(evaluate, &[]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    assert!(stderr.contains("rows.jsonl: 2 rows without a hole to fill are left out"), "{stderr}");
    let result: Value = serde_json::from_slice(&output.stdout).unwrap();
    let [base, tuned] = &result["infilling"].as_array().unwrap()[..] else { panic!("{result}") };
    let value = |model: &Value, metric: &str| model[metric]["value"].as_f64().unwrap();
    assert_eq!((&base["name"], &tuned["name"], &tuned["rows"]), (&json!("base"), &json!("tuned"), &json!(2)));
    assert_eq!(value(base, "exact_match"), 0.0);
    assert!(value(tuned, "edit_similarity") > value(base, "edit_similarity"), "{result}");
    assert_eq!(result["infilling_differences"].as_array().unwrap().len(), 2, "{result}");
    assert_eq!(result["models"], json!([]));
    for report in ["report.html", "report.md"] {
        let text = lines_of(&desk.path("run").join(report));
        assert!(text.contains("Infilling, held out") && text.contains("edit similarity"), "{report}");
    }
}

#[test]
fn a_model_without_markers_refuses_to_infill_in_one_line() {
    let desk = Desk::new();
    let model = "--model model --device cpu";
    let hole = ["--prompt", "a", "--suffix", "b"];
    let line = desk.refusal(&format!("generate {model}"), &hole, 1);
    assert!(line.contains("the model does not infill: its tokenizer has neither ▁<PRE>"), "{line}");
    fs::write(desk.path("rows.jsonl"), "{\"prefix\":\"a\",\"suffix\":\"b\",\"output\":\"c\"}\n").unwrap();
    let train = format!("train {model} --data rows.jsonl --out tuned --validation 0 --seq 64");
    let line = desk.refusal(&train, &[], 1);
    assert!(line.contains("row 0") && line.contains("leave out rows with `prefix` and `suffix`"), "{line}");
    let line = desk.refusal(&format!("evaluate {model} --infill rows.jsonl --out run"), &[], 1);
    assert!(line.contains("base: the model does not infill"), "{line}");
    fs::write(desk.path("rows.jsonl"), "{\"instruction\":\"a\",\"output\":\"c\"}\n").unwrap();
    let line = desk.refusal(&format!("evaluate {model} --infill rows.jsonl --out run"), &[], 1);
    assert!(line.contains("rows.jsonl: has no row with `prefix`"), "{line}");
    for flags in ["--template plain --prompt a --suffix b", "--prompt-ids 1,2 --suffix b", "--suffix b"] {
        desk.refusal(&format!("generate {model} {flags}"), &[], 2);
    }
    desk.refusal(&format!("evaluate {model} --out run"), &[], 2);
}
