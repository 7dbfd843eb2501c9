//! Ways to specialize without forgetting: the same private rows, from the same general adapter, with different means
//! against forgetting.

use crate::private_repository::PrivateRepository;
use crate::stages::Stages;
use codelsi_curate::CuratedRow;
use codelsi_engine::Result;
use codelsi_model::adapter::{Adapter, Method};
use codelsi_model::jsonl;
use codelsi_model::merge::merge;
use codelsi_train::TrainOptions;
use codelsi_train::data::{self, Example, take_evenly};
use codelsi_train::row_losses::RowScorer;
use std::path::{Path, PathBuf};

/// Rows whose losses choose a scale, of each kind at most.
const SCORED_ROWS: usize = 64;
/// Scales that are tried for the second of two updates.
const SCALES: [f32; 6] = [0.25, 0.4, 0.55, 0.7, 0.85, 1.0];
/// General rows of which the most forgotten are found, and their share that is replayed.
const SEARCHED_ROWS: usize = 1_000;
const MOST_FORGOTTEN: usize = 4;

/// A way to specialize.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// The recipe's.
    Recipe,
    /// The private rows and nothing else.
    Alone,
    /// The same general rows in every epoch.
    SameReplay,
    /// Other general rows in every epoch, with their own answers as targets.
    FreshReplay,
    /// Other general rows in every epoch, with the general adapter's distribution as target (arXiv 1606.09282).
    Distilled,
    /// Replay of the general rows that [`Way::Alone`] forgets most.
    MostForgotten,
    /// A quarter of the learning rate, stopped early by the loss of held-out private rows, where there are any.
    Gentle,
    /// The private rows alone, then an interpolation of the adapters before and after (arXiv 2109.01903).
    Interpolated,
    /// A second adapter beside the frozen general one.
    SecondUpdate,
    /// The adapters before and after [`Way::Alone`], both frozen, and routers that weigh them for each token (X-LoRA, arXiv
    /// 2402.07148), trained on the rows of the recipe.
    Gated,
}

impl Way {
    /// All ways, those first whose results others need.
    pub const ALL: [Way; 10] = [
        Way::Recipe,
        Way::Alone,
        Way::SameReplay,
        Way::FreshReplay,
        Way::Distilled,
        Way::MostForgotten,
        Way::Gentle,
        Way::Interpolated,
        Way::SecondUpdate,
        Way::Gated,
    ];

    /// Name of its model in tables and folders.
    pub fn name(self) -> &'static str {
        match self {
            Way::Recipe => "specialized",
            Way::Alone => "private rows alone",
            Way::SameReplay => "same replay",
            Way::FreshReplay => "fresh replay",
            Way::Distilled => "distilled",
            Way::MostForgotten => "most forgotten",
            Way::Gentle => "gentle, stopped early",
            Way::Interpolated => "interpolated",
            Way::SecondUpdate => "second update",
            Way::Gated => "gated for each token",
        }
    }
}

/// Starting point of every way.
pub struct Start<'a> {
    /// The general adapter.
    pub general: &'a Path,
    /// The private repository, for its held-out rows.
    pub private: &'a PrivateRepository,
    /// Name of the file of the private training rows.
    pub rows: &'a str,
}

