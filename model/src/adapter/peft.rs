//! Adapter folders in PEFT's format: `adapter_config.json` and `adapter_model.safetensors`. Methods that PEFT does
//! not have are stored in the same way under a `peft_type` of our own, which PEFT refuses.

use super::peft_config::{AdapterSummary, StoredConfig};
use super::saved::{self, EMBEDDING, HEAD};
use super::{AdaptedModule, Adapter, AdapterConfig, AdapterTensors};
use crate::checkpoint::{TensorFile, TensorSlice, summarize};
use crate::config::ModelConfig;
use crate::hub;
use crate::output_folder::write_folder;
use crate::tensor_writer::{TensorSpec, write_json, write_tensor_file};
use codelsi_engine::{At, DType, Device, Error, Label, Result, Tensor};
use safetensors::Dtype;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// PEFT's prefix of a module's path.
const PEFT_PREFIX: &str = "base_model.model.";

/// File of an adapter's settings.
const CONFIG: &str = "adapter_config.json";

impl Adapter {
    /// Reads an adapter folder and checks it against the model it is for. F16 and BF16 files are widened.
    ///
    /// # Errors
    /// When a file cannot be read, a setting is not supported, or tensors are missing, unknown or of another shape.
    pub fn load(folder: impl AsRef<Path>, config: &ModelConfig) -> Result<Self> {
        let folder = folder.as_ref();
        let (stored, file) = open(folder)?;
        let has_biases = stored.has_biases();
        let settings = stored.settings(config).at(folder.join(CONFIG).display().to_string())?;
        load_tensors(settings, has_biases, &file, config).at(file.path().display().to_string())
    }

    /// Reads the settings of an adapter folder and every tensor, without the model that it is for.
    ///
    /// # Errors
    /// When a file cannot be read, a setting is not supported, or a tensor holds NaN or infinity.
    pub fn summary(folder: impl AsRef<Path>) -> Result<AdapterSummary> {
        let (stored, file) = open(folder.as_ref())?;
        check_finite(&file).at(file.path().display().to_string())?;
        let parameters = file.entries().values().map(|entry| entry.shape.iter().product::<usize>()).sum();
        Ok(AdapterSummary { parameters, ..stored.summary() })
    }

    /// Writes the folder atomically, replacing an older adapter. `base` is the path or the name of the base model.
    ///
    /// # Errors
    /// When the folder holds other files or cannot be written.
    pub fn save(&self, folder: impl AsRef<Path>, base: &str) -> Result<()> {
        write_folder(folder.as_ref(), CONFIG, |folder| self.write(folder, base))
    }

    /// Writes the two files into a folder that exists.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn write(&self, folder: &Path, base: &str) -> Result<()> {
        write_json(folder.join(CONFIG), &self.to_json(base))?;
        let names = self.config.method.tensor_names();
        let named = |(path, module): (&String, &'_ AdapterTensors)| -> Vec<(String, Tensor)> {
            names.iter().zip(module.tensors()).map(|(name, t)| (tensor_name(path, name), t.clone())).collect()
        };
        let saved = self.saved.iter().map(|(name, t)| (format!("{PEFT_PREFIX}{name}"), t.clone()));
        let tensors: BTreeMap<String, Tensor> = self.modules.iter().flat_map(named).chain(saved).collect();
        let specs: Vec<TensorSpec> = tensors
            .iter()
            .map(|(name, t)| TensorSpec { name: name.clone(), dtype: Dtype::F32, shape: t.shape().to_vec() })
            .collect();
        write_tensor_file(folder.join("adapter_model.safetensors"), &specs, &mut |spec, out| {
            out.write_all(&tensors[&spec.name].to_bytes().map_err(std::io::Error::other)?)
        })
    }
}

fn tensor_name(path: &str, name: &str) -> String {
    format!("{PEFT_PREFIX}{path}.{name}")
}

/// Opens the two files of an adapter folder.
fn open(folder: &Path) -> Result<(StoredConfig, TensorFile)> {
    hub::check_folder(folder, "adapter")?;
    let path = folder.join(CONFIG);
    let text = fs::read_to_string(&path).map_err(|e| Error::io(&path, e))?;
    let stored = StoredConfig::parse(&text).at(path.display().to_string())?;
    let path = folder.join("adapter_model.safetensors");
    if !path.exists() && folder.join("adapter_model.bin").exists() {
        let what = "holds adapter_model.bin alone, which is not read: save it again with PEFT, which writes safetensors";
        return Err(Error::io(folder, what));
    }
    Ok((stored, TensorFile::open(path)?))
}

