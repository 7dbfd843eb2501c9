//! The flags that size a training step.

use crate::args::{help, number};
use clap::Args;
use codelsi_train::options::ActivationCheckpointing;

/// Sizes of an optimizer step, and the layers that it recomputes.
#[derive(Args, Clone, Copy, Debug)]
#[command(next_help_heading = "Step size and memory")]
pub struct StepArgs {
    #[arg(long, help = help::SEQ, value_name = "N", default_value_t = 4096, value_parser = number::tokens())]
    pub seq: usize,
    #[arg(long, help = help::BATCH, value_name = "N", default_value_t = 16, value_parser = number::sequences())]
    pub batch: usize,
    /// Sequences per forward and backward pass.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = number::sequences())]
    pub micro_batch: usize,
    #[arg(long, help = help::CHECKPOINTING, value_name = "LAYERS", default_value = "auto")]
    pub checkpointing: ActivationCheckpointing,
}
