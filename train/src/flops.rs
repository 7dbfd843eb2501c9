//! Floating-point operations of a training step, for the share of the device's peak that a step reaches.

use crate::pack::PackedSequence;
use codelsi_model::config::ModelConfig;

/// Flops of a training step over `micro_batches`: forward, gradients of activations and, in full training, gradients of
/// weights; of distilled sequences also the teacher's forward. Recomputed layers and the adapter itself (below 2 %) are
/// not counted.
pub fn step_flops(config: &ModelConfig, micro_batches: &[PackedSequence], full: bool) -> f64 {
    let passes = if full { 3.0 } else { 2.0 };
    micro_batches
        .iter()
        .map(|sequence| {
            let layers = linear_flops(config) * sequence.tokens.len() as f64;
            let head = |tokens| 2.0 * (config.vocab * config.hidden * tokens) as f64;
            let attention = sequence.lengths.iter().map(|&n| attention_flops(config, n)).sum::<f64>();
            let teacher = match sequence.distilled() {
                0 => 0.0,
                distilled => layers + attention + head(distilled),
            };
            // Attention: 2 matrix products forward, 5 backward.
            passes * (layers + head(sequence.labelled())) + 3.5 * attention + teacher
        })
        .sum()
}

/// Forward flops of all linears of all layers for one token.
pub fn linear_flops(config: &ModelConfig) -> f64 {
    let shapes = config.tensor_shapes().into_iter().filter(|(name, _)| name.contains(".layers."));
    shapes.filter(|(_, shape)| shape.len() == 2).map(|(_, shape)| 2.0 * (shape[0] * shape[1]) as f64).sum()
}

/// Forward flops of the causal attention of all layers over a document of `tokens` tokens: two products over half of
/// the square.
pub fn attention_flops(config: &ModelConfig, tokens: usize) -> f64 {
    2.0 * (config.layers * config.heads * config.head_dim) as f64 * (tokens * (tokens + 1)) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pack::{Document, DocumentLoss};
    use approx::assert_abs_diff_eq;
    use codelsi_model::synthetic;

    #[test]
    fn a_13b_step_costs_four_flops_a_weight_and_token_and_its_attention() {
        let config = synthetic::config("code-llama-13b").unwrap();
        let document = |n| Document { tokens: vec![0; n], targets: vec![0; n] };
        let flops = |n| step_flops(&config, &[PackedSequence::concat([&document(n)])], false);
        let weights = (config.parameters() - config.vocab * config.hidden) as f64;
        assert_abs_diff_eq!(flops(1) / (4.0 * weights), 1.0, epsilon = 1e-3);
        let attention = flops(4096) - 4096.0 * flops(1);
        let expected = 3.5 * 2.0 * 5120.0 * 40.0 * 4096.0 * 4096.0;
        assert_abs_diff_eq!(attention / expected, 1.0, epsilon = 1e-2);
        assert!(step_flops(&config, &[PackedSequence::concat([&document(9)])], true) > 1.49 * flops(9));
        let mut distilled = PackedSequence::default();
        distilled.push(&document(9), DocumentLoss::Distillation);
        assert_abs_diff_eq!(step_flops(&config, &[distilled], false) / flops(9), 1.5, epsilon = 1e-3);
    }
}
