//! The configuration of a Llama, a Mistral or a Qwen2, read from a Hugging Face `config.json`.
//!
//! Both styles are read: the classic one (`rope_theta`, `rope_scaling`, `torch_dtype`) and that of transformers 5
//! (`rope_parameters`, `dtype`). A setting that this engine does not implement is an error, never ignored.

use crate::json_fields::{Fields, MAX_SIZE, parse_object};
use crate::rope_scaling::Rope;
use codelsi_engine::{At, DType, Error, Result};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;

/// A model's architecture. All three are the same decoder; they differ in biases, in defaults and in attention's window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Architecture {
    #[default]
    Llama,
    Mistral,
    /// Its q, k and v have biases.
    Qwen2,
}

impl Architecture {
    const ALL: [Architecture; 3] = [Architecture::Llama, Architecture::Mistral, Architecture::Qwen2];

    /// Name in `architectures`.
    pub fn name(self) -> &'static str {
        ["LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM"][self as usize]
    }

    /// Name in `model_type`.
    fn model_type(self) -> &'static str {
        ["llama", "mistral", "qwen2"][self as usize]
    }

    /// Reads `architectures`, or `model_type` where that is absent.
    fn read(f: Fields) -> Result<Self> {
        let named = f.get("architectures").or(f.get("model_type")).unwrap_or(&Value::Null);
        let is = |a: &Architecture| match named {
            Value::Array(names) => names.iter().any(|name| name == a.name()),
            model_type => model_type == a.model_type(),
        };
        Architecture::ALL.into_iter().find(is).ok_or_else(|| {
            let known = Architecture::ALL.map(Architecture::name).join(", ");
            Error::new(format!("architecture {named} is not supported, only {known} are"))
        })
    }

    /// The number of key and value heads of a config that does not have it.
    fn default_kv_heads(self, heads: usize) -> usize {
        match self {
            Architecture::Llama => heads,
            Architecture::Mistral => 8,
            Architecture::Qwen2 => 32,
        }
    }

    /// `max_position_embeddings` of a config that does not have it.
    fn default_positions(self) -> usize {
        match self {
            Architecture::Llama => 2048,
            Architecture::Mistral => 131072,
            Architecture::Qwen2 => 32768,
        }
    }
}

/// Sizes and constants of one model.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelConfig {
    pub architecture: Architecture,
    /// C, width of the residual stream.
    pub hidden: usize,
    /// F, width inside the MLP.
    pub intermediate: usize,
    /// Number of decoder layers.
    pub layers: usize,
    /// H, number of query heads.
    pub heads: usize,
    /// K, number of key and value heads; divides `heads`.
    pub kv_heads: usize,
    /// D, width of a head; even.
    pub head_dim: usize,
    /// V, number of rows of the embedding.
    pub vocab: usize,
    /// True if q, k, v and o have biases.
    pub attention_bias: bool,
    /// True if gate, up and down have biases.
    pub mlp_bias: bool,
    /// Rotary positions.
    pub rope: Rope,
    /// Epsilon of RMSNorm.
    pub rms_eps: f32,
    /// Length of the longest sequence that the model can read: `max_position_embeddings`, or the window of attention where
    /// that is shorter.
    pub max_positions: usize,
    /// `max_position_embeddings` where attention's window is shorter.
    pub positions_beyond_window: Option<usize>,
    /// True if the head is the embedding: the checkpoint has no `lm_head.weight`.
    pub tied_embeddings: bool,
    /// Token that begins a text.
    pub bos: Option<u32>,
    /// Tokens that end a text: those of `config.json` and of `generation_config.json`.
    pub eos: Vec<u32>,
}

/// The linears of a layer that adapters can target, in the order of a forward pass.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum LinearName {
    Q,
    K,
    V,
    O,
    Gate,
    Up,
    Down,
}

impl LinearName {
    /// All seven linears.
    pub const ALL: [LinearName; 7] = [
        LinearName::Q,
        LinearName::K,
        LinearName::V,
        LinearName::O,
        LinearName::Gate,
        LinearName::Up,
        LinearName::Down,
    ];

