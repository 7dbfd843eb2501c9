//! The paper's ablations: the same base, data and protocol, with one factor varied.

use crate::canaries;
use crate::evaluation::ModelPairs;
use crate::languages;
use crate::output::Output;
use crate::private_repository::{PrivateRepository, by_item};
use crate::recipe::Recipe;
use crate::retention::{Start, Way};
use crate::stages::{EvaluatedModel, Experiment, Stages};
use codelsi_curate::specialize::{ExportedApi, choose_rows};
use codelsi_curate::{self as curate, CuratedRow};
use codelsi_engine::Result;
use codelsi_eval::report::{Report, Sweep};
use codelsi_model::adapter::{AdapterConfig, Method};
use codelsi_model::config::ModelConfig;
use codelsi_model::jsonl;
use codelsi_train::TrainOptions;
use std::path::{Path, PathBuf};

/// The quantity that variants differ in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ablation {
    /// Adapters of rank 8, 16 and 32 (alpha is twice the rank), on the general rows.
    Rank,
    /// The specialized stage on 5 to 160 private functions, on top of general.
    Samples,
    /// General, then specialized, against specialized alone and against both at once.
    Stages,
    /// Ways to specialize without forgetting, in gain on private problems against what is kept on general ones.
    Retention,
    /// Exposure of random secrets in private rows, before and after each way to specialize.
    Memorization,
    /// LoRA, rsLoRA, DoRA, bottleneck adapters, a mixture of LoRA experts and every weight, on the general rows.
    Methods,
    /// The specialized stage on each private repository separately, evaluated on its held-out rows.
    Repositories,
    /// Other languages: an adapter trained on each one's rows against TypeScript's, on each one's problems.
    Languages,
}

impl Ablation {
    /// The ablations by name, with what each compares.
    pub const ALL: [(&str, Ablation, &str); 8] = [
        ("rank", Ablation::Rank, "LoRA of rank 8, 16 and 32 (alpha = 2 · rank)"),
        ("samples", Ablation::Samples, "Specialized stage on 5 to 160 private functions"),
        ("stages", Ablation::Stages, "General then specialized, specialized alone, both"),
        ("retention", Ablation::Retention, "Ways to specialize without forgetting"),
        ("memorization", Ablation::Memorization, "Exposure of secrets in private rows"),
        ("methods", Ablation::Methods, "LoRA, rsLoRA, DoRA, bottleneck, mixture of LoRA, full"),
        ("repositories", Ablation::Repositories, "Specialized stage on each private repository"),
        ("languages", Ablation::Languages, "An adapter for each language, and TypeScript's"),
    ];

    /// Returns true if the ablation needs private code.
    pub fn needs_private(self) -> bool {
        self != Ablation::Languages
    }

    fn title(self) -> &'static str {
        match self {
            Ablation::Rank => "the rank of the adapter",
            Ablation::Samples => "how many private functions",
            Ablation::Stages => "general, then specialized, against direct",
            Ablation::Retention => "ways to specialize without forgetting",
            Ablation::Memorization => "memorized or learned",
            Ablation::Methods => "methods of fine-tuning",
            Ablation::Repositories => "one private repository after another",
            Ablation::Languages => "other languages",
        }
    }

    /// Returns the sweep's points, with the number in each model's name as the value; `None` if no number is varied.
    fn sweep(self, models: &Variants) -> Option<Sweep> {
        let name = match self {
            Ablation::Rank => "the rank of the adapter",
            Ablation::Samples => "private functions",
            _ => return None,
        };
        let number = |name: &str| name.chars().filter(char::is_ascii_digit).collect::<String>();
        let points = models.iter().map(|(model, _)| (number(model), model.clone()));
        Some(Sweep { name: name.into(), points: points.filter(|(number, _)| !number.is_empty()).collect() })
    }

    /// Adapts a recipe to the ablation.
    pub fn adapt_recipe(self, recipe: Recipe) -> Recipe {
        if self == Ablation::Languages { recipe.for_languages() } else { recipe }
    }

    /// Trains and evaluates every variant.
    ///
    /// # Errors
    /// Returns the first error of a stage.
    pub fn run(self, experiment: &Experiment, out: &Output) -> Result<Report> {
        let mut stages = Stages::begin(experiment, out)?;
        if self != Ablation::Languages {
            stages.curate("general", &experiment.sources.public, experiment.recipe.general_rows())?;
        }
        let (models, pairs) = match self {
            Ablation::Rank => (with_base(ranks(&mut stages)?), ModelPairs::PreviousAndFirst),
            Ablation::Samples => (with_base(samples(&mut stages)?), ModelPairs::PreviousAndFirst),
            Ablation::Stages => (with_base(training_orders(&mut stages)?), ModelPairs::PreviousAndFirst),
            Ablation::Retention => (retention(&mut stages)?, ModelPairs::WithFirst),
            Ablation::Memorization => (memorization(&mut stages)?, ModelPairs::WithFirst),
            Ablation::Methods => (with_base(methods(&mut stages)?), ModelPairs::WithFirst),
            Ablation::Repositories => (repositories(&mut stages)?, ModelPairs::WithFirst),
            // Each language has its own rows, problems and variants.
            Ablation::Languages => {
                languages::compare(&mut stages)?;
                return stages.finish(self.title());
            }
        };
        stages.report.sweep = self.sweep(&models);
        stages.report.shows_tradeoff = matches!(self, Ablation::Retention | Ablation::Stages);
        stages.evaluate_all(&models, pairs)?;
        stages.finish(self.title())
    }
}

