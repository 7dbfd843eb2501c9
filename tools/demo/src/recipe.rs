//! The demo's recipe: amounts of data, and hyperparameters of its three models.

/// Seed of the base model's text and weights, independent of a run's seed.
pub const BASE_SEED: u64 = 1;
/// Files of the base model's training text.
pub const BASE_FILES: usize = 20_000;
/// Tokens of the vocabulary.
pub const VOCAB: usize = 1024;

/// Files of the public-like repository.
pub const PUBLIC_FILES: usize = 2_000;
/// Documented functions of the private repository, and how many of them are training rows.
pub const PRIVATE_EXAMPLES: usize = 200;
pub const PRIVATE_ROWS: usize = 120;
/// Held-out problems.
pub const GENERAL_PROBLEMS: usize = 240;
pub const PRIVATE_PROBLEMS: usize = 120;

/// Sizes of the base model: 1.1 M parameters.
pub const HIDDEN: usize = 128;
pub const INTERMEDIATE: usize = 352;
pub const LAYERS: usize = 5;
pub const HEADS: usize = 4;

/// Tokens of a packed sequence.
pub const SEQ: usize = 512;
/// Sequences per step of the base model.
pub const BASE_BATCH: usize = 4;
pub const BASE_LR: f64 = 3e-3;
pub const BASE_EPOCHS: usize = 2;

/// General stage: LoRA on the curated rows of the public-like repository, one pass.
pub const GENERAL_LR: f64 = 4e-3;
pub const GENERAL_BATCH: usize = 8;
pub const GENERAL_EPOCHS: usize = 1;
/// Specialized stage, from the general adapter: the private rows for many epochs, each with other general rows replayed
/// against forgetting, at half the learning rate.
pub const SPECIALIZED_LR: f64 = 2e-3;
pub const SPECIALIZED_BATCH: usize = 4;
pub const SPECIALIZED_EPOCHS: usize = 12;
pub const REPLAY_ROWS: usize = 500;
/// Samples per problem, and maximum tokens of an answer.
pub const SAMPLES: usize = 3;
pub const MAX_TOKENS: usize = 96;

/// Other programming languages: files, held-out problems, samples per problem, and maximum tokens of an answer
/// (statements are longer than chains of calls).
pub const LANGUAGE_FILES: usize = 2_000;
pub const LANGUAGE_PROBLEMS: usize = 40;
pub const LANGUAGE_SAMPLES: usize = 3;
pub const LANGUAGE_MAX_TOKENS: usize = 192;
