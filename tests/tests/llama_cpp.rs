//! llama.cpp itself reads what is exported: with `CODELSI_LLAMA_CPP`, the folder of its `llama-tokenize` and `llama-server`.

use codelsi_engine::{DType, Device};
use codelsi_model::adapter::Adapter;
use codelsi_model::checkpoint::Checkpoint;
use codelsi_model::config::{LinearName, ModelConfig};
use codelsi_model::generate::{Completion, GenerationRequest, SchedulerConfig, generate};
use codelsi_model::gguf::{TensorType, export_adapter, export_model};
use codelsi_model::llama::Llama;
use codelsi_model::synthetic;
use codelsi_model::tokenizer::Tokenizer;
use codelsi_model::trainable::Trainable;
use codelsi_testing::shared;
use codelsi_tests::{golden_case, load_model};
use serde_json::{Value, json};
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const TOKENS: usize = 24;

/// The folder of llama.cpp's programs; a line says that it was not given.
fn programs() -> Option<PathBuf> {
    let folder = std::env::var_os("CODELSI_LLAMA_CPP").map(PathBuf::from);
    if folder.is_none() {
        println!("skipped: CODELSI_LLAMA_CPP names no folder of llama.cpp's programs");
    }
    folder
}

/// Writes a model of a golden case's architecture with random weights, and a vocabulary that a tokenizer has.
fn write_model(case: &str, folder: &Path) -> PathBuf {
    let golden = Checkpoint::open(golden_case(case).join("model")).unwrap();
    let config = ModelConfig { vocab: 512, ..golden.config().clone() };
    synthetic::write_random_model(&folder.join(case), &config, 7, &mut |_, _| {}).unwrap();
    folder.join(case)
}

/// An adapter that changes what the model says.
fn adapter_of(model: &Llama) -> Adapter {
    let targets = [LinearName::Q, LinearName::K, LinearName::V, LinearName::Down];
    let mut adapter = Adapter::init_lora(model.config(), 4, 8.0, 0.0, &targets, 3).unwrap();
    for module in adapter.modules.values_mut() {
        let b: &mut [f32] = module.b.slice_mut().unwrap();
        b.iter_mut().enumerate().for_each(|(i, x)| *x = (i * 37 % 11) as f32 / 50.0 - 0.1);
    }
    adapter
}

fn export(model: &Path, out: &Path, tensor_type: TensorType) {
    export_model(&Checkpoint::open(model).unwrap(), None, out, Some(tensor_type), &mut |_, _| {}).unwrap();
}

/// llama.cpp's server on a GGUF file, killed when it is dropped.
struct Server {
    process: Child,
    port: u16,
}

impl Server {
    fn start(programs: &Path, model: &Path, adapter: Option<&Path>) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut command = Command::new(programs.join("llama-server"));
        command
            .args([
                "--port",
                &port.to_string(),
                "-ctk",
                "f32",
                "-ctv",
                "f32",
                "-fa",
                "off",
                "-c",
                "512",
                "-m",
            ])
            .arg(model);
        adapter.iter().for_each(|adapter| {
            command.arg("--lora").arg(adapter);
        });
        let process = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let mut server = Server { process, port };
        for _ in 0..600 {
            assert!(server.process.try_wait().unwrap().is_none(), "{command:?} ended");
            if server.ask("GET", "/health", &Value::Null).is_some() {
                return server;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        panic!("{command:?} did not come up in a minute");
    }

    /// Returns the answer to a request, if it is one of success.
    fn ask(&self, method: &str, path: &str, body: &Value) -> Option<Value> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).ok()?;
        let body = body.to_string();
        let head = format!(
            "{method} {path} HTTP/1.0\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all((head + &body).as_bytes()).ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        head.contains(" 200 ").then(|| serde_json::from_str(body).unwrap())
    }

