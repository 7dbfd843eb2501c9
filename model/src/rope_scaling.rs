//! Scaling of rotary positions, by which a model reads longer texts than it was first trained for: what `rope_scaling` or
//! `rope_parameters` of a `config.json` says, as the inverse frequencies and the attention factor that transformers 5
//! makes of it.

use crate::json_fields::{Fields, MAX_SIZE};
use codelsi_engine::{At, Error, Result};
use codelsi_kernels::rope::inverse_frequencies;
use serde_json::{Value, json};
use std::f64::consts::TAU;

/// Rotary positions of a model.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rope {
    /// Base of the angles.
    pub theta: f64,
    pub scaling: RopeScaling,
}

/// A kind of scaling, `rope_type` in a config.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum RopeScaling {
    /// None.
    #[default]
    Default,
    /// Positions are divided by a factor (Chen et al., arXiv 2306.15595).
    Linear { factor: f64 },
    /// A larger base for sequences longer than `max_position_embeddings`, which are refused: their angles would depend on
    /// the length that a sequence has reached. Up to there it changes nothing.
    Dynamic { factor: f64 },
    /// Llama 3.1's: waves longer than `original / low_freq_factor` positions are slowed by `factor`, those shorter than
    /// `original / high_freq_factor` are not, those between in part.
    Llama3 { factor: f64, low_freq_factor: f64, high_freq_factor: f64, original: usize },
    /// YaRN (Peng et al., arXiv 2309.00071).
    Yarn(Yarn),
}

/// The settings of YaRN: waves that turn less than `beta_slow` times over `original` positions are slowed by `factor`, those
/// that turn more than `beta_fast` times are not, those between in part.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Yarn {
    pub factor: f64,
    /// Multiplies queries and keys.
    pub attention_factor: f64,
    pub beta_fast: f64,
    pub beta_slow: f64,
    pub original: usize,
    /// True if the limits of what lies between are whole channels.
    pub truncate: bool,
}

impl Rope {
    /// Positions of base `theta` without scaling.
    pub fn unscaled(theta: f64) -> Self {
        Rope { theta, scaling: RopeScaling::Default }
    }

    /// Reads a config in either style: `rope_scaling` and `rope_theta`, or `rope_parameters`. `max_position_embeddings` is
    /// the config's.
    ///
    /// # Errors
    /// When a value is malformed, or the kind of scaling is none of those known.
    pub(crate) fn read(config: Fields, max_position_embeddings: usize) -> Result<Self> {
        let theta = config.positive_or("rope_theta", 10000.0)?;
        check_rotates_heads(config)?;
        // An empty object counts as absent, as in transformers.
        let given = |key: &&str| config.get(key).is_some_and(|value| *value != json!({}));
        let Some(key) = ["rope_scaling", "rope_parameters"].into_iter().find(given) else {
            return Ok(Rope::unscaled(theta));
        };
        let value = &config.0[key];
        let Some(map) = value.as_object() else {
            return Err(Error::new(format!("`{key}` is {value}, not an object")));
        };
        let read = || {
            let fields = Fields(map);
            if let Some((kind, _)) = map.iter().find(|(_, value)| value.is_object()) {
                return Err(Error::new(format!("`{kind}` has positions of its own: not supported")));
            }
            check_rotates_heads(fields)?;
            const ORIGINAL: &str = "original_max_position_embeddings";
            let original = match config.get(ORIGINAL) {
                Some(_) => config.size(ORIGINAL)?,
                None => fields.size_or(ORIGINAL, max_position_embeddings)?,
            };
            let scaling = RopeScaling::read(fields, original, max_position_embeddings)?;
            Ok(Rope { theta: fields.positive_or("rope_theta", theta)?, scaling })
        };
        read().at(key)
    }

