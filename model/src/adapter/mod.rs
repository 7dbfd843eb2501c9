//! Adapters: small trained tensors on top of a frozen model. [`method`] defines the methods, PEFT's files are the
//! format.

pub mod method;
mod mixture;
mod patterns;
mod peft;
mod peft_config;
mod saved;
mod weighted_sum;

pub use method::{AdaptedModule, AdapterConfig, Method};
pub use patterns::ModulePatterns;
pub use peft_config::AdapterSummary;
pub(crate) use saved::EMBEDDING;
pub use saved::HEAD;

use crate::checkpoint::Checkpoint;
use crate::config::{LinearName, ModelConfig};
use crate::trainable::Trainable;
use codelsi_engine::rng::{RngKey, unit};
use codelsi_engine::{At, Ctx, DType, Device, Label, Result, Tensor};
use codelsi_kernels::dora;
use codelsi_kernels::lora::LoraLinear;
use method::{SUBLAYERS, bottleneck_path};
use rayon::prelude::*;
use std::collections::BTreeMap;

/// An adapter: hyperparameters and values.
#[derive(Clone)]
pub struct Adapter {
    pub config: AdapterConfig,
    /// Tensors by the path of the module that they adapt, e.g. `model.layers.0.self_attn.q_proj`; all F32.
    pub modules: BTreeMap<String, AdapterTensors>,
    /// Weights in place of the base's, by their names there; all F32.
    pub saved: BTreeMap<String, Tensor>,
}

/// The adapter tensors of one module, in the order of its [`Method`].
#[derive(Clone)]
pub struct AdapterTensors {
    /// A or W_down: (R, in), or a mixture's (E·R, in), the experts' A below each other.
    pub a: Tensor,
    /// B or W_up: (out, R), or a mixture's (out, E·R).
    pub b: Tensor,
    /// DoRA's magnitudes (out), or a mixture's router (E, in).
    pub extra: Option<Tensor>,
}

impl AdapterTensors {
    /// The tensors in the method's order.
    pub fn tensors(&self) -> impl Iterator<Item = &Tensor> {
        [&self.a, &self.b].into_iter().chain(&self.extra)
    }

    /// Builds a module's tensors: `tensor` returns the i-th in the method's order.
    ///
    /// # Errors
    /// When `tensor` fails.
    pub fn build(method: Method, mut tensor: impl FnMut(usize) -> Result<Tensor>) -> Result<Self> {
        let (a, b) = (tensor(0)?, tensor(1)?);
        let extra = (method.tensor_names().len() > 2).then(|| tensor(2)).transpose()?;
        Ok(AdapterTensors { a, b, extra })
    }
}

impl Adapter {
    /// Initializes plain LoRA, which leaves the model's outputs unchanged: A is uniform in ±1/√in (Kaiming with a =
    /// √5, as in PEFT), B is zero.
    ///
    /// # Errors
    /// When the rank is 0 or no linear is named.
    pub fn init_lora(
        config: &ModelConfig,
        rank: usize,
        alpha: f32,
        dropout: f32,
        targets: &[LinearName],
        seed: u64,
    ) -> Result<Self> {
        Adapter::random(config, &AdapterConfig::lora(rank, alpha, dropout, targets), seed)
    }

    /// Allocates plain LoRA on `device`, mostly the planning device: B is zero, A is uninitialized.
    ///
    /// # Errors
    /// When the rank is 0 or no linear is named.
    pub fn allocate_lora(
        device: &Device,
        config: &ModelConfig,
        rank: usize,
        alpha: f32,
        dropout: f32,
        targets: &[LinearName],
    ) -> Result<Self> {
        Adapter::allocate(device, config, &AdapterConfig::lora(rank, alpha, dropout, targets))
    }

    /// Initializes an adapter that leaves `base`'s outputs unchanged: A, W_down and routers are uniform in ±1/√in
    /// (Kaiming with a = √5, as in PEFT), B and W_up are zero, and DoRA's magnitudes are the norms of the weights'
    /// rows.
    ///
    /// # Errors
    /// When the rank is 0, no linear is named, or a weight cannot be read.
    pub fn init(base: &Checkpoint, settings: &AdapterConfig, seed: u64) -> Result<Self> {
        let mut adapter = Adapter::random(base.config(), settings, seed)?;
        if let Method::LowRank { dora: true, .. } = settings.method {
            let cx = Ctx::inference(&Device::cpu());
            for (path, AdapterTensors { a, b, extra: magnitudes }) in &mut adapter.modules {
                let w = base.copy_f32(cx.device(), &format!("{path}.weight"))?;
                let target = LoraLinear { w: &w, a, b, scale: 0.0 };
                *magnitudes = Some(dora::norms(&cx, &target).at(path)?);
            }
        }
        for (name, t) in &mut adapter.saved {
            // The head of a tied model is its embedding.
            let stored = if base.entry(name).is_ok() { name } else { EMBEDDING };
            *t = base.copy_f32(&Device::cpu(), stored)?;
        }
        Ok(adapter)
    }