/// Private functions of each variant.
const ROW_COUNTS: [usize; 6] = [5, 10, 20, 40, 80, 160];

/// Models and their names.
type Variants = Vec<(String, EvaluatedModel)>;

/// Prepends the base to the variants.
fn with_base(variants: Variants) -> Variants {
    [("base".to_string(), EvaluatedModel::Base)].into_iter().chain(variants).collect()
}

/// Trains `name` on the general rows.
fn train_on_general(
    stages: &mut Stages,
    name: &str,
    options: TrainOptions,
) -> Result<(String, EvaluatedModel)> {
    let full = options.full;
    let folder = stages.train(name, "general", options, None)?;
    Ok((name.into(), if full { EvaluatedModel::FullModel(folder) } else { EvaluatedModel::Adapter(folder) }))
}

fn ranks(stages: &mut Stages) -> Result<Variants> {
    let recipe = stages.recipe();
    let variant = |rank: usize| {
        let options = TrainOptions { rank, alpha: 2.0 * rank as f32, ..recipe.general.clone() };
        train_on_general(stages, &format!("rank {rank}"), options)
    };
    [8, 16, 32].into_iter().map(variant).collect()
}

/// Experts of the mixture; LoRA's rank is divided among them.
const EXPERTS: usize = 4;

fn methods(stages: &mut Stages) -> Result<Variants> {
    let recipe = stages.recipe();
    let lora = recipe.general.clone();
    let with = |method| TrainOptions { method, ..lora.clone() };
    // About as many parameters as LoRA: its rank divided among the experts (the scale s stays), and a bottleneck of
    // equal size.
    let expert_rank = (lora.rank / EXPERTS).max(1);
    let alpha = lora.alpha * expert_rank as f32 / lora.rank as f32;
    let width = equal_size_width(&lora.adapter_settings(), stages.config());
    // Full training takes a tenth of an adapter's learning rate, as is usual.
    let full = TrainOptions { full: true, lr: lora.lr / 10.0, ..lora.clone() };
    let note = format!(
        "Sizes: rank {} for LoRA, rsLoRA and DoRA; {EXPERTS} experts of rank {expert_rank} with their routers, and a \
         bottleneck of width {width}, have about as many trainable parameters as LoRA. All but full training ({:.1e}) \
         share one learning rate, {:.1e}, that was chosen for LoRA.",
        lora.rank, full.lr, lora.lr
    );
    stages.report.notes.push(note);
    let variants = [
        ("LoRA", lora.clone()),
        ("rsLoRA", with(Method::LowRank { rslora: true, dora: false })),
        ("DoRA", with(Method::LowRank { rslora: false, dora: true })),
        ("bottleneck", TrainOptions { rank: width, ..with(Method::Bottleneck) }),
        ("mixture", TrainOptions { rank: expert_rank, alpha, ..with(Method::Mixture { experts: EXPERTS }) }),
        ("full", full),
    ];
    variants.into_iter().map(|(name, options)| train_on_general(stages, name, options)).collect()
}

/// Returns the width at which bottlenecks have about as many parameters as `lora`.
fn equal_size_width(lora: &AdapterConfig, config: &ModelConfig) -> usize {
    let size = |method, rank| {
        let settings = AdapterConfig { method, rank, ..lora.clone() };
        let shapes = settings.adapted_modules(config).into_iter().flat_map(|module| module.tensor_shapes);
        shapes.map(|shape| shape.iter().product::<usize>()).sum::<usize>()
    };
    (size(Method::LORA, lora.rank) / size(Method::Bottleneck, 1)).max(1)
}

fn repositories(stages: &mut Stages) -> Result<Variants> {
    let recipe = stages.recipe();
    let general = stages.train("general", "general", recipe.general.clone(), None)?;
    let mut variants = vec![("general".to_string(), EvaluatedModel::Adapter(general.clone()))];
    let paths: Vec<Vec<PathBuf>> = stages
        .sources()
        .private
        .iter()
        .map(|path| curate::typescript_repositories(path))
        .collect::<Result<_>>()?;
    for path in paths.into_iter().flatten() {
        let name = repository_name(&path);
        let private = stages.curate_private(&name, &[path], recipe.private_rows)?;
        let options = private.with_held_out_validation(stages.specialized_options());
        let folder = stages.train(&name, &name, options, Some(&general))?;
        stages.evaluate_held_out(&private, ("general", &general), (&name, &folder))?;
        variants.push((name, EvaluatedModel::Adapter(folder)));
    }
    Ok(variants)
}