    /// Name in `target_modules`, e.g. `q_proj`.
    pub fn name(self) -> &'static str {
        ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"][self as usize]
    }

    /// Path in the checkpoint, e.g. `model.layers.3.self_attn.q_proj`.
    pub fn path(self, layer: usize) -> String {
        let sublayer = if self <= LinearName::O { "self_attn" } else { "mlp" };
        format!("model.layers.{layer}.{sublayer}.{}", self.name())
    }
}

impl std::str::FromStr for LinearName {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        LinearName::ALL.into_iter().find(|l| l.name() == name).ok_or_else(|| {
            let known = LinearName::ALL.map(LinearName::name).join(", ");
            Error::new(format!("`{name}` is no linear of a Llama layer; choose from {known}"))
        })
    }
}

/// Upper limit: more mean a broken file, and up to this no count of weights overflows.
const MAX_LAYERS: usize = 1 << 12;

impl ModelConfig {
    /// Reads `config.json` of a model folder, and the tokens that end a text from its `generation_config.json`, if it
    /// has one.
    ///
    /// # Errors
    /// When it is absent or malformed, or has a setting that this engine does not implement.
    pub fn load(folder: impl AsRef<Path>) -> Result<Self> {
        let path = folder.as_ref().join("config.json");
        let text = fs::read_to_string(&path).map_err(|e| Error::io(&path, e))?;
        let mut config = ModelConfig::parse(&text).at(path.display().to_string())?;
        let path = folder.as_ref().join("generation_config.json");
        match fs::read_to_string(&path) {
            Ok(text) => config.add_generation_config(&text).at(path.display().to_string())?,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => return Err(Error::io(&path, e)),
        }
        Ok(config)
    }

    /// Adds the tokens that end a text according to the text of a `generation_config.json`.
    ///
    /// # Errors
    /// When it is malformed, or names a token outside of the vocabulary.
    pub fn add_generation_config(&mut self, text: &str) -> Result<()> {
        let json = parse_object(text)?;
        for id in Fields(&json).token_ids("eos_token_id")? {
            self.check_token(id)?;
            if !self.eos.contains(&id) {
                self.eos.push(id);
            }
        }
        Ok(())
    }

    /// Parses the text of a `config.json`.
    ///
    /// # Errors
    /// When it is malformed, or has a setting that this engine does not implement.
    pub fn parse(text: &str) -> Result<Self> {
        let json = parse_object(text)?;
        let f = Fields(&json);
        let architecture = Architecture::read(f)?;
        check_supported(f)?;
        let (heads, hidden) = (f.size("num_attention_heads")?, f.size("hidden_size")?);
        // Null stands for as many as there are query heads.
        let kv_heads = match json.contains_key("num_key_value_heads") {
            true => heads,
            false => architecture.default_kv_heads(heads),
        };
        let layers = f.size("num_hidden_layers")?;
        let positions = f.size_or("max_position_embeddings", architecture.default_positions())?;
        let window = sliding_window(f, architecture, layers, positions)?;
        // The others have biases of their own, or none, whatever these keys say.
        let bias = |key| Ok(architecture == Architecture::Llama && f.bool_or(key, false)?);
        let config = ModelConfig {
            architecture,
            hidden,
            intermediate: f.size("intermediate_size")?,
            layers,
            heads,
            kv_heads: f.size_or("num_key_value_heads", kv_heads)?,
            head_dim: f.size_or("head_dim", hidden / heads)?,
            vocab: f.size("vocab_size")?,
            attention_bias: bias("attention_bias")?,
            mlp_bias: bias("mlp_bias")?,
            rope: Rope::read(f, positions)?,
            rms_eps: f.number_or("rms_norm_eps", 1e-6)? as f32,
            max_positions: window.unwrap_or(positions),
            positions_beyond_window: window.map(|_| positions),
            tied_embeddings: f.bool_or("tie_word_embeddings", false)?,
            bos: f.token_ids("bos_token_id")?.first().copied(),
            eos: f.token_ids("eos_token_id")?,
        };
        config.check(json.contains_key("head_dim"))?;
        Ok(config)
    }

