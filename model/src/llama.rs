//! Llama: Code Llama's decoder, for training on packed documents and for paged generation (Touvron et al., arXiv
//! 2307.09288; Rozière et al., arXiv 2308.12950).

use crate::adapter::{Adapter, EMBEDDING, HEAD};
use crate::checkpoint::{Checkpoint, WeightLoader};
use crate::config::ModelConfig;
use crate::parallel::shard::{Weight, WeightShards};
use crate::parallel::{Layout, RankLayout, copy_to_tensor_parallel, reduce_from_tensor_parallel};
use crate::trainable::Trainable;
use codelsi_engine::{At, Ctx, DType, Device, Error, Label, Result, Tensor};
use codelsi_kernels::distill::distill;
use codelsi_kernels::dropout::DropoutRate;
use codelsi_kernels::embed::vocab_parallel_embed;
use codelsi_kernels::flash::flash;
use codelsi_kernels::gemm::{linear, pack_weight};
use codelsi_kernels::rope;
use codelsi_kernels::xent::{Targets, vocab_parallel_xent};
use std::collections::BTreeMap;
use std::mem;
use std::sync::Arc;

pub use crate::layer::{Layer, Qkv, ResidualStream, RowContext};

/// A model on a device: one rank's share of it.
///
/// ```
#[doc = include_str!("../examples/random_model.rs")]
/// ```
pub struct Llama {
    rank_layout: RankLayout,
    config: ModelConfig,
    compute: DType,
    embedding: Weight,
    layers: Vec<Arc<Layer>>,
    norm: Tensor,
    /// None if it is the embedding itself.
    head: Option<Weight>,
    /// Layout `shard` alone.
    shards: Option<Arc<WeightShards>>,
    /// cos and sin of every position.
    rope: Tensor,
    /// The base's weights whose places those of an adapter have taken, by name.
    replaced: BTreeMap<String, Tensor>,
}

/// Documents packed end to end, T tokens in total.
#[derive(Clone)]
pub struct PackedBatch {
    /// Token ids, (T) i32.
    pub ids: Tensor,
    /// Position of each token in its document, (T) i32.
    pub positions: Tensor,
    /// Dropout key of each token, (T) i32.
    pub dropout_keys: Tensor,
    /// Index of each document's first token, then T: (documents + 1) i32, FlashAttention's `cu_seqlens`.
    pub document_starts: Tensor,
}

impl PackedBatch {
    /// Packs documents. Dropout keys are 0.
    ///
    /// # Errors
    /// When the device has no memory left.
    pub fn new(device: &Device, documents: &[&[u32]]) -> Result<Self> {
        let ids: Vec<i32> = documents.iter().flat_map(|d| d.iter().map(|&id| id as i32)).collect();
        let keys = vec![0; ids.len()];
        PackedBatch::with_dropout_keys(
            device,
            &documents.iter().map(|d| d.len()).collect::<Vec<_>>(),
            &ids,
            &keys,
        )
    }

    /// Packs documents of the given lengths, concatenated in `ids` (T), with the dropout keys (T) of the tokens.
    ///
    /// # Errors
    /// When the device has no memory left.
    pub fn with_dropout_keys(device: &Device, lengths: &[usize], ids: &[i32], keys: &[i32]) -> Result<Self> {
        let mut starts = vec![0i32];
        starts.extend(lengths.iter().scan(0, |end, &n| {
            *end += n as i32;
            Some(*end)
        }));
        let positions: Vec<i32> = lengths.iter().flat_map(|&n| 0..n as i32).collect();
        let ints = |data: &[i32]| device.tensor(Label::Activations, [data.len()], data);
        Ok(PackedBatch {
            ids: ints(ids)?,
            positions: ints(&positions)?,
            dropout_keys: ints(keys)?,
            document_starts: ints(&starts)?,
        })
    }
}

/// Options of a training forward pass.
#[derive(Clone, Copy, Debug, Default)]
pub struct ForwardOptions {
    /// Dropout of the adapters' inputs.
    pub dropout: DropoutRate,
    /// Number of layers, counted from the first, that save only their input and are recomputed in backward (activation
    /// checkpointing). Backward reaches the first layers last, when the activations saved by the others are freed.
    pub recompute_layers: usize,
}

