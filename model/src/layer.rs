//! One decoder layer: two residual blocks, h += o(attend(rope(q), rope(k), v)) and h += down(silu(gate) ⊙ up), each after
//! an RMSNorm.
//!
//! What differs between training and serving is only where a layer's keys and values go, which the caller says with a
//! function ([`Layer::forward`]). A linear knows what this rank holds of it, and where the ranks meet.

use crate::adapter::Adapter;
use crate::adapter::method::Block;
use crate::change::{Change, Changed, outputs};
use crate::config::{self, Config};
use crate::parallel::shard::Weight;
use crate::parallel::{Split, enter, leave};
use crate::part::Part;
use codelsi_engine::{At, Ctx, Error, Result, Tensor};
use codelsi_kernels::elementwise::add;
use codelsi_kernels::flash::Heads;
use codelsi_kernels::gemm::linear;
use codelsi_kernels::lora::Dropout;
use codelsi_kernels::rmsnorm::{add_rmsnorm, rmsnorm};
use codelsi_kernels::{rope, swiglu::swiglu};

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
    /// What changes the outputs of attention and MLP, by [`Block::NAMES`].
    blocks: [Option<Change>; 2],
}

/// A linear of a layer, perhaps adapted.
struct Projection {
    weight: Weight,
    /// What this rank holds of the whole weight.
    part: Part,
    change: Option<Change>,
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
    pub(crate) fn load(
        split: &Split,
        config: &Config,
        index: usize,
        weight: &dyn Fn(&str) -> Result<Tensor>,
        matrix: &dyn Fn(usize, &str) -> Result<Weight>,
    ) -> Result<Self> {
        let norm = |name: &str| weight(&format!("model.layers.{index}.{name}.weight"));
        let mut projections = Vec::with_capacity(7);
        for linear in config::Linear::ALL {
            let (name, (out, inner)) =
                (format!("{}.weight", linear.path(index)), config.linear_shape(linear));
            let part = split.part(&name, &[out, inner]);
            projections.push(Projection { weight: matrix(index + 1, &name)?, part, change: None });
        }
        Ok(Layer {
            index,
            heads: split.heads(config),
            eps: config.rms_eps,
            input_norm: norm("input_layernorm")?,
            post_norm: norm("post_attention_layernorm")?,
            projections: projections.try_into().unwrap_or_else(|_| unreachable!("seven linears")),
            blocks: [None, None],
        })
    }

    /// Puts this layer's part of an adapter on, replacing any other; `own` takes this rank's part of a named tensor.
    pub(crate) fn put_on(
        &mut self,
        adapter: &Adapter,
        own: &dyn Fn(&str, &Tensor) -> Result<Tensor>,
    ) -> Result<()> {
        let change = |path: &str| {
            let pair = adapter.pairs.get(path);
            pair.map(|pair| Change::new(&adapter.settings, pair, |name, t| own(&format!("{path}.{name}"), t)))
                .transpose()
        };
        for linear in config::Linear::ALL {
            self.projections[linear as usize].change = change(&linear.path(self.index))?;
        }
        for (block, name) in self.blocks.iter_mut().zip(Block::NAMES) {
            *block = change(&Block::path(name, self.index))?;
        }
        Ok(())
    }

    /// Forms once what does not change while nothing is trained.
    pub(crate) fn settle(&mut self, cx: &Ctx) -> Result<()> {
        let mut changed = self.projections.iter_mut().filter_map(|p| Some((&p.weight, p.change.as_mut()?)));
        changed.try_for_each(|(weight, change)| change.settle(cx, weight))
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
        let y = self.project(cx, o, &[config::Linear::O], place, dropout)?.swap_remove(0);
        self.after(cx, 0, y, config::Linear::O, place, dropout)
    }

    /// The feed-forward share of the residual stream, from the second norm's output.
    pub fn mlp(&self, cx: &Ctx, normed: &Tensor, place: Place, dropout: f32) -> Result<Tensor> {
        use config::Linear::{Down, Gate, Up};
        let gate_up = self.project(cx, normed, &[Gate, Up], place, dropout)?;
        let x = swiglu(cx, &gate_up[0], &gate_up[1]).at("mlp")?;
        let y = self.project(cx, &x, &[Down], place, dropout)?.swap_remove(0);
        self.after(cx, 1, y, Down, place, dropout)
    }

    /// The second norm of `residual + attention`, and their sum.
    pub fn post_norm(&self, cx: &Ctx, residual: &Tensor, attention: &Tensor) -> Result<(Tensor, Tensor)> {
        add_rmsnorm(cx, residual, attention, &self.post_norm, self.eps)
    }

