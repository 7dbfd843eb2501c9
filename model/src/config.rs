//! A Llama's configuration, read from a Hugging Face `config.json`.
//!
//! Both styles are read: the classic one (`rope_theta`, `rope_scaling`, `torch_dtype`) and that of transformers 5
//! (`rope_parameters`, `dtype`). A setting that this engine does not implement is an error, never ignored.

use codelsi_engine::{At, DType, Error, Result};
use serde_json::{Map, Value, json};
use std::fs;
use std::path::Path;

/// Sizes and constants of one model.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelConfig {
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
    /// Base of the rotary angles.
    pub rope_theta: f64,
    /// Divisor of positions before rotation (linear `rope_scaling`), else 1.
    pub rope_factor: f64,
    /// Epsilon of RMSNorm.
    pub rms_eps: f32,
    /// Length of the longest sequence that the model was trained for.
    pub max_positions: usize,
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

/// Upper limits: larger sizes mean a broken file, and up to these no count of weights overflows.
const MAX_SIZE: u64 = 1 << 24;
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
        f.check_architecture()?;
        let (heads, hidden) = (f.size("num_attention_heads")?, f.size("hidden_size")?);
        let (rope_theta, rope_factor) = f.rope()?;
        let config = ModelConfig {
            hidden,
            intermediate: f.size("intermediate_size")?,
            layers: f.size("num_hidden_layers")?,
            heads,
            kv_heads: f.size_or("num_key_value_heads", heads)?,
            head_dim: f.size_or("head_dim", hidden / heads)?,
            vocab: f.size("vocab_size")?,
            rope_theta,
            rope_factor,
            rms_eps: f.number_or("rms_norm_eps", 1e-6)? as f32,
            max_positions: f.size_or("max_position_embeddings", 2048)?,
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
        let scaling =
            (self.rope_factor != 1.0).then(|| json!({"type": "linear", "factor": self.rope_factor}));
        json!({
            "architectures": ["LlamaForCausalLM"],
            "attention_bias": false,
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
            "max_position_embeddings": self.max_positions,
            "mlp_bias": false,
            "model_type": "llama",
            "num_attention_heads": self.heads,
            "num_hidden_layers": self.layers,
            "num_key_value_heads": self.kv_heads,
            // Through the shortest decimal: 1e-5, not 9.999999747378752e-6.
            "rms_norm_eps": self.rms_eps.to_string().parse::<f64>().unwrap_or(self.rms_eps.into()),
            "rope_scaling": scaling,
            "rope_theta": self.rope_theta,
            "tie_word_embeddings": self.tied_embeddings,
            "torch_dtype": if dtype == DType::BF16 { "bfloat16" } else { "float32" },
            "use_cache": true,
            "vocab_size": self.vocab,
        })
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
                let (out, inner) = self.linear_shape(linear);
                (format!("{}.weight", linear.path(layer)), vec![out, inner])
            };
            all.push(norm("input_layernorm"));
            all.extend([LinearName::Q, LinearName::K, LinearName::V, LinearName::O].map(linear));
            all.push(norm("post_attention_layernorm"));
            all.extend([LinearName::Gate, LinearName::Up, LinearName::Down].map(linear));
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

fn parse_object(text: &str) -> Result<Map<String, Value>> {
    serde_json::from_str(text).map_err(|e| Error::new(format!("not a JSON object: {e}")))
}

/// Typed access to a JSON object; null counts as absent.
struct Fields<'a>(&'a Map<String, Value>);

