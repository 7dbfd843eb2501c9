//! Adapter folders in PEFT's format: `adapter_config.json` and `adapter_model.safetensors`. Methods that PEFT does
//! not have are stored in the same way under a `peft_type` of our own, which PEFT refuses.

use super::{Adapter, AdapterConfig, AdapterTensors, Method};
use crate::checkpoint::{TensorFile, TensorSlice, summarize};
use crate::config::{LinearName, ModelConfig};
use crate::output_folder::write_folder;
use crate::tensor_writer::{TensorSpec, write_json, write_tensor_file};
use codelsi_engine::{At, DType, Device, Error, Label, Result, Tensor};
use safetensors::Dtype;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// PEFT's prefix of a module's path.
const PEFT_PREFIX: &str = "base_model.model.";

impl Adapter {
    /// Reads an adapter folder and checks it against the model it is for. F16 and BF16 files are widened.
    ///
    /// # Errors
    /// When a file cannot be read, a setting is not supported, or tensors are missing, unknown or of another shape.
    pub fn load(folder: impl AsRef<Path>, config: &ModelConfig) -> Result<Self> {
        let folder = folder.as_ref();
        let path = folder.join("adapter_config.json");
        let text = fs::read_to_string(&path).map_err(|e| Error::io(&path, e))?;
        let stored = StoredConfig::parse(&text).at(path.display().to_string())?;
        let path = folder.join("adapter_model.safetensors");
        let file = TensorFile::open(&path)?;
        stored.load_modules(&file, config).at(path.display().to_string())
    }

    /// Writes the folder atomically, replacing an older adapter. `base` is the path or the name of the base model.
    ///
    /// # Errors
    /// When the folder holds other files or cannot be written.
    pub fn save(&self, folder: impl AsRef<Path>, base: &str) -> Result<()> {
        write_folder(folder.as_ref(), "adapter_config.json", |folder| self.write(folder, base))
    }

    /// Writes the two files into a folder that exists.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn write(&self, folder: &Path, base: &str) -> Result<()> {
        write_json(folder.join("adapter_config.json"), &self.to_json(base))?;
        let names = self.config.method.tensor_names();
        let named = |(path, module): (&String, &'_ AdapterTensors)| -> Vec<(String, Tensor)> {
            names.iter().zip(module.tensors()).map(|(name, t)| (tensor_name(path, name), t.clone())).collect()
        };
        let tensors: BTreeMap<String, Tensor> = self.modules.iter().flat_map(named).collect();
        let specs: Vec<TensorSpec> = tensors
            .iter()
            .map(|(name, t)| TensorSpec { name: name.clone(), dtype: Dtype::F32, shape: t.shape().to_vec() })
            .collect();
        write_tensor_file(folder.join("adapter_model.safetensors"), &specs, &mut |spec, out| {
            out.write_all(&tensors[&spec.name].to_bytes().map_err(std::io::Error::other)?)
        })
    }

    /// Returns the content of `adapter_config.json`: the settings without a default in PEFT, or those of our own
    /// methods.
    fn to_json(&self, base: &str) -> Value {
        let AdapterConfig { method, rank, alpha, dropout, targets } = &self.config;
        let alpha = if alpha.fract() == 0.0 { json!(*alpha as i64) } else { json!(alpha) };
        let targets: Vec<&str> = targets.iter().map(|linear| linear.name()).collect();
        match *method {
            Method::LowRank { rslora, dora } => json!({
                "alpha_pattern": {},
                "base_model_name_or_path": base,
                "bias": "none",
                "fan_in_fan_out": false,
                "inference_mode": true,
                "init_lora_weights": true,
                "layers_to_transform": null,
                "lora_alpha": alpha,
                "lora_dropout": shortest(*dropout),
                "modules_to_save": null,
                "peft_type": "LORA",
                "r": rank,
                "rank_pattern": {},
                "target_modules": targets,
                "task_type": "CAUSAL_LM",
                "use_dora": dora,
                "use_rslora": rslora,
            }),
            Method::Mixture { experts } => json!({
                "base_model_name_or_path": base,
                "experts": experts,
                "lora_alpha": alpha,
                "lora_dropout": shortest(*dropout),
                "peft_type": MIXTURE,
                "r": rank,
                "target_modules": targets,
            }),
            Method::Bottleneck => json!({
                "base_model_name_or_path": base,
                "lora_dropout": shortest(*dropout),
                "peft_type": BOTTLENECK,
                "r": rank,
            }),
        }
    }
}