    /// Greedy tokens after a prompt, each with its log-probability and the next best one's. The server reports none for a
    /// token that ends within a character.
    fn complete(&self, prompt: &[u32]) -> Vec<(u32, Option<[f64; 2]>)> {
        let body = json!({
            "prompt": prompt, "n_predict": TOKENS, "temperature": 0, "n_probs": 2, "cache_prompt": false,
            "ignore_eos": true, "return_tokens": true,
        });
        let answer = self.ask("POST", "/completion", &body).unwrap();
        let mut reported = answer["completion_probabilities"].as_array().into_iter().flatten().peekable();
        let token = |id: &Value| {
            let step = reported.next_if(|step| step["id"] == *id);
            let logprobs =
                step.map(|step| [0, 1].map(|i| step["top_logprobs"][i]["logprob"].as_f64().unwrap()));
            (id.as_u64().unwrap() as u32, logprobs)
        };
        let tokens = answer["tokens"].as_array().unwrap().iter().map(token).collect();
        assert!(reported.next().is_none(), "log-probabilities of other tokens: {answer}");
        tokens
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn prompts(vocab: u32) -> Vec<Vec<u32>> {
    [1, 7, 40].map(|length| (0..length).map(|i| 3 + (i * 37 + length) % (vocab - 3)).collect()).to_vec()
}

fn ours(device: &Device, model: &Llama, prompt: &[u32]) -> Completion {
    let request =
        GenerationRequest { stop_at_eos: false, ..GenerationRequest::greedy(prompt.to_vec(), TOKENS) };
    generate(device, model, None, &[request], SchedulerConfig::default(), &mut |_| {})
        .unwrap()
        .remove(0)
        .remove(0)
}

/// Compares greedy tokens up to the first tie, or the end token, which llama.cpp's `ignore_eos` forbids; returns how many.
fn compare_until_a_tie(
    ours: &Completion,
    theirs: &[(u32, Option<[f64; 2]>)],
    eos: &[u32],
    what: &str,
) -> usize {
    let mut compared = 0;
    for (i, &(token, logprobs)) in theirs.iter().enumerate() {
        let is_tie = logprobs.is_some_and(|[first, second]| first - second < 1e-3);
        if is_tie || eos.contains(&ours.token_ids[i]) {
            break;
        }
        assert_eq!(token, ours.token_ids[i], "{what}, token {i}: {logprobs:?}, {}", ours.logprobs[i]);
        if let Some([first, _]) = logprobs {
            assert!((first - f64::from(ours.logprobs[i])).abs() < 1e-3, "{what}, token {i}");
            compared += 1;
        }
    }
    compared
}

/// Compares the greedy tokens of all prompts.
fn assert_equal(device: &Device, model: &Llama, server: &Server, what: &str) {
    let (vocab, eos) = (model.config().vocab as u32, &model.config().eos);
    let compare = |prompt: Vec<u32>| {
        compare_until_a_tie(&ours(device, model, &prompt), &server.complete(&prompt), eos, what)
    };
    let compared = prompts(vocab).into_iter().map(compare).collect::<Vec<_>>();
    assert!(compared.iter().sum::<usize>() >= TOKENS, "{what}: ties after {compared:?} tokens");
}

#[test]
fn greedy_tokens_of_a_model_and_of_an_adapter_are_ours() {
    let Some(programs) = programs() else { return };
    let (device, folder) = (Device::cpu(), tempfile::tempdir().unwrap());
    for case in ["tiny", "llama3", "qwen2", "mistral"] {
        let case_model = write_model(case, folder.path());
        let (gguf, lora) =
            (folder.path().join(format!("{case}.gguf")), folder.path().join(format!("{case}-lora.gguf")));
        export(&case_model, &gguf, TensorType::F32);
        let mut model = load_model(&case_model, &device, DType::F32);
        let server = Server::start(&programs, &gguf, None);
        assert_equal(&device, &model, &server, case);
        drop(server);
        let adapter = adapter_of(&model);
        export_adapter(model.config(), &adapter, &lora, None, &mut |_, _| {}).unwrap();
        model.attach(&adapter, Trainable::Nothing).unwrap();
        let server = Server::start(&programs, &gguf, Some(&lora));
        assert_equal(&device, &model, &server, &format!("{case} with its adapter"));
    }
}

#[test]
fn other_types_are_near() {
    let Some(programs) = programs() else { return };
    let (device, folder) = (Device::cpu(), tempfile::tempdir().unwrap());
    let case_model = write_model("tiny", folder.path());
    let model = load_model(&case_model, &device, DType::F32);
    for (tensor_type, limit) in [(TensorType::F16, 0.02), (TensorType::BF16, 0.1), (TensorType::Q8_0, 0.1)] {
        let gguf = folder.path().join("model.gguf");
        export(&case_model, &gguf, tensor_type);
        let server = Server::start(&programs, &gguf, None);
        for prompt in prompts(model.config().vocab as u32) {
            let (mine, theirs) = (ours(&device, &model, &prompt), server.complete(&prompt));
            let [best, _] = theirs[0].1.unwrap();
            let error = (best - f64::from(mine.logprobs[0])).abs();
            assert!(error < limit, "{tensor_type:?}: the best token's log-probability differs by {error}");
        }
    }
}

#[test]
fn llama_cpp_tokenizes_through_the_file_as_we_do() {
    let Some(programs) = programs() else { return };
    let Some(golden) = shared("data/codellama-tokenizer/golden-llama2.jsonl") else { return };
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("model");
    let config = ModelConfig { vocab: 32000, ..synthetic::config("tiny").unwrap() };
    synthetic::write_random_model(&model, &config, 7, &mut |_, _| {}).unwrap();
    let tokenizer = golden.with_file_name("llama2-tokenizer.json");
    fs::copy(&tokenizer, model.join("tokenizer.json")).unwrap();
    let (gguf, text_file) = (folder.path().join("model.gguf"), folder.path().join("text"));
    export(&model, &gguf, TensorType::F32);
    let tokenizer = Tokenizer::load(&model).unwrap();
    for line in fs::read_to_string(golden).unwrap().lines() {
        let case: Value = serde_json::from_str(line).unwrap();
        let text = case["text"].as_str().unwrap();
        if text.is_empty() {
            continue;
        }
        fs::write(&text_file, text).unwrap();
        let mut command = Command::new(programs.join("llama-tokenize"));
        command.args(["--ids", "--no-bos", "--no-parse-special", "--no-escape", "--log-disable", "-m"]);
        let made = command.arg(&gguf).arg("-f").arg(&text_file).output().unwrap();
        let ids: Vec<u32> = serde_json::from_slice(&made.stdout).unwrap();
        assert_eq!(ids, tokenizer.encode(text, false).unwrap(), "{text:?}");
    }
}