    /// Checks that every angle of a head of `head_dim` channels is a number.
    ///
    /// # Errors
    /// When one is not.
    pub(crate) fn check(&self, head_dim: usize) -> Result<()> {
        if matches!(self.scaling, RopeScaling::Yarn(_)) && self.theta <= 1.0 {
            return Err(Error::new(format!("`rope_theta` is {}, and yarn needs one above 1", self.theta)));
        }
        let numbers = self.inverse_frequencies(head_dim);
        match numbers.iter().all(|f| (f * MAX_SIZE as f64).is_finite()) {
            true => Ok(()),
            false => Err(Error::new(format!("rotary angles of {self:?} are not finite"))),
        }
    }

    /// Returns the angle per position of each pair of a head's channels.
    pub fn inverse_frequencies(&self, head_dim: usize) -> Vec<f64> {
        let mut frequencies = inverse_frequencies(head_dim, self.theta);
        match self.scaling {
            RopeScaling::Default | RopeScaling::Dynamic { .. } => {}
            RopeScaling::Linear { factor } => frequencies.iter_mut().for_each(|f| *f /= factor),
            RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original } => {
                for f in &mut frequencies {
                    let turns = original as f64 * *f / TAU;
                    let kept = (turns - low_freq_factor) / (high_freq_factor - low_freq_factor);
                    *f = between(*f / factor, *f, kept);
                }
            }
            RopeScaling::Yarn(yarn) => {
                let (first, last) = yarn.range(head_dim, self.theta);
                for (j, f) in frequencies.iter_mut().enumerate() {
                    *f = between(*f, *f / yarn.factor, (j as f64 - first) / (last - first));
                }
            }
        }
        frequencies
    }

    /// The factor of cos and sin.
    pub fn attention_factor(&self) -> f64 {
        if let RopeScaling::Yarn(yarn) = self.scaling { yarn.attention_factor } else { 1.0 }
    }
}

/// Returns `a` at a share of 0 or less, `b` at 1 or more, and their weighted mean between.
fn between(a: f64, b: f64, share: f64) -> f64 {
    let share = share.clamp(0.0, 1.0);
    (1.0 - share) * a + share * b
}

/// Checks that all channels of a head are rotated.
fn check_rotates_heads(fields: Fields) -> Result<()> {
    match fields.number_or("partial_rotary_factor", 1.0)? {
        1.0 => Ok(()),
        share => Err(Error::new(format!(
            "`partial_rotary_factor` is {share}: not supported, heads are rotated whole"
        ))),
    }
}

impl RopeScaling {
    fn read(fields: Fields, original: usize, max_position_embeddings: usize) -> Result<Self> {
        let kind = match fields.get("rope_type").or(fields.get("type")) {
            None => "default",
            Some(kind) => {
                kind.as_str().ok_or_else(|| Error::new(format!("`rope_type` is {kind}, not a text")))?
            }
        };
        match kind {
            "default" => Ok(RopeScaling::Default),
            "linear" => Ok(RopeScaling::Linear { factor: fields.positive("factor")? }),
            "dynamic" => Ok(RopeScaling::Dynamic { factor: fields.positive("factor")? }),
            "llama3" => {
                let [factor, low_freq_factor, high_freq_factor] =
                    ["factor", "low_freq_factor", "high_freq_factor"].map(|key| fields.positive(key));
                let (low_freq_factor, high_freq_factor) = (low_freq_factor?, high_freq_factor?);
                if high_freq_factor <= low_freq_factor {
                    return Err(Error::new(format!(
                        "`high_freq_factor` {high_freq_factor} is not above `low_freq_factor` {low_freq_factor}"
                    )));
                }
                Ok(RopeScaling::Llama3 { factor: factor?, low_freq_factor, high_freq_factor, original })
            }
            "yarn" => Yarn::read(fields, original, max_position_embeddings).map(RopeScaling::Yarn),
            _ => Err(Error::new(format!(
                "type \"{kind}\" is not supported, only default, linear, dynamic, llama3 and yarn are"
            ))),
        }
    }

