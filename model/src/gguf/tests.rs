//! Exports read back by a reader of their own.

use super::quantize::TensorType;
use super::writer::ALIGNMENT;
use super::*;
use crate::adapter::{Adapter, AdapterConfig, Method};
use crate::checkpoint::Checkpoint;
use crate::config::{LinearName, ModelConfig};
use crate::merge::merge;
use crate::synthetic;
use half::{bf16, f16};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// A file's metadata, values as JSON, and its tensors: sizes (fastest first), type and content.
struct Gguf {
    metadata: BTreeMap<String, Value>,
    tensors: BTreeMap<String, (Vec<u64>, u32, Vec<u8>)>,
}

/// Bytes that are read from the front.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn bytes(&mut self, len: usize) -> Vec<u8> {
        let (front, rest) = self.0.split_at(len);
        self.0 = rest;
        front.to_vec()
    }

    fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.bytes(4).try_into().unwrap())
    }

    fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.bytes(8).try_into().unwrap())
    }

    fn text(&mut self) -> String {
        let len = self.u64() as usize;
        String::from_utf8(self.bytes(len)).unwrap()
    }

    fn value(&mut self, kind: u32) -> Value {
        match kind {
            4 => self.u32().into(),
            5 => (self.u32() as i32).into(),
            6 => f32::from_bits(self.u32()).into(),
            7 => (self.bytes(1) == [1]).into(),
            8 => self.text().into(),
            9 => {
                let (of, len) = (self.u32(), self.u64());
                (0..len).map(|_| self.value(of)).collect()
            }
            _ => panic!("a value of type {kind}"),
        }
    }
}

fn read(path: &Path) -> Gguf {
    let file = fs::read(path).unwrap();
    let mut reader = Reader(&file);
    assert_eq!((reader.bytes(4), reader.u32()), (b"GGUF".to_vec(), 3));
    let (tensors, keys) = (reader.u64(), reader.u64());
    let mut metadata = BTreeMap::new();
    for _ in 0..keys {
        let (key, kind) = (reader.text(), reader.u32());
        assert!(metadata.insert(key, reader.value(kind)).is_none());
    }
    let mut entry = |_| {
        let (name, dimensions) = (reader.text(), reader.u32());
        let sizes: Vec<u64> = (0..dimensions).map(|_| reader.u64()).collect();
        (name, sizes, reader.u32(), reader.u64() as usize)
    };
    let entries: Vec<_> = (0..tensors).map(&mut entry).collect();
    let start = (file.len() - reader.0.len()).next_multiple_of(ALIGNMENT);
    let mut end = start;
    let mut contents = BTreeMap::new();
    for (name, sizes, kind, offset) in entries {
        let elements = sizes.iter().product::<u64>() as usize;
        let len = match kind {
            0 => 4 * elements,
            1 | 30 => 2 * elements,
            8 => elements / 32 * 34,
            _ => panic!("a tensor of type {kind}"),
        };
        assert_eq!(start + offset, end, "{name} follows the tensor before it");
        assert!(offset.is_multiple_of(ALIGNMENT));
        contents.insert(name, (sizes, kind, file[end..end + len].to_vec()));
        end = (end + len).next_multiple_of(ALIGNMENT);
    }
    assert_eq!(end, file.len());
    Gguf { metadata, tensors: contents }
}

/// A byte-level tokenizer of printable characters.
fn byte_level_tokenizer(pattern: Option<&str>) -> Value {
    let vocab: BTreeMap<String, u32> = ('!'..='~').map(String::from).zip(1..).collect();
    let bytes = |split: bool| json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": split});
    let pre_tokenizer = match pattern {
        None => bytes(true),
        Some(pattern) => json!({"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false},
            bytes(false),
        ]}),
    };
    json!({
        "version": "1.0", "added_tokens": [], "pre_tokenizer": pre_tokenizer, "decoder": bytes(true),
        "model": {"type": "BPE", "vocab": vocab, "merges": []},
    })
}

/// Copies a golden model into `folder`, with a tokenizer.
fn golden_model(name: &str, folder: &Path) -> Checkpoint {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/goldens").join(name).join("model");
    for file in ["config.json", "generation_config.json", "model.safetensors"] {
        fs::copy(golden.join(file), folder.join(file)).unwrap();
    }
    fs::write(folder.join("tokenizer.json"), byte_level_tokenizer(None).to_string()).unwrap();
    Checkpoint::open(folder).unwrap()
}

