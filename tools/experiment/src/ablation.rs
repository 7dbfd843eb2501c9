//! The paper's comparisons, each one command: the same base, data and protocol, one thing changed at a time.

use crate::evaluation::Pairs;
use crate::languages;
use crate::output::Output;
use crate::recipe::Recipe;
use crate::stages::{Experiment, Stages, Trained};
use codelsi_curate::specialize::{ExportedApi, choose_rows};
use codelsi_curate::{self as curate, CuratedRow, Language, RowLimits};
use codelsi_demo::recipe::PRIVATE_EXAMPLES;
use codelsi_engine::Result;
use codelsi_eval::report::{Report, Sweep};
use codelsi_model::adapter::{AdapterConfig, Method};
use codelsi_model::config::ModelConfig;
use codelsi_model::jsonl;
use codelsi_train::{TrainOptions, data};
use std::path::{Path, PathBuf};

/// The quantity that variants differ in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ablation {
    /// Adapters of rank 8, 16 and 32 (alpha is twice the rank), on the general rows.
    Rank,
    /// The specialized stage on 5, 10, 20, 40 and 80 private rows, on top of general.
    Samples,
    /// General, then specialized, against specialized alone and against both at once.
    Stages,
    /// LoRA, rsLoRA, DoRA, bottleneck adapters, a mixture of LoRA experts and every weight, on the general rows.
    Methods,
    /// The specialized stage on each private repository by itself, read on the rows that it holds out.
    Repositories,
    /// Other languages: an adapter of each one's rows beside that of TypeScript's, on each one's problems.
    Languages,
}

impl Ablation {
    /// Private examples of the demo: as many as the largest variant takes; none where private code is not looked at.
    pub fn examples(self) -> usize {
        match self {
            Ablation::Samples => SAMPLES[SAMPLES.len() - 1],
            Ablation::Languages => 0,
            _ => PRIVATE_EXAMPLES,
        }
    }

    fn title(self) -> &'static str {
        match self {
            Ablation::Rank => "the rank of the adapter",
            Ablation::Samples => "how many private rows",
            Ablation::Stages => "general, then specialized, against direct",
            Ablation::Methods => "methods of fine-tuning",
            Ablation::Repositories => "one private repository after another",
            Ablation::Languages => "other languages",
        }
    }

    /// The quantity that is varied: the number in the models' names.
    fn varied(self, models: &Variants) -> Option<Sweep> {
        let name = match self {
            Ablation::Rank => "the rank of the adapter",
            Ablation::Samples => "private rows",
            _ => return None,
        };
        let number = |name: &str| name.chars().filter(char::is_ascii_digit).collect::<String>();
        let points = models.iter().map(|(model, _)| (number(model), model.clone()));
        Some(Sweep { name: name.into(), points: points.filter(|(number, _)| !number.is_empty()).collect() })
    }

    /// What the comparison changes of a recipe.
    pub fn recipe(self, recipe: Recipe) -> Recipe {
        if self == Ablation::Languages { recipe.for_languages() } else { recipe }
    }

    /// Trains and measures every variant.
    ///
    /// # Errors
    /// Those of the stages.
    pub fn run(self, experiment: &Experiment, out: &Output) -> Result<Report> {
        let mut stages = Stages::begin(experiment, out)?;
        if self != Ablation::Languages {
            stages.curate(
                "general",
                &experiment.sources.public,
                Language::TypeScript,
                RowLimits::default(),
            )?;
        }
        let (models, pairs) = match self {
            Ablation::Rank => (beside_base(ranks(&mut stages)?), Pairs::Steps),
            Ablation::Samples => (beside_base(samples(&mut stages)?), Pairs::Steps),
            Ablation::Stages => (beside_base(staging(&mut stages)?), Pairs::Steps),
            Ablation::Methods => (beside_base(methods(&mut stages)?), Pairs::WithFirst),
            Ablation::Repositories => (repositories(&mut stages)?, Pairs::WithFirst),
            // Each language has its own rows, problems and variants.
            Ablation::Languages => {
                languages::compare(&mut stages)?;
                return stages.finish(self.title());
            }
        };
        stages.report.sweep = self.varied(&models);
        stages.evaluate_all(&models, pairs)?;
        stages.finish(self.title())
    }
}

/// Private rows of each variant.
const SAMPLES: [usize; 5] = [5, 10, 20, 40, 80];

/// Variants by their names.
type Variants = Vec<(String, Trained)>;

/// The variants behind the base.
fn beside_base(variants: Variants) -> Variants {
    [("base".to_string(), Trained::Base)].into_iter().chain(variants).collect()
}

/// Trains `name` on the general rows.
fn general(stages: &mut Stages, name: &str, options: TrainOptions) -> Result<(String, Trained)> {
    let full = options.full;
    let folder = stages.train(name, "general", options, None)?;
    Ok((name.into(), if full { Trained::Model(folder) } else { Trained::Adapter(folder) }))
}

fn ranks(stages: &mut Stages) -> Result<Variants> {
    let recipe = stages.recipe();
    let variant = |rank: usize| {
        let options = TrainOptions { rank, alpha: 2.0 * rank as f32, ..recipe.general.clone() };
        general(stages, &format!("rank {rank}"), options)
    };
    [8, 16, 32].into_iter().map(variant).collect()
}

