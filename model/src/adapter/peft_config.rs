//! `adapter_config.json`: PEFT's settings of LoRA, and those of our own methods. Each key works, changes nothing, or is
//! refused by its name.

use super::patterns::{resolve, strings};
use super::{Adapter, AdapterConfig, Method};
use crate::config::{LinearName, ModelConfig};
use crate::json_fields::{Fields, parse_object, shown};
use codelsi_engine::{At, Error, Result};
use serde_json::{Map, Value, json};

/// `peft_type` of methods that PEFT does not have.
const MIXTURE: &str = "CODELSI_MIXTURE";
const BOTTLENECK: &str = "CODELSI_BOTTLENECK";

/// Keys that are read.
const READ: [&str; 18] = [
    "alpha_pattern",
    "bias",
    "ensure_weight_tying",
    "exclude_modules",
    "experts",
    "init_lora_weights",
    "layers_pattern",
    "layers_to_transform",
    "lora_alpha",
    "lora_dropout",
    "modules_to_save",
    "peft_type",
    "r",
    "rank_pattern",
    "target_modules",
    "task_type",
    "use_dora",
    "use_rslora",
];

/// Keys that change nothing in an adapter that is loaded: what it was made of and by, the settings of initializations
/// (`init_lora_weights` says which one it was), and what concerns other kinds of modules or a run.
const WITHOUT_EFFECT: [&str; 13] = [
    "auto_mapping",
    "base_model_name_or_path",
    "corda_config",
    "eva_config",
    "fan_in_fan_out",
    "inference_mode",
    "loftq_config",
    "lora_ga_config",
    "megatron_core",
    "peft_version",
    "qalora_group_size",
    "revision",
    "runtime_config",
];

/// Initializations after which the base is what it was.
const PLAIN_INITS: [&str; 3] = ["gaussian", "eva", "orthogonal"];

/// Description of an adapter folder without its model.
#[derive(Clone, Debug, PartialEq)]
pub struct AdapterSummary {
    pub method: Method,
    pub rank: usize,
    pub alpha: f32,
    /// Number of values in all tensors.
    pub parameters: usize,
    pub modules_to_save: Vec<String>,
    /// The base model's name or path.
    pub base: Option<String>,
}

/// A parsed `adapter_config.json`, before it is applied to a model.
pub(super) struct StoredConfig {
    json: Map<String, Value>,
    method: Method,
    rank: usize,
    alpha: f32,
    dropout: f32,
    modules_to_save: Vec<String>,
}

impl StoredConfig {
    pub fn parse(text: &str) -> Result<Self> {
        let json = parse_object(text)?;
        let fields = Fields(&json);
        check_supported(fields)?;
        let method = method_of(fields)?;
        let dropout = fields.f32_or("lora_dropout", 0.0)?;
        if !(0.0..1.0).contains(&dropout) {
            return Err(Error::new(format!("`lora_dropout` is {dropout}, not from 0 to 1")));
        }
        let modules_to_save = match fields.get("modules_to_save") {
            Some(names) => strings(names).at("modules_to_save")?,
            None => Vec::new(),
        };
        let rank = if fields.get("r").is_some() { fields.size_up_to("r", 1 << 16)? } else { 8 };
        let alpha = fields.f32_or("lora_alpha", 8.0)?;
        Ok(StoredConfig { method, rank, alpha, dropout, modules_to_save, json })
    }

    /// Returns true if the file may hold biases of the base.
    pub fn has_biases(&self) -> bool {
        Fields(&self.json).get("bias").is_some_and(|bias| bias != "none")
    }

    /// Returns what the settings say without a model; 0 parameters.
    pub fn summary(self) -> AdapterSummary {
        let base = Fields(&self.json).get("base_model_name_or_path").and_then(Value::as_str);
        AdapterSummary {
            method: self.method,
            rank: self.rank,
            alpha: self.alpha,
            parameters: 0,
            base: base.map(str::to_owned),
            modules_to_save: self.modules_to_save,
        }
    }

    /// Returns the settings for a model of `config`.
    ///
    /// # Errors
    /// When they select nothing of the model, or what is not supported.
    pub fn settings(self, config: &ModelConfig) -> Result<AdapterConfig> {
        let StoredConfig { json, method, rank, alpha, dropout, modules_to_save } = self;
        let (targets, patterns) = match method {
            Method::Bottleneck => (LinearName::ALL.into(), None),
            _ => resolve(&json, (rank, alpha), &modules_to_save, config)?,
        };
        let settings = AdapterConfig { method, rank, alpha, dropout, targets, patterns, modules_to_save };
        let tied = config.tied_embeddings && Fields(&json).bool_or("ensure_weight_tying", false)?;
        match tied && [super::EMBEDDING, super::HEAD].iter().any(|name| settings.saves(name)) {
            true => Err(Error::new(
                "`ensure_weight_tying` is true: an embedding and a head that stay tied in training are not supported",
            )),
            false => Ok(settings),
        }
    }
}