    /// A block's output `y`, through the bottleneck after it if there is one.
    fn after(
        &self,
        cx: &Ctx,
        block: usize,
        y: Tensor,
        last: config::Linear,
        place: Place,
        dropout: f32,
    ) -> Result<Tensor> {
        let Some(change) = &self.blocks[block] else { return Ok(y) };
        let mask = self.mask(cx, last, place, dropout, 0);
        change.bottleneck(cx, &y, mask.as_ref()).at(Block::NAMES[block])
    }

    /// Dropout of the input that `linear` and those after it share, from its channel `first` on.
    fn mask(&self, cx: &Ctx, linear: config::Linear, place: Place, p: f32, first: usize) -> Option<Dropout> {
        let site = (self.index * config::Linear::ALL.len() + linear as usize) as u32;
        place.keys.map(|tokens| Dropout { p, key: cx.key(site), tokens: tokens.clone(), first })
    }

    /// `linears` of one shared input: the adapted ones together, with one dropout mask.
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
        let weights = projections.iter().map(|p| p.weight.get(cx)).collect::<Result<Vec<_>>>()?;
        let changed = projections.iter().zip(&weights).map(|(p, w)| p.changed(cx, w));
        let changed: Vec<Changed> = changed.filter_map(Result::transpose).collect::<Result<_>>()?;
        let names = || linears.iter().map(|l| l.name()).collect::<Vec<_>>().join("+");
        let mask = self.mask(cx, linears[0], place, dropout, projections[0].first_channel());
        let changed = match changed.is_empty() {
            true => Vec::new(),
            false => outputs(cx, &x, &changed, mask).at(names())?,
        };
        let mut changed = changed.into_iter();
        let mut outs = Vec::with_capacity(linears.len());
        for ((l, projection), w) in linears.iter().zip(&projections).zip(&weights) {
            let y = match projection.change {
                Some(_) => changed.next().ok_or_else(|| Error::new("the adapter gave too few outputs"))?,
                None => linear(cx, &x, w).at(l.name())?,
            };
            outs.push(projection.leaving(cx, y).at(l.name())?);
        }
        Ok(outs)
    }

    pub(crate) fn tensors(&self) -> Vec<(String, &Tensor)> {
        fn named<'a>(path: &str, change: &'a Change) -> Vec<(String, &'a Tensor)> {
            change.named().map(|(name, t)| (format!("{path}.{name}"), t)).collect()
        }
        let mut all = vec![
            (self.name("input_layernorm.weight"), &self.input_norm),
            (self.name("post_attention_layernorm.weight"), &self.post_norm),
        ];
        for (linear, p) in config::Linear::ALL.iter().zip(&self.projections) {
            let path = linear.path(self.index);
            all.extend(p.weight.here().map(|w| (format!("{path}.weight"), w)));
            all.extend(p.change.iter().flat_map(|c| named(&path, c)));
        }
        for (block, name) in self.blocks.iter().zip(Block::NAMES) {
            all.extend(block.iter().flat_map(|c| named(&Block::path(name, self.index), c)));
        }
        all
    }

    pub(crate) fn tensors_mut(&mut self) -> Vec<(String, &mut Tensor)> {
        let names: Vec<String> = self.tensors().into_iter().map(|(name, _)| name).collect();
        let mut all = vec![&mut self.input_norm, &mut self.post_norm];
        for p in &mut self.projections {
            all.extend(p.weight.here_mut());
            all.extend(p.change.iter_mut().flat_map(Change::tensors_mut));
        }
        all.extend(self.blocks.iter_mut().flatten().flat_map(Change::tensors_mut));
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

    /// What changes it, over its weight `w`. The factor that is copied has a gradient from every rank.
    fn changed<'a>(&'a self, cx: &Ctx, w: &'a Tensor) -> Result<Option<Changed<'a>>> {
        let Some(change) = &self.change else { return Ok(None) };
        let [a, b] = change.factors();
        let (a, b) = match self.part {
            Part::Rows(_) => (enter(cx, a)?, b.clone()),
            Part::Columns(_) => (a.clone(), enter(cx, b)?),
            _ => (a.clone(), b.clone()),
        };
        Ok(Some(Changed { change, w, a, b }))
    }

    /// What the first channel of its input is in the whole.
    fn first_channel(&self) -> usize {
        if let Part::Columns(columns) = &self.part { columns.start } else { 0 }
    }
}
