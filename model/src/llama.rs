//! Llama: the decoder that Code Llama is, for training on packed documents and for paged generation.

use crate::adapter::Adapter;
use crate::checkpoint::Checkpoint;
use crate::config::Config;
use crate::parallel::shard::{Shards, Weight};
use crate::parallel::{Split, enter, leave};
use codelsi_engine::{At, Ctx, DType, Device, Error, Label, Result, Tensor};
use codelsi_kernels::flash::flash;
use codelsi_kernels::rmsnorm::rmsnorm;
use codelsi_kernels::xent::{Targets, xent_part};
use codelsi_kernels::{embed::embed_part, gemm::linear, rope};
use std::sync::Arc;

pub use crate::layer::{Layer, Place, Qkv};

/// What is trained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Train {
    /// Nothing: inference.
    Nothing,
    /// The adapters.
    Adapters,
    /// Every weight; they are copied to f32.
    Everything,
}

/// A model on a device.
pub struct Llama {
    split: Split,
    config: Config,
    compute: DType,
    embedding: Weight,
    layers: Vec<Arc<Layer>>,
    norm: Tensor,
    /// None when it is the embedding, at hand.
    head: Option<Weight>,
    /// What ranks hold in parts.
    shards: Option<Arc<Shards>>,
    /// cos and sin of every position.
    rope: Tensor,
}

/// Packed documents, all (T) i32 but the last.
#[derive(Clone)]
pub struct Batch {
    pub ids: Tensor,
    /// Positions inside each document.
    pub positions: Tensor,
    /// What identifies each token to dropout.
    pub keys: Tensor,
    /// (documents + 1) i32: where each starts, then T.
    pub documents: Tensor,
}

impl Batch {
    /// Documents laid end to end; `keys` is 0 unless given.
    pub fn new(device: &Device, documents: &[&[u32]]) -> Result<Self> {
        let ids: Vec<i32> = documents.iter().flat_map(|d| d.iter().map(|&id| id as i32)).collect();
        let keys = vec![0; ids.len()];
        Batch::with_keys(device, &documents.iter().map(|d| d.len()).collect::<Vec<_>>(), &ids, &keys)
    }

    /// Documents of the given lengths, laid end to end in `ids`, with the tokens' dropout keys.
    pub fn with_keys(device: &Device, lengths: &[usize], ids: &[i32], keys: &[i32]) -> Result<Self> {
        let mut starts = vec![0i32];
        starts.extend(lengths.iter().scan(0, |end, &n| {
            *end += n as i32;
            Some(*end)
        }));
        let positions: Vec<i32> = lengths.iter().flat_map(|&n| 0..n as i32).collect();
        let ints = |data: &[i32]| device.tensor(Label::Activations, [data.len()], data);
        Ok(Batch {
            ids: ints(ids)?,
            positions: ints(&positions)?,
            keys: ints(keys)?,
            documents: ints(&starts)?,
        })
    }
}

/// How a training forward runs.
#[derive(Clone, Copy, Debug, Default)]
pub struct ForwardOptions {
    /// Dropout of the adapters' inputs.
    pub dropout: f32,
    /// Of this many layers, the first, keep only the input and run them again in backward. Backward comes to them last,
    /// when what the other layers kept is gone.
    pub recompute: usize,
}

