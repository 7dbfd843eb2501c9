//! LoRA adapters.
//!
//! Every adapted linear has a pair A (R, in) and B (out, R), and computes W x + s B (A x) with s = alpha / R, or
//! alpha / √R with rank-stabilized scaling (arXiv 2312.03732).

mod peft;

use crate::config::{Config, Linear};
use codelsi_engine::rng::{Key, unit};
use codelsi_engine::{DType, Device, Error, Label, Result, Tensor};
use rayon::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

/// Low-rank changes to the same linears of every layer.
#[derive(Clone)]
pub struct Adapter {
    /// R.
    pub rank: usize,
    pub alpha: f32,
    /// The probability with which training drops an input of A.
    pub dropout: f32,
    /// Scale by alpha / √R instead of alpha / R.
    pub rslora: bool,
    pub targets: BTreeSet<Linear>,
    /// By the linear's path, e.g. `model.layers.0.self_attn.q_proj`; all F32.
    pub pairs: BTreeMap<String, Pair>,
}

/// The factors of one linear's change.
#[derive(Clone)]
pub struct Pair {
    /// (R, in)
    pub a: Tensor,
    /// (out, R)
    pub b: Tensor,
}

impl Adapter {
    /// An adapter that changes nothing yet: A uniform in ±1/√in (Kaiming with a = √5, as PEFT), B zero.
    ///
    /// # Errors
    /// When the rank is 0 or no linear is named.
    pub fn fresh(
        config: &Config,
        rank: usize,
        alpha: f32,
        dropout: f32,
        targets: &[Linear],
        seed: u64,
    ) -> Result<Self> {
        let mut adapter = Adapter::sized(&Device::cpu(), config, rank, alpha, dropout, targets)?;
        for layer in 0..config.layers {
            for &linear in targets {
                let Some(Pair { a, .. }) = adapter.pairs.get_mut(&linear.path(layer)) else { continue };
                // Steps count from 0; the last one's numbers are nobody else's.
                let site = (layer * Linear::ALL.len() + linear as usize) as u32;
                fill_uniform(
                    a.slice_mut()?,
                    config.linear_shape(linear).1,
                    Key { seed, step: u32::MAX, site },
                );
            }
        }
        Ok(adapter)
    }

    /// An adapter of the same sizes on `device`, for the planning device above all: A has arbitrary content, B is zero.
    ///
    /// # Errors
    /// As [`Adapter::fresh`].
    pub fn sized(
        device: &Device,
        config: &Config,
        rank: usize,
        alpha: f32,
        dropout: f32,
        targets: &[Linear],
    ) -> Result<Self> {
        if rank == 0 || targets.is_empty() {
            return Err(Error::new("an adapter needs a rank of at least 1 and at least one linear"));
        }
        let mut pairs = BTreeMap::new();
        for layer in 0..config.layers {
            for &linear in targets {
                let (out, inner) = config.linear_shape(linear);
                let a = device.empty(Label::Adapters, [rank, inner], DType::F32);
                let b = device.zeros(Label::Adapters, [out, rank], DType::F32);
                pairs.insert(linear.path(layer), Pair { a, b });
            }
        }
        let targets = targets.iter().copied().collect();
        Ok(Adapter { rank, alpha, dropout, rslora: false, targets, pairs })
    }

    /// The same adapter's sizes, for the planning device.
    ///
    /// # Errors
    /// None that is known.
    pub fn without_values(&self) -> Result<Self> {
        let device = Device::plan();
        let sized = |t: &Tensor| t.to(&device, Label::Adapters);
        let pair = |p: &Pair| Ok(Pair { a: sized(&p.a)?, b: sized(&p.b)? });
        let pairs = self.pairs.iter().map(|(path, p)| Ok((path.clone(), pair(p)?)));
        Ok(Adapter { pairs: pairs.collect::<Result<_>>()?, ..self.clone() })
    }

    /// s for a pair of rank `rank`.
    pub fn scaling(&self, rank: usize) -> f32 {
        let rank = rank as f64;
        (self.alpha as f64 / if self.rslora { rank.sqrt() } else { rank }) as f32
    }

    /// Number of trainable values.
    pub fn parameters(&self) -> usize {
        self.pairs.values().map(|p| p.a.shape().elements() + p.b.shape().elements()).sum()
    }
}

fn fill_uniform(a: &mut [f32], inner: usize, key: Key) {
    let bound = (1.0 / inner as f64).sqrt() as f32;
    a.par_chunks_mut(inner).enumerate().for_each(|(row, a)| {
        for (block, a) in a.chunks_mut(4).enumerate() {
            for (x, word) in a.iter_mut().zip(key.words(row as u32, block as u32)) {
                *x = (2.0 * unit(word) - 1.0) * bound;
            }
        }
    });
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn config() -> Config {
        Config {
            hidden: 8,
            intermediate: 12,
            layers: 2,
            heads: 2,
            kv_heads: 1,
            head_dim: 4,
            vocab: 10,
            rope_theta: 1e4,
            rope_factor: 1.0,
            rms_eps: 1e-5,
            max_positions: 16,
            tied: true,
            bos: None,
            eos: vec![],
        }
    }

    #[test]
    fn a_fresh_adapter_is_uniform_in_a_and_zero_in_b() {
        let adapter = Adapter::fresh(&config(), 64, 16.0, 0.0, &[Linear::Q, Linear::Down], 1).unwrap();
        assert_eq!(adapter.pairs.keys().next().unwrap(), "model.layers.0.mlp.down_proj");
        assert_eq!(adapter.parameters(), 2 * (64 * (8 + 8) + 64 * (12 + 8)));
        let pair = &adapter.pairs["model.layers.1.self_attn.q_proj"];
        assert!(pair.b.slice::<f32>().unwrap().iter().all(|&x| x == 0.0));
        let (a, bound) = (pair.a.slice::<f32>().unwrap(), 1.0 / 8f32.sqrt());
        let variance = a.iter().map(|x| x * x).sum::<f32>() / a.len() as f32;
        assert!(a.iter().all(|x| x.abs() <= bound) && (variance * 3.0 / bound / bound - 1.0).abs() < 0.2);
        let again = Adapter::fresh(&config(), 64, 16.0, 0.0, &[Linear::Q], 1).unwrap();
        assert_eq!(
            again.pairs["model.layers.1.self_attn.q_proj"].a.bytes().unwrap(),
            pair.a.bytes().unwrap()
        );
        let rslora = Adapter { rslora: true, ..adapter };
        assert_eq!(rslora.scaling(64), 2.0);
    }
}
