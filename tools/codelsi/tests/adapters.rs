//! Adapters and models where people have them: in the Hugging Face cache, with settings of PEFT's, damaged.

use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A folder with a tiny model and, in `adapter`, an adapter that was trained on it for two steps.
struct Desk {
    folder: tempfile::TempDir,
}

impl Desk {
    fn new(flags: &[&str]) -> Desk {
        let desk = Desk { folder: tempfile::tempdir().unwrap() };
        let made = desk.run(&["mkmodel", "--shape", "tiny", "--out", "model"]);
        assert!(made.status.success(), "{}", text(&made));
        let row = |i: usize| json!({"instruction": format!("write f{i}"), "output": format!("return {i};")});
        let rows: String = (0..12).map(|i| format!("{}\n", row(i))).collect();
        fs::write(desk.path("data.jsonl"), rows).unwrap();
        let plain = "train --model model --data data.jsonl --out adapter --rank 2 --max-steps 2 --batch 2 --seq 128 \
                     --template plain --validation 0 --device cpu --lr 0.01";
        let args: Vec<&str> = plain.split_whitespace().chain(flags.iter().copied()).collect();
        let trained = desk.run(&args);
        assert!(trained.status.success(), "{}", text(&trained));
        desk
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_codelsi"));
        command.current_dir(self.folder.path()).env("HF_HOME", self.path("hf")).env_remove("HF_HUB_CACHE");
        command.env_remove("HUGGINGFACE_HUB_CACHE");
        command
    }

    fn run(&self, args: &[&str]) -> Output {
        self.command().args(args).output().unwrap()
    }

    /// Runs a command that must fail with exit status 1 and one line, which it returns.
    fn refused(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert_eq!(output.status.code(), Some(1), "{args:?}: {}", text(&output));
        text(&output).lines().last().unwrap_or_default().to_owned()
    }

