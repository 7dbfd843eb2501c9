//! The constants of the model: the only numbers beside the chips' rates, the same for every op and every chip. They are
//! frozen: a figure that the model misses changes none of them.

/// Streams of instructions of a warp that can keep pipelines busy at the same time.
///
/// A warp issues in order, but it does not wait for the product, the load or the copy that it has started until an
/// instruction needs the result: that unfinished work is one stream, and what the warp issues meanwhile another. It is not
/// more, as an unfinished result holds registers: kernels on tensor cores keep one set of fragments in flight beside the one
/// they multiply, and have no registers for a third.
pub const STREAMS_OF_A_WARP: f64 = 2.0;

/// Share of its rate that a stream from device memory or the L2 cache reaches.
///
/// The data sheet's rate is that of the pins; refreshes, turning the bus from reads to writes and opening rows take a tenth.
/// Published copies and triads of large arrays lie at 0.88 to 0.92 of it (BabelStream on an A100: 1.39 of 1.555 TB/s,
/// recalled, not looked up again). It is also what the source of the target for `RMSNorm on H100` reaches, so that target
/// tests the counted traffic alone.
pub const STREAM: f64 = 0.9;

/// Seconds from the end of a kernel to the first instructions of the next, in one stream.
///
/// The drain of the last blocks, the launch of the next grid and its first loads' latency: 1.0 to 1.5 us between the
/// nodes of a recorded graph.
pub const LAUNCH: f64 = 1.5e-6;