fn golden_adapter(name: &str, config: &ModelConfig) -> Adapter {
    let goldens = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/goldens");
    Adapter::load(goldens.join(name).join("adapter"), config).unwrap()
}

fn export(base: &Checkpoint, adapter: Option<&Adapter>, kind: Option<TensorType>, folder: &Path) -> Gguf {
    let out = folder.join("out.gguf");
    let mut last = (0, 1);
    let exported = export_model(base, adapter, &out, kind, &mut |done, total| last = (done, total)).unwrap();
    assert_eq!(last, (exported.bytes, exported.bytes));
    let file = read(&out);
    assert_eq!(file.tensors.len(), exported.tensors);
    file
}

/// A synthetic model with SentencePiece's form of tokenizer.
fn synthetic_model(folder: &Path) -> (PathBuf, Checkpoint) {
    let model = folder.join("model");
    let config = ModelConfig { vocab: 400, ..synthetic::config("tiny").unwrap() };
    synthetic::write_random_model(&model, &config, 1, &mut |_, _| {}).unwrap();
    let base = Checkpoint::open(&model).unwrap();
    (model, base)
}

/// Undoes the order of rows that llama.cpp's rotation has.
fn deinterleave(values: &[f32], head_dim: usize, columns: usize) -> Vec<f32> {
    let half = head_dim / 2;
    let row = |i: usize| {
        let (head, i) = (i / head_dim, i % head_dim);
        head * head_dim + if i < half { 2 * i } else { 2 * (i - half) + 1 }
    };
    (0..values.len() / columns).flat_map(|i| values[row(i) * columns..][..columns].iter().copied()).collect()
}

#[test]
fn names_and_shapes_of_every_architecture_are_llama_cpps() {
    for (golden, architecture, more) in [
        ("tiny", "llama", 0),
        // Biases of seven linears in two layers, and the factors of the rotation.
        ("llama3", "llama", 15),
        ("qwen2", "qwen2", 6),
        ("mistral", "llama", 0),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let base = golden_model(golden, folder.path());
        let config = base.config();
        let file = export(&base, None, None, folder.path());
        let key = |key: &str| &file.metadata[&format!("{architecture}.{key}")];
        assert_eq!(file.metadata["general.architecture"], architecture);
        assert_eq!(key("attention.head_count_kv"), config.kv_heads);
        assert_eq!(key("rope.dimension_count"), config.head_dim);
        let head = usize::from(!config.tied_embeddings);
        assert_eq!(file.tensors.len(), 2 + head + 9 * config.layers + more, "{golden}");
        assert_eq!(file.tensors.contains_key("output.weight"), head == 1);
        let q = &file.tensors["blk.1.attn_q.weight"];
        let (rows, columns) = config.linear_shape(LinearName::Q);
        assert_eq!((&q.0[..], q.1), (&[columns as u64, rows as u64][..], 30));
        for (name, (sizes, kind, _)) in &file.tensors {
            assert_eq!(*kind == 0, sizes.len() == 1, "{name}: vectors are f32");
        }
        for bias in ["blk.0.attn_k.bias", "blk.0.ffn_down.bias"] {
            let linear = if bias.contains("attn") { LinearName::K } else { LinearName::Down };
            assert_eq!(file.tensors.contains_key(bias), config.has_bias(linear), "{golden} {bias}");
        }
    }
}

#[test]
fn scaled_rotations_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let llama3 = golden_model("llama3", folder.path());
    let factors = export(&llama3, None, None, folder.path()).tensors["rope_freqs.weight"].2.clone();
    let factors: Vec<f32> = bytemuck::pod_collect_to_vec(&factors);
    assert_eq!(factors.len(), llama3.config().head_dim / 2);
    assert!(factors[0] < *factors.last().unwrap() && *factors.last().unwrap() <= 8.0, "{factors:?}");

    let folder = tempfile::tempdir().unwrap();
    let qwen2 = golden_model("qwen2", folder.path());
    let file = export(&qwen2, None, None, folder.path());
    assert_eq!(file.metadata["qwen2.rope.scaling.type"], "yarn");
    assert_eq!(file.metadata["qwen2.rope.scaling.original_context_length"], 32);
    assert_eq!(file.metadata["qwen2.rope.scaling.attn_factor"], 1.0);
}

