//! The constants of the model: the only numbers beside the chips' rates, the same for every op and every chip.

/// Streams of instructions of a warp.
pub const STREAMS_OF_A_WARP: f64 = 1.0;
/// Share of its rate that a stream from device memory or the L2 cache reaches.
pub const STREAM: f64 = 0.9;
/// Seconds from the end of a kernel to the first instructions of the next, in one stream.
pub const LAUNCH: f64 = 1.5e-6;
