//! The demo's recipe: how much of everything, and how its three models are trained.

/// The base model's text and weights belong to this seed, whatever seed a run has.
pub const BASE_SEED: u64 = 1;
/// Files of base text.
pub const BASE_FILES: usize = 20_000;
/// Pieces of the vocabulary.
pub const VOCAB: usize = 1024;

/// Files of the public-like repository.
pub const PUBLIC_FILES: usize = 3_000;
/// Documented functions of the private repository.
pub const PRIVATE_EXAMPLES: usize = 40;
/// Held-out problems.
pub const GENERAL_PROBLEMS: usize = 120;
pub const PRIVATE_PROBLEMS: usize = 40;

/// The base's shape: 1.1 M parameters.
pub const HIDDEN: usize = 128;
pub const INTERMEDIATE: usize = 352;
pub const LAYERS: usize = 5;
pub const HEADS: usize = 4;

/// Tokens of a packed sequence.
pub const SEQ: usize = 512;
/// Sequences a step, for the base.
pub const BASE_BATCH: usize = 4;
pub const BASE_LR: f64 = 3e-3;
pub const BASE_EPOCHS: usize = 2;

/// The general stage: LoRA on what curation made of the public-like repository.
pub const GENERAL_LR: f64 = 4e-3;
pub const GENERAL_BATCH: usize = 8;
pub const GENERAL_EPOCHS: usize = 2;
/// The specialized stage, on top of it: forty examples, seen many times, among general ones against forgetting.
pub const SPECIALIZED_LR: f64 = 3e-3;
pub const SPECIALIZED_BATCH: usize = 4;
pub const SPECIALIZED_EPOCHS: usize = 40;
pub const REPLAY_ROWS: usize = 80;
/// Short sequences: a step is then a few examples, and forty of them make many steps.
pub const SPECIALIZED_SEQ: usize = 160;
/// Samples a problem, and tokens of an answer at most.
pub const SAMPLES: usize = 5;
pub const MAX_TOKENS: usize = 96;

/// In each other programming language: files, held-out problems, samples of each, and tokens of an answer at most, for
/// statements are longer than chains.
pub const LANGUAGE_FILES: usize = 2_000;
pub const LANGUAGE_PROBLEMS: usize = 40;
pub const LANGUAGE_SAMPLES: usize = 3;
pub const LANGUAGE_MAX_TOKENS: usize = 192;
