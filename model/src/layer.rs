//! One decoder layer: two residual blocks, h += o(attend(rope(q), rope(k), v)) and h += down(silu(gate) ⊙ up), each
//! after an RMSNorm.
//!
//! Training and serving differ only in where a layer's keys and values go, which the caller decides with the
//! closure `attend` ([`Layer::forward`]), and in who sums the residual stream ([`ResidualStream`]). A linear stores
//! the slice of the weight that this rank holds, which determines where ranks communicate.

use crate::adapter::Adapter;
use crate::adapter::method::{SUBLAYERS, bottleneck_path};
use crate::adapter_stack::RowAdapters;
use crate::bound_adapter::{self, AdaptedLinear, BoundAdapter};
use crate::checkpoint::TensorSlice;
use crate::config::{self, ModelConfig};
use crate::parallel::shard::Weight;
use crate::parallel::{RankLayout, copy_to_tensor_parallel, reduce_from_tensor_parallel};
use codelsi_engine::{At, Ctx, Error, Result, Tensor};
use codelsi_kernels::bias::add_bias;
use codelsi_kernels::dropout::{Dropout, DropoutRate};
use codelsi_kernels::elementwise::add;
use codelsi_kernels::flash::Heads;
use codelsi_kernels::gemm::{gated_linear, linears};
use codelsi_kernels::lora::Turns;
use codelsi_kernels::rmsnorm::{add_rmsnorm, rmsnorm};
use codelsi_kernels::{rope, swiglu::swiglu};

/// One decoder layer.
pub struct Layer {
    index: usize,
    /// This rank's heads.
    heads: Heads,
    eps: f32,
    input_norm: Tensor,
    post_norm: Tensor,
    /// Indexed by [`config::Linear`].
    projections: [Projection; 7],
    /// Adapters of the outputs of attention and MLP, in the order of [`SUBLAYERS`].
    bottlenecks: [Option<BoundAdapter>; 2],
}

/// A linear of a layer, and its adapter if it has one.
struct Projection {
    weight: Weight,
    /// Added to what the adapter returns, once the ranks' partial results are summed.
    bias: Option<Tensor>,
    /// The tensor-parallel slice of the full weight that this rank holds.
    slice: TensorSlice,
    adapter: Option<BoundAdapter>,
}

/// Positions and dropout keys of a batch's rows, and how they are computed.
#[derive(Clone, Copy)]
pub struct RowContext<'a> {
    /// Positions in their documents or sequences, (T) i32.
    pub positions: &'a Tensor,
    /// The rotary table, see [`crate::llama::Llama::rope`].
    pub rope: &'a Tensor,
    /// Dropout keys, (T) i32; none in inference.
    pub dropout_keys: Option<&'a Tensor>,
    /// Counters of adapters' launches; given in serving.
    pub turns: Option<&'a Turns>,
    /// The adapters of rows that each have their own; given in serving, where none is attached.
    pub adapters: Option<RowAdapters<'a>>,
}

/// Queries, keys and values of a layer.
pub struct Qkv {
    /// (T, H·D)
    pub q: Tensor,
    /// (T, K·D)
    pub k: Tensor,
    /// (T, K·D)
    pub v: Tensor,
}

/// The residual stream (T, C) between two layers. In serving the next norm adds what the last layer computed
/// ([`add_rmsnorm`]); training adds it in the layer, so that a checkpointed segment has one output.
pub struct ResidualStream {
    h: Tensor,
    /// To be added to `h`.
    addition: Option<Tensor>,
}

impl ResidualStream {
    /// Returns the stream's sum and its norm.
    pub(crate) fn norm(self, cx: &Ctx, w: &Tensor, eps: f32) -> Result<(Tensor, Tensor)> {
        match self.addition {
            Some(addition) => add_rmsnorm(cx, &self.h, &addition, w, eps),
            None => rmsnorm(cx, &self.h, w, eps).map(|normed| (self.h, normed)),
        }
    }

    /// Returns the stream's sum.
    ///
    /// # Errors
    /// When the op fails.
    pub fn sum(self, cx: &Ctx) -> Result<Tensor> {
        match self.addition {
            Some(addition) => add(cx, &self.h, &addition),
            None => Ok(self.h),
        }
    }
}