impl Start<'_> {
    /// Specializes in one way; returns the adapter's folder, or none where the recipe is this way.
    ///
    /// # Errors
    /// When a training fails.
    pub fn specialize(&self, stages: &mut Stages, way: Way) -> Result<Option<PathBuf>> {
        let recipe = self.private.with_held_out_validation(stages.specialized_options());
        let alone = recipe.without_replay();
        let replay = Some(stages.rows_path("general"));
        let rows = recipe.replay_rows.max(80);
        let options = match way {
            Way::Recipe => recipe.clone(),
            Way::Alone => alone,
            Way::SameReplay => TrainOptions { replay, replay_rows: rows, ..alone },
            Way::FreshReplay => TrainOptions { replay, replay_rows: rows, replay_fresh: true, ..alone },
            Way::Distilled => {
                TrainOptions { replay, replay_rows: rows, replay_fresh: true, distill: 1.0, ..alone }
            }
            Way::MostForgotten => {
                let replay = Some(self.most_forgotten(stages)?);
                TrainOptions { replay, replay_rows: rows, replay_fresh: true, ..alone }
            }
            Way::Gentle => {
                let patience = self.private.held_out_path().map(|_| 5);
                TrainOptions { lr: recipe.lr / 4.0, validate_every: 20, patience, ..alone }
            }
            Way::Interpolated => return self.interpolated(stages).map(Some),
            Way::SecondUpdate => return self.second_update(stages, recipe).map(Some),
            Way::Gated => return self.gated(stages, recipe).map(Some),
        };
        // Others read the folder of `Alone`.
        if !matches!(way, Way::Recipe | Way::Alone) && options.recipe() == recipe.recipe() {
            let note = format!("{} is the recipe's own way: it is not trained again.", way.name());
            stages.report.notes.push(note);
            return Ok(None);
        }
        stages.train(way.name(), self.rows, options, Some(self.general)).map(Some)
    }

    /// Writes the general rows whose loss [`Way::Alone`] raised most (as in maximally interfered retrieval, arXiv
    /// 1908.04742); returns their file.
    fn most_forgotten(&self, stages: &Stages) -> Result<PathBuf> {
        let general = stages.rows_path("general");
        let rows: Vec<CuratedRow> = jsonl::read(&general)?;
        let examples = take_evenly(data::read(&general)?.examples, SEARCHED_ROWS);
        let mut scorer = scorer(stages)?;
        scorer.attach(self.general)?;
        let before = scorer.losses(&examples)?;
        scorer.attach(&stages.path(Way::Alone.name()))?;
        let after = scorer.losses(&examples)?;
        let forgotten = |i: &usize| match (before[*i], after[*i]) {
            (Some(before), Some(after)) => after.mean() - before.mean(),
            _ => f64::NEG_INFINITY,
        };
        let mut order: Vec<usize> = (0..examples.len()).collect();
        order.sort_by(|a, b| forgotten(b).total_cmp(&forgotten(a)));
        order.truncate(examples.len().div_ceil(MOST_FORGOTTEN));
        order.sort_unstable();
        let path = stages.rows_path("most-forgotten");
        jsonl::write(&path, &order.into_iter().map(|i| &rows[examples[i].row]).collect::<Vec<_>>())?;
        Ok(path)
    }

    /// Interpolates between the general adapter and [`Way::Alone`].
    fn interpolated(&self, stages: &mut Stages) -> Result<PathBuf> {
        let (before, after) =
            (self.load(stages, self.general)?, self.load(stages, &stages.path(Way::Alone.name()))?);
        self.best_scale(stages, Way::Interpolated, |scale| {
            Adapter::weighted_sum(&[(&before, 1.0 - scale), (&after, scale)])
        })
    }

    /// Trains a second adapter on the base with the general one merged into it, and adds the two.
    fn second_update(&self, stages: &mut Stages, recipe: TrainOptions) -> Result<PathBuf> {
        let general = self.load(stages, self.general)?;
        let merged = stages.path("general-merged");
        if !merged.exists() {
            merge(stages.base(), &general, &merged, &mut |_, _| (), &mut |_| Ok(()))?;
        }
        // No adapter to distill from: the general one is part of this base.
        let options = TrainOptions { model: merged, distill: 0.0, ..recipe };
        let second = stages.train("second-update-alone", self.rows, options, None)?;
        let second = self.load(stages, &second)?;
        self.best_scale(stages, Way::SecondUpdate, |scale| {
            Adapter::weighted_sum(&[(&general, 1.0), (&second, scale)])
        })
    }

    /// Trains the routers of a mixture of two frozen experts: the general adapter and [`Way::Alone`].
    fn gated(&self, stages: &mut Stages, recipe: TrainOptions) -> Result<PathBuf> {
        let experts = vec![self.general.to_path_buf(), stages.path(Way::Alone.name())];
        let method = Method::Mixture { experts: experts.len() };
        // The experts hold their scale, so the mixture's is 1. No adapter to distill from: it starts from two.
        let alpha = recipe.rank as f32;
        let options = TrainOptions { experts, method, alpha, distill: 0.0, ..recipe };
        stages.train(Way::Gated.name(), self.rows, options, None)
    }

    fn load(&self, stages: &Stages, folder: &Path) -> Result<Adapter> {
        Adapter::load(folder, stages.config())
    }

    /// Writes the adapter of the scale with the lowest sum of two mean losses: of private rows, held-out ones where there
    /// are any, and of general rows. The scales and losses become a note of the report.
    fn best_scale(
        &self,
        stages: &mut Stages,
        way: Way,
        adapter: impl Fn(f32) -> Result<Adapter>,
    ) -> Result<PathBuf> {
        let folder = stages.path(way.name());
        let base = stages.sources().model.display().to_string();
        let held_out = self.private.held_out_path();
        let which = if held_out.is_some() { "held-out" } else { "training" };
        let private = examples_of(&held_out.unwrap_or_else(|| stages.rows_path(self.rows)))?;
        let general = examples_of(&stages.rows_path("general"))?;
        let mut scorer = scorer(stages)?;
        let mut tried = Vec::new();
        for scale in SCALES {
            adapter(scale)?.save(&folder, &base)?;
            scorer.attach(&folder)?;
            tried.push((scale, [mean_loss(&scorer, &private)?, mean_loss(&scorer, &general)?]));
        }
        let sum = |losses: &[f64; 2]| losses.iter().sum::<f64>();
        let best = tried.iter().min_by(|a, b| sum(&a.1).total_cmp(&sum(&b.1))).expect("scales were tried").0;
        adapter(best)?.save(&folder, &base)?;
        let list = tried.iter().map(|(scale, [p, g])| format!("{scale}: {p:.3} + {g:.3}"));
        stages.report.notes.push(format!(
            "{}: scale {best} of the second update, by the loss of private {which} rows + general rows ({}).",
            way.name(),
            list.collect::<Vec<_>>().join(", ")
        ));
        Ok(folder)
    }
}

/// Opens the base to score rows of any length that it has positions for, in the template of the specialized stage.
pub fn scorer(stages: &Stages) -> Result<RowScorer> {
    let options = &stages.recipe().specialized;
    let (seq, placement) = (stages.config().max_positions, &stages.experiment.placement);
    let (device, compute) = (placement.device.open()?, placement.compute(stages.base()));
    RowScorer::open(&stages.sources().model, &device, compute, options.template, seq)
}

/// Reads at most [`SCORED_ROWS`] rows of a file, at even distances.
fn examples_of(path: &Path) -> Result<Vec<Example>> {
    Ok(take_evenly(data::read(path)?.examples, SCORED_ROWS))
}

/// The mean loss over the tokens of all rows, in nats.
fn mean_loss(scorer: &RowScorer, rows: &[Example]) -> Result<f64> {
    let losses: Vec<_> = scorer.losses(rows)?.into_iter().flatten().collect();
    let tokens: usize = losses.iter().map(|loss| loss.tokens).sum();
    Ok(losses.iter().map(|loss| loss.nats).sum::<f64>() / tokens.max(1) as f64)
}
