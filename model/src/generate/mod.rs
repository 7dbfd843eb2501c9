//! Generation: requests in, completions out, over a paged KV cache with continuous batching (Orca, Yu et al., OSDI
//! 2022; vLLM, Kwon et al., arXiv 2309.06180).
//!
//! [`Engine`] is open: requests join and leave while others run. [`generate()`] completes a list. The scheduler chooses the
//! rows of a step, the block manager their pages, and the model runner computes them.
//!
//! A completion depends on its prompt, its sampling parameters and its seed alone: every op is batch-invariant and
//! every random number is keyed by (seed, sample, position), so neither the batch, the page size, the prefix cache nor a
//! preemption can change a bit. On a GPU, steps that only decode are recorded as CUDA graphs and replayed, which changes no
//! bit either.

mod block_manager;
mod complete;
mod engine;
mod events;
mod kv_cache;
mod logprobs;
mod model_runner;
mod request;
mod scheduler;
mod sequence;
mod stop_checker;

pub use crate::adapter_stack::{AdapterId, AdapterSlots};
pub use complete::{generate, generate_with_events};
pub use engine::{AddError, Engine, EngineConfig, EngineStats};
pub use events::{EngineOutputs, Event, Failure};
pub use request::{Completion, FinishReason, GenerationRequest, SamplingParams, TokenLogprob};
pub use scheduler::SchedulerConfig;
pub use sequence::RequestId;