#[test]
fn rows_of_q_and_k_are_in_the_order_of_adjacent_pairs_and_no_others_are() {
    for golden in ["llama3", "qwen2"] {
        let folder = tempfile::tempdir().unwrap();
        let base = golden_model(golden, folder.path());
        let file = export(&base, None, Some(TensorType::F32), folder.path());
        for (module, ours) in [("attn_q", "q_proj"), ("attn_k", "k_proj"), ("attn_v", "v_proj")] {
            for (kind, columns) in [("weight", base.config().hidden), ("bias", 1)] {
                let theirs: Vec<f32> =
                    bytemuck::pod_collect_to_vec(&file.tensors[&format!("blk.0.{module}.{kind}")].2);
                let name = format!("model.layers.0.self_attn.{ours}.{kind}");
                let ours = base.copy_f32(&codelsi_engine::Device::cpu(), &name).unwrap();
                let ours = ours.slice::<f32>().unwrap();
                let permuted = golden == "llama3" && module != "attn_v";
                assert_eq!(theirs != ours, permuted, "{golden} {name}");
                if permuted {
                    assert_eq!(deinterleave(&theirs, base.config().head_dim, columns), ours, "{name}");
                }
            }
        }
    }
}

#[test]
fn a_merged_export_holds_what_merge_writes() {
    let folder = tempfile::tempdir().unwrap();
    let base = golden_model("qwen2", folder.path());
    let adapter = golden_adapter("qwen2", base.config());
    let merged = folder.path().join("merged");
    merge(&base, &adapter, &merged, &mut |_, _| {}, &mut |_| Ok(())).unwrap();
    let merged = Checkpoint::open(&merged).unwrap();
    let file = export(&base, Some(&adapter), None, folder.path());
    let mut changed = 0;
    for (name, shape) in base.config().tensor_shapes() {
        if shape.len() == 2 {
            let theirs = &file.tensors[&model::tensor_name(&name).unwrap()].2;
            assert_eq!(theirs, merged.bytes(&name).unwrap(), "{name}");
            changed += usize::from(theirs != base.bytes(&name).unwrap());
        }
    }
    assert_eq!(changed, adapter.modules.len());
}

#[test]
fn q8_0_is_a_scale_and_bytes_rounded_half_away_from_zero() {
    let mut values = vec![0f32; 96];
    for (i, x) in values.iter_mut().enumerate().take(64) {
        *x = ((i * 37 % 64) as f32 - 31.5) / 7.0;
    }
    // Exact halves: the scale is 1.
    values[0] = 127.0;
    values[1] = 2.5;
    values[2] = -2.5;
    let mut out = Vec::new();
    TensorType::Q8_0.write(&values, &mut out).unwrap();
    assert_eq!(out.len(), 3 * 34);
    for (block, values) in out.chunks(34).zip(values.chunks(32)) {
        let largest = values.iter().map(|x| x.abs()).fold(0.0, f32::max);
        let scale = largest / 127.0;
        assert_eq!(f16::from_le_bytes([block[0], block[1]]), f16::from_f32(scale));
        for (&byte, x) in block[2..].iter().zip(values) {
            let expected = if scale == 0.0 { 0.0 } else { (x * (1.0 / scale)).round() };
            assert_eq!(f32::from(byte as i8), expected);
        }
    }
    assert_eq!([out[3] as i8, out[4] as i8], [3, -3]);
    assert_eq!(TensorType::Q8_0.of_tensor(&[4, 48]), TensorType::F16);
    assert_eq!(TensorType::Q8_0.of_tensor(&[64]), TensorType::F32);
    for kind in [TensorType::F16, TensorType::Q8_0] {
        let message = kind.write(&[1e38; 32], &mut Vec::new()).unwrap_err().to_string();
        assert!(message.contains("beyond the range"), "{message}");
    }
    let mut out = Vec::new();
    TensorType::BF16.write(&[1e38], &mut out).unwrap();
    assert_eq!(out, bf16::from_f32(1e38).to_le_bytes());
}

