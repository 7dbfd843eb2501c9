//! Other people's clients and readers: OpenAI's and Ollama's packages against a server, `gguf` against an export.

use codelsi_testing::{or_skip, tool};
use serde_json::{Value, json};
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

const KEY: &str = "a-key-of-the-test";

/// A folder with a tiny model and an adapter of it.
struct Desk {
    folder: tempfile::TempDir,
}

impl Desk {
    fn new() -> Self {
        let desk = Desk { folder: tempfile::tempdir().unwrap() };
        desk.run(&["mkmodel", "--shape", "tiny", "--out", "base"]);
        let row = |i: usize| json!({"instruction": format!("write f{i}"), "output": format!("return {i};")});
        let rows: String = (0..12).map(|i| format!("{}\n", row(i))).collect();
        fs::write(desk.folder.path().join("data.jsonl"), rows).unwrap();
        let train = "train --model base --data data.jsonl --out tuned --rank 2 --max-steps 2 --batch 2 --seq 128 \
                     --template plain --validation 0 --device cpu --lr 0.05";
        desk.run(&train.split_whitespace().collect::<Vec<_>>());
        desk
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_codelsi"));
        command.current_dir(self.folder.path()).args(args);
        command
    }

    fn run(&self, args: &[&str]) {
        output(&mut self.command(args));
    }
}

/// Runs a command that is to succeed; returns its output.
fn output(command: &mut Command) -> String {
    let made = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(made.status.success(), "{command:?}: {}{}", text(&made.stdout), text(&made.stderr));
    text(&made.stdout)
}

/// A server, killed when it is dropped.
struct Server {
    process: Child,
    address: String,
}

