//! `codelsi bench --serve`: a load of requests on the engine, and how it is served.

use crate::args::{help, number};
use crate::json::print_json;
use clap::Args;
use codelsi_engine::Result;
use codelsi_experiment::environment::environment;
use codelsi_experiment::output::Output;
use codelsi_experiment::placement::Placement;
use codelsi_experiment::serving::{ArrivalPattern, Percentiles, ServingOptions, ServingReport, measure};
use codelsi_experiment::throughput::BenchModel;
use codelsi_launch::csv;
use codelsi_model::generate::SchedulerConfig;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// A load of requests.
#[derive(Args, Clone, Copy, Debug)]
#[command(next_help_heading = "Serving")]
pub struct ServeBenchArgs {
    /// Serve requests that arrive over time, instead of the other workloads.
    #[arg(long, conflicts_with_all = ["prefill", "decode", "train", "repeat", "profile", "checkpointing", "dropout"])]
    pub serve: bool,
    /// Requests that arrive.
    #[arg(long, value_name = "N", default_value_t = 32, requires = "serve", value_parser = number::samples())]
    requests: usize,
    /// Mean arrivals in a second, at random times; 0: all at once.
    #[arg(long, value_name = "R", default_value_t = 2.0, requires = "serve", value_parser = number::rate)]
    rate: f64,
    /// Mean tokens of a prompt, beside the shared ones; drawn from half to 1.5 times it.
    #[arg(long, value_name = "N", default_value_t = 128, requires = "serve", value_parser = number::tokens())]
    prompt_tokens: usize,
    /// Mean tokens of an answer; drawn from half to 1.5 times it.
    #[arg(long, value_name = "N", default_value_t = 64, requires = "serve", value_parser = number::tokens())]
    answer_tokens: usize,
    /// Tokens with which every prompt begins, as a system message does.
    #[arg(long, value_name = "N", default_value_t = 128, requires = "serve", value_parser = number::tokens_or_none())]
    shared_tokens: usize,
    /// Random adapters that requests are for, beside the base.
    #[arg(long, value_name = "N", default_value_t = 2, requires = "serve", value_parser = number::adapters())]
    adapters: usize,
    /// Rank of the adapters.
    #[arg(long, value_name = "R", default_value_t = 16, requires = "serve", value_parser = number::rank())]
    adapter_rank: usize,
    #[arg(long, help = help::SEQUENCES, value_name = "N", default_value_t = 64, requires = "serve")]
    #[arg(value_parser = number::sequences())]
    sequences: usize,
    /// Pages of the KV cache [default: enough for that many of the longest requests].
    #[arg(long, value_name = "N", requires = "serve", value_parser = number::tokens())]
    pages: Option<usize>,
    #[arg(long, help = help::PAGE_SIZE, value_name = "N", default_value_t = 16, requires = "serve")]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=4096))]
    page_size: u16,
    /// Compute every prompt from its beginning.
    #[arg(long, requires = "serve")]
    no_prefix_cache: bool,
    #[arg(long, help = help::SEED, default_value_t = 42, requires = "serve")]
    seed: u64,
}

impl ServeBenchArgs {
    fn options(&self, model: BenchModel, cuda_graphs: bool) -> ServingOptions {
        ServingOptions {
            model,
            pattern: ArrivalPattern {
                requests: self.requests,
                rate: self.rate,
                prompt: self.prompt_tokens,
                answer: self.answer_tokens,
                shared: self.shared_tokens,
                adapters: self.adapters,
                seed: self.seed,
            },
            rank: self.adapter_rank,
            scheduler: SchedulerConfig {
                max_sequences: self.sequences,
                page_size: self.page_size.into(),
                cuda_graphs,
                ..SchedulerConfig::default()
            },
            pages: self.pages,
            prefix_cache: !self.no_prefix_cache,
        }
    }
}

/// Form in which the figures are printed besides the text.
pub struct Figures<'a> {
    pub json: bool,
    pub csv: Option<&'a PathBuf>,
}

/// Runs the measurement.
pub fn run(
    args: &ServeBenchArgs,
    model: BenchModel,
    cuda_graphs: bool,
    placement: Placement,
    figures: Figures,
) -> Result<()> {
    let report = measure(&args.options(model, cuda_graphs), placement, &Output::detect())?;
    let environment = environment(placement)?;
    if let Some(path) = figures.csv {
        let mut row = row(&report);
        environment.iter().for_each(|(name, value)| row[name] = json!(value));
        csv::write(path, &[row])?;
    }
    if !figures.json {
        print(&report);
    }
    let mut object = row(&report);
    object["environment"] = json!(BTreeMap::from_iter(environment));
    print_json(figures.json, &object);
    Ok(())
}

fn print(report: &ServingReport) {
    let ServingReport { requests, refused, seconds, .. } = *report;
    let per_second = |n: usize| n as f64 / seconds;
    let refusals = if refused > 0 { format!(", {refused} refused") } else { String::new() };
    println!(
        "serve   {:>10.1} tokens/s generated, {:.1} prompt tokens/s",
        per_second(report.generated_tokens),
        per_second(report.prompt_tokens)
    );
    println!(
        "        {requests} requests in {seconds:.1} s, {:.2} a second{refusals}; up to {} ran and {} waited",
        per_second(requests),
        report.peak_running,
        report.peak_waiting
    );
    let line = |name: &str, p: &Percentiles| {
        let [p50, p95, p99] = [p.p50, p.p95, p.p99].map(|seconds| 1e3 * seconds);
        println!("        {name:<22}p50 {p50:>9.1} ms   p95 {p95:>9.1} ms   p99 {p99:>9.1} ms");
    };
    line("time to first token", &report.first_token);
    line("time per output token", &report.output_token);
    println!(
        "        prefix cache {} of {} prompt tokens ({:.1} %); pages {} of {} at the peak; {} preemptions",
        report.prefix_hit_tokens,
        report.prompt_tokens,
        100.0 * report.prefix_hit_tokens as f64 / report.prompt_tokens.max(1) as f64,
        report.peak_pages,
        report.pages,
        report.preemptions
    );
    println!("        peak {:.1} MiB", report.peak_bytes as f64 / (1 << 20) as f64);
}

/// The figures by name.
fn row(report: &ServingReport) -> Value {
    let mut row = json!({
        "workload": "serve", "requests": report.requests, "refused": report.refused,
        "seconds": report.seconds, "requests_per_s": report.requests as f64 / report.seconds,
        "tokens_per_s": report.generated_tokens as f64 / report.seconds,
        "prompt_tokens": report.prompt_tokens, "generated_tokens": report.generated_tokens,
        "prefix_hit_tokens": report.prefix_hit_tokens, "peak_pages": report.peak_pages,
        "pages": report.pages, "peak_running": report.peak_running, "peak_waiting": report.peak_waiting,
        "preemptions": report.preemptions, "peak_bytes": report.peak_bytes,
    });
    for (name, p) in [("first_token", &report.first_token), ("output_token", &report.output_token)] {
        for (percent, seconds) in [(50, p.p50), (95, p.p95), (99, p.p99)] {
            row[format!("{name}_s_p{percent}")] = json!(seconds);
        }
    }
    row
}
