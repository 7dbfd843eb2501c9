//! Adapters as PEFT stores them: `adapter_config.json` and `adapter_model.safetensors`. Methods that PEFT does not know
//! are stored alike under a `peft_type` of our own, which it refuses.

use super::{Adapter, Method, Pair, Settings};
use crate::config::{Config, Linear};
use crate::folder::replace;
use crate::part::Part;
use crate::tensor_file::{TensorFile, first_few};
use crate::tensor_writer::{Spec, write_file, write_json};
use codelsi_engine::{At, DType, Device, Error, Label, Result, Tensor};
use safetensors::Dtype;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// What PEFT puts before a module's path.
const PEFT_PREFIX: &str = "base_model.model.";

impl Adapter {
    /// Reads an adapter folder and checks it against the model it is for. F16 and BF16 files are widened.
    ///
    /// # Errors
    /// One line: the setting that is not supported, or the tensors that are missing, unknown or misshapen.
    pub fn load(folder: impl AsRef<Path>, config: &Config) -> Result<Self> {
        let folder = folder.as_ref();
        let path = folder.join("adapter_config.json");
        let text = fs::read_to_string(&path).map_err(|e| Error::io(&path, e))?;
        let stored = Stored::parse(&text).at(path.display().to_string())?;
        let path = folder.join("adapter_model.safetensors");
        let file = TensorFile::open(&path)?;
        stored.with_pairs(&file, config).at(path.display().to_string())
    }

    /// Writes the folder, atomically, over an older adapter if there is one. `base` is what the adapter is for, a path or a name.
    ///
    /// # Errors
    /// When it holds other files or cannot be written.
    pub fn save(&self, folder: impl AsRef<Path>, base: &str) -> Result<()> {
        replace(folder.as_ref(), "adapter_config.json", |folder| self.write(folder, base))
    }

