//! Named recipes: every hyperparameter that affects a pipeline's result.

use crate::curation::NEAR_DUPLICATE_THRESHOLD;
use crate::protocol::ProtocolOptions;
use codelsi_curate::{CurateOptions, InstructionStyle};
use codelsi_demo::recipe as demo;
use codelsi_engine::{At, Error, Result};
use codelsi_eval::judge::JudgeKind;
use codelsi_eval::protocol::PromptFormat;
use codelsi_model::template::PromptTemplate;
use codelsi_train::TrainOptions;
use codelsi_train::options::ActivationCheckpointing;
use codelsi_train::recipe::read;
use serde_json::{Value, json};
use std::path::Path;

/// Hyperparameters of a pipeline.
#[derive(Clone)]
pub struct Recipe {
    pub name: &'static str,
    /// Share of common token 5-grams from which a row is a near duplicate; none in the demo, whose rows are similar by
    /// design.
    pub near_duplicate_threshold: Option<f64>,
    /// Styles of the general and of the specialized rows.
    pub general_styles: Vec<InstructionStyle>,
    pub specialized_styles: Vec<InstructionStyle>,
    /// Options of the general stage; the pipeline fills in the paths.
    pub general: TrainOptions,
    /// Options of the specialized stage.
    pub specialized: TrainOptions,
    /// Private functions to learn, in every style; as many others at most are held out.
    pub private_rows: usize,
    pub protocol: ProtocolOptions,
    /// The judge; by default the best one of the machine.
    pub judge: Option<JudgeKind>,
}

impl Recipe {
    /// Returns the paper's recipe (arXiv 2509.14373), with a specialized stage that keeps the general skills: rank 16 on all
    /// seven linears, learning rate 2e-4 with cosine decay, 16 sequences of 4096 tokens per step, one epoch; 40 private
    /// functions; 20 samples at temperature 0.2.
    pub fn paper(seed: u64) -> Self {
        let general = TrainOptions { seed, ..TrainOptions::default() };
        // The way that keeps the general skills, chosen on the demo's model (LOG.md): half of the learning
        // rate, and four other general rows for each private function in every epoch.
        let specialized = TrainOptions {
            lr: general.lr / 2.0,
            epochs: 12,
            warmup: 4,
            batch: 4,
            replay_rows: 160,
            replay_fresh: true,
            ..general.clone()
        };
        Recipe {
            name: "paper",
            near_duplicate_threshold: Some(NEAR_DUPLICATE_THRESHOLD),
            general_styles: vec![InstructionStyle::Write],
            specialized_styles: vec![InstructionStyle::Write, InstructionStyle::Continue],
            general,
            specialized,
            private_rows: 40,
            protocol: ProtocolOptions {
                n: 20,
                temperature: 0.2,
                top_p: 0.95,
                max_tokens: 512,
                seed,
                prompt_format: PromptFormat::Completion,
                limit: None,
            },
            judge: None,
        }
    }

    /// Returns the same stages for the embedded model, which take minutes on two cores.
    pub fn demo(seed: u64) -> Self {
        let stage = TrainOptions {
            seq: demo::SEQ,
            micro_batch: 4,
            dropout: 0.0,
            checkpointing: ActivationCheckpointing::NONE,
            template: PromptTemplate::Paper,
            save_every: 0,
            seed,
            ..TrainOptions::default()
        };
        let general = TrainOptions {
            lr: demo::GENERAL_LR,
            batch: demo::GENERAL_BATCH,
            epochs: demo::GENERAL_EPOCHS,
            validation: 64,
            ..stage.clone()
        };
        let specialized = TrainOptions {
            lr: demo::SPECIALIZED_LR,
            batch: demo::SPECIALIZED_BATCH,
            epochs: demo::SPECIALIZED_EPOCHS,
            warmup: 4,
            validation: 0,
            replay_rows: demo::REPLAY_ROWS,
            replay_fresh: true,
            ..stage
        };
        let protocol = ProtocolOptions {
            n: demo::SAMPLES,
            max_tokens: demo::MAX_TOKENS,
            ..Recipe::paper(seed).protocol
        };
        Recipe {
            name: "demo",
            near_duplicate_threshold: None,
            general_styles: vec![InstructionStyle::Write, InstructionStyle::Continue],
            specialized_styles: vec![InstructionStyle::Write, InstructionStyle::Continue],
            general,
            specialized,
            private_rows: demo::PRIVATE_ROWS,
            protocol,
            judge: Some(JudgeKind::Embedded),
        }
    }

    /// Returns the options that turn public sources into the general rows.
    pub fn general_rows(&self) -> CurateOptions {
        CurateOptions { styles: self.general_styles.clone(), ..CurateOptions::default() }
    }

    /// Returns the options that turn private sources into the specialized rows.
    pub fn specialized_rows(&self) -> CurateOptions {
        CurateOptions { styles: self.specialized_styles.clone(), ..CurateOptions::default() }
    }

    /// Adapts the recipe to several languages: a template that names none of them, and in the demo longer answers.
    pub fn for_languages(mut self) -> Self {
        for stage in [&mut self.general, &mut self.specialized] {
            stage.template = PromptTemplate::Plain;
        }
        self.general_styles = vec![InstructionStyle::Write];
        if self.name == "demo" {
            self.protocol.n = demo::LANGUAGE_SAMPLES;
            self.protocol.max_tokens = demo::LANGUAGE_MAX_TOKENS;
        }
        self
    }

