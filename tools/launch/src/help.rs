//! Help texts of the flags that all programs share, in lines of at most 70 columns.

pub const DEVICE: &str = "Device: auto (the first GPU, else the CPU), cpu, cuda, cuda:N,\n\
    emulated (the software GPU), emulated:sm_80 or\nemulated:sm_90a";

/// Programs that can run under a launcher add [`RANKS_DEFAULT`].
pub const RANKS: &str = "Number of ranks (workers), each with a device of its own; on GPUs,\n\
    those from --device on";

pub const RANKS_DEFAULT: &str = "[default: 1, or the launcher's processes]";

pub const LAYOUT: &str = "Model across the ranks: replicate = data parallel (DDP),\n\
    shard = ZeRO-3/FSDP of the frozen weights, tensor = tensor parallel\n(Megatron)";

pub const TIMEOUT: &str = "Seconds that a rank waits for the others before the run ends\n\
    [default: CODELSI_TIMEOUT, or 600]";

pub const CSV: &str = "Also write the rows of the result as comma-separated values";
pub const JSON: &str = "Print the result as one JSON object, the last line of stdout";