impl Llama {
    /// Loads a rank's share of a checkpoint. Activations are stored as `compute` (F32 or BF16); on the CPU, weights
    /// stay in the mapped file wherever their type allows.
    ///
    /// # Errors
    /// When the ranks cannot share the model, a tensor cannot be read, or the device has no memory left.
    pub fn load(
        rank_layout: impl Into<RankLayout>,
        checkpoint: &Checkpoint,
        compute: DType,
        train: Trainable,
    ) -> Result<Self> {
        let (rank_layout, config) = (rank_layout.into(), checkpoint.config().clone());
        rank_layout.check_model(&config)?;
        let device = rank_layout.device().clone();
        let loader = WeightLoader::new(checkpoint, &device);
        let weight = |name: &str| {
            let slice = rank_layout.slice(name, &checkpoint.entry(name)?.shape);
            match train {
                Trainable::AllWeights => Ok(loader.copy_f32(name, &slice)?.with_grad()),
                Trainable::Nothing | Trainable::Adapter | Trainable::Routers => {
                    loader.tensor(name, &slice, compute)
                }
            }
        };
        let shards = WeightShards::new(&rank_layout, config.layers, train)?;
        let packed = checkpoint.is_packed() && train != Trainable::AllWeights;
        let factor = |w: Tensor| if packed { pack_weight(&device, &w) } else { Ok(w) };
        let matrix = |group: usize, name: &str| match &shards {
            Some(shards) => shards.load(&loader, group, name, compute),
            // The embedding, group 0, is looked up.
            None if group == 0 => weight(name).map(Weight::Local),
            None => weight(name).and_then(factor).map(Weight::Local),
        };
        let layer = |i| Layer::load(&rank_layout, &config, i, &weight, &matrix).map(Arc::new);
        let embedding = matrix(0, EMBEDDING)?;
        let model = Llama {
            layers: (0..config.layers).map(layer).collect::<Result<_>>()?,
            norm: weight("model.norm.weight")?,
            head: match (config.tied_embeddings, &shards) {
                (false, _) => Some(matrix(config.layers + 1, HEAD)?),
                (true, Some(shards)) => Some(shards.tied_head()),
                (true, None) if packed => {
                    embedding.local().cloned().map(factor).transpose()?.map(Weight::Local)
                }
                (true, None) => None,
            },
            embedding,
            shards: shards.clone(),
            rope: rope::cos_sin_table(
                &device,
                config.max_positions,
                &config.rope.inverse_frequencies(config.head_dim),
                config.rope.attention_factor(),
            )?,
            replaced: BTreeMap::new(),
            compute,
            config,
            rank_layout,
        };
        loader.finish()?;
        Ok(model)
    }

    /// Attaches an adapter, replacing any other. Its tensors that are to be trained want gradients.
    ///
    /// # Errors
    /// When the ranks cannot share such an adapter, or the device has no memory left.
    pub fn attach(&mut self, adapter: &Adapter, train: Trainable) -> Result<()> {
        let rank_layout = &self.rank_layout;
        rank_layout.check_method(adapter.config.method)?;
        let to_rank = |name: &str, full: &Tensor| -> Result<Tensor> {
            let local = rank_layout.copy_slice(name, full, Label::Adapters)?;
            Ok(if train.includes_adapter_tensor(name) { local.with_grad() } else { local })
        };
        let cx = Ctx::inference(rank_layout.device()).with_comm(rank_layout.tensor_parallel_comm());
        for layer in &mut self.layers {
            let layer = exclusive(layer)?;
            layer.attach(adapter, &to_rank)?;
            if train == Trainable::Nothing {
                layer.precompute(&cx)?;
            }
        }
        self.replace_weights(adapter, train)
    }

