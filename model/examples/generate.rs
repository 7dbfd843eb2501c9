//! Completes a prompt: `cargo run --release -p codelsi-model --example generate -- FOLDER PROMPT`.

use codelsi_engine::{DType, Device, Error, Result};
use codelsi_model::checkpoint::Checkpoint;
use codelsi_model::generate::{GenerationRequest, SchedulerConfig, generate};
use codelsi_model::llama::Llama;
use codelsi_model::tokenizer::Tokenizer;
use codelsi_model::trainable::Trainable;

fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let (Some(folder), Some(prompt)) = (args.next(), args.next()) else {
        return Err(Error::new("usage: generate FOLDER PROMPT"));
    };
    let device = Device::cpu();
    let tokenizer = Tokenizer::load(&folder)?;
    let model = Llama::load(&device, &Checkpoint::open(&folder)?, DType::BF16, Trainable::Nothing)?;
    let request = GenerationRequest::greedy(tokenizer.encode(&prompt, true)?, 64);
    let completions =
        generate(&device, &model, Some(&tokenizer), &[request], SchedulerConfig::default(), &mut |_| {})?;
    println!("{prompt}{}", completions[0][0].text);
    Ok(())
}
