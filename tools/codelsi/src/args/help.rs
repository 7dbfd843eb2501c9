//! Help texts of flags that several commands share: one notion has one text. Those of all programs are in `launch`.

pub use codelsi_launch::help::{CSV, DEVICE, JSON, LAYOUT, RANKS, RANKS_DEFAULT, TIMEOUT};

pub const MODEL: &str = "Model folder in the Hugging Face layout, or org/name in its cache";
pub const ADAPTER: &str = "Adapter folder in PEFT's layout, or org/name in Hugging Face's cache";
pub const COMPUTE: &str = "Storage type of activations [default: bf16 for a bf16 checkpoint, else f32]";
pub const PACK_WEIGHTS: &str = "On the CPU, keep a copy of the weights in the order in which products read them: auto \
    (where it takes at most a quarter of the available memory), on or off; changes no result";
pub const THREADS: &str = "Threads of the CPU's work [default: one for each processor]; changes no result";
pub const DROPOUT: &str = "Dropout probability of the adapter's inputs, at least 0 and below 1; masks realise the nearest \
    multiple of 1/65536 (0.0500031 for 0.05) [default: 0.05]";
pub const PROBLEMS: &str = "Problems in MultiPL-E's form: a file (JSON Lines, a JSON array or one problem's own file), or a folder \
    of its files of one problem; packed by gzip or not";
pub const MULTIPL_E: &str = "Also write the run as MultiPL-E's own files, which its pass_k.py counts: NAME.results.json.gz for each \
    problem; evaluate makes a folder in DIR for each model, with the completions NAME.json.gz too";
pub const AGAINST: &str = "File that nothing may repeat: benchmark problems where rows are made, training rows where problems \
    are made; repeat the flag for more";
pub const DATA: &str = "Training rows: files and folders of JSON Lines, JSON arrays (either also .gz) and Parquet. A row has \
    \"instruction\", \"output\" and what else Alpaca knows, \"prompt\" and \"completion\", \"messages\", or \"prefix\", \"suffix\" and \"output\"; doc/use.md lists the forms";
pub const COLUMNS: &str = "Columns of --data and --validation-data that hold a row's text under other names, as \
    instruction=prompt,output=completion (KEY=COLUMN); the others keep their names";
pub const SHAPE: &str = "Built-in shape: code-llama-13b, code-llama-7b (or 7b), tinyllama-1.1b, 110m or tiny";
pub const SEED: &str = "Seed of every random choice; the same seed gives the same result";

pub const TEMPLATE: &str = "Template that puts the prompt as an instruction: paper (its header), inst ([INST] .. [/INST]), \
    plain (a newline after it) or chat (the model's own chat template)";
pub const SAMPLES: &str = "Samples per prompt or problem";
pub const MAX_TOKENS: &str = "Maximum tokens per sample";
pub const TEMPERATURE: &str = "Softmax temperature; 0 is greedy decoding";
pub const TOP_P: &str = "Nucleus sampling: keep the likeliest tokens whose probabilities sum to P";
pub const PROMPT_FORMAT: &str = "Form in which a problem is put to the model: completion (its prompt is continued), \
    paper (an instruction under the paper's header), inst ([INST] .. [/INST]) or chat (the model's own chat template, or \
    its server's)";
pub const LIMIT: &str = "Measure on the first N problems only";
pub const PAGE_SIZE: &str = "Tokens per page of the KV cache; changes no result";
pub const SEQUENCES: &str = "Sequences that are generated at the same time";
pub const CONTEXT_LENGTH: &str = "Tokens of each sequence, its prompt included";
pub const JUDGE: &str = "Judge of the completions: tsc (MultiPL-E's rule for TypeScript, with compiler and node), \
    node (TypeScript without a type check, run by the machine's node), embedded (TypeScript without a type check, and JavaScript; nothing to install), javascript, python, java, cpp or rust \
    (each with the machine's tools)";

pub const SEQ: &str = "Tokens per packed sequence, at most the model's positions";
pub const BATCH: &str = "Sequences per optimizer step";
pub const REPLAY_ROWS: &str = "Rows of the earlier stage to train on again, evenly spread";
pub const CHECKPOINTING: &str = "Layers that are recomputed in the backward pass to save memory: auto (as few as the \
    memory allows), all, none or a number; each costs a third of its own work, and no result changes";

/// A text of a flag whose default the recipe states.
pub fn recipe_default(text: &str) -> String {
    format!("{text} [default: the recipe's]")
}
