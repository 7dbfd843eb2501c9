//! Training as a user meets it: rows in the forms that people have, options that contradict each other, and adapters
//! that are damaged.

use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const BASE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../demo/assets/base");

/// A folder with a file of rows, and a number for the next run.
struct Desk {
    folder: tempfile::TempDir,
    runs: usize,
}

impl Desk {
    fn new() -> Desk {
        Desk { folder: tempfile::tempdir().unwrap(), runs: 0 }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Trains on the file `data.jsonl` with these flags. Returns the folder of the adapter too.
    fn train(&mut self, flags: &str) -> (Output, PathBuf) {
        self.runs += 1;
        let out = self.path(&format!("run {}", self.runs));
        let fixed = "--validation 0 --seq 128 --template plain --max-steps 1 --device cpu --json";
        let mut command = Command::new(env!("CARGO_BIN_EXE_codelsi"));
        command.arg("train").args(fixed.split(' ')).args(flags.split_whitespace());
        command.args(["--model", BASE]).arg("--data").arg(self.path("data.jsonl")).arg("--out").arg(&out);
        (command.output().unwrap(), out)
    }

    /// Trains on one row and returns the run's result and what it printed before.
    fn train_on(&mut self, row: Value) -> (Value, String) {
        fs::write(self.path("data.jsonl"), row.to_string()).unwrap();
        let (output, _) = self.train("");
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{stderr}");
        (serde_json::from_slice(&output.stdout).unwrap(), stderr)
    }
}

/// The last line of a command that must fail with this exit status.
fn refusal(output: &Output, status: i32) -> String {
    let text = String::from_utf8_lossy(&output.stderr).trim().to_string();
    assert_eq!(output.status.code(), Some(status), "{text}");
    text.lines().last().unwrap().to_string()
}

#[test]
fn an_input_is_a_part_of_the_prompt_and_other_keys_are_printed() {
    let mut desk = Desk::new();
    let (without, _) =
        desk.train_on(json!({"instruction": "Sort them.", "input": "", "output": "return 1;"}));
    let (with, stderr) = desk.train_on(
        json!({"instruction": "Sort them.", "input": "3 and 2 and 1", "output": "return 1;", "source": "x"}),
    );
    let (joined, _) =
        desk.train_on(json!({"prompt": "Sort them.\n\n3 and 2 and 1", "completion": "return 1;"}));
    assert!(with["tokens"].as_u64() > without["tokens"].as_u64(), "{with} {without}");
    assert_eq!((&with["tokens"], &with["first_loss"]), (&joined["tokens"], &joined["first_loss"]));
    assert!(stderr.contains("keys that are not used (rows with them): `source` (1)"), "{stderr}");
    assert!(stderr.contains("note: the learning rate ends in its warm-up of 10 steps"), "{stderr}");
    assert_eq!(with["rows"]["unused_keys"], json!({"source": 1}));
}

#[test]
fn options_out_of_range_or_overruled_are_refused() {
    let mut desk = Desk::new();
    fs::write(desk.path("data.jsonl"), "{\"instruction\":\"a\",\"output\":\"return 1;\"}\n").unwrap();
    for (flags, expected) in [
        ("--alpha 0", "--alpha is 0.0, not a number above 0"),
        ("--alpha=-4", "--alpha is -4.0"),
        ("--clip nan", "--clip is NaN, not a number above 0"),
        ("--clip=-1", "--clip is -1.0"),
        ("--weight-decay nan", "--weight-decay is NaN, not a number, at least 0"),
        ("--weight-decay=-0.5", "--weight-decay is -0.5"),
        ("--lr inf", "--lr is inf"),
        ("--dropout 1", "--dropout is 1.0, not at least 0 and below 1"),
    ] {
        let (output, out) = desk.train(flags);
        let line = refusal(&output, 1);
        assert!(line.contains(expected) && !out.exists(), "{flags}: {line}");
    }
    for flags in [
        "--rank 0",
        "--full --rank 4",
        "--full --alpha 4",
        "--full --targets q_proj",
        "--bottleneck 4 --targets q_proj",
    ] {
        refusal(&desk.train(flags).0, 2);
    }
    let (output, small) = desk.train("--rank 4 --alpha 8 --targets q_proj,v_proj");
    assert!(output.status.success());
    for (flag, expected) in [
        ("--rank 8", "holds --rank 4, which does not go on as --rank 8"),
        ("--alpha 9", "holds --alpha 8, which does not go on as --alpha 9"),
        ("--targets k_proj", "holds --targets q_proj,v_proj, which does not go on as --targets k_proj"),
        ("--dora", "holds LoRA, which does not go on as DoRA"),
    ] {
        fs::rename(&small, desk.path("small")).ok();
        let line = refusal(&desk.train(&format!("{flag} --from {}", desk.path("small").display())).0, 1);
        assert!(line.contains(expected), "{flag}: {line}");
    }
    for flags in ["", "--rank 4 --alpha 8"] {
        let (output, out) = desk.train(&format!("{flags} --from {}", desk.path("small").display()));
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let config: Value =
            serde_json::from_slice(&fs::read(out.join("adapter_config.json")).unwrap()).unwrap();
        assert_eq!((&config["r"], &config["target_modules"]), (&json!(4), &json!(["q_proj", "v_proj"])));
    }
}

/// Runs a command on the base with an adapter.
fn with_adapter(words: &str, adapter: &Path, more: &[&Path]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_codelsi"));
    command.args(words.split(' ')).arg("--adapter").arg(adapter).args(more).output().unwrap()
}

#[test]
fn a_damaged_adapter_is_named_by_its_tensor_and_a_merge_leaves_nothing() {
    let mut desk = Desk::new();
    fs::write(desk.path("data.jsonl"), "{\"instruction\":\"a\",\"output\":\"return 1;\"}\n").unwrap();
    let (output, adapter) = desk.train("--rank 2");
    assert!(output.status.success());
    let check = format!("inspect {BASE} --check");
    assert!(with_adapter(&check, &adapter, &[]).status.success());
    let file = adapter.join("adapter_model.safetensors");
    let mut bytes = fs::read(&file).unwrap();
    let end = bytes.len();
    bytes[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
    fs::write(&file, bytes).unwrap();

    let merged = desk.path("merged");
    let merge = format!("merge --device cpu --model {BASE} --out {}", merged.display());
    let generate = format!("generate --device cpu --prompt a --max-tokens 2 --model {BASE}");
    for words in [&check, &merge, &generate] {
        let line = refusal(&with_adapter(words, &adapter, &[]), 1);
        assert!(line.contains("v_proj.lora_B.weight`[") && line.contains("is NaN"), "{words}: {line}");
    }
    let left: Vec<_> = fs::read_dir(desk.folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().contains("merged")), "{left:?}");
}

#[test]
fn a_folder_with_other_columns_trains_on_a_share_and_says_what_it_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    fs::create_dir(path("all")).unwrap();
    let row = |i: usize| json!({"ask": format!("{i} and"), "reply": if i == 3 { " " } else { "return 1;" }, "id": i});
    let rows = |numbers: std::ops::Range<usize>| numbers.map(|i| format!("{}\n", row(i))).collect::<String>();
    fs::write(path("all/b.jsonl"), rows(0..12)).unwrap();
    fs::write(path("all/notes.txt"), "x").unwrap();
    fs::write(path("more.jsonl"), rows(12..21)).unwrap();
    let train = |out: &str, flags: &str| {
        let fixed =
            "train --seq 128 --template plain --max-steps 1 --device cpu --json --data all more.jsonl";
        let mut command = Command::new(env!("CARGO_BIN_EXE_codelsi"));
        command.args(fixed.split(' ')).args(["--model", BASE, "--out", out]).args(flags.split_whitespace());
        command.current_dir(folder.path()).output().unwrap()
    };
    let map = "--columns instruction=ask,output=reply";
    let output = train("1", &format!("{map} --validation-share 0.25"));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    for line in [
        "rows: 15 to train on, 5 to validate",
        "  read all/b.jsonl: 12 rows, 1 dropped as without an answer",
        "  read more.jsonl: 9 rows",
        "not read, for they are no files of rows: `all/notes.txt`",
        "keys that are not used (rows with them): `id` (21)",
    ] {
        assert!(stderr.contains(line), "{line} in {stderr}");
    }
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (&report["rows"]["without_answer"], &report["rows"]["files"][0]["without_answer"]),
        (&json!(1), &json!(1))
    );
    let recipe: Value = serde_json::from_slice(&fs::read(path("1/recipe.json")).unwrap()).unwrap();
    assert_eq!(recipe["data"], json!(["all", "more.jsonl"]));
    assert_eq!(
        (&recipe["validation_share"], &recipe["columns"]),
        (&json!(0.25), &json!("instruction=ask,output=reply"))
    );

    // The seed draws the same rows again; another share is another run.
    assert!(train("2", &format!("{map} --validation-share 0.25")).status.success());
    let order = |run: &str| fs::read(path(run).join("order.jsonl")).unwrap();
    assert_eq!(order("1"), order("2"));
    let line = refusal(&train("1", &format!("{map} --validation-share 0.5 --resume")), 1);
    assert!(line.contains("`validation_share` was 0.25 and is 0.5 now"), "{line}");

    let line = refusal(&train("3", "--columns instruction=ask,output=answer"), 1);
    assert!(
        line.contains("b.jsonl: no column `answer` for `output`; the columns are `ask`, `id`, `reply`"),
        "{line}"
    );
    for share in ["0", "1"] {
        let line = refusal(&train("3", &format!("{map} --validation-share {share}")), 1);
        assert!(line.contains("above 0 and below 1"), "{line}");
    }
    refusal(&train("3", &format!("{map} --validation-share 0.5 --validation 4")), 2);
}