impl Server {
    fn start(desk: &Desk) -> Self {
        let args = ["serve", "--model", "base", "--adapter", "tuned=tuned", "--port", "0", "--device", "cpu"];
        let mut command = desk.command(&args);
        command.args(["--api-key-env", "SERVE_KEY"]).env("SERVE_KEY", KEY).stderr(Stdio::piped());
        let mut process = command.spawn().unwrap();
        let lines = BufReader::new(process.stderr.take().unwrap()).lines().map_while(Result::ok);
        let mut lines = lines.map(|line| line.split_once("http://").map(|(_, rest)| rest.to_owned()));
        let address = lines.find_map(|found| found).unwrap();
        let address = format!("http://{}", address.split_whitespace().next().unwrap().trim_end_matches('/'));
        // Its log goes on.
        std::thread::spawn(move || lines.for_each(drop));
        Server { process, address }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients").join(name)
}

/// A Python script, with the packages of the test command.
fn python(name: &str) -> Option<Command> {
    let packages = tool("python/installed")?.with_file_name("");
    let mut command = Command::new("python3");
    command.arg(script(name)).env("PYTHONPATH", packages).env_remove("OPENAI_BASE_URL");
    Some(command)
}

/// A Node script, beside the packages of the test command, where Node looks for them.
fn node(name: &str, folder: &Path) -> Option<Command> {
    let packages = tool("node/node_modules")?;
    fs::copy(script(name), folder.join(name)).unwrap();
    let link = folder.join("node_modules");
    if !link.exists() {
        std::os::unix::fs::symlink(packages, link).unwrap();
    }
    let mut command = Command::new("node");
    command.arg(folder.join(name));
    Some(command)
}

#[test]
fn the_clients_of_openai_and_ollama_get_what_they_ask_for() {
    let desk = Desk::new();
    let server = Server::start(&desk);
    let folder = tempfile::tempdir().unwrap();
    for name in ["openai_client.py", "ollama_client.py", "openai_client.mjs", "ollama_client.mjs"] {
        let client = if name.ends_with("py") { python(name) } else { node(name, folder.path()) };
        let Some(mut client) = client else { continue };
        let said = output(client.args([&server.address, KEY, "base", "tuned"]));
        assert!(said.ends_with("ok\n"), "{name}: {said}");
    }
}

#[test]
fn the_page_is_used_by_keyboard_in_a_browser() {
    let names = ["chromium", "chromium-browser", "google-chrome"];
    let browser = names.iter().find(|name| Command::new(name).arg("--version").output().is_ok());
    let Some(browser) = or_skip(browser.ok_or("no Chromium is installed")) else { return };
    let desk = Desk::new();
    let server = Server::start(&desk);
    let mut page = Command::new("python3");
    let said = output(page.arg(script("page.py")).args([browser, &server.address[..], KEY, "base", "tuned"]));
    assert!(said.ends_with("ok\n"), "{said}");
}

#[test]
fn the_gguf_package_reads_what_was_exported() {
    let desk = Desk::new();
    let read = |file: &str| -> Option<Value> {
        let read = output(python("read_gguf.py")?.arg(desk.folder.path().join(file)));
        Some(serde_json::from_str(&read).unwrap())
    };
    desk.run(&["export", "--model", "base", "--gguf", "model.gguf", "--type", "f32"]);
    let Some(model) = read("model.gguf") else { return };
    let config: Value =
        serde_json::from_str(&fs::read_to_string(desk.folder.path().join("base/config.json")).unwrap())
            .unwrap();
    let keys = &model["keys"];
    assert_eq!(keys["general.architecture"], "llama");
    for (key, field) in [
        ("llama.block_count", "num_hidden_layers"),
        ("llama.embedding_length", "hidden_size"),
        ("llama.feed_forward_length", "intermediate_size"),
        ("llama.attention.head_count", "num_attention_heads"),
        ("llama.attention.head_count_kv", "num_key_value_heads"),
        ("llama.context_length", "max_position_embeddings"),
    ] {
        assert_eq!(keys[key], config[field], "{key}");
    }
    let tensors = model["tensors"].as_object().unwrap();
    let (hidden, vocab) = (&config["hidden_size"], &config["vocab_size"]);
    assert_eq!(tensors["token_embd.weight"]["shape"], json!([hidden, vocab]));
    assert_eq!(tensors["token_embd.weight"]["type"], "F32");
    // Values as stored, but for q and k, whose rows are permuted.
    let folder = desk.folder.path().join("base/model.safetensors");
    let bytes = fs::read(folder).unwrap();
    let stored = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    for (ours, theirs) in [
        ("model.embed_tokens.weight", "token_embd.weight"),
        ("model.layers.0.self_attn.v_proj.weight", "blk.0.attn_v.weight"),
        ("model.layers.1.mlp.down_proj.weight", "blk.1.ffn_down.weight"),
        ("model.norm.weight", "output_norm.weight"),
    ] {
        assert_eq!(tensors[theirs]["sha256"], digest(&stored.tensor(ours).unwrap()), "{theirs}");
    }
    for tensor_type in ["f16", "bf16", "q8_0"] {
        let file = format!("{tensor_type}.gguf");
        desk.run(&[
            "export",
            "--model",
            "base",
            "--gguf",
            &file,
            "--type",
            tensor_type,
            "--adapter",
            "tuned",
        ]);
        let other = read(&file).unwrap();
        assert_eq!(other["tensors"]["blk.0.attn_v.weight"]["type"], tensor_type.to_uppercase());
        assert_eq!(other["tensors"].as_object().unwrap().len(), tensors.len());
        fs::remove_file(desk.folder.path().join("Modelfile")).unwrap();
    }
    desk.run(&["export", "--model", "base", "--adapter", "tuned", "--gguf-adapter", "adapter.gguf"]);
    let adapter = read("adapter.gguf").unwrap();
    assert_eq!(adapter["keys"]["general.type"], "adapter");
    assert_eq!(adapter["keys"]["adapter.type"], "lora");
    let names = adapter["tensors"].as_object().unwrap();
    assert!(
        names.contains_key("blk.0.attn_q.weight.lora_a") && names.contains_key("blk.0.attn_q.weight.lora_b")
    );
}

/// The SHA-256 of a tensor's values as little-endian f32.
fn digest(tensor: &safetensors::tensor::TensorView) -> String {
    use sha2::{Digest, Sha256};
    let bf16 = tensor.dtype() == safetensors::Dtype::BF16;
    let mut hash = Sha256::new();
    for value in tensor.data().chunks_exact(if bf16 { 2 } else { 4 }) {
        // A bf16 is the upper half of an f32.
        hash.update([&[0; 2][if bf16 { 0 } else { 2 }..], value].concat());
    }
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}