/// Returns the name of a repository: its folder's, or its corpus file's without the extension.
fn repository_name(path: &Path) -> String {
    let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy();
    let name = name.strip_suffix(".gz").unwrap_or(&name);
    name.strip_suffix(".jsonl").unwrap_or(name).to_string()
}

fn samples(stages: &mut Stages) -> Result<Variants> {
    let recipe = stages.recipe();
    stages.curate("specialized", &stages.sources().private, recipe.specialized_rows())?;
    let general = stages.train("general", "general", recipe.general.clone(), None)?;
    let items = by_item(jsonl::read(stages.rows_path("specialized"))?);
    let rows: Vec<CuratedRow> = items.iter().map(|rows| rows[0].clone()).collect();
    let ranked = choose_rows(
        &rows,
        &ExportedApi::from_sources(&curate::read_typescript_sources(&stages.sources().private)?),
        rows.len(),
    );
    let mut variants = vec![("general".to_string(), EvaluatedModel::Adapter(general.clone()))];
    for n in ROW_COUNTS {
        if n > rows.len() {
            let note = format!(
                "There are {} private functions: the variants of {n} and more are left out.",
                rows.len()
            );
            stages.report.notes.push(note);
            break;
        }
        let name = format!("{n} functions");
        let chosen: Vec<&CuratedRow> = ranked[..n].iter().flat_map(|&i| &items[i]).collect();
        jsonl::write(stages.rows_path(&name), &chosen)?;
        let options = TrainOptions { validation: 0, ..stages.specialized_options() };
        let folder = stages.train(&name, &name, options, Some(&general))?;
        variants.push((name, EvaluatedModel::Adapter(folder)));
    }
    Ok(variants)
}

/// Trains every way to specialize, from one general adapter, with which each is compared.
fn retention(stages: &mut Stages) -> Result<Variants> {
    let recipe = stages.recipe();
    let private = stages.curate_private("specialized", &stages.sources().private, recipe.private_rows)?;
    specialize_in_every_way(stages, &private, "specialized", &mut |_, _, _| Ok(()))
}

/// Adds canaries to the private rows and measures, after each way to specialize, what the model gives away of them.
fn memorization(stages: &mut Stages) -> Result<Variants> {
    let recipe = stages.recipe();
    let private = stages.curate_private("specialized", &stages.sources().private, recipe.private_rows)?;
    let mut rows: Vec<CuratedRow> = jsonl::read(stages.rows_path("specialized"))?;
    rows.extend(canaries::rows(recipe.specialized.seed));
    jsonl::write(stages.rows_path("with canaries"), &rows)?;
    specialize_in_every_way(stages, &private, "with canaries", &mut |stages, name, folder| {
        let exposure = canaries::exposure(stages, name, folder)?;
        stages.report.exposures.push(exposure);
        Ok(())
    })
}

/// Trains the general adapter and every way to specialize it on the private rows of a file; `measure` sees each model.
fn specialize_in_every_way(
    stages: &mut Stages,
    private: &PrivateRepository,
    rows: &str,
    measure: &mut dyn FnMut(&mut Stages, &str, &Path) -> Result<()>,
) -> Result<Variants> {
    let general = stages.train("general", "general", stages.recipe().general.clone(), None)?;
    measure(stages, "general", &general)?;
    let start = Start { general: &general, private, rows };
    let mut variants = vec![("general".to_string(), EvaluatedModel::Adapter(general.clone()))];
    for way in Way::ALL {
        let Some(folder) = start.specialize(stages, way)? else { continue };
        measure(stages, way.name(), &folder)?;
        variants.push((way.name().into(), EvaluatedModel::Adapter(folder)));
    }
    Ok(variants)
}

/// Trains the two stages in other orders: without what keeps the general skills, the private rows alone on the base, and
/// all rows at once.
fn training_orders(stages: &mut Stages) -> Result<Variants> {
    let recipe = stages.recipe();
    let private = stages.curate_private("specialized", &stages.sources().private, recipe.private_rows)?;
    let mut both: Vec<CuratedRow> = jsonl::read(stages.rows_path("general"))?;
    both.extend(jsonl::read::<CuratedRow>(stages.rows_path("specialized"))?);
    jsonl::write(stages.rows_path("both at once"), &both)?;

    let general = stages.train("general", "general", recipe.general.clone(), None)?;
    let start = Start { general: &general, private: &private, rows: "specialized" };
    let [specialized, forgetful] = [Way::Recipe, Way::Alone].map(|way| start.specialize(stages, way));
    let alone = private.with_held_out_validation(recipe.specialized.without_replay());
    let direct = stages.train("specialized alone", "specialized", alone, None)?;
    let mixed = stages.train("both at once", "both at once", recipe.general.clone(), None)?;
    let variants = [
        ("general", Some(general.clone())),
        ("specialized", specialized?),
        ("private rows alone", forgetful?),
        ("specialized alone", Some(direct)),
        ("both at once", Some(mixed)),
    ];
    let trained = variants.into_iter().filter_map(|(name, folder)| Some((name.to_string(), folder?)));
    Ok(trained.map(|(name, folder)| (name, EvaluatedModel::Adapter(folder))).collect())
}
