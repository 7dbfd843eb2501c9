//! The recipe of a run, as JSON and back: the options that determine its result.

use crate::options::{TrainOptions, shortest_decimal};
use codelsi_engine::{At, DType, Error, Result};
use codelsi_kernels::dropout::DropoutRate;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

impl TrainOptions {
    /// Returns all options that determine the result, for `recipe.json` and for the comparison on resume.
    pub fn recipe(&self) -> Map<String, Value> {
        let recipe = json!({
            "model": self.model, "data": self.data_paths(),
            "replay": self.replay, "replay_rows": self.replay_rows, "replay_fresh": self.replay_fresh.then_some(true), "from": self.from, "full": self.full,
            "rank": self.rank, "alpha": shortest_decimal(self.alpha), "method": self.method.to_string(), "dropout": shortest_decimal(self.dropout),
            "dropout_realised": self.realised_dropout(),
            "targets": self.targets.iter().map(|linear| linear.name()).collect::<Vec<_>>(),
            "lr": self.lr, "warmup": self.warmup, "weight_decay": shortest_decimal(self.weight_decay), "clip": self.clip,
            "epochs": self.epochs, "max_steps": self.max_steps,
            "seq": self.seq, "batch": self.batch, "micro_batch": self.micro_batch,
            "template": self.template.name(), "validation": self.validation, "validation_data": self.validation_data, "patience": self.patience, "validate_every": self.patience.map(|_| self.validate_every),
            "compute": format!("{:?}", self.compute).to_lowercase(),
            "seed": self.seed, "blank_answers": self.blank_answers.then_some(true), "shuffle": self.shuffle, "packing": self.packing,
        });
        let mut recipe = recipe.as_object().cloned().unwrap_or_default();
        if !self.columns.is_empty() {
            recipe.insert("columns".into(), self.columns.to_string().into());
        }
        if let Some(share) = self.validation_share {
            recipe.insert("validation_share".into(), share.into());
        }
        if self.distill > 0.0 {
            recipe.insert("distill".into(), self.distill.into());
        }
        if !self.modules_to_save.is_empty() {
            recipe.insert("modules_to_save".into(), json!(self.modules_to_save));
        }
        if !self.experts.is_empty() {
            recipe.insert("experts".into(), json!(self.experts));
        }
        recipe
    }

    /// Returns these options with those of a recipe. Its paths are left out: they are of the run that wrote it.
    ///
    /// # Errors
    /// When an option is unknown or its value is not of its type; the error names it.
    pub fn with_recipe(&self, recipe: &Map<String, Value>) -> Result<TrainOptions> {
        let mut options = self.clone();
        recipe.iter().try_for_each(|(name, value)| options.set(name, value).at(name))?;
        Ok(options)
    }

    fn set(&mut self, name: &str, value: &Value) -> Result<()> {
        match name {
            "model" | "data" | "replay" | "from" | "experts" | "validation_data" | "dropout_realised" => {}
            "replay_rows" => self.replay_rows = read(value)?,
            "replay_fresh" => self.replay_fresh = read::<Option<bool>>(value)?.unwrap_or(false),
            "distill" => self.distill = read(value)?,
            "full" => self.full = read(value)?,
            "rank" => self.rank = read(value)?,
            "alpha" => self.alpha = read(value)?,
            "method" => self.method = read::<String>(value)?.parse()?,
            "dropout" => self.dropout = read(value)?,
            "targets" => {
                self.targets = read::<Vec<String>>(value)?.iter().map(|t| t.parse()).collect::<Result<_>>()?
            }
            "modules_to_save" => self.modules_to_save = read(value)?,
            "lr" => self.lr = read(value)?,
            "warmup" => self.warmup = read(value)?,
            "weight_decay" => self.weight_decay = read(value)?,
            "clip" => self.clip = read(value)?,
            "epochs" => self.epochs = read(value)?,
            "max_steps" => self.max_steps = read(value)?,
            "seq" => self.seq = read(value)?,
            "batch" => self.batch = read(value)?,
            "micro_batch" => self.micro_batch = read(value)?,
            "template" => self.template = read::<String>(value)?.parse()?,
            "columns" => self.columns = read::<String>(value)?.parse()?,
            "validation_share" => self.validation_share = Some(read(value)?),
            "validation" => self.validation = read(value)?,
            "patience" => self.patience = read(value)?,
            "validate_every" => {
                self.validate_every = read::<Option<usize>>(value)?.unwrap_or(self.validate_every)
            }
            "compute" => self.compute = compute(&read::<String>(value)?)?,
            "seed" => self.seed = read(value)?,
            "blank_answers" => self.blank_answers = read::<Option<bool>>(value)?.unwrap_or(false),
            "shuffle" => self.shuffle = read(value)?,
            "packing" => self.packing = read(value)?,
            _ => return Err(Error::new("no option of a recipe has this name")),
        }
        Ok(())
    }

