//! The part of an adapter that is bound to one linear, or to a block's output: one place for every method, in
//! training and in serving.

use crate::adapter::{AdapterConfig, AdapterTensors, Method};
use crate::parallel::shard::Weight;
use codelsi_engine::{At, Ctx, Error, Label, Result, Tensor};
use codelsi_kernels::dora;
use codelsi_kernels::dropout::{Dropout, dropout};
use codelsi_kernels::elementwise::{add, relu};
use codelsi_kernels::gemm::linear;
use codelsi_kernels::lora::{LoraLinear, Turns, lora, lora_decode};
use codelsi_kernels::mixture::gate;

/// This rank's adapter tensors of one linear, or of a block's output.
pub(crate) struct BoundAdapter {
    method: Method,
    scale: f32,
    tensors: AdapterTensors,
    /// DoRA's row norms ‖W + s B A‖ (out), once they are precomputed: see [`BoundAdapter::precompute`].
    row_norms: Option<Tensor>,
}

/// A linear with its adapter in one forward pass: the gathered weight, and the factors as they enter the ops.
pub(crate) struct AdaptedLinear<'a> {
    pub adapter: &'a BoundAdapter,
    /// (out, in)
    pub w: &'a Tensor,
    pub a: Tensor,
    pub b: Tensor,
}

impl BoundAdapter {
    /// Binds the tensors of the module at `path`; `to_rank` copies this rank's slice of a tensor, given its name after
    /// the path.
    pub fn new(
        settings: &AdapterConfig,
        path: &str,
        full: &AdapterTensors,
        to_rank: impl Fn(&str, &Tensor) -> Result<Tensor>,
    ) -> Result<Self> {
        let (method, scale) = (settings.method, settings.scaling(path));
        let full: Vec<&Tensor> = full.tensors().collect();
        let tensors = AdapterTensors::build(method, |i| to_rank(method.tensor_names()[i], full[i]))?;
        Ok(BoundAdapter { method, scale, tensors, row_norms: None })
    }

    /// The factors A and B.
    pub fn factors(&self) -> [&Tensor; 2] {
        [&self.tensors.a, &self.tensors.b]
    }

    /// The tensors with their names after the module's path.
    pub fn named(&self) -> impl Iterator<Item = (&'static str, &Tensor)> {
        self.method.tensor_names().iter().copied().zip(self.tensors.tensors())
    }

    /// Mutable tensors, in the order of [`BoundAdapter::named`].
    pub fn tensors_mut(&mut self) -> impl Iterator<Item = &mut Tensor> {
        let AdapterTensors { a, b, extra } = &mut self.tensors;
        [a, b].into_iter().chain(extra)
    }

    /// Precomputes the constants of inference: DoRA's row norms over the linear's weight `w`.
    ///
    /// # Errors
    /// When the device fails, or a rank is gone.
    pub fn precompute(&mut self, cx: &Ctx, w: &Weight) -> Result<()> {
        if let Method::LowRank { dora: true, .. } = self.method {
            let ([a, b], w) = (self.factors(), w.get(cx)?);
            let row_norms = dora::norms(cx, &LoraLinear { w: &w, a, b, scale: self.scale })?;
            row_norms.relabel(Label::Activations, Label::Adapters);
            self.row_norms = Some(row_norms);
        }
        Ok(())
    }

    /// DoRA's magnitude or a mixture's router.
    fn extra(&self) -> Result<&Tensor> {
        self.tensors.extra.as_ref().ok_or_else(|| Error::new(format!("{} lacks a tensor", self.method)))
    }

    /// Returns y + W_up relu(W_down drop(y)) for a block's output `y` (T, C).
    ///
    /// # Errors
    /// When an op fails.
    pub fn bottleneck(&self, cx: &Ctx, y: &Tensor, mask: Option<&Dropout>) -> Result<Tensor> {
        let [down, up] = self.factors();
        let narrow = relu(cx, &linear(cx, &dropout(cx, y, mask)?, down)?)?;
        add(cx, y, &linear(cx, &narrow, up)?)
    }
}

impl AdaptedLinear<'_> {
    fn target(&self) -> LoraLinear<'_> {
        LoraLinear { w: self.w, a: &self.a, b: &self.b, scale: self.adapter.scale }
    }

    /// Scales each channel of `y`, the output of [`lora`], from the norm of its row to DoRA's magnitude.
    fn apply_magnitude(&self, cx: &Ctx, y: &Tensor) -> Result<Tensor> {
        let row_norms = match &self.adapter.row_norms {
            Some(row_norms) => row_norms.clone(),
            None => dora::norms(cx, &self.target())?,
        };
        dora::magnify(cx, y, self.adapter.extra()?, &row_norms)
    }

    /// Returns x Wᵀ + s Σ g_e (x̃ A_eᵀ) B_eᵀ, where x̃ is `dropped` and the router weighs the experts by g.
    fn mixture(&self, cx: &Ctx, x: &Tensor, dropped: &Tensor) -> Result<Tensor> {
        let logits = linear(cx, x, self.adapter.extra()?)?;
        let gated = gate(cx, &linear(cx, dropped, &self.a)?, &logits, self.adapter.scale)?;
        add(cx, &linear(cx, x, self.w)?, &linear(cx, &gated, &self.b)?)
    }
}

/// Returns the outputs of `linears` (at least one, all of one method), which share the input `x` and its dropout. Serving
/// has `turns` and no dropout.
///
/// # Errors
/// When an op fails.
pub(crate) fn forward(
    cx: &Ctx,
    x: &Tensor,
    linears: &[AdaptedLinear],
    mask: Option<Dropout>,
    turns: Option<&Turns>,
) -> Result<Vec<Tensor>> {
    let method = linears[0].adapter.method;
    match method {
        Method::LowRank { dora, .. } => {
            let targets: Vec<LoraLinear> = linears.iter().map(AdaptedLinear::target).collect();
            let outs = match turns {
                Some(turns) => lora_decode(cx, x, &targets, None, turns)?,
                None => lora(cx, x, &targets, mask)?,
            };
            match dora {
                true => outs.iter().zip(linears).map(|(y, l)| l.apply_magnitude(cx, y)).collect(),
                false => Ok(outs),
            }
        }
        Method::Mixture { .. } => {
            let dropped = dropout(cx, x, mask.as_ref())?;
            linears.iter().map(|l| l.mixture(cx, x, &dropped)).collect()
        }
        Method::Bottleneck => Err(Error::new("a bottleneck adapts the output of a block, not a linear")),
    }
    .at(method.to_string())
}
