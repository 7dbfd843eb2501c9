//! Layout `tensor`: the slice of each tensor that a rank holds (Shoeybi et al., "Megatron-LM", arXiv 1909.08053).
//!
//! W is (out, in). Linears that read the residual stream are sliced by rows (ColumnParallelLinear: the columns of the
//! paper's A = Wᵀ), those that write it by columns (RowParallelLinear), embedding and head by rows of the vocabulary.
//! One of an adapter's factors is sliced as its W is, the other is replicated, and the ranks' gradients of the
//! replicated factor are summed:
//!
//! | linear | W | A | B | summed |
//! |---|---|---|---|---|
//! | q k v gate up | rows | replicated | rows | dA |
//! | o down | columns | columns | replicated | dB |
//!
//! A bias is sliced as the rows of its W are; that of o and down is replicated, and added once the ranks' results are
//! summed.

use super::layout::{Layout, RankLayout};
use crate::adapter::Method;
use crate::checkpoint::TensorSlice;
use crate::config::{LinearName, ModelConfig};
use codelsi_engine::{Comm, Ctx, DType, Device, Error, Label, Result, Tensor};
use codelsi_kernels::concat::concat;
use codelsi_kernels::flash::Heads;
use codelsi_kernels::rows::RowShard;
use codelsi_kernels::simd::Storage;
use half::bf16;
use std::ops::Range;

/// The division of a tensor among tensor-parallel ranks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TensorParallelRule {
    /// Not divided: every rank has a copy.
    Replicated,
    /// Divided by rows.
    Rows,
    /// Divided by columns.
    Columns,
}

impl RankLayout {
    /// Checks that the ranks can share a model.
    ///
    /// # Errors
    /// When heads or channels do not divide by the number of ranks.
    pub(crate) fn check_model(&self, config: &ModelConfig) -> Result<()> {
        if self.layout() != Layout::Tensor {
            return Ok(());
        }
        let ranks = self.comm().world();
        let check_divides = |name: &str, n: usize| match n % ranks {
            0 => Ok(()),
            _ => Err(Error::new(format!(
                "--layout tensor cannot assign {n} {name} to {ranks} ranks equally; use a number of ranks that \
                 divides them, or --layout shard"
            ))),
        };
        check_divides("attention heads", config.heads)?;
        check_divides("key and value heads", config.kv_heads)?;
        check_divides("channels of the MLP", config.intermediate)
    }

    /// Checks that the ranks can share an adapter.
    ///
    /// # Errors
    /// When the layout does not support its method.
    pub(crate) fn check_method(&self, method: Method) -> Result<()> {
        match (self.layout(), method) {
            (Layout::Tensor, Method::LowRank { dora: true, .. } | Method::Mixture { .. }) => Err(Error::new(
                format!("--layout tensor does not know {method}; use --layout replicate or shard"),
            )),
            _ => Ok(()),
        }
    }

    /// Returns the division of the tensor of that name: a checkpoint's weight, or `{linear}.lora_A.weight`.
    pub fn rule(&self, name: &str) -> TensorParallelRule {
        if self.layout() != Layout::Tensor {
            return TensorParallelRule::Replicated;
        }
        if is_vocabulary(name) {
            return TensorParallelRule::Rows;
        }
        let mut segments = name.rsplit('.').skip(1);
        let last = segments.next().unwrap_or_default();
        let is_factor = matches!(last, "lora_A" | "lora_B");
        let linear = if is_factor { segments.next().unwrap_or_default() } else { last };
        match (linear.parse(), last) {
            (Err(_), _) => TensorParallelRule::Replicated,
            (Ok(LinearName::O | LinearName::Down), _) if name.ends_with(".bias") => {
                TensorParallelRule::Replicated
            }
            (Ok(LinearName::O | LinearName::Down), "lora_B") => TensorParallelRule::Replicated,
            (Ok(LinearName::O | LinearName::Down), _) => TensorParallelRule::Columns,
            (Ok(_), "lora_A") => TensorParallelRule::Replicated,
            (Ok(_), _) => TensorParallelRule::Rows,
        }
    }

    /// Returns this rank's slice of the tensor of that name and full shape.
    pub fn slice(&self, name: &str, shape: &[usize]) -> TensorSlice {
        match self.rule(name) {
            TensorParallelRule::Replicated => TensorSlice::Full,
            TensorParallelRule::Rows => TensorSlice::Rows(self.local_range(shape[0])),
            TensorParallelRule::Columns => TensorSlice::Columns(self.local_range(shape[1])),
        }
    }

