//! Adapters: small trained tensors that change what a frozen model computes. [`method`] says how.

pub mod method;
mod peft;

use crate::checkpoint::Checkpoint;
use crate::config::{Config, Linear};
use codelsi_engine::rng::{Key, unit};
use codelsi_engine::{At, Ctx, DType, Device, Label, Result, Tensor};
use codelsi_kernels::dora;
use codelsi_kernels::lora::Target;
pub use method::{Method, Settings};
use rayon::prelude::*;
use std::collections::BTreeMap;

/// An adapter and its values.
#[derive(Clone)]
pub struct Adapter {
    pub settings: Settings,
    /// By the path of what they change, e.g. `model.layers.0.self_attn.q_proj`; all F32.
    pub pairs: BTreeMap<String, Pair>,
}

/// The tensors of one place, as [`Method::tensors`] names them.
#[derive(Clone)]
pub struct Pair {
    /// (R, in), of a mixture (E·R, in): the experts' A below each other.
    pub a: Tensor,
    /// (out, R), of a mixture (out, E·R).
    pub b: Tensor,
    /// What goes beside the two: DoRA's magnitudes (out), a mixture's router (E, in).
    pub beside: Option<Tensor>,
}

impl Pair {
    /// In the method's order.
    pub fn tensors(&self) -> impl Iterator<Item = &Tensor> {
        [&self.a, &self.b].into_iter().chain(&self.beside)
    }

    /// A pair of what `of` gives for each tensor's place in the method's order.
    ///
    /// # Errors
    /// Those of `of`.
    pub fn made(method: Method, mut of: impl FnMut(usize) -> Result<Tensor>) -> Result<Self> {
        let (a, b) = (of(0)?, of(1)?);
        let beside = (method.tensors().len() > 2).then(|| of(2)).transpose()?;
        Ok(Pair { a, b, beside })
    }
}