impl Llama {
    /// Loads a rank's part of a checkpoint, activations to be stored as `compute` (F32 or BF16). Weights stay in the mapped file
    /// wherever their type allows.
    ///
    /// # Errors
    /// When a tensor is missing or cannot be read.
    pub fn load(
        split: impl Into<Split>,
        checkpoint: &Checkpoint,
        compute: DType,
        train: Train,
    ) -> Result<Self> {
        let (split, config) = (split.into(), checkpoint.config().clone());
        split.check(&config)?;
        let device = split.device().clone();
        let loading = checkpoint.loading(&device);
        let weight = |name: &str| {
            let part = split.part(name, &checkpoint.entry(name)?.shape);
            match train {
                Train::Everything => Ok(loading.copy_f32(name, &part)?.with_grad()),
                _ => loading.tensor(name, &part, compute),
            }
        };
        let shards = Shards::new(&split, config.layers, train)?;
        let matrix = |stop: usize, name: &str| match &shards {
            Some(shards) => shards.load(&loading, stop, name, compute),
            None => weight(name).map(Weight::Here),
        };
        let layers =
            (0..config.layers).map(|i| Ok(Arc::new(Layer::load(&split, &config, i, &weight, &matrix)?)));
        let model = Llama {
            embedding: matrix(0, "model.embed_tokens.weight")?,
            layers: layers.collect::<Result<_>>()?,
            norm: weight("model.norm.weight")?,
            head: match (config.tied, &shards) {
                (false, _) => Some(matrix(config.layers + 1, "lm_head.weight")?),
                (true, Some(shards)) => Some(shards.tied()),
                (true, None) => None,
            },
            shards: shards.clone(),
            rope: rope::table(
                &device,
                config.max_positions,
                config.head_dim,
                config.rope_theta,
                config.rope_factor,
            )?,
            compute,
            config,
            split,
        };
        loading.finish()?;
        Ok(model)
    }

    /// Puts an adapter on, replacing any other. Its tensors want gradients when it is to be trained.
    ///
    /// # Errors
    /// When the ranks cannot share such an adapter, or it does not fit the model.
    pub fn attach(&mut self, adapter: &Adapter, train: Train) -> Result<()> {
        let split = &self.split;
        split.check_method(adapter.settings.method)?;
        let own = |name: &str, t: &Tensor| -> Result<Tensor> {
            let part = split.take(name, t, Label::Adapters)?;
            Ok(if train == Train::Adapters { part.with_grad() } else { part })
        };
        let cx = Ctx::inference(split.device()).with_comm(split.within_batch());
        for layer in &mut self.layers {
            let layer = unshared(layer)?;
            layer.put_on(adapter, &own)?;
            if train == Train::Nothing {
                layer.settle(&cx)?;
            }
        }
        Ok(())
    }

    /// This rank's place.
    pub fn split(&self) -> &Split {
        &self.split
    }

    /// The whole model's sizes.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The storage type of activations.
    pub fn compute(&self) -> DType {
        self.compute
    }

    /// The decoder layers, in order.
    pub fn layers(&self) -> &[Arc<Layer>] {
        &self.layers
    }

    /// The rotary table, cos then sin of a position in a row.
    pub fn rope(&self) -> &Tensor {
        &self.rope
    }

    /// Embeddings of `ids` (T): (T, C).
    pub fn embed(&self, cx: &Ctx, ids: &Tensor) -> Result<Tensor> {
        let part =
            embed_part(cx, &self.embedding.get(cx)?, ids, self.compute, self.split.vocabulary(&self.config))?;
        leave(cx, part)
    }

    /// The residual stream after the last layer, (T, C), for training or scoring whole documents.
    pub fn forward(&self, cx: &Ctx, batch: &Batch, options: ForwardOptions) -> Result<Tensor> {
        let mut h = self.embed(cx, &batch.ids)?;
        for (i, layer) in self.layers.iter().enumerate() {
            let (layer, batch, rope) = (layer.clone(), batch.clone(), self.rope.clone());
            let run = move |cx: &Ctx, h: &[&Tensor]| {
                let place = Place { positions: &batch.positions, rope: &rope, keys: Some(&batch.keys) };
                layer.forward(cx, h[0], place, options.dropout, |cx, q, k, v| {
                    flash(cx, q, k, v, &batch.documents, layer.heads())
                })
            };
            h = if i < options.recompute { cx.checkpoint(run, &[&h])? } else { run(cx, &[&h])? };
        }
        Ok(h)
    }

    /// The final RMSNorm of `h` (T, C).
    pub fn normed(&self, cx: &Ctx, h: &Tensor) -> Result<Tensor> {
        rmsnorm(cx, h, &self.norm, self.config.rms_eps).at("norm")
    }