/// Checks that every setting has an effect here or none at all.
fn check_supported(fields: Fields) -> Result<()> {
    let known = |key: &str| READ.contains(&key) || WITHOUT_EFFECT.contains(&key);
    if let Some((key, value)) = fields.0.iter().find(|(key, value)| !known(key) && !is_empty(value)) {
        let key: String = key.chars().take(80).collect();
        return Err(Error::new(format!("`{key}` is {}: not supported", shown(value))));
    }
    let refuse =
        |key: &str, value: &Value, why: &str| Err(Error::new(format!("`{key}` is {}: {why}", shown(value))));
    if let Some(init) = fields.get("init_lora_weights")
        && !(init.is_boolean() || PLAIN_INITS.iter().any(|known| init == known))
    {
        let why = "it changes the base model; convert the adapter with PEFT, \
                   save_pretrained(.., path_initial_model_for_weight_conversion=..), which sets it to true";
        return refuse("init_lora_weights", init, why);
    }
    if let Some(bias) = fields.get("bias")
        && !["none", "lora_only", "all"].iter().any(|known| bias == known)
    {
        return refuse("bias", bias, "not one of none, lora_only and all");
    }
    match fields.get("task_type") {
        Some(task) if task != "CAUSAL_LM" => refuse("task_type", task, "only CAUSAL_LM is supported"),
        _ => Ok(()),
    }
}

/// Reads the method of fine-tuning.
fn method_of(fields: Fields) -> Result<Method> {
    match fields.get("peft_type") {
        Some(peft_type) if peft_type == MIXTURE => {
            Ok(Method::Mixture { experts: fields.size_up_to("experts", 1 << 10)? })
        }
        Some(peft_type) if peft_type == BOTTLENECK => Ok(Method::Bottleneck),
        Some(peft_type) if peft_type != "LORA" => {
            Err(Error::new(format!("`peft_type` is {}: only LORA is supported", shown(peft_type))))
        }
        _ => Ok(Method::LowRank {
            rslora: fields.bool_or("use_rslora", false)?,
            dora: fields.bool_or("use_dora", false)?,
        }),
    }
}

/// True for the values by which PEFT turns a setting off.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(on) => !on,
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        other => other == "none" || other == "",
    }
}

impl Adapter {
    /// Returns the content of `adapter_config.json`: the settings without a default in PEFT, or those of our own
    /// methods.
    pub(super) fn to_json(&self, base: &str) -> Value {
        let AdapterConfig { method, rank, alpha, dropout, targets, patterns, modules_to_save } = &self.config;
        let alpha =
            if *alpha as i64 as f32 == *alpha { json!(*alpha as i64) } else { json!(shortest(*alpha)) };
        let targets: Vec<&str> = targets.iter().map(|linear| linear.name()).collect();
        let modules_to_save = if modules_to_save.is_empty() { Value::Null } else { json!(modules_to_save) };
        let mut json = match *method {
            Method::LowRank { rslora, dora } => json!({
                "alpha_pattern": {},
                "base_model_name_or_path": base,
                "bias": self.bias(),
                "fan_in_fan_out": false,
                "inference_mode": true,
                "init_lora_weights": true,
                "layers_to_transform": null,
                "lora_alpha": alpha,
                "lora_dropout": shortest(*dropout),
                "modules_to_save": modules_to_save,
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
                "modules_to_save": modules_to_save,
                "peft_type": MIXTURE,
                "r": rank,
                "target_modules": targets,
            }),
            Method::Bottleneck => json!({
                "base_model_name_or_path": base,
                "lora_dropout": shortest(*dropout),
                "modules_to_save": modules_to_save,
                "peft_type": BOTTLENECK,
                "r": rank,
            }),
        };
        for (key, value) in patterns.iter().flat_map(|patterns| &patterns.stored) {
            json[key] = value.clone();
        }
        json
    }

    /// PEFT's `bias`: the biases that the adapter holds beside `modules_to_save`.
    fn bias(&self) -> &'static str {
        let biases = self.saved.keys().filter_map(|name| name.strip_suffix(".bias"));
        let biases: Vec<&str> = biases.filter(|path| !self.config.saves(&format!("{path}.bias"))).collect();
        match (biases.is_empty(), biases.iter().all(|path| self.modules.contains_key(*path))) {
            (true, _) => "none",
            (false, true) => "lora_only",
            (false, false) => "all",
        }
    }
}

/// Returns the shortest decimal that reads as `x`: 0.05 for 0.05f32, not 0.05000000074505806.
fn shortest(x: f32) -> f64 {
    x.to_string().parse().unwrap_or(x.into())
}