/// Returns the shortest decimal that reads as `x`: 0.05 for 0.05f32, not 0.05000000074505806.
fn shortest(x: f32) -> f64 {
    x.to_string().parse().unwrap_or(x.into())
}

fn tensor_name(path: &str, name: &str) -> String {
    format!("{PEFT_PREFIX}{path}.{name}")
}

/// `peft_type` of methods that PEFT does not have.
const MIXTURE: &str = "CODELSI_MIXTURE";
const BOTTLENECK: &str = "CODELSI_BOTTLENECK";

/// A parsed `adapter_config.json`.
struct StoredConfig {
    settings: AdapterConfig,
    /// True if `target_modules` is a pattern: the targets are then taken from the names of the file's tensors.
    targets_by_name: bool,
}

/// Settings of methods that this engine does not implement: only their empty values are supported.
const UNSUPPORTED: [&str; 19] = [
    "alora_invocation_tokens",
    "alpha_pattern",
    "arrow_config",
    "exclude_modules",
    "fan_in_fan_out",
    "kasa_config",
    "layer_replication",
    "layers_pattern",
    "layers_to_transform",
    "lora_bias",
    "modules_to_save",
    "monteclora_config",
    "rank_pattern",
    "target_parameters",
    "trainable_token_indices",
    "use_bdlora",
    "use_qalora",
    "velora_config",
    "bias",
];

impl StoredConfig {
    fn parse(text: &str) -> Result<Self> {
        let json: Map<String, Value> =
            serde_json::from_str(text).map_err(|e| Error::new(format!("not a JSON object: {e}")))?;
        let get = |key: &str| json.get(key).filter(|v| !v.is_null());
        let refuse = |key: &str, value: &Value| Err(Error::new(format!("`{key}` is {value}: not supported")));
        let on = |key: &str| get(key).and_then(Value::as_bool).unwrap_or(false);
        let size = |key: &str, max: u64| {
            let n = get(key).and_then(Value::as_u64).filter(|n| (1..=max).contains(n));
            n.map(|n| n as usize)
                .ok_or_else(|| Error::new(format!("`{key}` is missing or not a number from 1 to {max}")))
        };
        let method = match get("peft_type") {
            Some(peft_type) if peft_type == MIXTURE => Method::Mixture { experts: size("experts", 1 << 10)? },
            Some(peft_type) if peft_type == BOTTLENECK => Method::Bottleneck,
            Some(peft_type) if peft_type != "LORA" => return refuse("peft_type", peft_type),
            _ => Method::LowRank { rslora: on("use_rslora"), dora: on("use_dora") },
        };
        for key in UNSUPPORTED {
            if let Some(value) = get(key).filter(|value| !is_empty(value)) {
                return refuse(key, value);
            }
        }
        // The others (PiSSA, OLoRA, LoftQ, …) change the base model.
        if let Some(init) = get("init_lora_weights")
            && !(init.is_boolean() || ["gaussian", "eva", "orthogonal"].iter().any(|known| init == known))
        {
            return refuse("init_lora_weights", init);
        }
        let number = |key: &str, default: Option<f64>| {
            let x = get(key).map_or(default, Value::as_f64);
            x.filter(|x| x.is_finite())
                .ok_or_else(|| Error::new(format!("`{key}` is missing or not a number")))
        };
        let dropout = number("lora_dropout", Some(0.0))?;
        if !(0.0..1.0).contains(&dropout) {
            return Err(Error::new(format!("`lora_dropout` is {dropout}, not from 0 to 1")));
        }
        // A bottleneck has no alpha and no target modules.
        let bottleneck = method == Method::Bottleneck;
        let targets =
            get("target_modules").and_then(Value::as_array).map(|t| parse_targets(t)).transpose()?;
        Ok(StoredConfig {
            targets_by_name: targets.is_none() && !bottleneck,
            settings: AdapterConfig {
                method,
                rank: size("r", 1 << 16)?,
                alpha: number("lora_alpha", bottleneck.then_some(1.0))? as f32,
                dropout: dropout as f32,
                targets: targets.unwrap_or_else(|| LinearName::ALL.into()),
            },
        })
    }