    /// Returns the `rope_scaling` of a classic config.
    pub(crate) fn to_json(self) -> Value {
        match self {
            RopeScaling::Default => Value::Null,
            RopeScaling::Linear { factor } => json!({"type": "linear", "factor": factor}),
            RopeScaling::Dynamic { factor } => json!({"rope_type": "dynamic", "factor": factor}),
            RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original } => json!({
                "rope_type": "llama3",
                "factor": factor,
                "low_freq_factor": low_freq_factor,
                "high_freq_factor": high_freq_factor,
                "original_max_position_embeddings": original,
            }),
            RopeScaling::Yarn(yarn) => json!({
                "rope_type": "yarn",
                "factor": yarn.factor,
                "attention_factor": yarn.attention_factor,
                "beta_fast": yarn.beta_fast,
                "beta_slow": yarn.beta_slow,
                "original_max_position_embeddings": yarn.original,
                "truncate": yarn.truncate,
            }),
        }
    }

    /// The name of the kind, as a config has it.
    pub fn name(self) -> &'static str {
        match self {
            RopeScaling::Default => "default",
            RopeScaling::Linear { .. } => "linear",
            RopeScaling::Dynamic { .. } => "dynamic",
            RopeScaling::Llama3 { .. } => "llama3",
            RopeScaling::Yarn(_) => "yarn",
        }
    }
}

impl Yarn {
    fn read(fields: Fields, original: usize, max_position_embeddings: usize) -> Result<Self> {
        // A factor of null stands for the ratio of lengths, an absent one is an error: both as in transformers.
        let factor = match fields.0.get("factor") {
            Some(Value::Null) => max_position_embeddings as f64 / original as f64,
            _ => fields.positive("factor")?,
        };
        let scale = |mscale: f64| if factor <= 1.0 { 1.0 } else { 0.1 * mscale * factor.ln() + 1.0 };
        let [mscale, mscale_all_dim] = ["mscale", "mscale_all_dim"].map(|key| fields.number_or(key, 0.0));
        let default = match (mscale?, mscale_all_dim?) {
            (0.0, _) | (_, 0.0) => scale(1.0),
            (mscale, all) => scale(mscale) / scale(all),
        };
        let attention_factor = match fields.get("attention_factor") {
            Some(_) => fields.positive("attention_factor")?,
            None if default.is_finite() && default > 0.0 => default,
            None => return Err(Error::new("`mscale` and `mscale_all_dim` give no attention factor above 0")),
        };
        // 0 stands for the default, as in transformers.
        let turns = |key, default| fields.number_or(key, default).map(|n| if n == 0.0 { default } else { n });
        let (beta_fast, beta_slow) = (turns("beta_fast", 32.0)?, turns("beta_slow", 1.0)?);
        if beta_slow <= 0.0 || beta_fast < beta_slow {
            return Err(Error::new(format!(
                "`beta_slow` {beta_slow} is not above 0, or `beta_fast` {beta_fast} is below it"
            )));
        }
        // Null is false there.
        let truncate = fields.0.get("truncate") != Some(&Value::Null) && fields.bool_or("truncate", true)?;
        Ok(Yarn { factor, attention_factor, beta_fast, beta_slow, original, truncate })
    }

