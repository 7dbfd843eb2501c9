//! `codelsi serve`: a model and its adapters behind the APIs that editors speak.

use crate::args::{ModelArgs, help, number};
use clap::{Args, ValueEnum};
use codelsi_engine::{Error, Result};
use codelsi_model::checkpoint::PackWeights;
use codelsi_model::generate::SchedulerConfig;
use codelsi_model::hub;
use codelsi_serve::{Access, KvSize, Limits, LogLevel, ServeOptions, Server, start_log};
use std::path::{Path, PathBuf};

/// Serve a model and its adapters over HTTP, to editors and their plugins.
#[derive(Args)]
pub struct ServeArgs {
    /// Adapter with the name that clients ask for; repeat the flag for more.
    #[arg(long = "adapter", id = "adapters", value_name = "NAME=DIR", value_parser = named_folder)]
    adapters: Vec<(String, PathBuf)>,
    /// Folder below which clients may load adapters while the server runs [default: none]
    #[arg(long, value_name = "DIR")]
    adapter_dir: Option<PathBuf>,
    /// Write prompts into the log.
    #[arg(long)]
    log_prompts: bool,
    /// Least important lines of the log.
    #[arg(long, value_name = "LEVEL", default_value = "warn")]
    log_level: LogArg,
    #[command(flatten)]
    model: ModelArgs,
    #[arg(long, help = help::PACK_WEIGHTS, value_name = "WHEN", default_value_t)]
    pack_weights: PackWeights,
    #[command(flatten)]
    access: AccessArgs,
    #[command(flatten)]
    limits: LimitArgs,
}

const ALLOW_ORIGIN: &str =
    "Origin whose web pages may ask, as in https://editor.example; repeat the flag for more";

/// The values of `--log-level`.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum LogArg {
    Error,
    Warn,
    Info,
    Debug,
}

impl From<LogArg> for LogLevel {
    fn from(arg: LogArg) -> Self {
        match arg {
            LogArg::Error => LogLevel::Error,
            LogArg::Warn => LogLevel::Warn,
            LogArg::Info => LogLevel::Info,
            LogArg::Debug => LogLevel::Debug,
        }
    }
}

/// The flags of who may ask.
#[derive(Args)]
#[command(next_help_heading = "Access")]
struct AccessArgs {
    /// IP address to listen on; one that other machines reach needs a key.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1")]
    host: String,
    /// Port to listen on; 0 for a free one.
    #[arg(long, value_name = "P", default_value_t = 8080)]
    port: u16,
    /// Environment variable of the key that clients must send as Authorization: Bearer KEY.
    #[arg(long, value_name = "VAR")]
    api_key_env: Option<String>,
    /// Serve everybody who reaches the address, without a key.
    #[arg(long, conflicts_with = "api_key_env")]
    no_key: bool,
    /// Name that requests may give as their host, beside the address and localhost; repeat the flag for more.
    #[arg(long, value_name = "NAME")]
    allow_host: Vec<String>,
    #[arg(long, help = ALLOW_ORIGIN, value_name = "ORIGIN")]
    allow_origin: Vec<String>,
}

impl AccessArgs {
    fn options(&self) -> Result<Access> {
        let key = self.api_key_env.as_ref().map(|name| {
            let key = std::env::var(name).ok().map(|key| key.trim().to_owned()).filter(|key| !key.is_empty());
            key.ok_or_else(|| Error::new(format!("the environment variable {name} holds no key")))
        });
        Ok(Access {
            host: self.host.clone(),
            port: self.port,
            key: key.transpose()?,
            no_key: self.no_key,
            allow_hosts: self.allow_host.clone(),
            allow_origins: self.allow_origin.clone(),
        })
    }
}

/// The flags that limit the engine.
#[derive(Args)]
#[command(next_help_heading = "Limits (none changes an answer)")]
struct LimitArgs {
    /// Memory of the KV cache in MiB [default: as much as all sequences may need, at most 4096]
    #[arg(long, value_name = "MIB", conflicts_with = "pages", value_parser = number::mebibytes())]
    kv_memory: Option<usize>,
    /// Pages of the KV cache [default: as many as --kv-memory holds]
    #[arg(long, value_name = "N", value_parser = number::tokens())]
    pages: Option<usize>,
    #[arg(long, help = help::PAGE_SIZE, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=4096))]
    page_size: u16,
    #[arg(long, help = help::SEQUENCES, value_name = "N", default_value_t = 64, value_parser = number::sequences())]
    max_sequences: usize,
    /// Prompt tokens in a step, beside the running sequences.
    #[arg(long, value_name = "N", default_value_t = 512, value_parser = number::tokens())]
    prefill_chunk: usize,
    /// Unfinished requests of all clients; more are told to try again.
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = number::tokens())]
    max_requests: usize,
    /// Unfinished requests of the clients of one address.
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = number::tokens())]
    max_requests_per_client: usize,
    /// Adapters at the same time [default: those given, and 8 more with --adapter-dir]
    #[arg(long, value_name = "N", value_parser = number::adapters())]
    max_loras: Option<usize>,
    /// Largest rank of an adapter [default: that of those given, and 64 with --adapter-dir]
    #[arg(long, value_name = "R", value_parser = number::rank())]
    max_lora_rank: Option<usize>,
    /// Compute every prompt from its beginning.
    #[arg(long)]
    no_prefix_cache: bool,
}

impl LimitArgs {
    fn options(&self) -> Limits {
        let pages = self.pages.map(KvSize::Pages);
        Limits {
            scheduler: SchedulerConfig {
                max_sequences: self.max_sequences,
                prefill_chunk: self.prefill_chunk,
                page_size: self.page_size.into(),
                ..SchedulerConfig::default()
            },
            kv: pages.or(self.kv_memory.map(|mebibytes| KvSize::Bytes(mebibytes << 20))),
            prefix_cache: !self.no_prefix_cache,
            max_requests: self.max_requests,
            max_requests_per_client: self.max_requests_per_client,
            max_loras: self.max_loras,
            max_lora_rank: self.max_lora_rank,
        }
    }
}

/// Parses NAME=DIR.
fn named_folder(text: &str) -> std::result::Result<(String, PathBuf), String> {
    match text.split_once('=') {
        Some((name, folder)) if !name.is_empty() && !folder.is_empty() => {
            Ok((name.to_owned(), hub::resolve(Path::new(folder))))
        }
        _ => Err("give it as NAME=DIR".into()),
    }
}

/// Runs the command.
pub fn run(args: &ServeArgs) -> Result<()> {
    start_log(args.log_level.into());
    let server = Server::open(ServeOptions {
        model: args.model.model.clone(),
        adapters: args.adapters.clone(),
        adapter_dir: args.adapter_dir.clone(),
        device: args.model.device.device,
        compute: args.model.device.compute.map(Into::into),
        pack_weights: args.pack_weights,
        access: args.access.options()?,
        limits: args.limits.options(),
        log_prompts: args.log_prompts,
    })?;
    eprintln!("serving {} on http://{}", server.model_ids().join(", "), server.address());
    server.run()
}