    /// Checks the file's tensors against a model of `config`, and loads them.
    fn load_modules(mut self, file: &TensorFile, config: &ModelConfig) -> Result<Adapter> {
        if self.targets_by_name {
            self.settings.targets = targets_in(file);
        }
        let settings = self.settings;
        let (names, modules) = (settings.method.tensor_names(), settings.adapted_modules(config));
        let named_shapes = |(path, shape): &(String, (usize, usize))| -> Vec<(String, Vec<usize>)> {
            let shapes = settings.tensor_shapes(*shape);
            names.iter().zip(shapes).map(|(name, shape)| (tensor_name(path, name), shape)).collect()
        };
        check_tensors(file, &modules.iter().flat_map(named_shapes).collect())?;
        check_finite(file)?;
        let device = Device::cpu();
        let tensor = |path: &str, i: usize| {
            let name = tensor_name(path, names[i]);
            file.tensor(&device, Label::Adapters, &name, &TensorSlice::Full, DType::F32)
        };
        let module = |(path, _): (String, _)| {
            let tensors = AdapterTensors::build(settings.method, |i| tensor(&path, i))?;
            Ok((path, tensors))
        };
        Ok(Adapter { modules: modules.into_iter().map(module).collect::<Result<_>>()?, config: settings })
    }
}

/// True for the values by which PEFT turns a setting off.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Bool(on) => !on,
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        other => other == "none",
    }
}

/// Parses the list `target_modules`.
fn parse_targets(names: &[Value]) -> Result<BTreeSet<LinearName>> {
    let all = names.iter().map(|name| name.as_str().unwrap_or("").parse()).collect::<Result<BTreeSet<_>>>();
    let all = all.at("target_modules")?;
    if all.is_empty() { Err(Error::new("`target_modules` is empty")) } else { Ok(all) }
}

/// Returns the linears that occur in the names of a file's tensors.
fn targets_in(file: &TensorFile) -> BTreeSet<LinearName> {
    let names = file.entries().keys().filter_map(|name| name.rsplit_once(".lora_")?.0.rsplit_once('.'));
    names.filter_map(|(_, linear)| linear.parse().ok()).collect()
}

/// Checks that a file holds exactly the `expected` names and shapes.
///
/// # Errors
/// When tensors are missing, unknown or of another shape.
fn check_tensors(file: &TensorFile, expected: &BTreeMap<String, Vec<usize>>) -> Result<()> {
    let mut mismatches = Vec::new();
    for (name, shape) in expected {
        match file.entries().get(name) {
            None => mismatches.push(format!("`{name}` is missing")),
            Some(entry) if entry.shape != *shape => {
                mismatches.push(format!("`{name}` is {:?}, expected {:?}", entry.shape, shape));
            }
            Some(_) => {}
        }
    }
    let unknown = file.entries().keys().filter(|name| !expected.contains_key(*name));
    mismatches.extend(unknown.map(|name| format!("`{name}` adapts no linear of this model")));
    if mismatches.is_empty() {
        return Ok(());
    }
    Err(Error::new(format!("{} tensors do not fit the model: {}", mismatches.len(), summarize(&mismatches))))
}

