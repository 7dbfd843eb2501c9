//! Generation: requests in, completions out, over a paged KV cache with continuous batching (Orca, Yu et al., OSDI
//! 2022; vLLM, Kwon et al., arXiv 2309.06180).
//!
//! A completion depends on its prompt, its sampling parameters and its seed alone: every op is batch-invariant and
//! every random number is keyed by (seed, sample, position), so neither the batch nor the page size can change a
//! bit. On a GPU, steps that only decode are recorded as CUDA graphs and replayed, which changes no bit either.

mod kv_cache;
mod model_runner;
mod request;
mod scheduler;
mod stop_checker;

pub use request::{AdapterId, Completion, FinishReason, GenerationRequest, SamplingParams};
pub use scheduler::{SchedulerConfig, generate};