#[test]
fn an_adapter_alone_computes_the_same_products() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("adapter.gguf");
    for golden in ["tiny", "patterns", "llama3", "mistral", "qwen2"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/goldens").join(golden).join("model");
        let config = ModelConfig::load(path).unwrap();
        let mut adapter = golden_adapter(golden, &config);
        for rslora in [false, true] {
            adapter.config.method = Method::LowRank { rslora, dora: false };
            let exported = export_adapter(&config, &adapter, &out, None, &mut |_, _| {}).unwrap();
            assert_eq!(exported.tensors, 2 * adapter.modules.len());
            let file = read(&out);
            assert_eq!(file.metadata["adapter.type"], "lora");
            let alpha = file.metadata["adapter.lora.alpha"].as_f64().unwrap();
            for (path, module) in &adapter.modules {
                let name = model::tensor_name(&format!("{path}.weight")).unwrap();
                let tensor = |suffix: &str| {
                    let (sizes, _, bytes) = &file.tensors[&format!("{name}.{suffix}")];
                    (sizes.clone(), bytemuck::pod_collect_to_vec::<u8, f32>(bytes))
                };
                let ((_, a), (sizes, b)) = (tensor("lora_a"), tensor("lora_b"));
                assert_eq!(a, module.a.slice::<f32>().unwrap());
                let rank = sizes[0] as usize;
                let scale = alpha / rank as f64;
                let rotated = config.architecture.name() != "Qwen2ForCausalLM"
                    && ["q_proj", "k_proj"].iter().any(|end| path.ends_with(end));
                let b = if rotated { deinterleave(&b, config.head_dim, rank) } else { b };
                let own = f64::from(adapter.config.scaling(path));
                for (theirs, ours) in b.iter().zip(module.b.slice::<f32>().unwrap()) {
                    let (theirs, ours) = (scale * f64::from(*theirs), own * f64::from(*ours));
                    assert!((theirs - ours).abs() <= 1e-6 * ours.abs(), "{golden} {path}: {theirs} {ours}");
                }
            }
        }
    }
}

#[test]
fn sentencepiece_tokens_have_scores_by_rank_and_types() {
    let folder = tempfile::tempdir().unwrap();
    let (model, base) = synthetic_model(folder.path());
    let file = export(&base, None, None, folder.path());
    let key = |key: &str| &file.metadata[&format!("tokenizer.ggml.{key}")];
    assert_eq!(
        (key("model"), key("pre"), key("add_space_prefix")),
        (&json!("llama"), &json!("default"), &json!(true))
    );
    let json: Value = serde_json::from_slice(&fs::read(model.join("tokenizer.json")).unwrap()).unwrap();
    let (tokens, types) = (key("tokens").as_array().unwrap(), key("token_type").as_array().unwrap());
    assert_eq!((tokens.len(), types.len()), (400, 400));
    assert_eq!(&types[..4], [2, 3, 3, 6]);
    let merges = json["model"]["merges"].as_array().unwrap();
    assert!(merges.len() > 20);
    for (rank, merge) in merges.iter().enumerate() {
        let made = merge.as_str().unwrap().replace(' ', "");
        let id = tokens.iter().position(|token| *token == made.as_str()).unwrap();
        assert_eq!(key("scores")[id].as_f64().unwrap(), -(rank as f64), "{made}");
    }
    assert_eq!(
        (key("bos_token_id"), key("eos_token_id"), key("add_bos_token")),
        (&json!(1), &json!(2), &json!(true))
    );
}

#[test]
fn pairs_that_the_merges_lack_are_noted() {
    let folder = tempfile::tempdir().unwrap();
    let (model, base) = synthetic_model(folder.path());
    let path = model.join("tokenizer.json");
    let mut json: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let notes = |json: &Value| {
        fs::write(&path, json.to_string()).unwrap();
        let out = folder.path().join("out.gguf");
        export_model(&base, None, &out, None, &mut |_, _| {}).unwrap().notes
    };
    let all = notes(&json);
    json["model"]["merges"].as_array_mut().unwrap().remove(0);
    let (before, after) = (all.len(), notes(&json));
    assert!(after.len() == 1 && after[0].contains("pairs that `merges` lacks"), "{after:?}");
    assert!(before == 0 || all[0] != after[0], "{all:?}");
}

