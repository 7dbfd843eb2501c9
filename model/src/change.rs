//! What an adapter makes of a layer: one place for every method, in training and in serving.

use crate::adapter::{Method, Pair, Settings};
use crate::parallel::shard::Weight;
use codelsi_engine::{At, Ctx, Error, Label, Result, Tensor};
use codelsi_kernels::dora;
use codelsi_kernels::dropout::dropout;
use codelsi_kernels::elementwise::{add, relu};
use codelsi_kernels::gemm::linear;
use codelsi_kernels::lora::{Dropout, Target, lora};
use codelsi_kernels::mixture::gate;

/// The change of one linear, or of a block's output, on this rank.
pub(crate) struct Change {
    method: Method,
    scale: f32,
    tensors: Pair,
    /// DoRA's lengths of the rows of W + s B A, once they are settled: see [`Change::settle`].
    lengths: Option<Tensor>,
}

/// A changed linear in a batch: its weight, at hand, and the factors as they enter the batch.
pub(crate) struct Changed<'a> {
    pub change: &'a Change,
    pub w: &'a Tensor,
    pub a: Tensor,
    pub b: Tensor,
}

impl Change {
    /// This rank's part of a place's tensors; `own` takes it, given the tensor's name after the path.
    pub fn new(
        settings: &Settings,
        pair: &Pair,
        own: impl Fn(&str, &Tensor) -> Result<Tensor>,
    ) -> Result<Self> {
        let (method, scale) = (settings.method, settings.scaling());
        let tensors: Vec<&Tensor> = pair.tensors().collect();
        let tensors = Pair::made(method, |i| own(method.tensors()[i], tensors[i]))?;
        Ok(Change { method, scale, tensors, lengths: None })
    }

    /// The first two tensors.
    pub fn factors(&self) -> [&Tensor; 2] {
        [&self.tensors.a, &self.tensors.b]
    }

    /// By their names after the path.
    pub fn named(&self) -> impl Iterator<Item = (&'static str, &Tensor)> {
        self.method.tensors().iter().copied().zip(self.tensors.tensors())
    }

    /// In the order of [`Change::named`], to be written.
    pub fn tensors_mut(&mut self) -> impl Iterator<Item = &mut Tensor> {
        let Pair { a, b, beside } = &mut self.tensors;
        [a, b].into_iter().chain(beside)
    }

    /// Forms once what does not change while nothing is trained, over the linear's weight.
    ///
    /// # Errors
    /// When the device fails, or a rank is gone.
    pub fn settle(&mut self, cx: &Ctx, w: &Weight) -> Result<()> {
        if let Method::LowRank { dora: true, .. } = self.method {
            let ([a, b], w) = (self.factors(), w.get(cx)?);
            let lengths = dora::norms(cx, &Target { w: &w, a, b, scale: self.scale })?;
            lengths.relabel(Label::Activations, Label::Adapters);
            self.lengths = Some(lengths);
        }
        Ok(())
    }

    /// What stands beside the factors.
    fn beside(&self) -> Result<&Tensor> {
        self.tensors.beside.as_ref().ok_or_else(|| Error::new(format!("{} lacks a tensor", self.method)))
    }

    /// y + W_up relu(W_down drop(y)) of a block's output `y` (T, C).
    ///
    /// # Errors
    /// Those of the ops.
    pub fn bottleneck(&self, cx: &Ctx, y: &Tensor, mask: Option<&Dropout>) -> Result<Tensor> {
        let [down, up] = self.factors();
        let narrow = relu(cx, &linear(cx, &dropout(cx, y, mask)?, down)?)?;
        add(cx, y, &linear(cx, &narrow, up)?)
    }
}

impl Changed<'_> {
    fn target(&self) -> Target<'_> {
        Target { w: self.w, a: &self.a, b: &self.b, scale: self.change.scale }
    }

    /// `y` of [`lora`], each channel of the length that DoRA gives it.
    fn magnified(&self, cx: &Ctx, y: &Tensor) -> Result<Tensor> {
        let lengths = match &self.change.lengths {
            Some(lengths) => lengths.clone(),
            None => dora::norms(cx, &self.target())?,
        };
        dora::magnify(cx, y, self.change.beside()?, &lengths)
    }

    /// x Wᵀ + s Σ g_e (x̃ A_eᵀ) B_eᵀ, where x̃ is `dropped`.
    fn mixed(&self, cx: &Ctx, x: &Tensor, dropped: &Tensor) -> Result<Tensor> {
        let logits = linear(cx, x, self.change.beside()?)?;
        let gated = gate(cx, &linear(cx, dropped, &self.a)?, &logits, self.change.scale)?;
        add(cx, &linear(cx, x, self.w)?, &linear(cx, &gated, &self.b)?)
    }
}

/// The outputs of `linears` (one at least, of one method), which share the input `x` and its dropout.
///
/// # Errors
/// Those of the ops.
pub(crate) fn outputs(
    cx: &Ctx,
    x: &Tensor,
    linears: &[Changed],
    mask: Option<Dropout>,
) -> Result<Vec<Tensor>> {
    match linears[0].change.method {
        Method::LowRank { dora, .. } => {
            let targets: Vec<Target> = linears.iter().map(Changed::target).collect();
            let outs = lora(cx, x, &targets, mask)?;
            match dora {
                true => outs.iter().zip(linears).map(|(y, l)| l.magnified(cx, y)).collect(),
                false => Ok(outs),
            }
        }
        Method::Mixture { .. } => {
            let dropped = dropout(cx, x, mask.as_ref())?;
            linears.iter().map(|l| l.mixed(cx, x, &dropped)).collect()
        }
        Method::Bottleneck => Err(Error::new("a bottleneck stands after a block, not beside a linear")),
    }
    .at(linears[0].change.method.to_string())
}