    /// Puts the weights that an adapter brings in the places of the base's, after those of an adapter before it.
    fn replace_weights(&mut self, adapter: &Adapter, train: Trainable) -> Result<()> {
        let base = mem::take(&mut self.replaced);
        self.swap_weights(base)?;
        if adapter.saved.is_empty() {
            return Ok(());
        }
        // The head of a tied model is no longer its embedding.
        self.head.get_or_insert_with(|| self.embedding.clone());
        let to_rank = |(name, full): (&String, &Tensor)| -> Result<(String, Tensor)> {
            let local = |dtype| self.rank_layout.copy_slice_as(name, full, Label::Adapters, dtype);
            let t = match adapter.trains_saved(name, train) {
                true => local(DType::F32)?.with_grad(),
                false => local(self.compute)?,
            };
            Ok((name.clone(), t))
        };
        let weights = adapter.saved.iter().map(to_rank).collect::<Result<_>>()?;
        self.replaced = self.swap_weights(weights)?;
        Ok(())
    }

    /// Puts tensors in the places of those of the same names, and returns these.
    fn swap_weights(&mut self, weights: BTreeMap<String, Tensor>) -> Result<BTreeMap<String, Tensor>> {
        let mut places: BTreeMap<String, &mut Tensor> = self.tensors_mut()?.into_iter().collect();
        let swap = |(name, t): (String, Tensor)| {
            let place = places.get_mut(&name).ok_or_else(|| {
                Error::new(format!(
                    "--layout shard keeps `{name}` in shards, where an adapter's own cannot take its place: use another \
                     layout, or merge the adapter"
                ))
            })?;
            Ok((name, mem::replace(&mut **place, t)))
        };
        weights.into_iter().map(swap).collect()
    }

    /// Returns a model of the same weights, in the same memory, with another adapter, which is frozen: a teacher of this
    /// one. Under layout `shard` both share the gathers too, so that one runs after the other.
    ///
    /// # Errors
    /// As [`Llama::attach`].
    pub fn with_frozen_adapter(&self, adapter: &Adapter) -> Result<Llama> {
        let mut other = Llama {
            rank_layout: self.rank_layout.clone(),
            config: self.config.clone(),
            compute: self.compute,
            embedding: self.embedding.clone(),
            layers: self.layers.iter().map(|layer| Arc::new(layer.without_adapter())).collect(),
            norm: self.norm.clone(),
            head: self.head.clone(),
            shards: self.shards.clone(),
            rope: self.rope.clone(),
            replaced: self.replaced.clone(),
        };
        other.attach(adapter, Trainable::Nothing)?;
        Ok(other)
    }

    /// True if an adapter is attached.
    pub fn has_adapter(&self) -> bool {
        !self.replaced.is_empty() || self.layers.iter().any(|layer| layer.has_adapter())
    }

    /// This rank, and the layout in which it holds the model.
    pub fn rank_layout(&self) -> &RankLayout {
        &self.rank_layout
    }