impl From<Tensor> for ResidualStream {
    fn from(h: Tensor) -> Self {
        ResidualStream { h, addition: None }
    }
}

impl From<&Tensor> for ResidualStream {
    fn from(h: &Tensor) -> Self {
        h.clone().into()
    }
}

impl Layer {
    /// Loads this rank's slice of a layer: norms by `weight`, linears, given their layer group, by `matrix`.
    pub(crate) fn load(
        rank_layout: &RankLayout,
        config: &ModelConfig,
        index: usize,
        weight: &dyn Fn(&str) -> Result<Tensor>,
        matrix: &dyn Fn(usize, &str) -> Result<Weight>,
    ) -> Result<Self> {
        let norm = |name: &str| weight(&format!("model.layers.{index}.{name}.weight"));
        let mut projections = Vec::with_capacity(7);
        for linear in config::LinearName::ALL {
            let (name, (out, inner)) =
                (format!("{}.weight", linear.path(index)), config.linear_shape(linear));
            let slice = rank_layout.slice(&name, &[out, inner]);
            let bias = config
                .has_bias(linear)
                .then(|| weight(&format!("{}.bias", linear.path(index))))
                .transpose()?;
            projections.push(Projection { weight: matrix(index + 1, &name)?, bias, slice, adapter: None });
        }
        Ok(Layer {
            index,
            heads: rank_layout.heads(config),
            eps: config.rms_eps,
            input_norm: norm("input_layernorm")?,
            post_norm: norm("post_attention_layernorm")?,
            projections: projections.try_into().unwrap_or_else(|_| unreachable!("seven linears")),
            bottlenecks: [None, None],
        })
    }

    /// Returns a layer of the same weights, in the same memory, without an adapter.
    pub(crate) fn without_adapter(&self) -> Self {
        let base = |p: &Projection| Projection {
            weight: p.weight.clone(),
            bias: p.bias.clone(),
            slice: p.slice.clone(),
            adapter: None,
        };
        Layer {
            input_norm: self.input_norm.clone(),
            post_norm: self.post_norm.clone(),
            projections: self.projections.each_ref().map(base),
            bottlenecks: [None, None],
            ..*self
        }
    }

    /// Attaches this layer's modules of an adapter, replacing any other adapter; `to_rank` copies this rank's slice
    /// of a named tensor.
    pub(crate) fn attach(
        &mut self,
        adapter: &Adapter,
        to_rank: &dyn Fn(&str, &Tensor) -> Result<Tensor>,
    ) -> Result<()> {
        let bind = |path: &str| {
            let to_rank = |name: &str, t: &Tensor| to_rank(&format!("{path}.{name}"), t);
            let full = adapter.modules.get(path);
            full.map(|full| BoundAdapter::new(&adapter.config, path, full, to_rank)).transpose()
        };
        for linear in config::LinearName::ALL {
            self.projections[linear as usize].adapter = bind(&linear.path(self.index))?;
        }
        for (bottleneck, sublayer) in self.bottlenecks.iter_mut().zip(SUBLAYERS) {
            *bottleneck = bind(&bottleneck_path(sublayer, self.index))?;
        }
        Ok(())
    }

    /// Precomputes the adapters' constants of inference.
    pub(crate) fn precompute(&mut self, cx: &Ctx) -> Result<()> {
        let mut adapted = self.projections.iter_mut().filter_map(|p| Some((&p.weight, p.adapter.as_mut()?)));
        adapted.try_for_each(|(weight, adapter)| adapter.precompute(cx, weight))
    }

    /// True if an adapter is attached.
    pub(crate) fn has_adapter(&self) -> bool {
        let linears = self.projections.iter().any(|projection| projection.adapter.is_some());
        linears || self.bottlenecks.iter().any(Option::is_some)
    }

    /// This rank's heads.
    pub fn heads(&self) -> Heads {
        self.heads
    }

