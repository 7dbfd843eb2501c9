//! A server of a tiny model in this process.

use crate::client::{Answer, exchange, request};
use codelsi_engine::DType;
use codelsi_launch::DeviceChoice;
use codelsi_model::adapter::Adapter;
use codelsi_model::checkpoint::PackWeights;
use codelsi_model::config::LinearName;
use codelsi_model::synthetic;
use codelsi_serve::{Access, Drain, Limits, ServeOptions, Server};
use serde_json::{Map, Value, json};
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

/// The id of the base where it infills.
pub const BASE: &str = "tiny-codellama";

/// A running server; dropped, it ends in order.
pub struct TestServer {
    pub address: SocketAddr,
    pub folder: tempfile::TempDir,
    drain: Drain,
    thread: Option<JoinHandle<codelsi_engine::Result<()>>>,
}

/// Writes a tiny model, with Code Llama's markers if it is to infill.
pub fn write_model(folder: &Path, infills: bool) {
    let config = synthetic::config("tiny").unwrap();
    synthetic::write_random_model(folder, &config, 7, &mut |_, _| {}).unwrap();
    if infills {
        let file = folder.join("tokenizer.json");
        let mut tokenizer: Value = serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
        add_markers(&mut tokenizer["model"]);
        fs::write(&file, tokenizer.to_string()).unwrap();
    }
}

/// Puts the markers into the place of the last four words.
fn add_markers(bpe: &mut Value) {
    const MARKERS: [&str; 4] = ["▁<PRE>", "▁<SUF>", "▁<MID>", "▁<EOT>"];
    let vocabulary = bpe["vocab"].as_object().unwrap().clone();
    let first = vocabulary.len() - MARKERS.len();
    let rename = |(piece, id): (String, Value)| {
        let marker = id.as_u64().unwrap().checked_sub(first as u64).map(|i| MARKERS[i as usize]);
        (marker.map_or(piece, String::from), id)
    };
    bpe["vocab"] = Value::Object(vocabulary.clone().into_iter().map(rename).collect::<Map<_, _>>());
    bpe["merges"].as_array_mut().unwrap().retain(|merge| {
        let piece: String = merge.as_str().unwrap().replace(' ', "");
        vocabulary[&piece].as_u64().unwrap() < first as u64
    });
}

/// Writes an adapter that changes the model's answers.
pub fn write_adapter(folder: &Path, seed: u64) -> PathBuf {
    write_adapter_of(folder, |i| ((i as u64 * 37 + seed) % 11) as f32 / 5.0 - 1.0, seed)
}

/// Writes an adapter with such values of B.
pub fn write_adapter_of(folder: &Path, value: impl Fn(usize) -> f32, seed: u64) -> PathBuf {
    let config = synthetic::config("tiny").unwrap();
    let targets = [LinearName::Q, LinearName::Down];
    let mut adapter = Adapter::init_lora(&config, 4, 64.0, 0.0, &targets, seed).unwrap();
    for module in adapter.modules.values_mut() {
        let b: &mut [f32] = module.b.slice_mut().unwrap();
        b.iter_mut().enumerate().for_each(|(i, x)| *x = value(i));
    }
    fs::create_dir_all(folder.parent().unwrap()).unwrap();
    adapter.save(folder, &folder.display().to_string()).unwrap();
    folder.to_owned()
}

impl TestServer {
    /// A server that infills, open to this machine.
    pub fn start() -> Self {
        TestServer::with(true, |_, _| {})
    }

    /// A server of a model in `folder`, with other options than the usual ones.
    pub fn with(infills: bool, change: impl FnOnce(&mut ServeOptions, &Path)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let model = folder.path().join(if infills { BASE } else { "tiny" });
        write_model(&model, infills);
        let mut options = ServeOptions {
            model,
            adapters: Vec::new(),
            adapter_dir: None,
            device: DeviceChoice::Cpu,
            compute: Some(DType::F32),
            pack_weights: PackWeights::Off,
            access: Access::local(0),
            limits: Limits::default(),
            log_prompts: false,
        };
        change(&mut options, folder.path());
        let server = Server::open(options).unwrap();
        let (address, drain) = (server.address(), server.drain());
        let thread = Some(std::thread::spawn(|| server.run()));
        TestServer { address, folder, drain, thread }
    }

    pub fn get(&self, path: &str) -> Answer {
        exchange(self.address, &request("GET", path, &[], b""))
    }

    pub fn post(&self, path: &str, body: &Value) -> Answer {
        self.post_bytes(path, body.to_string().as_bytes())
    }

    pub fn post_bytes(&self, path: &str, body: &[u8]) -> Answer {
        exchange(self.address, &request("POST", path, &[("Content-Type", "application/json")], body))
    }

    /// Posts and asserts success; returns the object.
    pub fn ask(&self, path: &str, body: &Value) -> Value {
        let answer = self.post(path, body);
        assert_eq!(answer.status, 200, "{path} {body}: {answer:?}");
        answer.json()
    }

    /// The value of a metric.
    pub fn metric(&self, name: &str) -> f64 {
        let text = self.get("/metrics").body;
        let line =
            text.lines().find(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(' ')));
        let line = line.unwrap_or_else(|| panic!("no {name}:\n{text}"));
        line.rsplit(' ').next().unwrap().parse().unwrap()
    }

    /// Waits until no sequence is in the engine, and asserts that all pages are free.
    pub fn wait_until_idle(&self) {
        for _ in 0..600 {
            let busy =
                ["codelsi_num_sequences_running", "codelsi_num_sequences_waiting", "codelsi_kv_pages_used"];
            if busy.iter().all(|name| self.metric(name) == 0.0) {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        panic!("the engine is not idle:\n{}", self.get("/metrics").body);
    }

    /// Begins the server's end.
    pub fn begin_drain(&self) {
        self.drain.begin();
    }

    /// Waits for the server's end.
    pub fn join(mut self) {
        self.drain.begin();
        self.thread.take().unwrap().join().unwrap().unwrap();
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        self.drain.begin();
        if let Some(thread) = self.thread.take()
            && !std::thread::panicking()
        {
            thread.join().unwrap().unwrap();
        }
    }
}

/// A short greedy completion.
pub fn completion(prompt: &str) -> Value {
    json!({ "prompt": prompt, "max_tokens": 8, "temperature": 0 })
}