/// Checks that no tensor of a file holds NaN or infinity, which would reach every output.
///
/// # Errors
/// The first one that does.
fn check_finite(file: &TensorFile) -> Result<()> {
    for name in file.entries().keys() {
        if let Some((index, value)) = file.non_finite(name)? {
            return Err(Error::new(format!("`{name}`{index:?} is {value}; the adapter is damaged")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::synthetic;
    use codelsi_testing::shared;

    #[test]
    fn peft_files_survive_a_round_trip_byte_for_byte() {
        for case in ["mha_f32", "gqa_bf16_sharded", "tied_f32", "hd128_bf16"] {
            let Some(reference) = shared(format!("reference/{case}")) else { return };
            let config = ModelConfig::load(reference.join("model")).unwrap();
            let adapter = Adapter::load(reference.join("adapter"), &config).unwrap();
            let settings = &adapter.config;
            assert_eq!((settings.rank, settings.scaling(), adapter.modules.len()), (16, 2.0, 14));
            let folder = tempfile::tempdir().unwrap();
            adapter.save(folder.path().join("copy"), "../model").unwrap();
            let read = |path: &Path| fs::read(path.join("adapter_model.safetensors")).unwrap();
            assert_eq!(read(&folder.path().join("copy")), read(&reference.join("adapter")), "{case}");
            let settings = |path: &Path| -> Map<String, Value> {
                serde_json::from_str(&fs::read_to_string(path.join("adapter_config.json")).unwrap()).unwrap()
            };
            let mut theirs = settings(&reference.join("adapter"));
            theirs["target_modules"]
                .as_array_mut()
                .unwrap()
                .sort_by_key(|t| t.as_str().unwrap().parse::<LinearName>().unwrap());
            for (key, value) in settings(&folder.path().join("copy")) {
                assert_eq!(Some(&value), theirs.get(&key), "{case}: {key}");
            }
        }
    }

    #[test]
    fn the_files_of_every_method_survive_a_round_trip() {
        for case in ["dora", "mixture", "bottleneck"] {
            let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/goldens").join(case);
            let config = ModelConfig::load(folder.join("model")).unwrap();
            let adapter = Adapter::load(folder.join("adapter"), &config).unwrap();
            let copy = tempfile::tempdir().unwrap();
            adapter.save(copy.path().join("copy"), "base").unwrap();
            let read = |path: &Path| fs::read(path.join("adapter_model.safetensors")).unwrap();
            assert!(read(&copy.path().join("copy")) == read(&folder.join("adapter")), "{case}");
            let again = Adapter::load(copy.path().join("copy"), &config).unwrap();
            assert_eq!(again.config, adapter.config);
            let text = fs::read_to_string(copy.path().join("copy/adapter_config.json")).unwrap();
            let json: Value = serde_json::from_str(&text).unwrap();
            let of_peft = case == "dora" && json["use_dora"] == true;
            assert_eq!(json["peft_type"] == "LORA", of_peft, "PEFT refuses what it does not know: {text}");
        }
    }

    #[test]
    fn mismatches_are_reported_in_one_line() {
        let tiny = synthetic::config("tiny").unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("adapter");
        Adapter::init_lora(&tiny, 4, 8.0, 0.05, &[LinearName::K], 1).unwrap().save(&path, "base").unwrap();
        assert_eq!(Adapter::load(&path, &tiny).unwrap().config.dropout, 0.05);
        let refused = |config: ModelConfig| Adapter::load(&path, &config).err().unwrap().to_string();
        let message = refused(ModelConfig { layers: 4, hidden: 16, ..tiny.clone() });
        assert!(
            message.contains("6 tensors") && message.contains("layers.2") && message.contains("and 2 more"),
            "{message}"
        );
        assert!(refused(ModelConfig { layers: 1, ..tiny.clone() }).contains("adapts no linear"));

        let mut damaged = Adapter::init_lora(&tiny, 4, 8.0, 0.0, &[LinearName::K], 1).unwrap();
        let module = damaged.modules.get_mut("model.layers.1.self_attn.k_proj").unwrap();
        module.b.slice_mut::<f32>().unwrap()[5] = f32::NEG_INFINITY;
        damaged.save(folder.path().join("damaged"), "base").unwrap();
        let message = Adapter::load(folder.path().join("damaged"), &tiny).err().unwrap().to_string();
        assert!(message.contains("layers.1.self_attn.k_proj.lora_B.weight`[1, 1] is -inf"), "{message}");

        let text = fs::read_to_string(path.join("adapter_config.json")).unwrap();
        for (key, value) in [
            ("use_qalora", json!(true)),
            ("modules_to_save", json!(["lm_head"])),
            ("bias", json!("all")),
            ("alpha_pattern", json!({"q_proj": 1})),
            ("init_lora_weights", json!("pissa")),
            ("peft_type", json!("IA3")),
            ("target_modules", json!(["lm_head"])),
            ("r", json!(0)),
            ("lora_alpha", json!("x")),
            ("lora_dropout", json!(1.5)),
        ] {
            let mut json: Value = serde_json::from_str(&text).unwrap();
            json[key] = value;
            fs::write(path.join("adapter_config.json"), json.to_string()).unwrap();
            let message = refused(tiny.clone());
            assert!(message.contains(key) && !message.contains('\n'), "{key}: {message}");
        }
    }
}