    /// Checks that the sizes are consistent.
    fn check(&self, head_dim_given: bool) -> Result<()> {
        let fail = |message: String| Err(Error::new(message));
        if self.layers > MAX_LAYERS || self.heads.saturating_mul(self.head_dim) > MAX_SIZE as usize {
            return fail(format!(
                "{} layers of {} heads of {} are beyond reason; the file is broken",
                self.layers, self.heads, self.head_dim
            ));
        }
        if !self.heads.is_multiple_of(self.kv_heads) {
            return fail(format!(
                "num_attention_heads {} is not a multiple of num_key_value_heads {}",
                self.heads, self.kv_heads
            ));
        }
        if !head_dim_given && !self.hidden.is_multiple_of(self.heads) {
            return fail(format!(
                "hidden_size {} is not a multiple of num_attention_heads {}, and head_dim is not given",
                self.hidden, self.heads
            ));
        }
        if self.head_dim == 0 || !self.head_dim.is_multiple_of(2) {
            return fail(format!("head_dim {} is odd; rotary embedding needs pairs", self.head_dim));
        }
        if !(self.rms_eps > 0.0 && self.rms_eps < 1.0) {
            return fail(format!("rms_norm_eps {} is not between 0 and 1", self.rms_eps));
        }
        self.rope.check(self.head_dim)?;
        self.bos.iter().chain(&self.eos).try_for_each(|&id| self.check_token(id))
    }

    fn check_token(&self, id: u32) -> Result<()> {
        if (id as usize) < self.vocab {
            return Ok(());
        }
        Err(Error::new(format!("token id {id} is outside the vocabulary of {}", self.vocab)))
    }

    /// Returns the `config.json` of a checkpoint stored as `dtype`, in the classic style that every loader reads.
    pub fn to_json(&self, dtype: DType) -> Value {
        let mut json = json!({
            "architectures": [self.architecture.name()],
            "attention_bias": self.attention_bias,
            "attention_dropout": 0.0,
            "bos_token_id": self.bos,
            "eos_token_id": match &self.eos[..] {
                [] => Value::Null,
                [id] => json!(id),
                ids => json!(ids),
            },
            "head_dim": self.head_dim,
            "hidden_act": "silu",
            "hidden_size": self.hidden,
            "initializer_range": 0.02,
            "intermediate_size": self.intermediate,
            "max_position_embeddings": self.positions_beyond_window.unwrap_or(self.max_positions),
            "mlp_bias": self.mlp_bias,
            "model_type": self.architecture.model_type(),
            "num_attention_heads": self.heads,
            "num_hidden_layers": self.layers,
            "num_key_value_heads": self.kv_heads,
            // Through the shortest decimal: 1e-5, not 9.999999747378752e-6.
            "rms_norm_eps": self.rms_eps.to_string().parse::<f64>().unwrap_or(self.rms_eps.into()),
            "rope_scaling": self.rope.scaling.to_json(),
            "rope_theta": self.rope.theta,
            "tie_word_embeddings": self.tied_embeddings,
            "torch_dtype": if dtype == DType::BF16 { "bfloat16" } else { "float32" },
            "use_cache": true,
            "vocab_size": self.vocab,
        });
        if self.architecture == Architecture::Mistral {
            json["sliding_window"] = json!(self.positions_beyond_window.map(|_| self.max_positions));
        }
        json
    }

    /// True if a linear has a bias.
    pub fn has_bias(&self, linear: LinearName) -> bool {
        let qwen2 = self.architecture == Architecture::Qwen2 && linear <= LinearName::V;
        qwen2 || if linear <= LinearName::O { self.attention_bias } else { self.mlp_bias }
    }

    /// Shape (out, in) of a linear's weight.
    pub fn linear_shape(&self, linear: LinearName) -> (usize, usize) {
        let (q, kv) = (self.heads * self.head_dim, self.kv_heads * self.head_dim);
        match linear {
            LinearName::Q => (q, self.hidden),
            LinearName::K | LinearName::V => (kv, self.hidden),
            LinearName::O => (self.hidden, q),
            LinearName::Gate | LinearName::Up => (self.intermediate, self.hidden),
            LinearName::Down => (self.hidden, self.intermediate),
        }
    }