    /// The full model's config.
    pub fn config(&self) -> &ModelConfig {
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

    /// The rotary table, (positions, D) f32: a row holds a position's cosines, then its sines.
    pub fn rope(&self) -> &Tensor {
        &self.rope
    }

    /// Returns the embeddings (T, C) of `ids` (T) i32.
    ///
    /// # Errors
    /// When an id is outside the vocabulary, or a rank is gone.
    pub fn embed(&self, cx: &Ctx, ids: &Tensor) -> Result<Tensor> {
        let vocabulary = self.rank_layout.vocabulary(&self.config);
        let partial = vocab_parallel_embed(cx, &self.embedding.get(cx)?, ids, self.compute, vocabulary)?;
        reduce_from_tensor_parallel(cx, partial)
    }

    /// Returns the residual stream (T, C) after the last layer, for training or scoring complete documents.
    ///
    /// # Errors
    /// When an op fails; the error names the layer and the linear.
    pub fn forward(&self, cx: &Ctx, batch: &PackedBatch, options: ForwardOptions) -> Result<Tensor> {
        let mut h = self.embed(cx, &batch.ids)?;
        for (i, layer) in self.layers.iter().enumerate() {
            let (layer, batch, rope) = (layer.clone(), batch.clone(), self.rope.clone());
            let run = move |cx: &Ctx, h: &[&Tensor]| {
                let rows = RowContext {
                    positions: &batch.positions,
                    rope: &rope,
                    dropout_keys: Some(&batch.dropout_keys),
                    turns: None,
                    adapters: None,
                };
                let attend = |cx: &Ctx, qkv| {
                    let Qkv { q, k, v } = layer.rotate(cx, qkv, rows)?;
                    flash(cx, &q, &k, &v, &batch.document_starts, layer.heads())
                };
                layer.forward(cx, h[0], rows, options.dropout, attend)?.sum(cx)
            };
            h = if i < options.recompute_layers { cx.checkpoint(run, &[&h])? } else { run(cx, &[&h])? };
        }
        Ok(h)
    }

    /// Returns the final RMSNorm of the residual stream (T, C).
    ///
    /// # Errors
    /// When the op fails.
    pub fn final_norm(&self, cx: &Ctx, stream: impl Into<ResidualStream>) -> Result<Tensor> {
        Ok(stream.into().norm(cx, &self.norm, self.config.rms_eps).at("norm")?.1)
    }

    /// Returns the hidden states (T, C) that the head reads: the final norm of [`Llama::forward`].
    ///
    /// # Errors
    /// When an op fails; the error names the layer and the linear.
    pub fn hidden(&self, cx: &Ctx, batch: &PackedBatch, options: ForwardOptions) -> Result<Tensor> {
        self.final_norm(cx, &self.forward(cx, batch, options)?)
    }

    /// Returns the logits (T, V) of the final norm's output `normed` (T, C).
    ///
    /// # Errors
    /// When an op fails, or a rank is gone.
    pub fn logits(&self, cx: &Ctx, normed: &Tensor) -> Result<Tensor> {
        let local = linear(cx, normed, &self.head_weight(cx)?).at("lm_head")?;
        let logits = self.rank_layout.gather_logits(cx, local, self.config.vocab)?;
        logits.relabel(Label::Activations, Label::Logits);
        Ok(logits)
    }

    /// Returns `scale` · Σ −log p(target) over the labelled tokens, and each token's log p. Full logits never exist.
    ///
    /// # Errors
    /// When an op fails; the error names the layer and the linear.
    pub fn loss(
        &self,
        cx: &Ctx,
        batch: &PackedBatch,
        targets: &Targets,
        scale: f32,
        options: ForwardOptions,
    ) -> Result<(Tensor, Tensor)> {
        self.cross_entropy(cx, &self.hidden(cx, batch, options)?, targets, scale)
    }

    /// Returns what [`Llama::loss`] does, from [`Llama::hidden`].
    ///
    /// # Errors
    /// When the op fails, or a rank is gone.
    pub fn cross_entropy(
        &self,
        cx: &Ctx,
        hidden: &Tensor,
        targets: &Targets,
        scale: f32,
    ) -> Result<(Tensor, Tensor)> {
        let vocabulary = self.rank_layout.vocabulary(&self.config);
        let run = || {
            let hidden = copy_to_tensor_parallel(cx, hidden)?;
            vocab_parallel_xent(cx, &hidden, &self.head_weight(cx)?, targets, scale, vocabulary)
        };
        run().at("lm_head")
    }

    /// Returns `scale` · Σ KL(teacher ‖ this model) over the labelled tokens, and each token's divergence, from
    /// [`Llama::hidden`] of both. Full logits never exist.
    ///
    /// # Errors
    /// When the op fails, or a rank is gone; under layout `tensor`, where no rank has the full head.
    pub fn divergence(
        &self,
        cx: &Ctx,
        [hidden, teacher]: [&Tensor; 2],
        targets: &Targets,
        scale: f32,
    ) -> Result<(Tensor, Tensor)> {
        self.check_divergence()?;
        distill(cx, hidden, teacher, &self.head_weight(cx)?, targets, scale).at("lm_head")
    }

    /// Checks that the layout has a [`Llama::divergence`].
    ///
    /// # Errors
    /// When it has not.
    pub fn check_divergence(&self) -> Result<()> {
        match self.rank_layout.layout() {
            Layout::Replicate | Layout::Shard => Ok(()),
            Layout::Tensor => Err(Error::new(
                "--layout tensor has no distillation, which needs the full head on each rank: use --layout shard",
            )),
        }
    }

    fn head_weight(&self, cx: &Ctx) -> Result<Tensor> {
        self.head.as_ref().unwrap_or(&self.embedding).get(cx)
    }

    /// Joins the gathers of other ranks' batch, on a rank that has no batch itself; `cx` records if theirs does.
    ///
    /// # Errors
    /// When a rank is gone.
    pub fn join_gathers(&self, cx: &Ctx) -> Result<()> {
        self.shards.as_ref().map_or(Ok(()), |shards| shards.join_gathers(cx))
    }

    /// Joins the gathers of other ranks' [`Llama::hidden`] without a tape, on a rank that does not run it.
    ///
    /// # Errors
    /// When a rank is gone.
    pub fn join_hidden_gathers(&self) -> Result<()> {
        self.shards.as_ref().map_or(Ok(()), |shards| shards.join_hidden_gathers())
    }

    /// Joins the gathers that remain after a batch's backward, on every rank that had a batch.
    ///
    /// # Errors
    /// When a rank is gone.
    pub fn finish_backward(&self) -> Result<()> {
        self.shards.as_ref().map_or(Ok(()), |shards| shards.finish_backward())
    }

    /// Every tensor that wants a gradient, named as in a checkpoint or an adapter file, in a fixed order.
    pub fn trainable(&self) -> Vec<(String, &Tensor)> {
        let named = |name: &str, t| (name.to_owned(), t);
        let embedding = self.embedding.local().map(|t| named(EMBEDDING, t));
        let mut all: Vec<(String, &Tensor)> = embedding.into_iter().collect();
        all.extend(self.layers.iter().flat_map(|layer| layer.tensors()));
        all.push(named("model.norm.weight", &self.norm));
        all.extend(self.head.iter().filter_map(Weight::local).map(|t| named(HEAD, t)));
        all.retain(|(_, t)| t.id().is_some());
        all
    }

    /// Gathers the full tensor of which `t` is this rank's slice: the trained tensor called `name`, or one shaped
    /// like it. The result is a copy in host memory; a tensor that is not sliced is returned unchanged. A
    /// collective: every rank calls it.
    ///
    /// # Errors
    /// When a rank is gone, or the device fails.
    pub fn gather_full(&self, name: &str, t: &Tensor) -> Result<Tensor> {
        self.rank_layout.gather_full(name, t, self.config.vocab).at(name)
    }

    /// Mutable [`Llama::trainable`], for the optimizer.
    ///
    /// # Errors
    /// When a tape or another holder still reads a weight.
    pub fn trainable_mut(&mut self) -> Result<Vec<(String, &mut Tensor)>> {
        let mut all = self.tensors_mut()?;
        all.retain(|(_, t)| t.id().is_some());
        Ok(all)
    }

    /// Every tensor that this rank holds in full or as its slice, in the order of [`Llama::trainable`].
    fn tensors_mut(&mut self) -> Result<Vec<(String, &mut Tensor)>> {
        let named = |name: &str, t| (name.to_owned(), t);
        let embedding = self.embedding.local_mut().map(|t| named(EMBEDDING, t));
        let mut all: Vec<(String, &mut Tensor)> = embedding.into_iter().collect();
        for layer in &mut self.layers {
            all.extend(exclusive(layer)?.tensors_mut());
        }
        all.push(named("model.norm.weight", &mut self.norm));
        all.extend(self.head.iter_mut().filter_map(Weight::local_mut).map(|t| named(HEAD, t)));
        Ok(all)
    }
}

/// Returns a layer to be changed.
///
/// # Errors
/// When a tape still holds it.
fn exclusive(layer: &mut Arc<Layer>) -> Result<&mut Layer> {
    Arc::get_mut(layer).ok_or_else(|| Error::new("a layer is still in use by a tape"))
}