    /// Logits (T, V) of `h` (T, C) after the final norm.
    pub fn logits(&self, cx: &Ctx, normed: &Tensor) -> Result<Tensor> {
        let part = linear(cx, normed, &self.head_weight(cx)?).at("lm_head")?;
        let logits = self.split.whole_logits(cx, part, self.config.vocab)?;
        logits.relabel(Label::Activations, Label::Logits);
        Ok(logits)
    }

    /// `scale` · Σ −log p(target) over the labelled tokens, and each token's log p. Full logits never exist.
    pub fn loss(
        &self,
        cx: &Ctx,
        batch: &Batch,
        targets: &Targets,
        scale: f32,
        options: ForwardOptions,
    ) -> Result<(Tensor, Tensor)> {
        let h = self.forward(cx, batch, options)?;
        let normed = self.normed(cx, &h)?;
        let vocabulary = self.split.vocabulary(&self.config);
        let run = || xent_part(cx, &enter(cx, &normed)?, &self.head_weight(cx)?, targets, scale, vocabulary);
        run().at("lm_head")
    }

    fn head_weight(&self, cx: &Ctx) -> Result<Tensor> {
        self.head.as_ref().unwrap_or(&self.embedding).get(cx)
    }

    /// A rank's part in a batch of other ranks, where it has none itself: `cx` is like theirs.
    ///
    /// # Errors
    /// When a rank is gone.
    pub fn idle(&self, cx: &Ctx) -> Result<()> {
        self.shards.as_ref().map_or(Ok(()), |shards| shards.walk_idly(cx))
    }

    /// Ends the backward of a batch, on every rank that had one.
    ///
    /// # Errors
    /// When a rank is gone.
    pub fn finish_backward(&self, cx: &Ctx) -> Result<()> {
        self.shards.as_ref().map_or(Ok(()), |shards| shards.come_down(cx))
    }

    /// Every tensor that wants a gradient, named as in a checkpoint or an adapter file, in a fixed order.
    pub fn trainable(&self) -> Vec<(String, &Tensor)> {
        let named = |name: &str, t| (name.to_owned(), t);
        let embedding = self.embedding.here().map(|t| named("model.embed_tokens.weight", t));
        let mut all: Vec<(String, &Tensor)> = embedding.into_iter().collect();
        all.extend(self.layers.iter().flat_map(|layer| layer.tensors()));
        all.push(named("model.norm.weight", &self.norm));
        all.extend(self.head.iter().filter_map(Weight::here).map(|t| named("lm_head.weight", t)));
        all.retain(|(_, t)| t.id().is_some());
        all
    }

    /// The whole of what every rank has `t` of: a trained tensor called `name`, or one shaped like it. A part becomes a
    /// copy in host memory. All ranks call it.
    ///
    /// # Errors
    /// When a rank is gone, or the device fails.
    pub fn whole(&self, name: &str, t: &Tensor) -> Result<Tensor> {
        self.split.whole(name, t, self.config.vocab).at(name)
    }

    /// [`Llama::trainable`], to be written by the optimizer.
    ///
    /// # Errors
    /// When a tape or another holder still reads a weight.
    pub fn trainable_mut(&mut self) -> Result<Vec<(String, &mut Tensor)>> {
        let named = |name: &str, t| (name.to_owned(), t);
        let embedding = self.embedding.here_mut().map(|t| named("model.embed_tokens.weight", t));
        let mut all: Vec<(String, &mut Tensor)> = embedding.into_iter().collect();
        for layer in &mut self.layers {
            all.extend(unshared(layer)?.tensors_mut());
        }
        all.push(named("model.norm.weight", &mut self.norm));
        all.extend(self.head.iter_mut().filter_map(Weight::here_mut).map(|t| named("lm_head.weight", t)));
        all.retain(|(_, t)| t.id().is_some());
        Ok(all)
    }
}

/// The only holder's access to a layer.
fn unshared(layer: &mut Arc<Layer>) -> Result<&mut Layer> {
    Arc::get_mut(layer).ok_or_else(|| Error::new("a layer is still in use by a tape"))
}