    /// Returns the residual stream after the layer, from that before it. `attend` gets q, k and v, which are not
    /// rotated yet ([`Layer::rotate`]), and returns attention's output (T, H·D).
    ///
    /// # Errors
    /// When an op fails; the error names the layer and the linear.
    pub fn forward(
        &self,
        cx: &Ctx,
        stream: impl Into<ResidualStream>,
        rows: RowContext,
        dropout: DropoutRate,
        attend: impl FnOnce(&Ctx, Qkv) -> Result<Tensor>,
    ) -> Result<ResidualStream> {
        let run = || {
            let (h, normed) = self.input_norm(cx, stream)?;
            let o = attend(cx, self.qkv(cx, &normed, rows, dropout)?).at("self_attn")?;
            let attention = self.attention_output(cx, &o, rows, dropout)?;
            let (h, normed) = self.post_norm(cx, &h, &attention)?;
            let addition = Some(self.mlp(cx, &normed, rows, dropout)?);
            Ok(ResidualStream { h, addition })
        };
        run().at(format!("layers.{}", self.index))
    }

    /// Returns the layer's input (T, C) and its first norm.
    ///
    /// # Errors
    /// When the op fails.
    pub fn input_norm(&self, cx: &Ctx, stream: impl Into<ResidualStream>) -> Result<(Tensor, Tensor)> {
        stream.into().norm(cx, &self.input_norm, self.eps)
    }

    /// Returns the projections q, k and v of the first norm's output `normed` (T, C).
    ///
    /// # Errors
    /// When an op fails; the error names the linear.
    pub fn qkv(&self, cx: &Ctx, normed: &Tensor, rows: RowContext, dropout: DropoutRate) -> Result<Qkv> {
        use config::LinearName::{K, Q, V};
        let mut qkv = self.project(cx, normed, &[Q, K, V], rows, dropout)?;
        let (v, k, q) = (qkv.pop(), qkv.pop(), qkv.pop());
        let (Some(q), Some(k), Some(v)) = (q, k, v) else { unreachable!("three projections") };
        Ok(Qkv { q, k, v })
    }

    /// Returns q, k and v with q and k rotated by the positions of their rows.
    ///
    /// # Errors
    /// When the op fails.
    pub fn rotate(&self, cx: &Ctx, Qkv { q, k, v }: Qkv, rows: RowContext) -> Result<Qkv> {
        let rotated = |x: &Tensor, heads| rope::rope(cx, x, rows.positions, rows.rope, heads);
        Ok(Qkv { q: rotated(&q, self.heads.heads)?, k: rotated(&k, self.heads.kv_heads)?, v })
    }

    /// Returns attention's addition to the residual stream (T, C): o_proj of `o` (T, H·D).
    ///
    /// # Errors
    /// See [`Layer::qkv`].
    pub fn attention_output(
        &self,
        cx: &Ctx,
        o: &Tensor,
        rows: RowContext,
        dropout: DropoutRate,
    ) -> Result<Tensor> {
        let y = self.project(cx, o, &[config::LinearName::O], rows, dropout)?.swap_remove(0);
        self.adapt_sublayer(cx, 0, y, config::LinearName::O, rows, dropout)
    }

    /// Returns the MLP's addition to the residual stream (T, C), from the second norm's output `normed` (T, C).
    ///
    /// # Errors
    /// See [`Layer::qkv`].
    pub fn mlp(&self, cx: &Ctx, normed: &Tensor, rows: RowContext, dropout: DropoutRate) -> Result<Tensor> {
        use config::LinearName::{Down, Gate, Up};
        let plain = [Gate, Up].iter().all(|&l| !self.is_adapted(l, rows));
        let x = match [Gate, Up].map(|l| &self.projections[l as usize]) {
            [gate @ Projection { bias: None, .. }, up @ Projection { bias: None, .. }] if plain => {
                let (input, [gate, up]) = (gate.input(cx, normed)?, [gate, up].map(|p| p.weight.get(cx)));
                gated_linear(cx, &input, [&gate?, &up?]).at("gate_proj+up_proj")?
            }
            _ => {
                let gate_up = self.project(cx, normed, &[Gate, Up], rows, dropout)?;
                swiglu(cx, &gate_up[0], &gate_up[1]).at("mlp")?
            }
        };
        let y = self.project(cx, &x, &[Down], rows, dropout)?.swap_remove(0);
        self.adapt_sublayer(cx, 1, y, Down, rows, dropout)
    }

