//! Llama: the decoder that Code Llama is, for training on packed documents and for paged generation.
//!
//! A layer is two residual blocks: h += o(attend(rope(q), rope(k), v)); h += down(silu(gate) ⊙ up), each after an
//! RMSNorm. What differs between training and serving is only where a layer's keys and values go, which the caller
//! says with a function ([`Layer::forward`]).

use crate::adapter::Adapter;
use crate::checkpoint::Checkpoint;
use crate::config::{self, Config};
use crate::parallel::{Split, enter, leave};
use crate::part::Part;
use codelsi_engine::{At, Ctx, DType, Device, Error, Label, Result, Tensor};
use codelsi_kernels::elementwise::add;
use codelsi_kernels::flash::{Heads, flash};
use codelsi_kernels::lora::{self, Dropout, lora};
use codelsi_kernels::rmsnorm::{add_rmsnorm, rmsnorm};
use codelsi_kernels::xent::{Targets, xent_part};
use codelsi_kernels::{embed::embed_part, gemm::linear, rope, swiglu::swiglu};
use std::sync::Arc;

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
    embedding: Tensor,
    layers: Vec<Arc<Layer>>,
    norm: Tensor,
    /// None when tied to the embedding.
    head: Option<Tensor>,
    /// cos and sin of every position.
    rope: Tensor,
}

/// One decoder layer.
pub struct Layer {
    index: usize,
    /// This rank's.
    heads: Heads,
    eps: f32,
    input_norm: Tensor,
    post_norm: Tensor,
    /// By [`config::Linear`].
    projections: [Projection; 7],
}

/// A linear of a layer, perhaps adapted.
struct Projection {
    weight: Tensor,
    /// What this rank holds of the whole weight.
    part: Part,
    adapter: Option<LowRank>,
}

