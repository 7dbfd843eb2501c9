//! Broken model folders: each is refused with one clear line, and nothing panics.

use codelsi_engine::{DType, Device};
use codelsi_model::checkpoint::{Checkpoint, TensorSlice, WeightLoader};
use codelsi_model::config::ModelConfig;
use codelsi_model::synthetic;
use codelsi_model::tokenizer::Tokenizer;
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// A fresh tiny model in a folder of its own.
struct Model(TempDir);

impl Model {
    fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let config = synthetic::config("tiny").unwrap();
        synthetic::write_random_model(&folder.path().join("m"), &config, 1, &mut |_, _| {}).unwrap();
        Model(folder)
    }

    fn folder(&self) -> PathBuf {
        self.0.path().join("m")
    }

    fn weights(&self) -> PathBuf {
        self.folder().join("model.safetensors")
    }

    /// Rewrites the weights file.
    fn change(&self, change: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = fs::read(self.weights()).unwrap();
        change(&mut bytes);
        fs::write(self.weights(), bytes).unwrap();
    }

    /// Rewrites the header's text, and its length.
    fn change_header(&self, change: impl FnOnce(String) -> String) {
        self.change(|bytes| {
            let (header, data) = split(bytes);
            let header = change(String::from_utf8(header.to_vec()).unwrap());
            *bytes = [&(header.len() as u64).to_le_bytes(), header.as_bytes(), data].concat();
        });
    }

    /// Opening must fail with one line that holds every one of `words`.
    #[track_caller]
    fn is_refused(&self, words: &[&str]) {
        let message = Checkpoint::open(self.folder()).err().expect("a refusal").to_string();
        assert!(!message.contains('\n'), "{message}");
        for word in words {
            assert!(message.contains(word), "no `{word}` in: {message}");
        }
    }
}

/// Header and data of a safetensors file.
fn split(bytes: &[u8]) -> (&[u8], &[u8]) {
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    bytes[8..].split_at(length)
}

#[test]
fn a_sound_model_opens() {
    let model = Model::new();
    let checkpoint = Checkpoint::open(model.folder()).unwrap();
    assert_eq!(checkpoint.first_non_finite(), None);
}

#[test]
fn truncated_files_are_refused() {
    for keep in [0, 5, 8, 100] {
        let model = Model::new();
        model.change(|bytes| bytes.truncate(keep));
        model.is_refused(&["model.safetensors", "truncated"]);
    }
    let model = Model::new();
    model.change(|bytes| bytes.truncate(bytes.len() - 1));
    model.is_refused(&["model.safetensors", "promises", "truncated"]);
}

#[test]
fn a_lying_header_length_is_refused() {
    for lie in [u64::MAX, 1 << 40, 200_000_000] {
        let model = Model::new();
        model.change(|bytes| bytes[..8].copy_from_slice(&lie.to_le_bytes()));
        model.is_refused(&["model.safetensors", &format!("header of {lie} bytes")]);
    }
    let model = Model::new();
    model.change(|bytes| bytes[0] ^= 1);
    model.is_refused(&["model.safetensors", "header"]);
}

#[test]
fn overlaps_gaps_and_offsets_outside_the_file_are_refused() {
    // The norm of layer 0 is 128 bytes; this moves its start, its end, and both.
    let shift = |text: String, by: [i64; 2]| {
        let key =
            "\"model.layers.0.input_layernorm.weight\":{\"dtype\":\"BF16\",\"shape\":[64],\"data_offsets\":[";
        let at = text.find(key).unwrap() + key.len();
        let end = at + text[at..].find(']').unwrap();
        let offsets: Vec<i64> = text[at..end].split(',').map(|x| x.parse().unwrap()).collect();
        format!("{}{},{}{}", &text[..at], offsets[0] + by[0], offsets[1] + by[1], &text[end..])
    };
    for by in [[-128, 0], [-128, -128], [128, 128], [0, 2], [1 << 40, 1 << 40], [i64::MAX / 2, i64::MAX / 2]]
    {
        let model = Model::new();
        model.change_header(|text| shift(text, by));
        model.is_refused(&["model.safetensors", "header is broken"]);
    }
}

#[test]
fn headers_that_are_no_json_or_overflow_are_refused() {
    let huge = |i: u64, from: u64, to: u64| {
        format!("\"t{i}\":{{\"dtype\":\"U8\",\"shape\":[{}],\"data_offsets\":[{from},{to}]}}", to - from)
    };
    let half = 1u64 << 60;
    let many: Vec<String> = (0..15).map(|i| huge(i, i * half, (i + 1) * half)).collect();
    for header in [
        "".to_string(),
        "[]".to_string(),
        "{".to_string(),
        "[".repeat(100_000),
        format!("{{{}}}", many.join(",")),
        "{\"x\":{\"dtype\":\"F32\",\"shape\":[18446744073709551615,3],\"data_offsets\":[0,4]}}".to_string(),
        "{\"x\":{\"dtype\":\"F31\",\"shape\":[1],\"data_offsets\":[0,4]}}".to_string(),
    ] {
        let model = Model::new();
        model.change_header(|_| header);
        model.is_refused(&["model.safetensors", "header"]);
    }
}