    /// Puts a folder into the cache as a snapshot of links to blobs.
    fn cache(&self, folder: &str, repository: &str) {
        let repository = self.path("hf/hub").join(format!("models--{}", repository.replace('/', "--")));
        let (blobs, snapshot) = (repository.join("blobs"), repository.join("snapshots/0123abcd"));
        for folder in [&blobs, &snapshot, &repository.join("refs")] {
            fs::create_dir_all(folder).unwrap();
        }
        fs::write(repository.join("refs/main"), "0123abcd").unwrap();
        for entry in fs::read_dir(self.path(folder)).unwrap().map(Result::unwrap) {
            if entry.path().is_file() {
                fs::copy(entry.path(), blobs.join(entry.file_name())).unwrap();
                let link = Path::new("../../blobs").join(entry.file_name());
                std::os::unix::fs::symlink(link, snapshot.join(entry.file_name())).unwrap();
            }
        }
    }
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The tokens of a greedy completion.
fn tokens(desk: &Desk, args: &[&str]) -> Value {
    let plain = ["generate", "--prompt-ids", "1,40,7", "--max-tokens", "8", "--temperature", "0", "--json"];
    let output = desk.run(&[&plain[..], &["--device", "cpu", "--ignore-eos"], args].concat());
    assert!(output.status.success(), "{args:?}: {}", text(&output));
    serde_json::from_slice::<Value>(&output.stdout).unwrap()["completions"][0]["token_ids"].clone()
}

#[test]
fn a_name_is_a_snapshot_of_the_hugging_face_cache() {
    let desk = Desk::new(&[]);
    desk.cache("model", "org/tiny-model");
    desk.cache("adapter", "org/tiny-adapter");
    let local = tokens(&desk, &["--model", "model", "--adapter", "adapter"]);
    assert_eq!(tokens(&desk, &["--model", "org/tiny-model", "--adapter", "org/tiny-adapter"]), local);
    let line = desk.refused(&["inspect", "org/other"]);
    assert!(line.contains("`hf download org/other`") && line.contains("hf/hub"), "{line}");
    let line = desk.refused(&["inspect", "org/tiny-model", "--adapter", "org/other"]);
    assert!(line.contains("`hf download org/other`"), "{line}");
    for command in ["tokenize --model org/other --text a", "plan --model org/other"] {
        let line = desk.refused(&command.split_whitespace().collect::<Vec<_>>());
        assert!(line.contains("`hf download org/other`"), "{command}: {line}");
    }
    assert!(!desk.refused(&["inspect", "no/such/folder"]).contains("hf download"));
    // A folder of that name goes first.
    fs::create_dir_all(desk.path("org")).unwrap();
    fs::create_dir(desk.path("org/tiny-model")).unwrap();
    assert!(desk.refused(&["inspect", "org/tiny-model"]).contains("config.json"));
    // The adapter names the base as others find it.
    fs::remove_dir(desk.path("org/tiny-model")).unwrap();
    let args = "train --model org/tiny-model --data data.jsonl --out second --max-steps 1 --validation 0 --batch 2 \
                --seq 128 --template plain --device cpu";
    assert!(desk.run(&args.split_whitespace().collect::<Vec<_>>()).status.success());
    let config = fs::read_to_string(desk.path("second/adapter_config.json")).unwrap();
    assert!(config.contains("\"org/tiny-model\""), "{config}");
}

#[test]
fn the_embedding_and_the_head_are_trained_saved_and_merged() {
    let desk = Desk::new(&["--also", "head,embed"]);
    let config: Value =
        serde_json::from_str(&fs::read_to_string(desk.path("adapter/adapter_config.json")).unwrap()).unwrap();
    assert_eq!(config["modules_to_save"], json!(["embed_tokens", "lm_head"]));
    let merged = desk.run(&[
        "merge",
        "--model",
        "model",
        "--adapter",
        "adapter",
        "--out",
        "merged",
        "--device",
        "cpu",
    ]);
    assert!(merged.status.success(), "{}", text(&merged));
    let shown = desk.run(&["inspect", "model", "--adapter", "adapter", "--check"]);
    assert!(String::from_utf8_lossy(&shown.stdout).contains("lm_head.weight"), "{}", text(&shown));
    let plan =
        desk.run(&["plan", "--model", "model", "--also", "embed,head", "--device", "cpu", "--seq", "64"]);
    assert!(plan.status.success(), "{}", text(&plan));
    for flags in ["--full --also head", "--also tail"] {
        let args = format!("train --model model --data data.jsonl --out other {flags}");
        let output = desk.run(&args.split_whitespace().collect::<Vec<_>>());
        assert_eq!(output.status.code(), Some(2), "{flags}: {}", text(&output));
    }
    let line = desk.refused(&[
        "train",
        "--model",
        "model",
        "--data",
        "data.jsonl",
        "--out",
        "other",
        "--also",
        "head",
        "--validation",
        "0",
        "--layout",
        "shard",
        "--ranks",
        "2",
        "--device",
        "cpu",
        "--seq",
        "128",
        "--template",
        "plain",
    ]);
    assert!(line.contains("--layout shard"), "{line}");
}

#[test]
fn a_damaged_adapter_is_named_and_a_merge_of_it_leaves_nothing() {
    let desk = Desk::new(&[]);
    let file = desk.path("adapter/adapter_model.safetensors");
    let mut bytes = fs::read(&file).unwrap();
    let end = bytes.len();
    bytes[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
    fs::write(&file, bytes).unwrap();
    let named = "v_proj.lora_B.weight`";
    for args in [
        &["inspect", "model", "--adapter", "adapter", "--check"][..],
        &["inspect", "adapter", "--check"],
        &["generate", "--model", "model", "--adapter", "adapter", "--prompt", "a", "--device", "cpu"],
        &["merge", "--model", "model", "--adapter", "adapter", "--out", "merged", "--device", "cpu"],
    ] {
        let line = desk.refused(args);
        assert!(line.contains(named) && line.contains("NaN"), "{args:?}: {line}");
    }
    let left: Vec<String> = fs::read_dir(desk.folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.contains("merged"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_setting_that_is_not_known_is_refused_by_name() {
    let desk = Desk::new(&[]);
    let path = desk.path("adapter/adapter_config.json");
    let plain: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    let set = |key: &str, value: &Value| {
        let mut json = plain.clone();
        json[key] = value.clone();
        fs::write(&path, json.to_string()).unwrap();
    };
    for (key, value) in [
        ("some_new_method", json!(true)),
        ("use_qalora", json!(true)),
        ("lora_bias", json!(true)),
        ("layer_replication", json!([[0, 1]])),
        ("trainable_token_indices", json!([3])),
        ("target_parameters", json!(["mlp.weight"])),
        ("megatron_config", json!({"a": 1})),
        ("init_lora_weights", json!("pissa")),
        ("init_lora_weights", json!("olora")),
        ("init_lora_weights", json!("corda")),
        ("modules_to_save", json!(["score"])),
        ("task_type", json!("SEQ_CLS")),
        ("use_dora", json!("yes")),
        ("rank_pattern", json!({"q_proj": 3})),
    ] {
        set(key, &value);
        let line = desk.refused(&["inspect", "model", "--adapter", "adapter"]);
        let named = if key == "rank_pattern" { "q_proj.lora_A" } else { key };
        assert!(line.contains(named) && line.len() < 700, "{key}: {line}");
    }
    for (key, value) in [
        ("some_new_method", json!(null)),
        ("other_method", json!({})),
        ("bias", json!("lora_only")),
        ("fan_in_fan_out", json!(true)),
        ("loftq_config", json!({"loftq_bits": 4})),
        ("eva_config", json!({"rho": 2.0})),
        ("init_lora_weights", json!("eva")),
        ("inference_mode", json!(true)),
        ("revision", json!("main")),
        ("auto_mapping", json!({"base_model_class": "LlamaForCausalLM"})),
        ("target_modules", json!("all-linear")),
    ] {
        set(key, &value);
        let output = desk.run(&["inspect", "model", "--adapter", "adapter"]);
        assert!(output.status.success(), "{key}: {}", text(&output));
    }
}