impl Adapter {
    /// LoRA that changes nothing yet: see [`Adapter::begun`].
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
        Adapter::random(config, &Settings::lora(rank, alpha, dropout, targets), seed)
    }

    /// LoRA of these sizes on `device`, for the planning device above all: see [`Adapter::of_size`].
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
        Adapter::of_size(device, config, &Settings::lora(rank, alpha, dropout, targets))
    }

    /// An adapter that changes nothing of `base` yet: A, W_down and routers uniform in ±1/√in (Kaiming with a = √5, as
    /// PEFT), B and W_up zero, and DoRA's magnitudes the lengths of the rows that `base` has.
    ///
    /// # Errors
    /// When the rank is 0, no linear is named, or a weight cannot be read.
    pub fn begun(base: &Checkpoint, settings: &Settings, seed: u64) -> Result<Self> {
        let mut adapter = Adapter::random(base.config(), settings, seed)?;
        if let Method::LowRank { dora: true, .. } = settings.method {
            let cx = Ctx::inference(&Device::cpu());
            for (path, Pair { a, b, beside }) in &mut adapter.pairs {
                let w = base.copy_f32(cx.device(), &format!("{path}.weight"))?;
                let target = Target { w: &w, a, b, scale: 0.0 };
                *beside = Some(dora::norms(&cx, &target).at(path)?);
            }
        }
        Ok(adapter)
    }

    /// An adapter of these sizes on `device`: B and W_up are zero, the others have arbitrary content.
    ///
    /// # Errors
    /// When the rank is 0 or no linear is named.
    pub fn of_size(device: &Device, config: &Config, settings: &Settings) -> Result<Self> {
        settings.check()?;
        let pair = |width| {
            let shapes = settings.shapes(width);
            Pair::made(settings.method, |i| {
                let shape = &shapes[i][..];
                Ok(match i {
                    1 => device.zeros(Label::Adapters, shape, DType::F32),
                    _ => device.empty(Label::Adapters, shape, DType::F32),
                })
            })
        };
        let pairs = settings.places(config).into_iter().map(|(path, width)| Ok((path, pair(width)?)));
        Ok(Adapter { pairs: pairs.collect::<Result<_>>()?, settings: settings.clone() })
    }

    /// What can be made without the base's weights.
    fn random(config: &Config, settings: &Settings, seed: u64) -> Result<Self> {
        let mut adapter = Adapter::of_size(&Device::cpu(), config, settings)?;
        for layer in 0..config.layers {
            let linears = Linear::ALL.map(|linear| linear.path(layer));
            let blocks = method::Block::NAMES.map(|name| method::Block::path(name, layer));
            for (place, path) in linears.iter().chain(&blocks).enumerate() {
                let Some(Pair { a, beside, .. }) = adapter.pairs.get_mut(path) else { continue };
                // Linears alone or blocks alone are adapted: both count from 0.
                let site = (layer * Linear::ALL.len() + place % Linear::ALL.len()) as u32;
                // Steps count from 0; the last ones' numbers are nobody else's.
                for (t, step) in [a].into_iter().chain(beside).zip([u32::MAX, u32::MAX - 1]) {
                    let inner = t.shape().as_matrix().1;
                    fill_uniform(t.slice_mut()?, inner, Key { seed, step, site });
                }
            }
        }
        Ok(adapter)
    }

    /// The same adapter's sizes, for the planning device.
    ///
    /// # Errors
    /// None that is known.
    pub fn without_values(&self) -> Result<Self> {
        let device = Device::plan();
        let pair = |p: &Pair| {
            let tensors: Vec<&Tensor> = p.tensors().collect();
            Pair::made(self.settings.method, |i| tensors[i].to(&device, Label::Adapters))
        };
        let pairs = self.pairs.iter().map(|(path, p)| Ok((path.clone(), pair(p)?)));
        Ok(Adapter { pairs: pairs.collect::<Result<_>>()?, settings: self.settings.clone() })
    }

    /// Number of trainable values.
    pub fn parameters(&self) -> usize {
        self.pairs.values().flat_map(Pair::tensors).map(|t| t.shape().elements()).sum()
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
    use crate::llama::{Batch, ForwardOptions, Llama, Train};
    use crate::synthetic;
    use std::path::Path;

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
        let method = Method::LowRank { rslora: true, dora: false };
        assert_eq!(Settings { method, ..adapter.settings }.scaling(), 2.0);
    }

    fn logits(base: &Checkpoint, adapter: Option<&Adapter>, train: Train) -> Vec<f32> {
        let device = Device::cpu();
        let mut model = Llama::load(&device, base, DType::F32, Train::Nothing).unwrap();
        adapter.iter().for_each(|adapter| model.attach(adapter, train).unwrap());
        let (cx, batch) = (Ctx::inference(&device), Batch::new(&device, &[&[1, 40, 7, 90]]).unwrap());
        let h = model.forward(&cx, &batch, ForwardOptions::default()).unwrap();
        model.logits(&cx, &model.normed(&cx, &h).unwrap()).unwrap().to_vec::<f32>().unwrap()
    }

    #[test]
    fn the_lengths_settled_for_serving_are_those_that_training_forms() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/goldens/dora");
        let base = Checkpoint::open(folder.join("model")).unwrap();
        let adapter = Adapter::load(folder.join("adapter"), base.config()).unwrap();
        let [served, trained] = [Train::Nothing, Train::Adapters].map(|t| logits(&base, Some(&adapter), t));
        assert!(served == trained && served != logits(&base, None, Train::Nothing));
    }

    /// Magnitudes are the lengths of the base's rows; experts and routers differ from each other.
    #[test]
    fn a_begun_adapter_of_any_method_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let tiny = Config { layers: 2, ..synthetic::config("tiny").unwrap() };
        synthetic::make(folder.path(), &tiny, 1, &mut |_, _| {}).unwrap();
        let base = Checkpoint::open(folder.path()).unwrap();
        let logits = |adapter: Option<&Adapter>| logits(&base, adapter, Train::Nothing);
        let expected = logits(None);
        let lora = Settings::lora(4, 8.0, 0.0, &Linear::ALL);
        for method in [
            Method::LowRank { rslora: false, dora: true },
            Method::Mixture { experts: 3 },
            Method::Bottleneck,
        ] {
            let adapter = Adapter::begun(&base, &Settings { method, ..lora.clone() }, 1).unwrap();
            assert!(logits(Some(&adapter)) == expected, "{method}");
            let values = |t: &Tensor| t.to_vec::<f32>().unwrap();
            let firsts = adapter
                .pairs
                .values()
                .flat_map(|p| [values(&p.a)[0], values(p.tensors().last().unwrap())[0]]);
            let firsts: Vec<f32> = firsts.filter(|&x| x != 0.0).collect();
            let distinct: std::collections::BTreeSet<u32> = firsts.iter().map(|x| x.to_bits()).collect();
            assert_eq!(distinct.len(), firsts.len(), "{method}: {firsts:?}");
        }
        let none = Settings { method: Method::Mixture { experts: 0 }, ..lora };
        assert!(Adapter::begun(&base, &none, 1).err().unwrap().to_string().contains("at least one expert"));
    }
}
