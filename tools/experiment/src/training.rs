//! One training run with progress on stderr.

use crate::output::Output;
use crate::placement::Placement;
use codelsi_engine::Result;
use codelsi_model::parallel::RankLayout;
use codelsi_train::TrainOptions;
use codelsi_train::trainer::{self, TrainEvent, TrainReport};

/// Trains with a progress bar, the overview and a line a validation on stderr. Rank 0 alone speaks, and a process that is
/// another rank gets no report.
///
/// # Errors
/// Those of the training.
pub fn train(options: &TrainOptions, placement: Placement, out: &Output) -> Result<Option<TrainReport>> {
    placement.run(|split| match split.comm().rank() {
        0 => with_progress(options, split, out),
        _ => trainer::train(options, split, &mut |_| ()),
    })
}

fn with_progress(options: &TrainOptions, split: RankLayout, out: &Output) -> Result<TrainReport> {
    let mut bar = None;
    let report = trainer::train(options, split, &mut |event| match event {
        TrainEvent::Start(overview) => {
            eprintln!("{overview}");
            bar = Some(out.bar("train", overview.steps));
        }
        TrainEvent::InitialValidation(loss) => eprintln!("validation loss before training: {loss:.4}"),
        TrainEvent::Step(metric, _) => {
            if let Some(bar) = &bar {
                bar.at(metric.step, &metric.to_string());
            }
            if let Some(loss) = metric.validation_loss {
                eprintln!("validation loss after step {}: {loss:.4}", metric.step);
            }
        }
        TrainEvent::CheckpointSaved(_) => {}
    });
    bar.iter().for_each(|bar| bar.finish());
    report
}