    /// Reads the recipe that a run wrote to `recipe.json`. What it does not state is the named recipe's.
    ///
    /// # Errors
    /// When the file cannot be read, or holds what no recipe has; the error names it.
    pub fn read(path: &Path) -> Result<Self> {
        let place = path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(|e| Error::io(path, e))?;
        let value: Value = serde_json::from_str(&text).map_err(|e| Error::io(path, e))?;
        Recipe::from_json(&value).at(place)
    }

    fn from_json(value: &Value) -> Result<Self> {
        let object = value.as_object().ok_or_else(|| Error::new("a recipe is a JSON object"))?;
        let mut recipe = match object.get("recipe").and_then(Value::as_str) {
            Some("demo") => Recipe::demo(42),
            Some("paper") => Recipe::paper(42),
            _ => return Err(Error::new("`recipe` is missing; it is \"demo\" or \"paper\"")),
        };
        for (name, value) in object {
            recipe.set(name, value).at(name)?;
        }
        recipe.protocol.check().map(|()| recipe)
    }

    fn set(&mut self, name: &str, value: &Value) -> Result<()> {
        let options = || value.as_object().ok_or_else(|| Error::new("an object is expected"));
        match name {
            "recipe" => {}
            "resemblance" => self.near_duplicate_threshold = read(value)?,
            "general" => self.general = self.general.with_recipe(options()?)?,
            "specialized" => self.specialized = self.specialized.with_recipe(options()?)?,
            "general_styles" => self.general_styles = styles(value)?,
            "specialized_styles" => self.specialized_styles = styles(value)?,
            "private_rows" => self.private_rows = read(value)?,
            "evaluation" => {
                for (name, value) in options()? {
                    self.set_evaluation(name, value).at(name)?;
                }
            }
            _ => return Err(Error::new("no recipe has this key")),
        }
        Ok(())
    }

    fn set_evaluation(&mut self, name: &str, value: &Value) -> Result<()> {
        let p = &mut self.protocol;
        match name {
            "samples" => p.n = read(value)?,
            "temperature" => p.temperature = read(value)?,
            "top_p" => p.top_p = read(value)?,
            "max_tokens" => p.max_tokens = read(value)?,
            "seed" => p.seed = read(value)?,
            "prompt_format" => p.prompt_format = read(value)?,
            "judge" => self.judge = read(value)?,
            "limit" => p.limit = read(value)?,
            _ => return Err(Error::new("no evaluation has this key")),
        }
        Ok(())
    }

    /// Sets the seed of every stage and of the sampling.
    pub fn with_seed(mut self, seed: u64) -> Self {
        (self.general.seed, self.specialized.seed, self.protocol.seed) = (seed, seed, seed);
        self
    }

    /// Returns the recipe for `recipe.json` and the report.
    pub fn to_json(&self) -> Value {
        let p = &self.protocol;
        let recipe = json!({
            "recipe": self.name, "resemblance": self.near_duplicate_threshold,
            "general_styles": self.general_styles, "specialized_styles": self.specialized_styles,
            "general": self.general.recipe(),
            "specialized": self.specialized.recipe(),
            "private_rows": self.private_rows,
            "evaluation": {
                "samples": p.n, "temperature": p.temperature, "top_p": p.top_p, "max_tokens": p.max_tokens,
                "seed": p.seed, "prompt_format": p.prompt_format, "judge": self.judge, "limit": p.limit,
            },
        });
        shortest(recipe)
    }
}

/// Reads the styles of rows, of which there is at least one.
fn styles(value: &Value) -> Result<Vec<InstructionStyle>> {
    let styles: Vec<InstructionStyle> = read(value)?;
    if styles.is_empty() { Err(Error::new("at least one style is needed")) } else { Ok(styles) }
}

/// Returns a value whose numbers have the fewest digits that name the same f32: 0.2, not 0.20000000298023224.
fn shortest(value: Value) -> Value {
    match value {
        Value::Object(object) => object.into_iter().map(|(key, value)| (key, shortest(value))).collect(),
        Value::Array(values) => values.into_iter().map(shortest).collect(),
        Value::Number(number) if number.is_f64() => {
            let single = number.as_f64().map(|wide| (wide, wide as f32)).filter(|(w, s)| f64::from(*s) == *w);
            single
                .and_then(|(_, s)| s.to_string().parse::<f64>().ok())
                .map_or(Value::Number(number), |s| json!(s))
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recipe_s_numbers_are_printed_as_they_were_given() {
        let text = Recipe::paper(42).to_json().to_string();
        assert!(text.contains("\"temperature\":0.2,") && text.contains("\"top_p\":0.95,"), "{text}");
    }

    #[test]
    fn a_recipe_reads_back_as_it_was_written() {
        for recipe in [Recipe::demo(7), Recipe::paper(9)] {
            let mut recipe = recipe;
            recipe.private_rows = 5;
            recipe.protocol.limit = Some(3);
            assert_eq!(Recipe::from_json(&recipe.to_json()).unwrap().to_json(), recipe.to_json());
        }
        let refused = |value: Value| Recipe::from_json(&value).err().unwrap().to_string();
        assert!(refused(json!({"recipe": "cake"})).contains("\"demo\" or \"paper\""));
        assert!(
            refused(json!({"recipe": "demo", "general": {"rank": "a"}})).starts_with("general: rank: \"a\"")
        );
        assert!(refused(json!({"recipe": "demo", "evaluation": {"samples": 0}})).contains('0'));
        assert!(refused(json!({"recipe": "demo", "sauce": 1})).starts_with("sauce"));
    }
}