/// Loads the tensors of `file`, checked against a model of `config`.
fn load_tensors(
    settings: AdapterConfig,
    has_biases: bool,
    file: &TensorFile,
    config: &ModelConfig,
) -> Result<Adapter> {
    let (names, modules) = (settings.method.tensor_names(), settings.adapted_modules(config));
    let named_shapes = |module: &AdaptedModule| -> Vec<(String, Vec<usize>)> {
        let shapes = names.iter().zip(&module.tensor_shapes);
        shapes.map(|(name, shape)| (tensor_name(&module.path, name), shape.clone())).collect()
    };
    let saved = saved_in(file, &settings, has_biases, config)?;
    let saved_shapes = saved.iter().map(|(name, shape)| (format!("{PEFT_PREFIX}{name}"), shape.clone()));
    check_tensors(file, &modules.iter().flat_map(named_shapes).chain(saved_shapes).collect())?;
    check_finite(file)?;
    let device = Device::cpu();
    let tensor = |name: &str| file.tensor(&device, Label::Adapters, name, &TensorSlice::Full, DType::F32);
    let module = |module: AdaptedModule| {
        let tensors =
            AdapterTensors::build(settings.method, |i| tensor(&tensor_name(&module.path, names[i])))?;
        Ok((module.path, tensors))
    };
    let modules = modules.into_iter().map(module).collect::<Result<_>>()?;
    let saved = saved.into_keys().map(|name| Ok((name.clone(), tensor(&format!("{PEFT_PREFIX}{name}"))?)));
    let mut saved: BTreeMap<String, Tensor> = saved.collect::<Result<_>>()?;
    if config.tied_embeddings {
        keep_tied(&mut saved, &settings);
    }
    Ok(Adapter { modules, saved, config: settings })
}

/// Names and shapes of the base's weights that a file holds or has to hold: those that `modules_to_save` names, and
/// what else it holds of the embedding, the head and, if it may hold biases, of these.
fn saved_in(
    file: &TensorFile,
    settings: &AdapterConfig,
    has_biases: bool,
    config: &ModelConfig,
) -> Result<BTreeMap<String, Vec<usize>>> {
    let mut all = settings.saved_weights(config)?;
    let held = saved::weights(config).into_iter().filter(|(name, _)| {
        let may_hold = matches!(&name[..], EMBEDDING | HEAD) || has_biases && name.ends_with(".bias");
        may_hold && file.entries().contains_key(&format!("{PEFT_PREFIX}{name}"))
    });
    all.extend(held);
    let bias = file.entries().keys().filter(|name| name.ends_with(".bias"));
    let lacking = bias.filter(|name| !all.contains_key(name.strip_prefix(PEFT_PREFIX).unwrap_or_default()));
    match lacking.min() {
        Some(name) if has_biases => {
            Err(Error::new(format!("`{name}` is a bias (`bias` is set); this model's linear has none")))
        }
        _ => Ok(all),
    }
}

/// Gives the embedding and the head of a tied model one value where a file holds one of them for both, as PEFT does:
/// those that `modules_to_save` names are copies, and no longer tied.
fn keep_tied(saved: &mut BTreeMap<String, Tensor>, settings: &AdapterConfig) {
    let shared: Vec<&str> = [EMBEDDING, HEAD].into_iter().filter(|name| !settings.saves(name)).collect();
    let value = shared.iter().rev().find_map(|name| saved.get(*name)).cloned();
    let value = value.into_iter().flat_map(|t| shared.iter().map(move |name| (name.to_string(), t.clone())));
    saved.extend(value);
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
    use crate::config::LinearName;
    use crate::synthetic;
    use codelsi_testing::shared;
    use serde_json::{Map, Value, json};

    #[test]
    fn peft_files_survive_a_round_trip_byte_for_byte() {
        for case in ["mha_f32", "gqa_bf16_sharded", "tied_f32", "hd128_bf16"] {
            let Some(reference) = shared(format!("reference/{case}")) else { return };
            let config = ModelConfig::load(reference.join("model")).unwrap();
            let adapter = Adapter::load(reference.join("adapter"), &config).unwrap();
            let settings = &adapter.config;
            assert_eq!((settings.rank, settings.default_scaling(), adapter.modules.len()), (16, 2.0, 14));
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
        for case in ["dora", "mixture", "bottleneck", "patterns", "saved"] {
            let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/goldens").join(case);
            let config = ModelConfig::load(folder.join("model")).unwrap();
            let adapter = Adapter::load(folder.join("adapter"), &config).unwrap();
            let copy = tempfile::tempdir().unwrap();
            adapter.save(copy.path().join("copy"), "base").unwrap();
            let read = |path: &Path| fs::read(path.join("adapter_model.safetensors")).unwrap();
            // PEFT saved these weights in the base's bf16.
            let same = case == "saved" || read(&copy.path().join("copy")) == read(&folder.join("adapter"));
            assert!(same, "{case}");
            let again = Adapter::load(copy.path().join("copy"), &config).unwrap();
            assert_eq!(again.config, adapter.config);
            let values = |adapter: &Adapter| -> Vec<Vec<u8>> {
                adapter.saved.values().map(|t| t.to_bytes().unwrap()).collect()
            };
            assert!(values(&again) == values(&adapter) && (case == "saved") != adapter.saved.is_empty());
            let text = fs::read_to_string(copy.path().join("copy/adapter_config.json")).unwrap();
            let json: Value = serde_json::from_str(&text).unwrap();
            let of_peft = !["mixture", "bottleneck"].contains(&case);
            assert_eq!(json["use_dora"] == true, case == "dora");
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
            ("modules_to_save", json!(["score"])),
            ("bias", json!("some")),
            ("no_such_key", json!(1)),
            ("alpha_pattern", json!({"q_proj": "x"})),
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