/// Experts of the mixture; they share the rank of LoRA.
const EXPERTS: usize = 4;

fn methods(stages: &mut Stages) -> Result<Variants> {
    let recipe = stages.recipe();
    let lora = recipe.general.clone();
    let with = |method| TrainOptions { method, ..lora.clone() };
    // As many parameters as LoRA has: its rank dealt to the experts (s stays what it is), and a bottleneck as wide as
    // its factors make it.
    let experts = (lora.rank / EXPERTS).max(1);
    let alpha = lora.alpha * experts as f32 / lora.rank as f32;
    let width = equal_width(&lora, stages.config());
    // Full training takes a tenth of an adapter's learning rate, as is usual.
    let full = TrainOptions { full: true, lr: lora.lr / 10.0, ..lora.clone() };
    let note = format!(
        "Sizes: rank {} for LoRA, rsLoRA and DoRA; {EXPERTS} experts of rank {experts}, which with their routers, and a \
         bottleneck of width {width} come near to LoRA in trainable parameters. All but full training ({:.1e}) share \
         one learning rate, {:.1e}, that was chosen for LoRA.",
        lora.rank, full.lr, lora.lr
    );
    stages.report.notes.push(note);
    let variants = [
        ("LoRA", lora.clone()),
        ("rsLoRA", with(Method::LowRank { rslora: true, dora: false })),
        ("DoRA", with(Method::LowRank { rslora: false, dora: true })),
        ("bottleneck", TrainOptions { rank: width, ..with(Method::Bottleneck) }),
        ("mixture", TrainOptions { rank: experts, alpha, ..with(Method::Mixture { experts: EXPERTS }) }),
        ("full", full),
    ];
    variants.into_iter().map(|(name, options)| general(stages, name, options)).collect()
}

/// The width at which bottlenecks have about as many parameters as LoRA.
fn equal_width(lora: &TrainOptions, config: &ModelConfig) -> usize {
    let size = |method, rank| {
        let settings = AdapterConfig { method, rank, ..lora.adapter_settings() };
        let shapes =
            settings.adapted_modules(config).into_iter().flat_map(|(_, width)| settings.tensor_shapes(width));
        shapes.map(|shape| shape.iter().product::<usize>()).sum::<usize>()
    };
    (size(Method::LORA, lora.rank) / size(Method::Bottleneck, 1)).max(1)
}

fn repositories(stages: &mut Stages) -> Result<Variants> {
    let recipe = stages.recipe();
    let on = stages.train("general", "general", recipe.general.clone(), None)?;
    let mut variants = vec![("general".to_string(), Trained::Adapter(on.clone()))];
    let paths: Vec<Vec<PathBuf>> = stages
        .sources()
        .private
        .iter()
        .map(|path| curate::typescript_repositories(path))
        .collect::<Result<_>>()?;
    for path in paths.into_iter().flatten() {
        let name = name_of(&path);
        let private = stages.private(&name, &[path], recipe.private_rows)?;
        let options = private.validated(stages.specialized());
        let folder = stages.train(&name, &name, options, Some(&on))?;
        stages.read_held_out(&private, ("general", &on), (&name, &folder))?;
        variants.push((name, Trained::Adapter(folder)));
    }
    Ok(variants)
}

/// What a repository is called: its folder, or its corpus without the ending.
fn name_of(path: &Path) -> String {
    let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy();
    let name = name.strip_suffix(".gz").unwrap_or(&name);
    name.strip_suffix(".jsonl").unwrap_or(name).to_string()
}

fn samples(stages: &mut Stages) -> Result<Variants> {
    let recipe = stages.recipe();
    stages.curate("specialized", &stages.sources().private, Language::TypeScript, RowLimits::default())?;
    let on = stages.train("general", "general", recipe.general.clone(), None)?;
    let rows: Vec<CuratedRow> = jsonl::read(stages.rows("specialized"))?;
    let telling = choose_rows(
        &rows,
        &ExportedApi::from_sources(&curate::read_typescript_sources(&stages.sources().private)?)?,
        rows.len(),
    );
    let mut variants = vec![("general".to_string(), Trained::Adapter(on.clone()))];
    for n in SAMPLES {
        if n > rows.len() {
            let note =
                format!("There are {} private rows: the variants of {n} and more are left out.", rows.len());
            stages.report.notes.push(note);
            break;
        }
        let name = format!("{n} rows");
        let chosen: Vec<&CuratedRow> = telling[..n].iter().map(|&i| &rows[i]).collect();
        jsonl::write(stages.rows(&name), &chosen)?;
        let options = TrainOptions { validation: 0, ..stages.specialized() };
        let folder = stages.train(&name, &name, options, Some(&on))?;
        variants.push((name, Trained::Adapter(folder)));
    }
    Ok(variants)
}

fn staging(stages: &mut Stages) -> Result<Variants> {
    let recipe = stages.recipe();
    stages.private("specialized", &stages.sources().private, recipe.private_rows)?;
    let mut both = data::read(stages.rows("general"))?;
    both.extend(data::read(stages.rows("specialized"))?);
    jsonl::write(stages.rows("mixed"), &both)?;

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