    /// Returns the last pair that is not slowed and the first that is slowed by the full factor, of a head of `head_dim`
    /// channels.
    fn range(&self, head_dim: usize, theta: f64) -> (f64, f64) {
        let dim = head_dim as f64;
        let pair_of = |turns: f64| dim * (self.original as f64 / (turns * TAU)).ln() / (2.0 * theta.ln());
        let (mut first, mut last) = (pair_of(self.beta_fast), pair_of(self.beta_slow));
        if self.truncate {
            (first, last) = (first.floor(), last.ceil());
        }
        (first, last) = (first.max(0.0), last.min(dim - 1.0));
        // As in transformers: one step instead of a division by zero.
        if first == last { (first, last + 0.001) } else { (first, last) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use approx::assert_relative_eq;

    fn read(config: Value, positions: usize) -> Rope {
        Rope::read(Fields(config.as_object().unwrap()), positions).unwrap()
    }

    /// Llama 3.1's, Qwen2.5's and DeepSeek's settings, and a factor that follows from the lengths: what transformers 5.24
    /// computes, in f32.
    #[test]
    fn frequencies_are_those_of_transformers() {
        let llama3 = json!({
            "rope_theta": 5e5,
            "rope_scaling": {
                "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                "original_max_position_embeddings": 8192,
            },
        });
        let qwen = json!({
            "rope_scaling": {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768},
            "rope_theta": 1e6,
        });
        let deepseek = json!({"rope_parameters": {
            "rope_type": "yarn", "rope_theta": 1e4, "factor": 40, "original_max_position_embeddings": 4096,
            "beta_fast": 24, "beta_slow": 2, "mscale": 1.0, "mscale_all_dim": 0.5, "truncate": false,
        }});
        let by_lengths = json!({"original_max_position_embeddings": 4096, "rope_parameters": {
            "rope_type": "yarn", "factor": null, "attention_factor": 1.5,
        }});
        // The kept pair 10, three that are slowed in part, and a slow one.
        let pairs = [10, 28, 30, 32, 35, 63];
        for (config, positions, factor, expected) in [
            (
                llama3,
                131072,
                1.0,
                [1.2868738e-1, 3.2114461e-3, 1.3718937e-3, 5.2484602e-4, 9.5562122e-5, 3.0689259e-7],
            ),
            (
                qwen,
                131072,
                1.1386294,
                [1.1547820e-1, 1.8482766e-3, 1.0643610e-3, 6.0294115e-4, 2.4625839e-4, 3.1023444e-7],
            ),
            (
                deepseek,
                163840,
                1.1557220,
                [2.3713736e-1, 1.2705408e-2, 8.0217281e-3, 4.8861187e-3, 2.0729084e-3, 2.8869547e-6],
            ),
            (
                by_lengths,
                16384,
                1.5,
                [2.3713736e-1, 1.3679072e-2, 9.4885174e-3, 6.5384619e-3, 3.6839922e-3, 2.8869548e-5],
            ),
        ] {
            let rope = read(config, positions);
            assert_relative_eq!(rope.attention_factor(), factor, max_relative = 1e-6);
            let frequencies = rope.inverse_frequencies(128);
            for (pair, expected) in pairs.into_iter().zip(expected) {
                assert_relative_eq!(frequencies[pair], expected, max_relative = 1e-5);
            }
        }
    }

    #[test]
    fn dynamic_changes_nothing_and_linear_divides() {
        let of = |kind: &str| {
            read(json!({"rope_scaling": {"type": kind, "factor": 4.0}}), 64).inverse_frequencies(8)
        };
        assert_eq!(of("dynamic"), inverse_frequencies(8, 1e4));
        let divided: Vec<f64> = inverse_frequencies(8, 1e4).iter().map(|f| f / 4.0).collect();
        assert_eq!(of("linear"), divided);
    }

    #[test]
    fn the_classic_style_comes_first_and_an_empty_object_counts_as_absent() {
        let both = |scaling: Value| {
            let new = json!({"rope_type": "linear", "factor": 2.0, "rope_theta": 5e5});
            let rope = read(json!({"rope_theta": 7.0, "rope_scaling": scaling, "rope_parameters": new}), 64);
            (rope.theta, rope.scaling.name())
        };
        assert_eq!(both(json!({"rope_type": "dynamic", "factor": 2.0})), (7.0, "dynamic"));
        assert_eq!(both(json!({})), (5e5, "linear"));
        assert_eq!(both(Value::Null), (5e5, "linear"));
    }
}
