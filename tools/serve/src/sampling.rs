//! Sampling parameters of a request, in the names of each API.

use crate::error::ApiError;
use crate::fields::Fields;
use codelsi_model::generate::SamplingParams;
use std::hash::{BuildHasher, Hasher, RandomState};

/// The names and defaults of an API.
#[derive(Clone, Copy)]
pub struct SamplingForm {
    pub temperature: f32,
    pub top_k: usize,
    pub top_p: f32,
    pub min_p: f32,
    /// Name of the repetition penalty.
    pub repetition_penalty: &'static str,
    /// True if the seed −1 is a fresh one.
    pub negative_seed_is_fresh: bool,
}

/// OpenAI's.
pub const OPENAI: SamplingForm = SamplingForm {
    temperature: 1.0,
    top_k: 0,
    top_p: 1.0,
    min_p: 0.0,
    repetition_penalty: "repetition_penalty",
    negative_seed_is_fresh: false,
};

/// Infilling for an editor wants the likely text: the temperature of this project's measurements.
pub const INFILL: SamplingForm = SamplingForm { temperature: 0.2, top_p: 0.95, ..OPENAI };

/// llama.cpp's.
pub const LLAMA_CPP: SamplingForm = SamplingForm {
    temperature: 0.8,
    top_k: 40,
    top_p: 0.95,
    min_p: 0.05,
    repetition_penalty: "repeat_penalty",
    negative_seed_is_fresh: true,
};

/// Ollama's.
pub const OLLAMA: SamplingForm = SamplingForm { top_p: 0.9, min_p: 0.0, ..LLAMA_CPP };

impl SamplingForm {
    /// Reads the parameters.
    ///
    /// # Errors
    /// When one is outside its range.
    pub fn read(self, fields: &mut Fields) -> Result<SamplingParams, ApiError> {
        let mut number = |name, least, most, default: f32| {
            let number = fields.number(name, least, most)?;
            Ok::<_, ApiError>(number.map_or(default, |number| number as f32))
        };
        let temperature = number("temperature", 0.0, 100.0, self.temperature)?;
        let top_p = number("top_p", 0.0, 1.0, self.top_p)?;
        let min_p = number("min_p", 0.0, 1.0, self.min_p)?;
        let repetition_penalty = number(self.repetition_penalty, 1e-3, 1e3, 1.0)?;
        let presence_penalty = number("presence_penalty", -2.0, 2.0, 0.0)?;
        let frequency_penalty = number("frequency_penalty", -2.0, 2.0, 0.0)?;
        // Below 1 all tokens are kept.
        let top_k = fields.integer("top_k", i64::from(i32::MIN), i64::from(i32::MAX))?;
        let top_k = top_k.map_or(self.top_k, |k| usize::try_from(k).unwrap_or(0));
        let seed = fields.seed()?.filter(|&seed| !(seed < 0 && self.negative_seed_is_fresh));
        // A negative seed has the bits of an unsigned one.
        let seed = seed.map_or_else(fresh_seed, |seed| seed as u64);
        Ok(SamplingParams {
            temperature,
            top_k,
            top_p,
            min_p,
            repetition_penalty,
            frequency_penalty,
            presence_penalty,
            seed,
        })
    }
}

/// Returns a seed that no request had: the standard library's hash keys are random, and others each time.
fn fresh_seed() -> u64 {
    RandomState::new().build_hasher().finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn read(form: SamplingForm, body: &Value) -> Result<SamplingParams, ApiError> {
        form.read(&mut Fields::parse(body.to_string().as_bytes()).unwrap())
    }

    #[test]
    fn an_omitted_seed_is_a_fresh_one() {
        let seed = |form, body: Value| read(form, &body).unwrap().seed;
        assert_ne!(seed(OPENAI, json!({})), seed(OPENAI, json!({"seed": null})));
        assert_ne!(seed(OLLAMA, json!({"seed": -1})), seed(OLLAMA, json!({"seed": -1})));
        assert_eq!(seed(OPENAI, json!({"seed": -1})), u64::MAX);
        assert_eq!(seed(LLAMA_CPP, json!({"seed": 7})), 7);
    }

    #[test]
    fn ranges_are_checked() {
        for bad in [
            json!({"temperature": -0.1}),
            json!({"temperature": 1e9}),
            json!({"top_p": 1.1}),
            json!({"top_p": "0.5"}),
            json!({"min_p": -1}),
            json!({"top_k": 0.5}),
            json!({"top_k": 1e18}),
            json!({"repetition_penalty": 0}),
            json!({"frequency_penalty": 3}),
            json!({"seed": "x"}),
        ] {
            assert_eq!(read(OPENAI, &bad).unwrap_err().status.as_u16(), 400, "{bad}");
        }
        let params = read(OPENAI, &json!({"top_k": -1, "temperature": null})).unwrap();
        assert_eq!((params.top_k, params.temperature), (0, 1.0));
    }
}