impl<'a> Fields<'a> {
    fn get(&self, key: &str) -> Option<&'a Value> {
        self.0.get(key).filter(|v| !v.is_null())
    }

    fn size(&self, key: &str) -> Result<usize> {
        let value = self.get(key).ok_or_else(|| Error::new(format!("`{key}` is missing")))?;
        match value.as_u64() {
            Some(n) if (1..=MAX_SIZE).contains(&n) => Ok(n as usize),
            _ => Err(Error::new(format!("`{key}` is {value}, not a whole number from 1 to {MAX_SIZE}"))),
        }
    }

    fn size_or(&self, key: &str, default: usize) -> Result<usize> {
        if self.get(key).is_some() { self.size(key) } else { Ok(default) }
    }

    fn number_or(&self, key: &str, default: f64) -> Result<f64> {
        let Some(value) = self.get(key) else { return Ok(default) };
        match value.as_f64() {
            Some(x) if x.is_finite() => Ok(x),
            _ => Err(Error::new(format!("`{key}` is {value}, not a number"))),
        }
    }

    fn positive_or(&self, key: &str, default: f64) -> Result<f64> {
        let x = self.number_or(key, default)?;
        if x > 0.0 { Ok(x) } else { Err(Error::new(format!("`{key}` is {x}, not above 0"))) }
    }

    fn bool_or(&self, key: &str, default: bool) -> Result<bool> {
        let Some(value) = self.get(key) else { return Ok(default) };
        value.as_bool().ok_or_else(|| Error::new(format!("`{key}` is {value}, not true or false")))
    }

    /// Reads one token id, a list of them, or none.
    fn token_ids(&self, key: &str) -> Result<Vec<u32>> {
        let Some(value) = self.get(key) else { return Ok(Vec::new()) };
        let list = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
        let ids: Option<Vec<u32>> =
            list.iter().map(|id| id.as_u64().and_then(|id| id.try_into().ok())).collect();
        ids.ok_or_else(|| Error::new(format!("`{key}` is {value}, not a token id or a list of them")))
    }

    /// Checks that the file describes a Llama of a form that this engine implements.
    fn check_architecture(&self) -> Result<()> {
        let fail = |message: String| Err(Error::new(message));
        let llama = match (self.get("architectures"), self.get("model_type")) {
            (Some(names), _) => names.as_array().is_some_and(|a| a.iter().any(|n| n == "LlamaForCausalLM")),
            (None, model_type) => model_type.is_some_and(|m| m == "llama"),
        };
        if !llama {
            let named = self.get("architectures").or(self.get("model_type")).unwrap_or(&Value::Null);
            return fail(format!("architecture {named} is not supported, only LlamaForCausalLM is"));
        }
        for key in ["attention_bias", "mlp_bias"] {
            if self.bool_or(key, false)? {
                return fail(format!("`{key}` is true; linears with a bias are not supported"));
            }
        }
        if let Some(act) = self.get("hidden_act").filter(|&act| act != "silu") {
            return fail(format!("`hidden_act` is {act}, only \"silu\" is supported"));
        }
        if self.get("quantization_config").is_some() {
            return fail("the checkpoint is quantized (`quantization_config`); give the original one".into());
        }
        Ok(())
    }

    /// Reads (theta, factor) in either style.
    fn rope(&self) -> Result<(f64, f64)> {
        let theta = self.positive_or("rope_theta", 10000.0)?;
        let key = if self.get("rope_parameters").is_some() { "rope_parameters" } else { "rope_scaling" };
        let Some(value) = self.get(key) else { return Ok((theta, 1.0)) };
        let Some(map) = value.as_object() else {
            return Err(Error::new(format!("`{key}` is {value}, not an object")));
        };
        let rope = Fields(map);
        let rope_type =
            rope.get("rope_type").or(rope.get("type")).and_then(Value::as_str).unwrap_or("default");
        let factor = match rope_type {
            "default" => 1.0,
            "linear" => rope.positive_or("factor", 1.0).at(key)?,
            _ => {
                return Err(Error::new(format!(
                    "`{key}` is of type \"{rope_type}\", only default and linear are supported"
                )));
            }
        };
        if rope.number_or("partial_rotary_factor", 1.0).at(key)? != 1.0 {
            return Err(Error::new(format!("`{key}` rotates only a part of each head: not supported")));
        }
        Ok((rope.positive_or("rope_theta", theta).at(key)?, factor))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert_eq!((config.rope_theta, config.rms_eps), (1e6, 1e-5));
        // 13,078,615,040 less the paper's 62,586,880 of LoRA.
        assert_eq!(config.parameters(), 13_016_028_160);
    }

    #[test]
    fn reads_both_styles_of_rope_and_lists_of_ends() {
        let new = json!({"rope_type": "default", "rope_theta": 5e5});
        assert_eq!(with("rope_parameters", new).unwrap().rope_theta, 5e5);
        let linear = with("rope_scaling", json!({"type": "linear", "factor": 4.0})).unwrap();
        assert_eq!((linear.rope_theta, linear.rope_factor), (1e6, 4.0));
        assert_eq!(with("eos_token_id", json!([2, 7])).unwrap().eos, [2, 7]);
        assert_eq!(with("head_dim", json!(64)).unwrap().linear_shape(LinearName::O), (5120, 2560));
    }

    #[test]
    fn survives_a_round_trip() {
        for config in [
            with("eos_token_id", json!([2, 3])),
            with("rope_scaling", json!({"type": "linear", "factor": 2})),
        ] {
            let config = config.unwrap();
            let text = config.to_json(DType::BF16).to_string();
            assert_eq!(ModelConfig::parse(&text).unwrap(), config, "{text}");
        }
    }

    #[test]
    fn unsupported_settings_are_refused() {
        for (key, value, expected) in [
            ("attention_bias", json!(true), "bias"),
            ("hidden_act", json!("gelu"), "hidden_act"),
            ("rope_scaling", json!({"rope_type": "llama3", "factor": 8}), "llama3"),
            ("architectures", json!(["MistralForCausalLM"]), "Mistral"),
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