    /// Returns `residual + attention` and the second norm of that sum, all (T, C).
    ///
    /// # Errors
    /// When the op fails.
    pub fn post_norm(&self, cx: &Ctx, residual: &Tensor, attention: &Tensor) -> Result<(Tensor, Tensor)> {
        add_rmsnorm(cx, residual, attention, &self.post_norm, self.eps)
    }

    /// Applies the bottleneck, if there is one, to the output `y` of a sublayer, whose last linear is `last`.
    fn adapt_sublayer(
        &self,
        cx: &Ctx,
        sublayer: usize,
        y: Tensor,
        last: config::LinearName,
        rows: RowContext,
        dropout: DropoutRate,
    ) -> Result<Tensor> {
        let Some(bottleneck) = &self.bottlenecks[sublayer] else { return Ok(y) };
        let mask = self.dropout_mask(cx, last, rows, dropout, 0);
        bottleneck.bottleneck(cx, &y, mask.as_ref()).at(SUBLAYERS[sublayer])
    }

    /// Dropout, keyed by the layer and `linear`, of an input that begins with channel `first` of the unsharded input.
    fn dropout_mask(
        &self,
        cx: &Ctx,
        linear: config::LinearName,
        rows: RowContext,
        rate: DropoutRate,
        first: usize,
    ) -> Option<Dropout> {
        let site = (self.index * config::LinearName::ALL.len() + linear as usize) as u32;
        rows.dropout_keys.map(|tokens| Dropout {
            rate,
            key: cx.key(site),
            tokens: tokens.clone(),
            first_channel: first,
        })
    }

    /// Returns the outputs of `group`, that share the input `x`: the adapted ones in one op, with one dropout mask.
    fn project(
        &self,
        cx: &Ctx,
        x: &Tensor,
        group: &[config::LinearName],
        rows: RowContext,
        dropout: DropoutRate,
    ) -> Result<Vec<Tensor>> {
        let projections: Vec<&Projection> = group.iter().map(|&l| &self.projections[l as usize]).collect();
        let x = projections[0].input(cx, x)?;
        let weights = projections.iter().map(|p| p.weight.get(cx)).collect::<Result<Vec<_>>>()?;
        let names = || group.iter().map(|l| l.name()).collect::<Vec<_>>().join("+");
        let mask = self.dropout_mask(cx, group[0], rows, dropout, projections[0].first_channel());
        let adapted_outs = self.adapted_outs(cx, &x, group, &weights, rows, mask).at(names())?;
        let base = group.iter().zip(&weights).filter(|(l, _)| !self.is_adapted(**l, rows));
        let base_outs = linears(cx, &x, &base.map(|(_, w)| w).collect::<Vec<_>>()).at(names())?;
        let (mut adapted_outs, mut base_outs) = (adapted_outs.into_iter(), base_outs.into_iter());
        let mut outs = Vec::with_capacity(group.len());
        for (&l, projection) in group.iter().zip(&projections) {
            let made = if self.is_adapted(l, rows) { adapted_outs.next() } else { base_outs.next() };
            let y = made.ok_or_else(|| Error::new("the adapter returned too few outputs"))?;
            outs.push(projection.output(cx, y).at(l.name())?);
        }
        Ok(outs)
    }

    /// True if an adapter changes the linear: the attached one, or one of the rows'.
    fn is_adapted(&self, linear: config::LinearName, rows: RowContext) -> bool {
        self.projections[linear as usize].adapter.is_some()
            || rows.adapters.is_some_and(|adapters| adapters.adapts(self.index, linear))
    }

    /// Returns the outputs of the adapted linears of `group`, whose `weights` are given, in their order.
    fn adapted_outs(
        &self,
        cx: &Ctx,
        x: &Tensor,
        group: &[config::LinearName],
        weights: &[Tensor],
        rows: RowContext,
        mask: Option<Dropout>,
    ) -> Result<Vec<Tensor>> {
        if let (Some(adapters), Some(turns)) = (rows.adapters, rows.turns) {
            let adapted = group.iter().copied().zip(weights).filter(|&(l, _)| self.is_adapted(l, rows));
            let adapted: Vec<_> = adapted.collect();
            return match adapted.is_empty() {
                true => Ok(Vec::new()),
                false => adapters.forward(cx, x, self.index, &adapted, turns),
            };
        }
        let adapted = group.iter().zip(weights).map(|(&l, w)| self.projections[l as usize].adapted(cx, w));
        let adapted: Vec<AdaptedLinear> = adapted.filter_map(Result::transpose).collect::<Result<_>>()?;
        match adapted.is_empty() {
            true => Ok(Vec::new()),
            false => bound_adapter::forward(cx, x, &adapted, mask, rows.turns),
        }
    }