    /// Names and shapes of all tensors of the checkpoint, in the order of a forward pass.
    pub fn tensor_shapes(&self) -> Vec<(String, Vec<usize>)> {
        let mut all = vec![("model.embed_tokens.weight".to_string(), vec![self.vocab, self.hidden])];
        for layer in 0..self.layers {
            let norm = |name| (format!("model.layers.{layer}.{name}.weight"), vec![self.hidden]);
            let linear = |linear: LinearName| {
                let ((out, inner), path) = (self.linear_shape(linear), linear.path(layer));
                let bias = self.has_bias(linear).then(|| (format!("{path}.bias"), vec![out]));
                [(format!("{path}.weight"), vec![out, inner])].into_iter().chain(bias)
            };
            all.push(norm("input_layernorm"));
            all.extend(
                [LinearName::Q, LinearName::K, LinearName::V, LinearName::O].into_iter().flat_map(linear),
            );
            all.push(norm("post_attention_layernorm"));
            all.extend([LinearName::Gate, LinearName::Up, LinearName::Down].into_iter().flat_map(linear));
        }
        all.push(("model.norm.weight".to_string(), vec![self.hidden]));
        if !self.tied_embeddings {
            all.push(("lm_head.weight".to_string(), vec![self.vocab, self.hidden]));
        }
        all
    }

    /// Number of weights.
    pub fn parameters(&self) -> usize {
        self.tensor_shapes().iter().map(|(_, shape)| shape.iter().product::<usize>()).sum()
    }
}

/// Checks the settings that change what a model computes and that all architectures share.
fn check_supported(f: Fields) -> Result<()> {
    let fail = |message: String| Err(Error::new(message));
    if let Some(act) = f.get("hidden_act").filter(|&act| act != "silu" && act != "swish") {
        return fail(format!("`hidden_act` is {act}, only \"silu\" (\"swish\") is supported"));
    }
    if f.get("quantization_config").is_some() {
        return fail("the checkpoint is quantized (`quantization_config`); give the original one".into());
    }
    Ok(())
}