#[test]
fn missing_and_misshapen_tensors_are_named_together() {
    let model = Model::new();
    model.change_header(|text| {
        let text = text.replace("model.layers.1.mlp.up_proj", "model.layers.1.mlp.down_port");
        let text = text.replace(
            "layers.0.self_attn.k_proj.weight\":{\"dtype\":\"BF16\"",
            "layers.0.self_attn.k_proj.weight\":{\"dtype\":\"I16\"",
        );
        text.replace(
            "\"model.norm.weight\":{\"dtype\":\"BF16\",\"shape\":[64]",
            "\"model.norm.weight\":{\"dtype\":\"BF16\",\"shape\":[8,8]",
        )
    });
    model.is_refused(&[
        "3 of 21 tensors",
        "`model.layers.1.mlp.up_proj.weight` is missing",
        "`model.norm.weight` is [8, 8], expected [64]",
        "`model.layers.0.self_attn.k_proj.weight` is stored as I16",
    ]);
    let model = Model::new();
    let config = fs::read_to_string(model.folder().join("config.json")).unwrap();
    fs::write(
        model.folder().join("config.json"),
        config.replace("\"num_hidden_layers\": 2", "\"num_hidden_layers\": 3"),
    )
    .unwrap();
    model.is_refused(&["9 of 30 tensors", "and 5 more"]);
}

#[test]
fn missing_and_malformed_files_are_named() {
    let model = Model::new();
    fs::remove_file(model.weights()).unwrap();
    model.is_refused(&["holds neither model.safetensors nor"]);
    fs::write(model.folder().join("pytorch_model.bin"), "pickled").unwrap();
    model.is_refused(&["holds pytorch_model.bin", "python -c", "save_pretrained"]);
    let index = model.folder().join("model.safetensors.index.json");
    for (text, words) in [
        ("{}", "weight_map"),
        ("{\"weight_map\": {\"a\": \"gone.safetensors\"}}", "gone.safetensors"),
        ("{\"weight_map\": {\"a\": \"../m/x.safetensors\"}}", "plain file name"),
        ("{\"weight_map\": {}}", "21 of 21"),
    ] {
        fs::write(&index, text).unwrap();
        model.is_refused(&[words]);
    }
    for (text, word) in [("", "JSON"), ("{\"hidden_size\": 64}", "architecture"), ("[1]", "JSON")] {
        fs::write(model.folder().join("config.json"), text).unwrap();
        model.is_refused(&["config.json", word]);
    }
    let nowhere = Checkpoint::open("/no/such/model").err().unwrap().to_string();
    assert!(nowhere.contains("/no/such/model") && nowhere.contains("no such"), "{nowhere}");
}

/// A tied model whose file has the one matrix under the head's name, as transformers 4.41 saved them.
#[test]
fn a_tied_model_that_stores_its_head_alone_is_the_same_model() {
    let model = Model::new();
    let tied = ModelConfig { tied_embeddings: true, ..synthetic::config("tiny").unwrap() };
    fs::remove_dir_all(model.folder()).unwrap();
    synthetic::write_random_model(&model.folder(), &tied, 1, &mut |_, _| {}).unwrap();
    let embedding = || {
        let checkpoint = Checkpoint::open(model.folder()).unwrap();
        read_all(&checkpoint);
        checkpoint.bytes("model.embed_tokens.weight").unwrap().to_vec()
    };
    let before = embedding();
    model.change_header(|text| text.replace("model.embed_tokens.weight", "lm_head.weight"));
    assert_eq!(embedding(), before);
    model.change_header(|text| text.replace("lm_head.weight", "lm_haed.weight"));
    model.is_refused(&["`model.embed_tokens.weight` is missing"]);
}

#[test]
fn biases_that_the_config_does_not_call_for_are_refused() {
    let model = Model::new();
    model.change_header(|text| text.replace("model.norm.weight", "model.layers.0.mlp.up_proj.bias"));
    model.is_refused(&["`model.norm.weight` is missing", "`model.layers.0.mlp.up_proj.bias` is stored"]);
}