    /// Allocates an adapter on `device`: B and W_up are zero, the other tensors are uninitialized.
    ///
    /// # Errors
    /// When the rank is 0 or no linear is named.
    pub fn allocate(device: &Device, config: &ModelConfig, settings: &AdapterConfig) -> Result<Self> {
        settings.check()?;
        let allocate = |module: AdaptedModule| {
            let tensors = AdapterTensors::build(settings.method, |i| {
                let shape = &module.tensor_shapes[i][..];
                Ok(match i {
                    1 => device.zeros(Label::Adapters, shape, DType::F32),
                    _ => device.empty(Label::Adapters, shape, DType::F32),
                })
            })?;
            Ok((module.path, tensors))
        };
        let modules = settings.adapted_modules(config).into_iter().map(allocate).collect::<Result<_>>()?;
        let saved = settings.saved_weights(config)?.into_iter();
        let saved = saved.map(|(name, shape)| (name, device.empty(Label::Adapters, &shape[..], DType::F32)));
        Ok(Adapter { modules, saved: saved.collect(), config: settings.clone() })
    }

    /// Initializes everything that does not depend on the base's weights.
    fn random(config: &ModelConfig, settings: &AdapterConfig, seed: u64) -> Result<Self> {
        let mut adapter = Adapter::allocate(&Device::cpu(), config, settings)?;
        for layer in 0..config.layers {
            let linears = LinearName::ALL.map(|linear| linear.path(layer));
            let bottlenecks = SUBLAYERS.map(|sublayer| bottleneck_path(sublayer, layer));
            for (i, path) in linears.iter().chain(&bottlenecks).enumerate() {
                let Some(AdapterTensors { a, extra: router, .. }) = adapter.modules.get_mut(path) else {
                    continue;
                };
                // A method adapts either linears or sublayers; both count from 0.
                let site = (layer * LinearName::ALL.len() + i % LinearName::ALL.len()) as u32;
                // Training counts steps from 0, so the keys of the last two steps are free.
                for (t, step) in [a].into_iter().chain(router).zip([u32::MAX, u32::MAX - 1]) {
                    let inner = t.shape().as_matrix().1;
                    fill_uniform(t.slice_mut()?, inner, RngKey { seed, step, site });
                }
            }
        }
        Ok(adapter)
    }

    /// Returns this adapter without its values, on the planning device.
    ///
    /// # Errors
    /// None that is known.
    pub fn shapes_only(&self) -> Result<Self> {
        let device = Device::plan();
        let copy = |module: &AdapterTensors| {
            let tensors: Vec<&Tensor> = module.tensors().collect();
            AdapterTensors::build(self.config.method, |i| tensors[i].to(&device, Label::Adapters))
        };
        let modules = self.modules.iter().map(|(path, module)| Ok((path.clone(), copy(module)?)));
        let saved = self.saved.iter().map(|(name, t)| Ok((name.clone(), t.to(&device, Label::Adapters)?)));
        Ok(Adapter {
            modules: modules.collect::<Result<_>>()?,
            saved: saved.collect::<Result<_>>()?,
            config: self.config.clone(),
        })
    }

    /// Returns true if `train` changes the weight of [`Adapter::saved`] that has this name.
    pub fn trains_saved(&self, name: &str, train: Trainable) -> bool {
        train.includes_adapter_tensor(name) && self.config.saves(name)
    }

    /// Number of values in all tensors.
    pub fn parameters(&self) -> usize {
        let tensors = self.modules.values().flat_map(AdapterTensors::tensors).chain(self.saved.values());
        tensors.map(|t| t.shape().elements()).sum()
    }

    /// Number of values in the tensors that `train` changes.
    pub fn trained_parameters(&self, train: Trainable) -> usize {
        let names = self.config.method.tensor_names();
        let tensors = self.modules.values().flat_map(|module| names.iter().zip(module.tensors()));
        let tensors = tensors.filter(|(name, _)| train.includes_adapter_tensor(name)).map(|(_, t)| t);
        let saved = self.saved.iter().filter(|(name, _)| self.trains_saved(name, train)).map(|(_, t)| t);
        tensors.chain(saved).map(|t| t.shape().elements()).sum()
    }
}

/// Fills the rows of a matrix with `inner` columns uniformly in ±1/√inner.
fn fill_uniform(a: &mut [f32], inner: usize, key: RngKey) {
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
mod tests {
    use super::*;
    use crate::synthetic;
    use approx::assert_abs_diff_eq;

    #[test]
    fn a_fresh_adapter_is_uniform_in_a_and_zero_in_b() {
        let tiny = synthetic::config("tiny").unwrap();
        let adapter =
            Adapter::init_lora(&tiny, 64, 16.0, 0.0, &[LinearName::Q, LinearName::Down], 1).unwrap();
        assert_eq!(adapter.modules.keys().next().unwrap(), "model.layers.0.mlp.down_proj");
        assert_eq!(adapter.parameters(), 2 * (64 * (64 + 64) + 64 * (112 + 64)));
        let pair = &adapter.modules["model.layers.1.self_attn.q_proj"];
        assert!(pair.b.slice::<f32>().unwrap().iter().all(|&x| x == 0.0));
        let (a, bound) = (pair.a.slice::<f32>().unwrap(), 1.0 / 64f32.sqrt());
        let variance = a.iter().map(|x| x * x).sum::<f32>() / a.len() as f32;
        assert!(a.iter().all(|x| x.abs() <= bound));
        assert_abs_diff_eq!(variance * 3.0 / bound / bound, 1.0, epsilon = 0.2);
        let again = Adapter::init_lora(&tiny, 64, 16.0, 0.0, &[LinearName::Q], 1).unwrap();
        assert_eq!(
            again.modules["model.layers.1.self_attn.q_proj"].a.bytes().unwrap(),
            pair.a.bytes().unwrap()
        );
        let method = Method::LowRank { rslora: true, dora: false };
        assert_eq!(AdapterConfig { method, ..adapter.config }.default_scaling(), 2.0);
    }
}