    /// The path of the data, or a list of several.
    fn data_paths(&self) -> Value {
        match &self.data[..] {
            [one] => json!(one),
            several => json!(several),
        }
    }

    /// The drop probability that masks realise, a multiple of 1/65536; none without dropout.
    fn realised_dropout(&self) -> Option<f64> {
        DropoutRate::new(self.dropout)
            .ok()
            .filter(|&rate| rate != DropoutRate::ZERO)
            .map(DropoutRate::probability)
    }
}

/// Reads a value of a recipe.
///
/// # Errors
/// When it is not of the type; the error shows it.
pub fn read<T: DeserializeOwned>(value: &Value) -> Result<T> {
    serde_json::from_value(value.clone()).map_err(|e| Error::new(format!("{value} is not taken: {e}")))
}

fn compute(name: &str) -> Result<DType> {
    let types = [DType::F32, DType::BF16];
    let found = types.into_iter().find(|dtype| format!("{dtype:?}").to_lowercase() == name);
    found.ok_or_else(|| Error::new(format!("`{name}` is neither f32 nor bf16")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use codelsi_model::adapter::Method;
    use codelsi_model::config::LinearName;
    use codelsi_model::template::PromptTemplate;

    #[test]
    fn a_recipe_reads_back_as_it_was_written() {
        let methods = [
            Method::LORA,
            Method::LowRank { rslora: true, dora: true },
            Method::Mixture { experts: 3 },
            Method::Bottleneck,
        ];
        for method in methods {
            let options = TrainOptions {
                method,
                rank: 7,
                alpha: 0.3,
                dropout: 0.1,
                targets: LinearName::ALL[..2].to_vec(),
                lr: 1.5e-3,
                clip: None,
                max_steps: Some(9),
                template: PromptTemplate::Plain,
                compute: DType::F32,
                blank_answers: true,
                shuffle: false,
                seed: u64::MAX,
                replay_rows: 5,
                replay_fresh: true,
                patience: Some(3),
                validate_every: 4,
                distill: 0.1,
                columns: "instruction=question,output=the answer".parse().unwrap(),
                validation_share: Some(0.05),
                ..TrainOptions::default()
            };
            let read = TrainOptions::default().with_recipe(&options.recipe()).unwrap();
            assert_eq!(read.recipe(), options.recipe());
            let plain = TrainOptions { distill: 0.0, ..options }.recipe();
            assert!(read.recipe().contains_key("distill") && !plain.contains_key("distill"));
        }
    }

    #[test]
    fn an_option_that_does_not_exist_or_fit_is_named() {
        let refused = |recipe: Value| {
            let recipe = recipe.as_object().unwrap().clone();
            TrainOptions::default().with_recipe(&recipe).unwrap_err().to_string()
        };
        assert!(refused(json!({"learning_rate": 1})).contains("learning_rate"));
        assert!(refused(json!({"rank": -1})).starts_with("rank: -1 is not taken"));
        assert!(refused(json!({"method": "magic"})).contains("`magic`"));
        assert!(refused(json!({"compute": "f16"})).contains("`f16`"));
    }
}