#[test]
fn a_slow_tokenizer_alone_is_refused_with_the_command_that_converts_it() {
    for name in ["tokenizer.model", "vocab.json"] {
        let model = Model::new();
        fs::remove_file(model.folder().join("tokenizer.json")).unwrap();
        fs::write(model.folder().join(name), "pieces").unwrap();
        let message = Tokenizer::load(model.folder()).err().expect("a refusal").to_string();
        for part in [name, "tokenizer.json", "python -c", "save_pretrained"] {
            assert!(message.contains(part) && !message.contains('\n'), "{message}");
        }
    }
}

#[test]
fn the_first_weight_that_is_no_number_is_named() {
    for (pattern, shown) in [(0x7fc0u16, "NaN"), (0x7f80, "inf"), (0xff80, "-inf")] {
        let model = Model::new();
        let text = fs::read(model.weights()).unwrap();
        let header: serde_json::Value = serde_json::from_slice(split(&text).0).unwrap();
        let name = "model.layers.1.self_attn.o_proj.weight";
        let start = header[name]["data_offsets"][0].as_u64().unwrap() as usize;
        let data = text.len() - split(&text).1.len();
        // Row 2, column 5 of 64, two bytes each; and one more further on, which is not named.
        model.change(|bytes| {
            for at in [2 * 64 + 5, 3 * 64] {
                bytes[data + start + 2 * at..][..2].copy_from_slice(&pattern.to_le_bytes());
            }
        });
        let found = Checkpoint::open(model.folder()).unwrap().first_non_finite();
        assert_eq!(found, Some(format!("{name}[2, 5] is {shown}")));
    }
}

#[test]
fn a_tokenizer_of_another_model_is_refused() {
    let model = Model::new();
    let tokenizer = Tokenizer::load(model.folder()).unwrap();
    assert_eq!(tokenizer.check_fits(512), Ok(()));
    let message = tokenizer.check_fits(500).unwrap_err().to_string();
    assert!(message.contains("511") && message.contains("500"), "{message}");
    for text in ["", "{}", "{\"model\": 3, \"decoder\": {\"type\": \"ByteFallback\"}}", "[]"] {
        let file = model.folder().join("tokenizer.json");
        fs::write(&file, text).unwrap();
        let message = Tokenizer::load(&file).err().expect("a refusal").to_string();
        assert!(message.contains("tokenizer") && !message.contains('\n'), "{text}: {message}");
    }
}

/// Some hundred random changes to the header: an error or a sound model, never a panic or a read out of bounds.
#[test]
fn mutated_headers_never_panic() {
    let model = Model::new();
    let sound = fs::read(model.weights()).unwrap();
    let length = split(&sound).0.len();
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut random = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % below as u64) as usize
    };
    let mut refused = 0;
    for round in 0..400 {
        let mut bytes = sound.clone();
        for _ in 0..1 + random(3) {
            let at = if round % 8 == 0 { random(8) } else { 8 + random(length) };
            bytes[at] = match random(3) {
                0 => bytes[at] ^ 1 << random(8),
                1 => b"0123456789[]{},:\""[random(17)],
                _ => random(256) as u8,
            };
        }
        let path = model.folder().join("model.safetensors");
        replace(&path, &bytes);
        match Checkpoint::open(model.folder()) {
            Err(e) => {
                refused += 1;
                assert!(!e.to_string().contains('\n'), "{e}");
            }
            Ok(checkpoint) => read_all(&checkpoint),
        }
    }
    assert!(refused > 200, "{refused} of 400 were refused");
}

/// Random changes to the config: an error or a config whose tensors can be counted.
#[test]
fn mutated_configs_never_panic() {
    let sound = synthetic::config("tiny").unwrap().to_json(DType::F32);
    let values =
        ["-1", "0", "1", "3", "1e30", "18446744073709551615", "null", "true", "\"x\"", "[]", "{}", "[1, 2]"];
    for (key, _) in sound.as_object().unwrap() {
        for value in values {
            let mut config = sound.clone();
            config[key] = serde_json::from_str(value).unwrap();
            match ModelConfig::parse(&config.to_string()) {
                Ok(config) => assert!(config.parameters() > 0),
                Err(e) => assert!(!e.to_string().contains('\n'), "{key} = {value}: {e}"),
            }
        }
    }
}

/// A new file under the same name, as the project itself replaces files: the old one may still be mapped.
fn replace(path: &Path, bytes: &[u8]) {
    fs::remove_file(path).unwrap();
    fs::write(path, bytes).unwrap();
}

fn read_all(checkpoint: &Checkpoint) {
    let device = Device::cpu();
    for (name, _) in checkpoint.config().tensor_shapes() {
        WeightLoader::new(checkpoint, &device).tensor(&name, &TensorSlice::Full, DType::F32).unwrap();
    }
    checkpoint.first_non_finite();
}