/// A, B and alpha / R of one adapted linear.
struct LowRank {
    a: Tensor,
    b: Tensor,
    scale: f32,
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
        let layers = (0..config.layers).map(|i| Ok(Arc::new(Layer::load(&split, &config, i, &weight)?)));
        let model = Llama {
            embedding: weight("model.embed_tokens.weight")?,
            layers: layers.collect::<Result<_>>()?,
            norm: weight("model.norm.weight")?,
            head: if config.tied { None } else { Some(weight("lm_head.weight")?) },
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

    /// Puts an adapter on, replacing any other. Its matrices want gradients when it is to be trained.
    ///
    /// # Errors
    /// When the adapter does not fit the model.
    pub fn attach(&mut self, adapter: &Adapter, train: Train) -> Result<()> {
        let split = &self.split;
        let own = |path: &str, factor: char, t: &Tensor| -> Result<Tensor> {
            let part = split.take(&format!("{path}.lora_{factor}.weight"), t, Label::Adapters)?;
            Ok(if train == Train::Adapters { part.with_grad() } else { part })
        };
        for (i, layer) in self.layers.iter_mut().enumerate() {
            let layer = unshared(layer)?;
            for linear in config::Linear::ALL {
                let projection = &mut layer.projections[linear as usize];
                let path = linear.path(i);
                projection.adapter = match adapter.pairs.get(&path) {
                    Some(pair) => {
                        let (a, b) = (own(&path, 'A', &pair.a)?, own(&path, 'B', &pair.b)?);
                        Some(LowRank { scale: adapter.scaling(a.shape()[0]), a, b })
                    }
                    None => None,
                };
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
        let part = embed_part(cx, &self.embedding, ids, self.compute, self.split.vocabulary(&self.config))?;
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
                    flash(cx, q, k, v, &batch.documents, layer.heads)
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
        let part = linear(cx, normed, self.head_weight()).at("lm_head")?;
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
        let run = || xent_part(cx, &enter(cx, &normed)?, self.head_weight(), targets, scale, vocabulary);
        run().at("lm_head")
    }

    fn head_weight(&self) -> &Tensor {
        self.head.as_ref().unwrap_or(&self.embedding)
    }

    /// Every tensor that wants a gradient, named as in a checkpoint or an adapter file, in a fixed order.
    pub fn trainable(&self) -> Vec<(String, &Tensor)> {
        let mut all = vec![("model.embed_tokens.weight".to_owned(), &self.embedding)];
        for layer in &self.layers {
            all.extend(layer.tensors());
        }
        all.push(("model.norm.weight".to_owned(), &self.norm));
        all.extend(self.head.iter().map(|head| ("lm_head.weight".to_owned(), head)));
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
        let mut all = vec![("model.embed_tokens.weight".to_owned(), &mut self.embedding)];
        for layer in &mut self.layers {
            all.extend(unshared(layer)?.tensors_mut());
        }
        all.push(("model.norm.weight".to_owned(), &mut self.norm));
        all.extend(self.head.iter_mut().map(|head| ("lm_head.weight".to_owned(), head)));
        all.retain(|(_, t)| t.id().is_some());
        Ok(all)
    }
}

/// Where the rows of a batch stand.
#[derive(Clone, Copy)]
pub struct Place<'a> {
    /// (T) i32.
    pub positions: &'a Tensor,
    /// The rotary table.
    pub rope: &'a Tensor,
    /// (T) i32 dropout keys; inference has none.
    pub keys: Option<&'a Tensor>,
}

/// What attention reads: the normed input, and rotated q and k, and v.
pub struct Qkv {
    pub normed: Tensor,
    pub q: Tensor,
    pub k: Tensor,
    pub v: Tensor,
}

impl Layer {
    fn load(
        split: &Split,
        config: &Config,
        index: usize,
        weight: &dyn Fn(&str) -> Result<Tensor>,
    ) -> Result<Self> {
        let norm = |name: &str| weight(&format!("model.layers.{index}.{name}.weight"));
        let mut projections = Vec::with_capacity(7);
        for linear in config::Linear::ALL {
            let (name, (out, inner)) =
                (format!("{}.weight", linear.path(index)), config.linear_shape(linear));
            let part = split.part(&name, &[out, inner]);
            projections.push(Projection { weight: weight(&name)?, part, adapter: None });
        }
        Ok(Layer {
            index,
            heads: split.heads(config),
            eps: config.rms_eps,
            input_norm: norm("input_layernorm")?,
            post_norm: norm("post_attention_layernorm")?,
            projections: projections.try_into().unwrap_or_else(|_| unreachable!("seven linears")),
        })
    }

    /// This rank's heads.
    pub fn heads(&self) -> Heads {
        self.heads
    }

    /// The layer's output (T, C). `attend` gets rotated q and k, and v, and returns attention's output.
    ///
    /// # Errors
    /// Carry the layer and the linear.
    pub fn forward(
        &self,
        cx: &Ctx,
        h: &Tensor,
        place: Place,
        dropout: f32,
        attend: impl FnOnce(&Ctx, &Tensor, &Tensor, &Tensor) -> Result<Tensor>,
    ) -> Result<Tensor> {
        let run = || {
            let x = self.qkv(cx, h, place, dropout)?;
            let o = attend(cx, &x.q, &x.k, &x.v).at("self_attn")?;
            let attention = self.attention_output(cx, &o, place, dropout)?;
            let (h, normed) = add_rmsnorm(cx, h, &attention, &self.post_norm, self.eps)?;
            add(cx, &h, &self.mlp(cx, &normed, place, dropout)?)
        };
        run().at(format!("layers.{}", self.index))
    }

    /// The input norm, and q, k and v of its output.
    pub fn qkv(&self, cx: &Ctx, h: &Tensor, place: Place, dropout: f32) -> Result<Qkv> {
        use config::Linear::{K, Q, V};
        let normed = rmsnorm(cx, h, &self.input_norm, self.eps)?;
        let mut qkv = self.project(cx, &normed, &[Q, K, V], place, dropout)?;
        let (v, k, q) = (qkv.pop(), qkv.pop(), qkv.pop());
        let (Some(q), Some(k), Some(v)) = (q, k, v) else { unreachable!("three projections") };
        Ok(Qkv {
            q: rope::rope(cx, &q, place.positions, place.rope, self.heads.heads).at("self_attn")?,
            k: rope::rope(cx, &k, place.positions, place.rope, self.heads.kv_heads).at("self_attn")?,
            v,
            normed,
        })
    }

    /// Attention's share of the residual stream: o_proj of `o` (T, H·D).
    pub fn attention_output(&self, cx: &Ctx, o: &Tensor, place: Place, dropout: f32) -> Result<Tensor> {
        Ok(self.project(cx, o, &[config::Linear::O], place, dropout)?.swap_remove(0))
    }

    /// The feed-forward share of the residual stream, from the second norm's output.
    pub fn mlp(&self, cx: &Ctx, normed: &Tensor, place: Place, dropout: f32) -> Result<Tensor> {
        use config::Linear::{Down, Gate, Up};
        let gate_up = self.project(cx, normed, &[Gate, Up], place, dropout)?;
        let x = swiglu(cx, &gate_up[0], &gate_up[1]).at("mlp")?;
        Ok(self.project(cx, &x, &[Down], place, dropout)?.swap_remove(0))
    }

    /// The second norm of `residual + attention`, and their sum.
    pub fn post_norm(&self, cx: &Ctx, residual: &Tensor, attention: &Tensor) -> Result<(Tensor, Tensor)> {
        add_rmsnorm(cx, residual, attention, &self.post_norm, self.eps)
    }

    /// `linears` of one shared input: the adapted ones in one op, with one dropout mask.
    fn project(
        &self,
        cx: &Ctx,
        x: &Tensor,
        linears: &[config::Linear],
        place: Place,
        dropout: f32,
    ) -> Result<Vec<Tensor>> {
        let projections: Vec<&Projection> = linears.iter().map(|&l| &self.projections[l as usize]).collect();
        let x = projections[0].entering(cx, x)?;
        let factors = projections.iter().map(|p| p.factors(cx)).collect::<Result<Vec<_>>>()?;
        let targets: Vec<lora::Target> = projections
            .iter()
            .zip(&factors)
            .filter_map(|(p, f)| Some(f.as_ref()?.target(&p.weight)))
            .collect();
        let names = || linears.iter().map(|l| l.name()).collect::<Vec<_>>().join("+");
        let site = (self.index * config::Linear::ALL.len() + linears[0] as usize) as u32;
        let dropout = place.keys.map(|tokens| Dropout {
            p: dropout,
            key: cx.key(site),
            tokens: tokens.clone(),
            first: projections[0].first_channel(),
        });
        let adapted = match targets.is_empty() {
            true => Vec::new(),
            false => lora(cx, &x, &targets, dropout).at(names())?,
        };
        let mut adapted = adapted.into_iter();
        let mut outs = Vec::with_capacity(linears.len());
        for (l, projection) in linears.iter().zip(&projections) {
            let y = match projection.adapter {
                Some(_) => adapted.next().ok_or_else(|| Error::new("lora gave too few outputs"))?,
                None => linear(cx, &x, &projection.weight).at(l.name())?,
            };
            outs.push(projection.leaving(cx, y).at(l.name())?);
        }
        Ok(outs)
    }

    fn tensors(&self) -> Vec<(String, &Tensor)> {
        let mut all = vec![
            (self.name("input_layernorm.weight"), &self.input_norm),
            (self.name("post_attention_layernorm.weight"), &self.post_norm),
        ];
        for (linear, p) in config::Linear::ALL.iter().zip(&self.projections) {
            let path = linear.path(self.index);
            all.push((format!("{path}.weight"), &p.weight));
            if let Some(LowRank { a, b, .. }) = &p.adapter {
                all.extend([(format!("{path}.lora_A.weight"), a), (format!("{path}.lora_B.weight"), b)]);
            }
        }
        all
    }

    fn tensors_mut(&mut self) -> Vec<(String, &mut Tensor)> {
        let names: Vec<String> = self.tensors().into_iter().map(|(name, _)| name).collect();
        let mut all = vec![&mut self.input_norm, &mut self.post_norm];
        for p in &mut self.projections {
            all.push(&mut p.weight);
            all.extend(p.adapter.iter_mut().flat_map(|LowRank { a, b, .. }| [a, b]));
        }
        names.into_iter().zip(all).collect()
    }

    fn name(&self, tensor: &str) -> String {
        format!("model.layers.{}.{tensor}", self.index)
    }
}

impl Projection {
    /// Its input: what ranks that hold other rows find of its gradient is summed.
    fn entering(&self, cx: &Ctx, x: &Tensor) -> Result<Tensor> {
        if matches!(self.part, Part::Rows(_)) { enter(cx, x) } else { Ok(x.clone()) }
    }

    /// Its output: the sum of what ranks that hold other columns make of theirs.
    fn leaving(&self, cx: &Ctx, y: Tensor) -> Result<Tensor> {
        if matches!(self.part, Part::Columns(_)) { leave(cx, y) } else { Ok(y) }
    }

    /// The adapter's factors. The one that is copied has a gradient from every rank.
    fn factors(&self, cx: &Ctx) -> Result<Option<LowRank>> {
        let Some(LowRank { a, b, scale }) = &self.adapter else { return Ok(None) };
        let (a, b) = match self.part {
            Part::Rows(_) => (enter(cx, a)?, b.clone()),
            Part::Columns(_) => (a.clone(), enter(cx, b)?),
            _ => (a.clone(), b.clone()),
        };
        Ok(Some(LowRank { a, b, scale: *scale }))
    }

    /// What the first channel of its input is in the whole.
    fn first_channel(&self) -> usize {
        if let Part::Columns(columns) = &self.part { columns.start } else { 0 }
    }
}

impl LowRank {
    fn target<'a>(&'a self, w: &'a Tensor) -> lora::Target<'a> {
        lora::Target { w, a: &self.a, b: &self.b, scale: self.scale }
    }
}

/// The only holder's access to a layer.
fn unshared(layer: &mut Arc<Layer>) -> Result<&mut Layer> {
    Arc::get_mut(layer).ok_or_else(|| Error::new("a layer is still in use by a tape"))
}