#[test]
fn byte_level_tokens_name_the_pre_tokenizer_and_unknown_ones_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let base = golden_model("tiny", folder.path());
    let tokenizer = folder.path().join("tokenizer.json");
    for (pattern, name) in [(None, "gpt-2"), (Some(vocabulary::QWEN2), "qwen2")] {
        fs::write(&tokenizer, byte_level_tokenizer(pattern).to_string()).unwrap();
        let file = export(&base, None, None, folder.path());
        assert_eq!(file.metadata["tokenizer.ggml.pre"], name);
        let tokens = file.metadata["tokenizer.ggml.tokens"].as_array().unwrap();
        // Ids 0 and 95 have no token.
        assert_eq!(
            (tokens.len(), &tokens[0], &tokens[1], &tokens[95]),
            (96, &json!("[PAD0]"), &json!("!"), &json!("[PAD95]"))
        );
        assert_eq!(file.metadata["tokenizer.ggml.token_type"][95], 5);
    }
    let refused = |change: &dyn Fn(&mut Value), part: &str| {
        let mut json = byte_level_tokenizer(None);
        change(&mut json);
        fs::write(&tokenizer, json.to_string()).unwrap();
        let out = folder.path().join("refused.gguf");
        let message = export_model(&base, None, &out, None, &mut |_, _| {}).unwrap_err().to_string();
        assert!(message.contains(part) && !message.contains('\n'), "{message}");
        assert!(!out.exists());
    };
    refused(&|json| *json = byte_level_tokenizer(Some(r"\d{1,2}|\D+")), "pre-tokenizer");
    refused(&|json| json["normalizer"] = json!({"type": "Lowercase"}), "Lowercase");
    refused(&|json| json["model"]["vocab"]["huge"] = json!(1_000_000_000u64), "1000000000");
    refused(&|json| json["model"]["vocab"]["far"] = json!(16_000_000), "belongs to another model");
    refused(&|json| json["model"]["vocab"]["[PAD0]"] = json!(95), "two tokens");
}

#[test]
fn what_llama_cpp_has_no_place_for_is_refused_in_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let (_, base) = synthetic_model(folder.path());
    let config = base.config();
    let adapter = Adapter::init_lora(config, 4, 8.0, 0.0, &[LinearName::K], 2).unwrap();
    let out = folder.path().join("out.gguf");
    let with = |method| {
        let settings = AdapterConfig { method, ..adapter.config.clone() };
        Adapter { config: settings, ..adapter.clone() }
    };
    let dora = Method::LowRank { rslora: false, dora: true };
    for (method, merges) in
        [(dora, true), (Method::Mixture { experts: 2 }, false), (Method::Bottleneck, false)]
    {
        let alone =
            export_adapter(config, &with(method), &out, None, &mut |_, _| {}).unwrap_err().to_string();
        assert!(alone.contains(&method.to_string()) && !alone.contains('\n'), "{alone}");
        if !merges {
            let message = export_model(&base, Some(&with(method)), &out, None, &mut |_, _| {}).unwrap_err();
            assert!(message.to_string().contains("cannot be merged"), "{message}");
        }
    }
    let saved = BTreeMap::from([(
        "model.norm.weight".to_string(),
        adapter.modules.values().next().unwrap().a.clone(),
    )]);
    let saved = Adapter { saved, ..adapter.clone() };
    let message = export_adapter(config, &saved, &out, None, &mut |_, _| {}).unwrap_err().to_string();
    assert!(message.contains("model.norm.weight"), "{message}");
    let other = ModelConfig { layers: 3, ..config.clone() };
    let foreign = Adapter::init_lora(&other, 4, 8.0, 0.0, &[LinearName::K], 2).unwrap();
    let message = export_adapter(config, &foreign, &out, None, &mut |_, _| {}).unwrap_err().to_string();
    assert!(message.contains("another model"), "{message}");
    assert!(!out.exists());
}

#[test]
fn a_modelfile_names_the_file_and_others_are_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let (model, base) = synthetic_model(folder.path());
    let out = folder.path().join("tuned.gguf");
    let path = write_modelfile(&out, &model, base.config()).unwrap();
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.contains("\nFROM ./tuned.gguf\n") && text.contains("PARAMETER stop \"</s>\"\n"), "{text}");
    let text = fs::read_to_string(write_adapter_modelfile(&out, &model).unwrap()).unwrap();
    assert!(text.contains("\nFROM ./model.gguf\nADAPTER ./tuned.gguf\n"), "{text}");
    fs::write(&path, "FROM llama3\n").unwrap();
    assert!(check_modelfile(&out).unwrap_err().to_string().contains("not overwritten"));
}