    /// Returns this rank's range of `n` heads, MLP channels or rows of the vocabulary.
    fn local_range(&self, n: usize) -> Range<usize> {
        self.range_of(self.comm().rank(), n)
    }

    /// Returns a rank's range of `n`: ⌈n / ranks⌉ each; the last ranks may have fewer.
    fn range_of(&self, rank: usize, n: usize) -> Range<usize> {
        match self.layout() {
            Layout::Tensor => {
                let per_rank = n.div_ceil(self.comm().world());
                (rank * per_rank).min(n)..((rank + 1) * per_rank).min(n)
            }
            _ => 0..n,
        }
    }

    /// Returns this rank's rows of the vocabulary.
    pub(crate) fn vocabulary(&self, config: &ModelConfig) -> RowShard {
        RowShard { first: self.local_range(config.vocab).start, total: config.vocab }
    }

    /// Returns this rank's heads.
    pub(crate) fn heads(&self, config: &ModelConfig) -> Heads {
        let [heads, kv_heads] = [config.heads, config.kv_heads].map(|n| self.local_range(n).len());
        Heads { heads, kv_heads, head_dim: config.head_dim }
    }

    /// Copies this rank's slice of the `full` tensor (f32) called `name` to its device.
    ///
    /// # Errors
    /// When the device has no memory left.
    pub(crate) fn copy_slice(&self, name: &str, full: &Tensor, label: Label) -> Result<Tensor> {
        self.copy_slice_as(name, full, label, DType::F32)
    }

    /// Copies this rank's slice as [`RankLayout::copy_slice`], stored as `dtype` (F32 or BF16).
    ///
    /// # Errors
    /// When the device has no memory left.
    pub(crate) fn copy_slice_as(
        &self,
        name: &str,
        full: &Tensor,
        label: Label,
        dtype: DType,
    ) -> Result<Tensor> {
        let (device, shape) = (self.device(), &full.shape()[..]);
        let slice = self.slice(name, shape);
        if slice == TensorSlice::Full && dtype == DType::F32 {
            return full.to(device, label);
        }
        let mut local = device.empty(label, slice.shape(shape)?, dtype);
        if device.is_plan() {
            return Ok(local);
        }
        let values = slice.select(shape, &full.to_vec::<f32>()?);
        match dtype {
            DType::BF16 => local.write(&values.into_iter().map(bf16::put).collect::<Vec<_>>())?,
            _ => local.write(&values)?,
        }
        Ok(local)
    }

    /// Gathers the full tensor called `name` (f32), of which every rank has its slice `t`, in host memory; returns
    /// `t` itself if it is replicated. `vocabulary` is the model's number of tokens. A collective: every rank calls it.
    ///
    /// # Errors
    /// When a rank is gone, or the device fails.
    pub(crate) fn gather_full(&self, name: &str, t: &Tensor, vocabulary: usize) -> Result<Tensor> {
        let host = Device::cpu();
        let rule = self.rule(name);
        if rule == TensorParallelRule::Replicated {
            return Ok(t.detach());
        }
        // A bias is gathered as a column.
        let (t, is_vector) = match t.shape()[..] {
            [n] => (&t.reshape([n, 1]), true),
            _ => (t, false),
        };
        let ((rows, columns), ranks) = (t.shape().as_matrix(), self.comm().world());
        // Heads and channels are divided evenly; the vocabulary may not be.
        let n = if is_vocabulary(name) {
            vocabulary
        } else {
            ranks * if rule == TensorParallelRule::Rows { rows } else { columns }
        };
        let shape = |rank| match (self.range_of(rank, n).len(), rule) {
            (length, TensorParallelRule::Columns) => [rows, length],
            (length, _) => [length, columns],
        };
        let slices = all_gather(self.device(), &**self.comm(), t, shape)?;
        let slices = slices.iter().map(|t| t.to(&host, Label::Scratch)).collect::<Result<Vec<_>>>()?;
        match rule {
            TensorParallelRule::Columns => concat(&Ctx::inference(&host), &slices),
            _ => {
                let values = slices.iter().map(Tensor::to_vec::<f32>).collect::<Result<Vec<_>>>()?;
                let full = host.tensor(Label::Scratch, [n, columns], &values.concat())?;
                Ok(if is_vector { full.reshape([n]) } else { full })
            }
        }
    }

