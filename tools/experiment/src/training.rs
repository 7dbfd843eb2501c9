//! A training run with progress on stderr.

use crate::output::{Output, note};
use crate::placement::Placement;
use codelsi_engine::Result;
use codelsi_model::parallel::RankLayout;
use codelsi_train::TrainOptions;
use codelsi_train::trainer::{self, TrainEvent, TrainReport};

/// Trains with the run's summary, a progress bar and a line per validation on stderr. Only rank 0 prints; the process
/// of another rank returns `None`.
///
/// # Errors
/// When the training fails.
pub fn train(options: &TrainOptions, placement: Placement, out: &Output) -> Result<Option<TrainReport>> {
    placement.run(|rank_layout| match rank_layout.comm().rank() {
        0 => train_with_progress(options, rank_layout, out),
        _ => trainer::train(options, rank_layout, &mut |_| ()),
    })
}

fn train_with_progress(options: &TrainOptions, rank_layout: RankLayout, out: &Output) -> Result<TrainReport> {
    let mut bar = None;
    let report = trainer::train(options, rank_layout, &mut |event| match event {
        TrainEvent::Start(summary) => {
            eprintln!("{summary}");
            bar = Some(out.bar("train", summary.steps));
        }
        TrainEvent::InitialValidation(loss) => note(&format!("validation loss before training: {loss:.4}")),
        TrainEvent::Step(metrics, _) => {
            if let Some(bar) = &bar {
                bar.update(metrics.step, &metrics.to_string());
            }
            if let Some(loss) = metrics.validation_loss {
                note(&format!("validation loss after step {}: {loss:.4}", metrics.step));
            }
        }
        TrainEvent::Collapse(warning) => eprintln!("warning: {warning}"),
        TrainEvent::CheckpointSaved(_) => {}
    });
    bar.iter().for_each(|bar| bar.finish());
    report
}