    /// Writes the two files into a folder that exists.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn write(&self, folder: &Path, base: &str) -> Result<()> {
        write_json(folder.join("adapter_config.json"), &self.to_json(base))?;
        let names = self.settings.method.tensors();
        let of_place = |(path, pair): (&String, &'_ Pair)| -> Vec<(String, Tensor)> {
            names.iter().zip(pair.tensors()).map(|(name, t)| (tensor_name(path, name), t.clone())).collect()
        };
        let tensors: BTreeMap<String, Tensor> = self.pairs.iter().flat_map(of_place).collect();
        let specs: Vec<Spec> = tensors
            .iter()
            .map(|(name, t)| Spec { name: name.clone(), dtype: Dtype::F32, shape: t.shape().to_vec() })
            .collect();
        write_file(folder.join("adapter_model.safetensors"), &specs, &mut |spec, out| {
            out.write_all(&tensors[&spec.name].to_bytes().map_err(std::io::Error::other)?)
        })
    }

    /// The settings that PEFT needs, which has defaults for the rest; or those of a method of our own.
    fn to_json(&self, base: &str) -> Value {
        let Settings { method, rank, alpha, dropout, targets } = &self.settings;
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

/// 0.05 for 0.05f32, not the nearest f32 widened.
fn shortest(x: f32) -> f64 {
    x.to_string().parse().unwrap_or(x.into())
}

fn tensor_name(path: &str, name: &str) -> String {
    format!("{PEFT_PREFIX}{path}.{name}")
}

/// `peft_type` of what PEFT does not know.
const MIXTURE: &str = "CODELSI_MIXTURE";
const BOTTLENECK: &str = "CODELSI_BOTTLENECK";

/// What `adapter_config.json` says.
struct Stored {
    settings: Settings,
    /// PEFT left the choice of modules to a pattern: the file's tensors tell.
    by_name: bool,
}

/// Settings that change what an adapter computes. Only their empty values are supported.
const REFUSED: [&str; 19] = [
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

impl Stored {
    fn parse(text: &str) -> Result<Self> {
        let json: Map<String, Value> =
            serde_json::from_str(text).map_err(|e| Error::new(format!("not a JSON object: {e}")))?;
        let get = |key: &str| json.get(key).filter(|v| !v.is_null());
        let refuse = |key: &str, value: &Value| Err(Error::new(format!("`{key}` is {value}: not supported")));
        let on = |key: &str| get(key).and_then(Value::as_bool).unwrap_or(false);
        let size = |key: &str, most: u64| {
            let size = get(key).and_then(Value::as_u64).filter(|n| (1..=most).contains(n));
            size.map(|n| n as usize)
                .ok_or_else(|| Error::new(format!("`{key}` is missing or no number from 1 to {most}")))
        };
        let method = match get("peft_type") {
            Some(kind) if kind == MIXTURE => Method::Mixture { experts: size("experts", 1 << 10)? },
            Some(kind) if kind == BOTTLENECK => Method::Bottleneck,
            Some(kind) if kind != "LORA" => return refuse("peft_type", kind),
            _ => Method::LowRank { rslora: on("use_rslora"), dora: on("use_dora") },
        };
        for key in REFUSED {
            if let Some(value) = get(key).filter(|value| !is_empty(value)) {
                return refuse(key, value);
            }
        }
        // The others (PiSSA, OLoRA, LoftQ, …) come with a changed base model.
        if let Some(init) = get("init_lora_weights")
            && !(init.is_boolean() || ["gaussian", "eva", "orthogonal"].iter().any(|known| init == known))
        {
            return refuse("init_lora_weights", init);
        }
        let number = |key: &str, default: Option<f64>| {
            let x = get(key).map_or(default, Value::as_f64);
            x.filter(|x| x.is_finite()).ok_or_else(|| Error::new(format!("`{key}` is missing or no number")))
        };
        let dropout = number("lora_dropout", Some(0.0))?;
        if !(0.0..1.0).contains(&dropout) {
            return Err(Error::new(format!("`lora_dropout` is {dropout}, not from 0 to 1")));
        }
        // A bottleneck has no alpha, and stands beside no linear.
        let bottleneck = method == Method::Bottleneck;
        let named = get("target_modules").and_then(Value::as_array).map(|t| targets(t)).transpose()?;
        Ok(Stored {
            by_name: named.is_none() && !bottleneck,
            settings: Settings {
                method,
                rank: size("r", 1 << 16)?,
                alpha: number("lora_alpha", bottleneck.then_some(1.0))? as f32,
                dropout: dropout as f32,
                targets: named.unwrap_or_else(|| Linear::ALL.into()),
            },
        })
    }

    fn with_pairs(mut self, file: &TensorFile, config: &Config) -> Result<Adapter> {
        if self.by_name {
            self.settings.targets = named_in(file);
        }
        let settings = self.settings;
        let (names, places) = (settings.method.tensors(), settings.places(config));
        let of_place = |(path, width): &(String, (usize, usize))| -> Vec<(String, Vec<usize>)> {
            let shapes = settings.shapes(*width);
            names.iter().zip(shapes).map(|(name, shape)| (tensor_name(path, name), shape)).collect()
        };
        check(file, &places.iter().flat_map(of_place).collect())?;
        let device = Device::cpu();
        let tensor = |path: &str, i: usize| {
            let name = tensor_name(path, names[i]);
            file.tensor(&device, Label::Adapters, &name, &Part::Whole, DType::F32)
        };
        let pair = |(path, _): (String, _)| {
            let pair = Pair::made(settings.method, |i| tensor(&path, i))?;
            Ok((path, pair))
        };
        Ok(Adapter { pairs: places.into_iter().map(pair).collect::<Result<_>>()?, settings })
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Bool(on) => !on,
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        other => other == "none",
    }
}

fn targets(names: &[Value]) -> Result<BTreeSet<Linear>> {
    let all = names.iter().map(|name| name.as_str().unwrap_or("").parse()).collect::<Result<BTreeSet<_>>>();
    let all = all.at("target_modules")?;
    if all.is_empty() { Err(Error::new("`target_modules` is empty")) } else { Ok(all) }
}

/// The linears that a file's names speak of.
fn named_in(file: &TensorFile) -> BTreeSet<Linear> {
    let names = file.entries().keys().filter_map(|name| name.rsplit_once(".lora_")?.0.rsplit_once('.'));
    names.filter_map(|(_, linear)| linear.parse().ok()).collect()
}

fn check(file: &TensorFile, expected: &BTreeMap<String, Vec<usize>>) -> Result<()> {
    let mut misfits = Vec::new();
    for (name, shape) in expected {
        match file.entries().get(name) {
            None => misfits.push(format!("`{name}` is missing")),
            Some(entry) if entry.shape != *shape => {
                misfits.push(format!("`{name}` is {:?}, expected {:?}", entry.shape, shape));
            }
            Some(_) => {}
        }
    }
    let unknown = file.entries().keys().filter(|name| !expected.contains_key(*name));
    misfits.extend(unknown.map(|name| format!("`{name}` adapts no linear of this model")));
    if misfits.is_empty() {
        return Ok(());
    }
    Err(Error::new(format!("{} tensors do not fit the model: {}", misfits.len(), first_few(&misfits))))
}

#[cfg(test)]
mod tests {
    use super::super::tests::config;
    use super::*;
    use crate::shared::shared;

    #[test]
    fn peft_files_survive_a_round_trip_byte_for_byte() {
        for case in ["mha_f32", "gqa_bf16_sharded", "tied_f32", "hd128_bf16"] {
            let Some(reference) = shared(&format!("reference/{case}")) else { return };
            let config = Config::load(reference.join("model")).unwrap();
            let adapter = Adapter::load(reference.join("adapter"), &config).unwrap();
            let settings = &adapter.settings;
            assert_eq!((settings.rank, settings.scaling(), adapter.pairs.len()), (16, 2.0, 14));
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
                .sort_by_key(|t| t.as_str().unwrap().parse::<Linear>().unwrap());
            for (key, value) in settings(&folder.path().join("copy")) {
                assert_eq!(Some(&value), theirs.get(&key), "{case}: {key}");
            }
        }
    }

    #[test]
    fn every_method_s_files_are_read_as_what_they_were_written_from() {
        for case in ["dora", "mixture", "bottleneck"] {
            let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/goldens").join(case);
            let config = Config::load(folder.join("model")).unwrap();
            let adapter = Adapter::load(folder.join("adapter"), &config).unwrap();
            let copy = tempfile::tempdir().unwrap();
            adapter.save(copy.path().join("copy"), "base").unwrap();
            let read = |path: &Path| fs::read(path.join("adapter_model.safetensors")).unwrap();
            assert!(read(&copy.path().join("copy")) == read(&folder.join("adapter")), "{case}");
            let again = Adapter::load(copy.path().join("copy"), &config).unwrap();
            assert_eq!(again.settings, adapter.settings);
            let text = fs::read_to_string(copy.path().join("copy/adapter_config.json")).unwrap();
            let json: Value = serde_json::from_str(&text).unwrap();
            let of_peft = case == "dora" && json["use_dora"] == true;
            assert_eq!(json["peft_type"] == "LORA", of_peft, "PEFT refuses what it does not know: {text}");
        }
    }

    #[test]
    fn what_does_not_fit_is_named_in_one_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("adapter");
        Adapter::fresh(&config(), 4, 8.0, 0.05, &[Linear::K], 1).unwrap().save(&path, "base").unwrap();
        assert_eq!(Adapter::load(&path, &config()).unwrap().settings.dropout, 0.05);
        let refused = |config: Config| Adapter::load(&path, &config).err().unwrap().to_string();
        let message = refused(Config { layers: 4, hidden: 16, ..config() });
        assert!(
            message.contains("6 tensors") && message.contains("layers.2") && message.contains("and 2 more"),
            "{message}"
        );
        assert!(refused(Config { layers: 1, ..config() }).contains("adapts no linear"));

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
            let message = refused(config());
            assert!(message.contains(key) && !message.contains('\n'), "{key}: {message}");
        }
    }
}