    /// Gathers logits (T, V) of which every rank has its columns of the vocabulary, `local`. For inference.
    ///
    /// # Errors
    /// When a rank is gone.
    pub(crate) fn gather_logits(&self, cx: &Ctx, local: Tensor, vocabulary: usize) -> Result<Tensor> {
        if self.layout() != Layout::Tensor {
            return Ok(local);
        }
        let rows = local.shape()[0];
        let shape = |rank| [rows, self.range_of(rank, vocabulary).len()];
        concat(cx, &all_gather(cx.device(), cx.comm(), &local, shape)?)
    }
}

/// Returns every rank's matrix, in rank order: this rank's is `local`, rank r's has `shape(r)`.
fn all_gather(
    device: &Device,
    comm: &dyn Comm,
    local: &Tensor,
    shape: impl Fn(usize) -> [usize; 2],
) -> Result<Vec<Tensor>> {
    let mut slices = Vec::with_capacity(comm.world());
    for rank in 0..comm.world() {
        let slice = match rank == comm.rank() {
            true => local.to(device, Label::Scratch)?,
            false => device.empty(Label::Scratch, shape(rank), local.dtype()),
        };
        slices.push((rank, slice));
    }
    comm.broadcast(&mut slices)?;
    Ok(slices.into_iter().map(|(_, slice)| slice).collect())
}

fn is_vocabulary(name: &str) -> bool {
    name == "model.embed_tokens.weight" || name == "lm_head.weight"
}

#[cfg(test)]
mod tests {
    use super::*;
    use codelsi_engine::{PlannedComm, Rank};
    use std::sync::Arc;

    fn tensor_layout(rank: usize, world: usize) -> RankLayout {
        RankLayout::new(
            Rank { device: Device::cpu(), comm: Arc::new(PlannedComm { rank, world }) },
            Layout::Tensor,
        )
    }

    #[test]
    fn each_tensor_is_divided_as_the_table_says() {
        let layout = tensor_layout(1, 2);
        let rule = |name: &str| layout.rule(&format!("model.layers.3.{name}.weight"));
        for linear in
            ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "mlp.gate_proj", "mlp.up_proj"]
        {
            let rules = ["", ".lora_A", ".lora_B"].map(|factor| rule(&format!("{linear}{factor}")));
            assert_eq!(
                rules,
                [TensorParallelRule::Rows, TensorParallelRule::Replicated, TensorParallelRule::Rows],
                "{linear}"
            );
        }
        let bias = |linear: LinearName| layout.rule(&format!("{}.bias", linear.path(3)));
        assert_eq!(
            LinearName::ALL.map(|linear| bias(linear) == TensorParallelRule::Rows),
            [true, true, true, false, true, true, false]
        );
        assert_eq!(bias(LinearName::O), TensorParallelRule::Replicated);
        for linear in ["self_attn.o_proj", "mlp.down_proj"] {
            let rules = ["", ".lora_A", ".lora_B"].map(|factor| rule(&format!("{linear}{factor}")));
            assert_eq!(
                rules,
                [TensorParallelRule::Columns, TensorParallelRule::Columns, TensorParallelRule::Replicated],
                "{linear}"
            );
        }
        let rules =
            ["model.embed_tokens.weight", "lm_head.weight", "model.norm.weight"].map(|n| layout.rule(n));
        assert_eq!(
            rules,
            [TensorParallelRule::Rows, TensorParallelRule::Rows, TensorParallelRule::Replicated]
        );
        let replicated = ["input_layernorm", "self_attn.adapter.down", "mlp.adapter.up"].map(rule);
        assert_eq!(replicated, [TensorParallelRule::Replicated; 3]);
        assert_eq!(RankLayout::from(&Device::cpu()).rule("lm_head.weight"), TensorParallelRule::Replicated);
    }

    #[test]
    fn ranges_are_equal_and_the_last_ranks_lack_what_does_not_divide() {
        let ranges =
            |n, world| (0..world).map(|rank| tensor_layout(rank, world).local_range(n)).collect::<Vec<_>>();
        assert_eq!(ranges(6, 3), [0..2, 2..4, 4..6]);
        assert_eq!(ranges(7, 3), [0..3, 3..6, 6..7]);
        assert_eq!(ranges(4, 3), [0..2, 2..4, 4..4]);
    }
}
