//! `codelsi inspect`: the contents of a model folder or an adapter folder.

use crate::args::{folder, help};
use crate::json::print_json;
use clap::Args;
use codelsi_engine::{Error, Result};
use codelsi_model::adapter::{Adapter, AdapterConfig, AdapterSummary};
use codelsi_model::checkpoint::Checkpoint;
use codelsi_model::config::{LinearName, ModelConfig};
use codelsi_model::rope_scaling::RopeScaling;
use codelsi_model::tokenizer::Tokenizer;
use serde_json::json;
use std::path::PathBuf;

/// Show the sizes of a model folder, and of an adapter for it; or of an adapter folder alone.
#[derive(Args)]
pub struct InspectArgs {
    #[arg(help = help::MODEL, value_name = "DIR", value_parser = folder())]
    model: PathBuf,
    #[arg(long, help = help::ADAPTER, value_name = "DIR", value_parser = folder())]
    adapter: Option<PathBuf>,
    /// Read every weight and fail on the first NaN or infinity; an adapter is always read.
    #[arg(long)]
    check: bool,
    #[arg(long, help = help::JSON)]
    json: bool,
}

/// Runs the command.
pub fn run(args: &InspectArgs) -> Result<()> {
    let holds = |file: &str| args.model.join(file).exists();
    if args.adapter.is_none() && holds("adapter_config.json") && !holds("config.json") {
        return inspect_adapter(args);
    }
    let checkpoint = Checkpoint::open(&args.model)?;
    let c = checkpoint.config();
    let adapter = args.adapter.as_ref().map(|folder| Adapter::load(folder, c)).transpose()?;
    let tokenizer = Tokenizer::load(&args.model);
    if args.check
        && let Some(weight) = checkpoint.first_non_finite()
    {
        return Err(Error::new(format!("{}: {weight}", args.model.display())));
    }
    let parameters = c.parameters();
    let trainable = adapter.as_ref().map_or(0, Adapter::parameters);
    let total = parameters + trainable;
    if !args.json {
        println!("{}", args.model.display());
        println!("  parameters    {parameters}");
        println!("  bytes         {} as {:?}", checkpoint.byte_len(), checkpoint.dtype());
        println!("  layers        {} of hidden {}, intermediate {}", c.layers, c.hidden, c.intermediate);
        println!("  heads         {} over {} of {}", c.heads, c.kv_heads, c.head_dim);
        println!("  vocabulary    {}{}", c.vocab, if c.tied_embeddings { ", tied" } else { "" });
        println!("  architecture  {}{}", c.architecture.name(), biases(c));
        println!("  positions     {}", positions(c));
        match &tokenizer {
            Ok(t) => println!("  tokenizer     {} pieces", t.vocab_size()),
            Err(e) => println!("  tokenizer     {e}"),
        }
        if let Some(a) = &adapter {
            let share = 100.0 * trainable as f64 / total as f64;
            let AdapterConfig { method, rank, alpha, patterns, .. } = &a.config;
            let differ = if patterns.is_some() { " (not of every module)" } else { "" };
            println!(
                "  adapter       {method}, rank {rank}, alpha {alpha}{differ}: {trainable}, {share:.4} % of {total}"
            );
            for (name, t) in &a.saved {
                println!("  in full       {name} {}", t.shape());
            }
        }
    }
    print_json(
        args.json,
        &json!({
            "parameters": parameters, "trainable": trainable, "bytes": checkpoint.byte_len(),
            "dtype": format!("{:?}", checkpoint.dtype()), "layers": c.layers, "hidden": c.hidden,
            "intermediate": c.intermediate, "heads": c.heads, "kv_heads": c.kv_heads, "head_dim": c.head_dim,
            "vocab": c.vocab, "tied": c.tied_embeddings, "positions": c.max_positions,
            "architecture": c.architecture.name(), "rope_type": c.rope.scaling.name(),
            "method": adapter.map(|a| a.config.method.to_string()),
        }),
    );
    Ok(())
}

/// Names the linears that have a bias, if any.
fn biases(config: &ModelConfig) -> String {
    let with_bias = LinearName::ALL.into_iter().filter(|&linear| config.has_bias(linear));
    let names: Vec<&str> = with_bias.map(LinearName::name).collect();
    if names.is_empty() { String::new() } else { format!(", biases of {}", names.join(" ")) }
}

/// Describes the positions that the model can read.
fn positions(config: &ModelConfig) -> String {
    let mut line = format!("{}, theta {}", config.max_positions, config.rope.theta);
    if config.rope.scaling != RopeScaling::Default {
        line += &format!(", {} scaling", config.rope.scaling.name());
    }
    if let Some(positions) = config.positions_beyond_window {
        line += &format!(": the sliding window, though positions go up to {positions}");
    }
    line
}

/// Shows an adapter folder without its model.
fn inspect_adapter(args: &InspectArgs) -> Result<()> {
    let summary = Adapter::summary(&args.model)?;
    let AdapterSummary { method, rank, alpha, parameters, modules_to_save, base } = &summary;
    if !args.json {
        println!("{}", args.model.display());
        println!("  adapter       {method}, rank {rank}, alpha {alpha}: {parameters} parameters");
        println!("  base          {}", base.as_deref().unwrap_or("not named"));
        if !modules_to_save.is_empty() {
            println!("  in full       {}", modules_to_save.join(", "));
        }
    }
    print_json(
        args.json,
        &json!({
            "method": method.to_string(), "rank": rank, "alpha": alpha, "parameters": parameters,
            "modules_to_save": modules_to_save, "base": base,
        }),
    );
    Ok(())
}