    /// Every local tensor, named as in a checkpoint or an adapter file, in a fixed order.
    pub(crate) fn tensors(&self) -> Vec<(String, &Tensor)> {
        fn named<'a>(path: &str, adapter: &'a BoundAdapter) -> Vec<(String, &'a Tensor)> {
            adapter.named().map(|(name, t)| (format!("{path}.{name}"), t)).collect()
        }
        let mut all = vec![
            (self.name("input_layernorm.weight"), &self.input_norm),
            (self.name("post_attention_layernorm.weight"), &self.post_norm),
        ];
        for (linear, p) in config::LinearName::ALL.iter().zip(&self.projections) {
            let path = linear.path(self.index);
            all.extend(p.weight.local().map(|w| (format!("{path}.weight"), w)));
            all.extend(p.bias.iter().map(|b| (format!("{path}.bias"), b)));
            all.extend(p.adapter.iter().flat_map(|adapter| named(&path, adapter)));
        }
        for (bottleneck, sublayer) in self.bottlenecks.iter().zip(SUBLAYERS) {
            let path = bottleneck_path(sublayer, self.index);
            all.extend(bottleneck.iter().flat_map(|adapter| named(&path, adapter)));
        }
        all
    }

    /// Mutable [`Layer::tensors`].
    pub(crate) fn tensors_mut(&mut self) -> Vec<(String, &mut Tensor)> {
        let names: Vec<String> = self.tensors().into_iter().map(|(name, _)| name).collect();
        let mut all = vec![&mut self.input_norm, &mut self.post_norm];
        for p in &mut self.projections {
            all.extend(p.weight.local_mut());
            all.extend(&mut p.bias);
            all.extend(p.adapter.iter_mut().flat_map(BoundAdapter::tensors_mut));
        }
        all.extend(self.bottlenecks.iter_mut().flatten().flat_map(BoundAdapter::tensors_mut));
        names.into_iter().zip(all).collect()
    }

    fn name(&self, tensor: &str) -> String {
        format!("model.layers.{}.{tensor}", self.index)
    }
}

impl Projection {
    /// Returns the input of the linear; backward sums the gradients of ranks that hold other rows.
    fn input(&self, cx: &Ctx, x: &Tensor) -> Result<Tensor> {
        if matches!(self.slice, TensorSlice::Rows(_)) {
            copy_to_tensor_parallel(cx, x)
        } else {
            Ok(x.clone())
        }
    }

    /// Returns the output of the linear: the sum of the partial results of ranks that hold other columns, and the bias.
    fn output(&self, cx: &Ctx, y: Tensor) -> Result<Tensor> {
        let y = match self.slice {
            TensorSlice::Columns(_) => reduce_from_tensor_parallel(cx, y)?,
            _ => y,
        };
        match &self.bias {
            Some(bias) => add_bias(cx, &y, bias),
            None => Ok(y),
        }
    }

    /// Returns the weight `w` with the adapter, if there is one. Backward sums the ranks' gradients of the replicated
    /// factor.
    fn adapted<'a>(&'a self, cx: &Ctx, w: &'a Tensor) -> Result<Option<AdaptedLinear<'a>>> {
        let Some(adapter) = &self.adapter else { return Ok(None) };
        let [a, b] = adapter.factors();
        let (a, b) = match self.slice {
            TensorSlice::Rows(_) => (copy_to_tensor_parallel(cx, a)?, b.clone()),
            TensorSlice::Columns(_) => (a.clone(), copy_to_tensor_parallel(cx, b)?),
            _ => (a.clone(), b.clone()),
        };
        Ok(Some(AdaptedLinear { adapter, w, a, b }))
    }

    /// Index of the input's first channel in the unsharded input.
    fn first_channel(&self) -> usize {
        if let TensorSlice::Columns(columns) = &self.slice { columns.start } else { 0 }
    }
}
