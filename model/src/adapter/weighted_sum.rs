//! The weighted sum of LoRA adapters, as one adapter (PEFT's `add_weighted_adapter` with `combination_type="cat"`).

use super::{Adapter, AdapterConfig, AdapterTensors, Method};
use codelsi_engine::{DType, Device, Error, Label, Result, Tensor};
use std::collections::BTreeMap;

impl Adapter {
    /// Returns the adapter whose update of every weight is the weighted sum of the updates of `parts`: Σ wᵢ sᵢ Bᵢ Aᵢ. Its
    /// rank is the sum of theirs, its scale is 1: A holds their A (Rᵢ, in) below each other, B their wᵢ sᵢ Bᵢ (out, Rᵢ)
    /// beside each other. Interpolation of two fine-tuned models (arXiv 2109.01903) is such a sum.
    ///
    /// # Errors
    /// When there is no part, or one is not LoRA or rsLoRA, or adapts other linears than the first.
    pub fn weighted_sum(parts: &[(&Adapter, f32)]) -> Result<Adapter> {
        let Some((first, _)) = parts.first() else { return Err(Error::new("a sum needs an adapter")) };
        for (part, _) in parts {
            let AdapterConfig { method, targets, patterns, .. } = &part.config;
            if patterns.is_some() || !part.saved.is_empty() {
                return Err(Error::new(
                    "an adapter with weights of the base, or with modules that are not all alike, has no sum with others",
                ));
            }
            if !matches!(method, Method::LowRank { dora: false, .. }) {
                return Err(Error::new(format!("{method} has no sum of updates; LoRA and rsLoRA have one")));
            }
            if *targets != first.config.targets {
                return Err(Error::new(
                    "adapters of other linears than the first one's cannot be added to it",
                ));
            }
        }
        let rank = parts.iter().map(|(part, _)| part.config.rank).sum();
        let config = AdapterConfig {
            method: Method::LORA,
            rank,
            alpha: rank as f32,
            dropout: first.config.dropout,
            targets: first.config.targets.clone(),
            patterns: None,
            modules_to_save: Vec::new(),
        };
        let sum = |path: &String| -> Result<AdapterTensors> {
            let modules: Vec<(&AdapterTensors, f32)> = parts
                .iter()
                .map(|(part, weight)| (&part.modules[path], weight * part.config.default_scaling()))
                .collect();
            Ok(AdapterTensors { a: stacked_rows(&modules)?, b: joined_columns(&modules)?, extra: None })
        };
        let modules = first.modules.keys().map(|path| Ok((path.clone(), sum(path)?)));
        Ok(Adapter { modules: modules.collect::<Result<_>>()?, saved: BTreeMap::new(), config })
    }
}

/// The A of all parts below each other.
fn stacked_rows(parts: &[(&AdapterTensors, f32)]) -> Result<Tensor> {
    let mut values: Vec<f32> = Vec::new();
    for (part, _) in parts {
        values.extend(part.a.to_vec::<f32>()?);
    }
    let inner = parts[0].0.a.shape().as_matrix().1;
    tensor([values.len() / inner, inner], &values)
}

/// The scaled B of all parts beside each other.
fn joined_columns(parts: &[(&AdapterTensors, f32)]) -> Result<Tensor> {
    let mut columns = Vec::new();
    for (part, scale) in parts {
        columns.push((part.b.to_vec::<f32>()?, part.b.shape().as_matrix().1, *scale));
    }
    let out = parts[0].0.b.shape().as_matrix().0;
    let row = |row: usize| {
        let of_part = move |(b, rank, scale): &(Vec<f32>, usize, f32)| {
            b[row * rank..(row + 1) * rank].iter().map(|x| x * scale).collect::<Vec<f32>>()
        };
        columns.iter().flat_map(of_part).collect::<Vec<f32>>()
    };
    let values: Vec<f32> = (0..out).flat_map(row).collect();
    tensor([out, values.len() / out], &values)
}

fn tensor(shape: [usize; 2], values: &[f32]) -> Result<Tensor> {
    debug_assert_eq!(values.len(), shape[0] * shape[1]);
    let mut t = Device::cpu().empty(Label::Adapters, shape, DType::F32);
    t.slice_mut::<f32>()?.copy_from_slice(values);
    Ok(t)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::LinearName;
    use crate::synthetic;
    use approx::assert_abs_diff_eq;

    /// s B A of the first adapted module.
    fn update(adapter: &Adapter) -> Vec<f32> {
        let module = adapter.modules.values().next().unwrap();
        let (a, b) = (module.a.to_vec::<f32>().unwrap(), module.b.to_vec::<f32>().unwrap());
        let ((rank, inner), out) = (module.a.shape().as_matrix(), module.b.shape().as_matrix().0);
        let element = |i: usize| {
            let (row, column) = (i / inner, i % inner);
            (0..rank).map(|r| b[row * rank + r] * a[r * inner + column]).sum::<f32>()
                * adapter.config.default_scaling()
        };
        (0..out * inner).map(element).collect()
    }

    /// An adapter whose B is not zero.
    fn adapter(rank: usize, targets: &[LinearName], seed: u64) -> Adapter {
        let config = synthetic::config("tiny").unwrap();
        let mut adapter = Adapter::init_lora(&config, rank, 5.0, 0.0, targets, seed).unwrap();
        for module in adapter.modules.values_mut() {
            let b = module.b.slice_mut::<f32>().unwrap();
            b.iter_mut().enumerate().for_each(|(i, x)| *x = ((i * 7 + seed as usize) % 11) as f32 - 5.0);
        }
        adapter
    }

    #[test]
    fn the_update_of_a_sum_is_the_sum_of_the_updates() {
        let targets = [LinearName::Q, LinearName::Down];
        let (one, two) = (adapter(3, &targets, 1), adapter(5, &targets, 2));
        let sum = Adapter::weighted_sum(&[(&one, 0.25), (&two, -1.5)]).unwrap();
        assert_eq!((sum.config.rank, sum.config.default_scaling()), (8, 1.0));
        for ((x, y), z) in update(&one).iter().zip(update(&two)).zip(update(&sum)) {
            assert_abs_diff_eq!(0.25 * x - 1.5 * y, z, epsilon = 1e-4);
        }
        let refused = |parts: &[(&Adapter, f32)]| Adapter::weighted_sum(parts).err().unwrap().to_string();
        assert!(refused(&[(&one, 1.0), (&adapter(3, &targets[..1], 3), 1.0)]).contains("other linears"));
        assert!(refused(&[]).contains("needs an adapter"));
    }
}
