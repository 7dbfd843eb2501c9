//! The adapter methods that the tests run.

use codelsi_model::adapter::Method;

/// All methods other than plain LoRA.
pub const METHODS: [Method; 4] = [
    Method::LowRank { rslora: false, dora: true },
    Method::LowRank { rslora: true, dora: true },
    Method::Mixture { experts: 3 },
    Method::Bottleneck,
];
