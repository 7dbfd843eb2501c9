//! The paper's comparisons, each one command: the same base, data and protocol, one thing changed at a time.

use crate::pipeline::{Stages, Trained};
use crate::recipe::Recipe;
use clap::ValueEnum;
use codelsi_engine::{Error, Result};
use codelsi_eval::report::Report;
use codelsi_train::{TrainOptions, data, jsonl};
use std::path::PathBuf;

/// What is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Ablation {
    /// Adapters of rank 8, 16 and 32 (alpha is twice the rank), on the general rows.
    Rank,
    /// The specialized stage on 5, 10, 20, 40 and 80 private rows, on top of general.
    Samples,
    /// General, then specialized, against specialized alone and against both at once.
    Stages,
    /// LoRA, rank-stabilized LoRA and every weight, on the general rows.
    Methods,
}

impl Ablation {
    fn title(self) -> &'static str {
        match self {
            Ablation::Rank => "the rank of the adapter",
            Ablation::Samples => "how many private rows",
            Ablation::Stages => "general, then specialized, against direct",
            Ablation::Methods => "methods of fine-tuning",
        }
    }

    /// Trains and measures every variant.
    ///
    /// # Errors
    /// Those of the stages.
    pub fn run(self, recipe: &Recipe, mut stages: Stages) -> Result<Report> {
        stages.curate("general", &stages.sources.public)?;
        if matches!(self, Ablation::Samples | Ablation::Stages) {
            stages.curate("specialized", &stages.sources.private)?;
        }
        let mut models = vec![("base".to_string(), Trained::Base)];
        models.extend(match self {
            Ablation::Rank => ranks(recipe, &mut stages)?,
            Ablation::Samples => samples(recipe, &mut stages)?,
            Ablation::Stages => staging(recipe, &mut stages)?,
            Ablation::Methods => methods(recipe, &mut stages)?,
        });
        stages.evaluate_all(&models)?;
        stages.finish(self.title())
    }
}

/// Variants by their names.
type Variants = Vec<(String, Trained)>;

/// Trains `name` on the general rows.
fn general(stages: &mut Stages, name: &str, options: TrainOptions) -> Result<(String, Trained)> {
    let full = options.full;
    let folder = stages.train(name, "general", options, None)?;
    Ok((name.into(), if full { Trained::Model(folder) } else { Trained::Adapter(folder) }))
}

fn ranks(recipe: &Recipe, stages: &mut Stages) -> Result<Variants> {
    let variant = |rank: usize| {
        let options = TrainOptions { rank, alpha: 2.0 * rank as f32, ..recipe.general.clone() };
        general(stages, &format!("rank {rank}"), options)
    };
    [8, 16, 32].into_iter().map(variant).collect()
}

fn methods(recipe: &Recipe, stages: &mut Stages) -> Result<Variants> {
    let lora = recipe.general.clone();
    // Full training takes a tenth of an adapter's learning rate, as is usual.
    let full = TrainOptions { full: true, lr: lora.lr / 10.0, ..lora.clone() };
    let variants =
        [("LoRA", lora.clone()), ("rsLoRA", TrainOptions { rslora: true, ..lora }), ("full", full)];
    variants.into_iter().map(|(name, options)| general(stages, name, options)).collect()
}

fn samples(recipe: &Recipe, stages: &mut Stages) -> Result<Variants> {
    let on = stages.train("general", "general", recipe.general.clone(), None)?;
    let rows = data::read(stages.run.join("specialized.jsonl"))?;
    let mut variants = vec![("general".to_string(), Trained::Adapter(on.clone()))];
    for n in [5, 10, 20, 40, 80] {
        if n > rows.len() {
            let note =
                format!("There are {} private rows: the variants of {n} and more are left out.", rows.len());
            stages.report.notes.push(note);
            break;
        }
        let name = format!("{n} rows");
        jsonl::write(stages.run.join(format!("{name}.jsonl")), &data::spread(rows.clone(), n))?;
        let options = TrainOptions { validation: 0, ..stages.specialized() };
        let folder = stages.train(&name, &name, options, Some(&on))?;
        variants.push((name, Trained::Adapter(folder)));
    }
    Ok(variants)
}

fn staging(recipe: &Recipe, stages: &mut Stages) -> Result<Variants> {
    let path = |stages: &Stages, name: &str| -> PathBuf { stages.run.join(format!("{name}.jsonl")) };
    let private = data::spread(data::read(path(stages, "specialized"))?, recipe.private_rows);
    if private.is_empty() {
        return Err(Error::new("no private row was kept: there is nothing to specialize on"));
    }
    jsonl::write(path(stages, "specialized"), &private)?;
    let mut both = data::read(path(stages, "general"))?;
    both.extend(private);
    jsonl::write(path(stages, "mixed"), &both)?;

    let alone = TrainOptions { validation: 0, replay: None, replay_rows: 0, ..stages.specialized() };
    let on_top = TrainOptions { validation: 0, ..stages.specialized() };
    let general = stages.train("general", "general", recipe.general.clone(), None)?;
    let specialized = stages.train("specialized", "specialized", on_top, Some(&general))?;
    let direct = stages.train("specialized alone", "specialized", alone, None)?;
    let mixed = stages.train("mixed", "mixed", recipe.general.clone(), None)?;
    let variants =
        [("general", general), ("specialized", specialized), ("specialized alone", direct), ("mixed", mixed)];
    Ok(variants.map(|(name, folder)| (name.to_string(), Trained::Adapter(folder))).into())
}
