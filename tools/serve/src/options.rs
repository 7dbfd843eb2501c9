//! Options of the server.

use crate::guard::{Rules, digest};
use codelsi_engine::{DType, Error, Result};
use codelsi_launch::DeviceChoice;
use codelsi_model::checkpoint::PackWeights;
use codelsi_model::config::ModelConfig;
use codelsi_model::generate::SchedulerConfig;
use codelsi_model::generate::{AdapterSlots, EngineConfig};
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

/// Adapters that may be loaded later, and their rank, unless told otherwise.
const LATER_ADAPTERS: AdapterSlots = AdapterSlots { count: 8, rank: 64 };
/// Bytes of the KV cache, unless told otherwise.
const DEFAULT_KV_MEMORY: usize = 4 << 30;

/// The pages of the KV cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KvSize {
    /// So many pages.
    Pages(usize),
    /// Pages of so many bytes together.
    Bytes(usize),
}

/// A model, its adapters, an address and limits.
#[derive(Clone, Debug)]
pub struct ServeOptions {
    /// Model folder.
    pub model: PathBuf,
    /// Adapters by their names.
    pub adapters: Vec<(String, PathBuf)>,
    /// Folder below which adapters may be loaded while serving.
    pub adapter_dir: Option<PathBuf>,
    pub device: DeviceChoice,
    pub compute: Option<DType>,
    pub pack_weights: PackWeights,
    pub access: Access,
    pub limits: Limits,
    /// True to write prompts into the log.
    pub log_prompts: bool,
}

/// Who may ask.
#[derive(Clone, Debug)]
pub struct Access {
    /// Address to listen on: an IP address or `localhost`.
    pub host: String,
    /// Port; 0 for a free one.
    pub port: u16,
    pub key: Option<String>,
    /// True to listen beyond this machine without a key.
    pub no_key: bool,
    pub allow_hosts: Vec<String>,
    pub allow_origins: Vec<String>,
}

/// Limits of the engine.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub scheduler: SchedulerConfig,
    /// Size of the KV cache; by default as much as all sequences may need, at most 4 GiB.
    pub kv: Option<KvSize>,
    pub prefix_cache: bool,
    /// Unfinished requests, of all clients and of one.
    pub max_requests: usize,
    pub max_requests_per_client: usize,
    /// Adapters at the same time; by default those of the start, and 8 more where they may be loaded later.
    pub max_loras: Option<usize>,
    /// Upper limit of their ranks; by default that of those at the start, and 64 where others may be loaded later.
    pub max_lora_rank: Option<usize>,
}

impl Access {
    /// This machine alone, without a key.
    pub fn local(port: u16) -> Self {
        Access {
            host: Ipv4Addr::LOCALHOST.to_string(),
            port,
            key: None,
            no_key: false,
            allow_hosts: Vec::new(),
            allow_origins: Vec::new(),
        }
    }

    /// Returns the address to listen on.
    ///
    /// # Errors
    /// When it is none, or reaches beyond this machine without a key.
    pub fn address(&self) -> Result<IpAddr> {
        let host = self.host.trim_matches(['[', ']']);
        let address = match host {
            "localhost" => IpAddr::V4(Ipv4Addr::LOCALHOST),
            _ => host
                .parse()
                .map_err(|_| Error::new(format!("--host {host} is no IP address; give one, or localhost")))?,
        };
        if address.is_loopback() || self.key.is_some() || self.no_key {
            return Ok(address);
        }
        Err(Error::new(format!(
            "--host {host} can be reached from other machines; give a key by --api-key-env, or --no-key to serve everybody"
        )))
    }

    /// Returns the rules for requests.
    pub fn rules(&self, bound: IpAddr) -> Rules {
        Rules {
            bound: Some(bound),
            allow_hosts: self.allow_hosts.clone(),
            allow_origins: self.allow_origins.clone(),
            key: self.key.as_deref().map(digest),
        }
    }
}

impl Limits {
    /// Returns the room for adapters, of which those of these ranks are there from the start.
    pub fn adapter_slots(&self, ranks: &[usize], may_load_later: bool) -> AdapterSlots {
        let later = if may_load_later { LATER_ADAPTERS } else { AdapterSlots::default() };
        let rank = ranks.iter().copied().max().unwrap_or(0).max(later.rank);
        AdapterSlots {
            count: self.max_loras.unwrap_or(ranks.len() + later.count),
            rank: self.max_lora_rank.unwrap_or(rank),
        }
    }

    /// Returns the engine's configuration for a model whose activations are stored as `compute`.
    ///
    /// # Errors
    /// When the KV cache would hold no page.
    pub fn engine(
        &self,
        config: &ModelConfig,
        compute: DType,
        adapters: AdapterSlots,
    ) -> Result<EngineConfig> {
        let SchedulerConfig { page_size, max_sequences, .. } = self.scheduler;
        let page = page_size * config.layers * 2 * config.kv_heads * config.head_dim * compute.size();
        let all = config.max_positions.div_ceil(page_size).saturating_mul(max_sequences);
        let pages = match self.kv {
            Some(KvSize::Pages(pages)) => pages,
            Some(KvSize::Bytes(bytes)) => bytes / page,
            None => (DEFAULT_KV_MEMORY / page).clamp(1, all.max(1)),
        };
        if pages == 0 {
            return Err(Error::new(format!(
                "the KV cache has room for no page of {page} bytes; raise --kv-memory"
            )));
        }
        let max_model_len = config.max_positions.min(pages.saturating_mul(page_size));
        Ok(EngineConfig {
            prefix_cache: self.prefix_cache,
            max_requests: self.max_requests,
            max_requests_per_client: self.max_requests_per_client,
            adapters,
            ..EngineConfig::new(self.scheduler, pages, max_model_len)
        })
    }
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            scheduler: SchedulerConfig::default(),
            kv: None,
            prefix_cache: true,
            max_requests: 256,
            max_requests_per_client: 256,
            max_loras: None,
            max_lora_rank: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beyond_this_machine_there_is_a_key() {
        let access = |host: &str| Access { host: host.into(), ..Access::local(0) };
        for host in ["127.0.0.1", "127.0.0.2", "localhost", "::1", "[::1]"] {
            assert!(access(host).address().is_ok(), "{host}");
        }
        for host in ["0.0.0.0", "::", "192.168.0.1", "example.org", ""] {
            assert!(access(host).address().is_err(), "{host}");
        }
        assert!(Access { key: Some("k".into()), ..access("0.0.0.0") }.address().is_ok());
        assert!(Access { no_key: true, ..access("0.0.0.0") }.address().is_ok());
    }

    #[test]
    fn the_cache_has_the_asked_size() {
        let tiny = codelsi_model::synthetic::config("tiny").unwrap();
        let pages = |kv| {
            Limits { kv, ..Limits::default() }
                .engine(&tiny, DType::F32, AdapterSlots::default())
                .map(|config| config.pages)
        };
        // 16 positions, 2 layers, keys and values of 2 heads of 16 channels in 4 bytes.
        assert_eq!(pages(Some(KvSize::Bytes(16 * 2 * 2 * 2 * 16 * 4 * 3 + 5))).unwrap(), 3);
        assert_eq!((pages(Some(KvSize::Pages(7))).unwrap(), pages(None).unwrap()), (7, 64 * 32));
        assert!(pages(Some(KvSize::Bytes(100))).is_err());
    }
}