/// Reads how many of the last positions a token sees, where that is fewer than there are `positions`.
///
/// # Errors
/// When that is so in a part of the layers.
fn sliding_window(
    f: Fields,
    architecture: Architecture,
    layers: usize,
    positions: usize,
) -> Result<Option<usize>> {
    const KEY: &str = "sliding_window";
    match architecture {
        Architecture::Llama => return Ok(None),
        Architecture::Qwen2 if !f.bool_or("use_sliding_window", false)? => return Ok(None),
        _ => {}
    }
    let window = match f.0.get(KEY) {
        None => Some(4096),
        Some(Value::Null) => None,
        Some(_) => Some(f.size(KEY)?),
    };
    let Some(window) = window.filter(|&window| window < positions) else { return Ok(None) };
    if architecture == Architecture::Mistral {
        return Ok(Some(window));
    }
    match f.number_or("max_window_layers", 28.0)? {
        first if first >= layers as f64 => Ok(None),
        first => Err(Error::new(format!(
            "`use_sliding_window` is true: from layer {first} on a token sees {window} positions only, which is not \
             supported"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rope_scaling::RopeScaling;

    /// The settings of Code Llama 13B's file.
    fn classic() -> Value {
        json!({
            "architectures": ["LlamaForCausalLM"], "bos_token_id": 1, "eos_token_id": 2, "hidden_act": "silu",
            "hidden_size": 5120, "intermediate_size": 13824, "max_position_embeddings": 16384,
            "model_type": "llama", "num_attention_heads": 40, "num_hidden_layers": 40, "rms_norm_eps": 1e-5,
            "rope_scaling": null, "rope_theta": 1000000, "tie_word_embeddings": false, "vocab_size": 32016
        })
    }

    fn with(key: &str, value: Value) -> Result<ModelConfig> {
        let mut json = classic();
        json[key] = value;
        ModelConfig::parse(&json.to_string())
    }

    #[test]
    fn reads_code_llama_13b() {
        let config = ModelConfig::parse(&classic().to_string()).unwrap();
        assert_eq!((config.kv_heads, config.head_dim, config.eos.as_slice()), (40, 128, &[2][..]));
        assert_eq!((config.rope, config.rms_eps), (Rope::unscaled(1e6), 1e-5));
        // 13,078,615,040 less the paper's 62,586,880 of LoRA.
        assert_eq!(config.parameters(), 13_016_028_160);
    }

    #[test]
    fn reads_both_styles_of_rope_and_lists_of_ends() {
        let new = json!({"rope_type": "default", "rope_theta": 5e5});
        assert_eq!(with("rope_parameters", new).unwrap().rope, Rope::unscaled(5e5));
        let linear = with("rope_scaling", json!({"type": "linear", "factor": 4.0})).unwrap();
        assert_eq!(linear.rope, Rope { theta: 1e6, scaling: RopeScaling::Linear { factor: 4.0 } });
        assert_eq!(with("eos_token_id", json!([2, 7])).unwrap().eos, [2, 7]);
        assert_eq!(with("head_dim", json!(64)).unwrap().linear_shape(LinearName::O), (5120, 2560));
    }

    #[test]
    fn survives_a_round_trip() {
        for (key, value) in [
            ("eos_token_id", json!([2, 3])),
            ("attention_bias", json!(true)),
            ("mlp_bias", json!(true)),
            ("architectures", json!(["Qwen2ForCausalLM"])),
            ("architectures", json!(["MistralForCausalLM"])),
            ("hidden_act", json!("swish")),
            ("rope_scaling", json!({"type": "linear", "factor": 2})),
            ("rope_scaling", json!({"type": "dynamic", "factor": 2.5})),
            (
                "rope_parameters",
                json!({"rope_type": "yarn", "factor": 3, "mscale": 0.7, "mscale_all_dim": 1.1}),
            ),
            (
                "rope_scaling",
                json!({"rope_type": "llama3", "factor": 8, "low_freq_factor": 1, "high_freq_factor": 4}),
            ),
        ] {
            let mut json = classic();
            (json["num_key_value_heads"], json[key]) = (40.into(), value);
            let config = ModelConfig::parse(&json.to_string()).unwrap();
            let text = config.to_json(DType::BF16).to_string();
            assert_eq!(ModelConfig::parse(&text).unwrap(), config, "{text}");
        }
    }

    #[test]
    fn biases_follow_the_architecture_and_its_keys() {
        let of = |config: ModelConfig| LinearName::ALL.map(|l| config.has_bias(l)).map(usize::from);
        assert_eq!(of(with("attention_bias", json!(true)).unwrap()), [1, 1, 1, 1, 0, 0, 0]);
        assert_eq!(of(with("mlp_bias", json!(true)).unwrap()), [0, 0, 0, 0, 1, 1, 1]);
        let other = |name: &str| {
            let mut json = classic();
            json["architectures"] = json!([name]);
            (json["num_key_value_heads"], json["attention_bias"], json["mlp_bias"]) =
                (8.into(), true.into(), true.into());
            of(ModelConfig::parse(&json.to_string()).unwrap())
        };
        assert_eq!(other("Qwen2ForCausalLM"), [1, 1, 1, 0, 0, 0, 0]);
        assert_eq!(other("MistralForCausalLM"), [0; 7]);
        let shapes = with("attention_bias", json!(true)).unwrap().tensor_shapes();
        assert_eq!(shapes[3], ("model.layers.0.self_attn.q_proj.bias".to_string(), vec![5120]));
    }

    #[test]
    fn a_window_limits_the_positions() {
        let mistral = |window: Option<Value>| {
            let mut json = classic();
            json["architectures"] = json!(["MistralForCausalLM"]);
            json["num_key_value_heads"] = 8.into();
            window.into_iter().for_each(|window| json["sliding_window"] = window);
            let config = ModelConfig::parse(&json.to_string()).unwrap();
            assert_eq!(ModelConfig::parse(&config.to_json(DType::F32).to_string()).unwrap(), config);
            (config.max_positions, config.positions_beyond_window)
        };
        assert_eq!(mistral(Some(Value::Null)), (16384, None));
        assert_eq!(mistral(Some(json!(16384))), (16384, None));
        assert_eq!(mistral(Some(json!(1000))), (1000, Some(16384)));
        assert_eq!(mistral(None), (4096, Some(16384)));
        let qwen2 = |used: bool, window: Value, full_layers: u32| {
            let mut json = classic();
            json["architectures"] = json!(["Qwen2ForCausalLM"]);
            json["num_key_value_heads"] = 8.into();
            (json["use_sliding_window"], json["sliding_window"]) = (used.into(), window);
            json["max_window_layers"] = full_layers.into();
            ModelConfig::parse(&json.to_string()).map(|c| c.max_positions)
        };
        for (used, window, full_layers) in
            [(false, json!(7), 0), (true, Value::Null, 0), (true, json!(16384), 0), (true, json!(7), 40)]
        {
            assert_eq!(qwen2(used, window, full_layers).unwrap(), 16384);
        }
        let message = qwen2(true, json!(7), 39).unwrap_err().to_string();
        assert!(message.contains("from layer 39 on a token sees 7 positions"), "{message}");
    }

    #[test]
    fn unsupported_settings_are_refused() {
        let scaling = |kind: &str, key: &str, value: Value| {
            let mut json =
                json!({"rope_type": kind, "factor": 8, "low_freq_factor": 1, "high_freq_factor": 4});
            json[key] = value;
            json
        };
        for (key, value, expected) in [
            ("attention_bias", json!(1), "attention_bias"),
            ("hidden_act", json!("gelu"), "hidden_act"),
            ("rope_scaling", json!(8), "rope_scaling"),
            ("rope_scaling", scaling("longrope", "factor", json!(8)), "longrope"),
            ("rope_scaling", json!({"rope_type": 3}), "rope_type"),
            ("rope_scaling", json!({"rope_type": "llama3", "factor": 8}), "`low_freq_factor` is missing"),
            ("rope_scaling", scaling("llama3", "low_freq_factor", json!(4)), "`high_freq_factor` 4"),
            ("rope_scaling", scaling("llama3", "factor", json!(0)), "`factor` is 0"),
            ("rope_scaling", scaling("llama3", "factor", json!(-1)), "`factor` is -1"),
            ("rope_scaling", scaling("linear", "factor", Value::Null), "`factor` is missing"),
            ("rope_scaling", scaling("linear", "factor", json!(1e-308)), "not finite"),
            ("rope_scaling", scaling("dynamic", "factor", json!("8")), "`factor` is \"8\""),
            ("rope_scaling", scaling("yarn", "attention_factor", json!(0)), "attention_factor"),
            (
                "rope_scaling",
                scaling("yarn", "original_max_position_embeddings", json!(1u64 << 40)),
                "original",
            ),
            ("rope_scaling", scaling("yarn", "beta_fast", json!(0.5)), "beta_fast"),
            ("rope_scaling", scaling("yarn", "rope_theta", json!(1)), "rope_theta"),
            ("rope_parameters", json!({"partial_rotary_factor": 0.5}), "partial_rotary_factor"),
            (
                "rope_parameters",
                json!({"full_attention": {"rope_theta": 1e6}}),
                "`full_attention` has positions",
            ),
            ("partial_rotary_factor", json!(0.5), "partial_rotary_factor"),
            ("rope_theta", json!(1e-308), "not finite"),
            ("architectures", json!(["GemmaForCausalLM"]), "Gemma"),
            ("num_key_value_heads", json!(7), "multiple"),
            ("num_attention_heads", json!(39), "hidden_size 5120 is not a multiple"),
            ("num_attention_heads", json!(0), "num_attention_heads"),
            ("head_dim", json!(5), "odd"),
            ("vocab_size", json!(-1), "vocab_size"),
            ("vocab_size", Value::Null, "missing"),
            ("hidden_size", json!(1u64 << 40), "hidden_size"),
            ("num_hidden_layers", json!(1 << 20), "beyond reason"),
            ("eos_token_id", json!(40000), "outside the vocabulary"),
            ("quantization_config", json!({}), "quantized"),
        ] {
            let message = with(key, value).unwrap_err().to_string();
            assert!(message.contains(expected) && !message.contains('\n'), "{key}: {message}");
        }
    }
}
