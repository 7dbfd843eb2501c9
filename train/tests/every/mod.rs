//! The methods that tests go through.

use codelsi_model::adapter::Method;

/// Methods beside LoRA.
pub const METHODS: [Method; 4] = [
    Method::LowRank { rslora: false, dora: true },
    Method::LowRank { rslora: true, dora: true },
    Method::Mixture { experts: 3 },
    Method::Bottleneck,
];
