//! The flags that size a training step.

use crate::args::{help, number};
use clap::Args;
use codelsi_engine::{Error, Result};
use codelsi_train::options::ActivationCheckpointing;

/// Tokens per packed sequence, unless told otherwise.
const DEFAULT_SEQ: usize = 4096;

/// Sizes of an optimizer step, and the layers that it recomputes.
#[derive(Args, Clone, Copy, Debug)]
#[command(next_help_heading = "Step size and memory")]
pub struct StepArgs {
    #[arg(long, value_name = "N", value_parser = number::tokens())]
    #[arg(help = format!("{} [default: {DEFAULT_SEQ}]", help::SEQ))]
    seq: Option<usize>,
    #[arg(long, help = help::BATCH, value_name = "N", default_value_t = 16, value_parser = number::sequences())]
    pub batch: usize,
    /// Sequences per forward and backward pass.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = number::sequences())]
    pub micro_batch: usize,
    #[arg(long, help = help::CHECKPOINTING, value_name = "LAYERS", default_value = "auto")]
    pub checkpointing: ActivationCheckpointing,
}

impl StepArgs {
    /// Returns the tokens per packed sequence for a model of so many positions.
    ///
    /// # Errors
    /// When more were asked for.
    pub fn seq(&self, positions: usize) -> Result<usize> {
        match self.seq {
            None => Ok(DEFAULT_SEQ.min(positions)),
            Some(seq) if seq <= positions => Ok(seq),
            Some(seq) => {
                Err(Error::new(format!("--seq {seq} exceeds the model's {positions} positions; lower it")))
            }
        }
    }
}
