//! Which part of a tensor a rank of the tensor layout holds (Shoeybi et al., "Megatron-LM", arXiv 1909.08053).
//!
//! Linears that read the residual stream are cut by rows, those that write it by columns, embedding and head by rows of
//! the vocabulary. Of an adapter's factors one is cut as its W is and the other copied; what each rank finds of a copied
//! factor's gradient is summed:
//!
//! | linear | W | A | B | summed |
//! |---|---|---|---|---|
//! | q k v gate up | rows | copied | rows | dA |
//! | o down | columns | columns | copied | dB |

use super::{Layout, Split};
use crate::adapter::Method;
use crate::config::{Config, Linear};
use crate::part::Part;
use codelsi_engine::{Comm, Ctx, DType, Device, Error, Label, Result, Tensor};
use codelsi_kernels::concat::concat;
use codelsi_kernels::flash::Heads;
use codelsi_kernels::rows::Rows;
use std::ops::Range;

/// How a tensor is cut over ranks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// It is not: every rank has a copy.
    Whole,
    Rows,
    Columns,
}

impl Split {
    /// Refuses a model that the ranks cannot share.
    ///
    /// # Errors
    /// Naming what does not divide, and the ranks.
    pub(crate) fn check(&self, config: &Config) -> Result<()> {
        if self.layout != Layout::Tensor {
            return Ok(());
        }
        let ranks = self.comm().world();
        let even = |what: &str, n: usize| match n % ranks {
            0 => Ok(()),
            _ => Err(Error::new(format!(
                "--layout tensor cannot deal {n} {what} to {ranks} ranks equally; use a number of ranks that divides \
                 them, or --layout shard"
            ))),
        };
        even("attention heads", config.heads)?;
        even("key and value heads", config.kv_heads)?;
        even("channels of the MLP", config.intermediate)
    }

    /// Refuses an adapter that the ranks cannot share.
    ///
    /// # Errors
    /// Naming the method, and the layouts that know it.
    pub(crate) fn check_method(&self, method: Method) -> Result<()> {
        match (self.layout, method) {
            (Layout::Tensor, Method::LowRank { dora: true, .. } | Method::Mixture { .. }) => Err(Error::new(
                format!("--layout tensor does not know {method}; use --layout replicate or shard"),
            )),
            _ => Ok(()),
        }
    }

    /// How the tensor of that name is cut: a checkpoint's weight, or `{linear}.lora_A.weight`.
    pub fn cut(&self, name: &str) -> Cut {
        if self.layout != Layout::Tensor {
            return Cut::Whole;
        }
        if is_vocabulary(name) {
            return Cut::Rows;
        }
        let mut parts = name.rsplit('.').skip(1);
        let last = parts.next().unwrap_or_default();
        let factor = matches!(last, "lora_A" | "lora_B");
        let linear = if factor { parts.next().unwrap_or_default() } else { last };
        match (linear.parse(), last) {
            (Err(_), _) => Cut::Whole,
            (Ok(Linear::O | Linear::Down), "lora_B") => Cut::Whole,
            (Ok(Linear::O | Linear::Down), _) => Cut::Columns,
            (Ok(_), "lora_A") => Cut::Whole,
            (Ok(_), _) => Cut::Rows,
        }
    }

    /// What this rank holds of the tensor of that name and whole shape.
    pub fn part(&self, name: &str, shape: &[usize]) -> Part {
        match self.cut(name) {
            Cut::Whole => Part::Whole,
            Cut::Rows => Part::Rows(self.share(shape[0])),
            Cut::Columns => Part::Columns(self.share(shape[1])),
        }
    }

    /// This rank's heads, MLP channels or rows of the vocabulary, of `n`.
    pub(crate) fn share(&self, n: usize) -> Range<usize> {
        self.share_of(self.comm().rank(), n)
    }

    /// Equal shares in order, but for what the last ranks lack.
    fn share_of(&self, rank: usize, n: usize) -> Range<usize> {
        match self.layout {
            Layout::Tensor => {
                let each = n.div_ceil(self.comm().world());
                (rank * each).min(n)..((rank + 1) * each).min(n)
            }
            _ => 0..n,
        }
    }

    /// Which of the vocabulary's rows this rank holds.
    pub(crate) fn vocabulary(&self, config: &Config) -> Rows {
        Rows { first: self.share(config.vocab).start, of: config.vocab }
    }

    /// This rank's heads.
    pub(crate) fn heads(&self, config: &Config) -> Heads {
        let [heads, kv_heads] = [config.heads, config.kv_heads].map(|n| self.share(n).len());
        Heads { heads, kv_heads, head_dim: config.head_dim }
    }

    /// This rank's part of `whole` (f32), which is called `name`, on its device.
    ///
    /// # Errors
    /// When the device has no memory left.
    pub fn take(&self, name: &str, whole: &Tensor, label: Label) -> Result<Tensor> {
        let (device, shape) = (self.device(), &whole.shape()[..]);
        let part = self.part(name, shape);
        if part == Part::Whole {
            return whole.to(device, label);
        }
        let mut taken = device.empty(label, part.shape(shape)?, DType::F32);
        if !device.is_plan() {
            let (values, runs) = (whole.to_vec::<f32>()?, part.runs(shape));
            let own = runs.within(0..runs.elements()).flat_map(|run| values[run].iter().copied());
            taken.write(&own.collect::<Vec<f32>>())?;
        }
        Ok(taken)
    }

    /// The whole of what every rank holds a part `t` (f32) of, in host memory; `t` itself where it is no part.
    /// `vocabulary` is the model's number of tokens. All ranks call it.
    ///
    /// # Errors
    /// When a rank is gone, or the device fails.
    pub(crate) fn whole(&self, name: &str, t: &Tensor, vocabulary: usize) -> Result<Tensor> {
        let host = Device::cpu();
        let cut = self.cut(name);
        if cut == Cut::Whole {
            return Ok(t.detach());
        }
        let ((rows, columns), ranks) = (t.shape().as_matrix(), self.comm().world());
        // Heads and channels divide; the vocabulary need not.
        let n = if is_vocabulary(name) {
            vocabulary
        } else {
            ranks * if cut == Cut::Rows { rows } else { columns }
        };
        let parts =
            every_part(self.device(), &**self.comm(), t, |rank| match (self.share_of(rank, n).len(), cut) {
                (own, Cut::Columns) => [rows, own],
                (own, _) => [own, columns],
            })?;
        let parts = parts.iter().map(|part| part.to(&host, Label::Scratch)).collect::<Result<Vec<_>>>()?;
        match cut {
            Cut::Columns => concat(&Ctx::inference(&host), &parts),
            _ => {
                let values = parts.iter().map(Tensor::to_vec::<f32>).collect::<Result<Vec<_>>>()?;
                host.tensor(Label::Scratch, [n, columns], &values.concat())
            }
        }
    }

    /// Logits (T, V) of which every rank has its share of the vocabulary, `part`. For inference.
    ///
    /// # Errors
    /// When a rank is gone.
    pub(crate) fn whole_logits(&self, cx: &Ctx, part: Tensor, vocabulary: usize) -> Result<Tensor> {
        if self.layout != Layout::Tensor {
            return Ok(part);
        }
        let rows = part.shape()[0];
        let parts =
            every_part(cx.device(), cx.comm(), &part, |rank| [rows, self.share_of(rank, vocabulary).len()])?;
        concat(cx, &parts)
    }
}

/// Every rank's matrix, in rank order: this rank's is `mine`, rank r's has `shape(r)`.
fn every_part(
    device: &Device,
    comm: &dyn Comm,
    mine: &Tensor,
    shape: impl Fn(usize) -> [usize; 2],
) -> Result<Vec<Tensor>> {
    let mut parts = Vec::with_capacity(comm.world());
    for rank in 0..comm.world() {
        let part = match rank == comm.rank() {
            true => mine.to(device, Label::Scratch)?,
            false => device.empty(Label::Scratch, shape(rank), mine.dtype()),
        };
        parts.push((rank, part));
    }
    comm.broadcast(&mut parts)?;
    Ok(parts.into_iter().map(|(_, part)| part).collect())
}

fn is_vocabulary(name: &str) -> bool {
    name == "model.embed_tokens.weight" || name == "lm_head.weight"
}

#[cfg(test)]
mod tests {
    use super::*;
    use codelsi_engine::{Planned, Rank};
    use std::sync::Arc;

    fn split(rank: usize, world: usize) -> Split {
        Split::new(Rank { device: Device::cpu(), comm: Arc::new(Planned { rank, world }) }, Layout::Tensor)
    }

    #[test]
    fn each_tensor_is_cut_as_the_table_says() {
        let split = split(1, 2);
        let layer = |name: &str| split.cut(&format!("model.layers.3.{name}.weight"));
        for linear in
            ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "mlp.gate_proj", "mlp.up_proj"]
        {
            let cuts = ["", ".lora_A", ".lora_B"].map(|factor| layer(&format!("{linear}{factor}")));
            assert_eq!(cuts, [Cut::Rows, Cut::Whole, Cut::Rows], "{linear}");
        }
        for linear in ["self_attn.o_proj", "mlp.down_proj"] {
            let cuts = ["", ".lora_A", ".lora_B"].map(|factor| layer(&format!("{linear}{factor}")));
            assert_eq!(cuts, [Cut::Columns, Cut::Columns, Cut::Whole], "{linear}");
        }
        let cuts = ["model.embed_tokens.weight", "lm_head.weight", "model.norm.weight"].map(|n| split.cut(n));
        assert_eq!(cuts, [Cut::Rows, Cut::Rows, Cut::Whole]);
        let copied = ["input_layernorm", "self_attn.adapter.down", "mlp.adapter.up"].map(layer);
        assert_eq!(copied, [Cut::Whole; 3]);
        assert_eq!(Split::from(&Device::cpu()).cut("lm_head.weight"), Cut::Whole);
    }

    #[test]
    fn shares_are_equal_and_the_last_ranks_lack_what_does_not_divide() {
        let shares = |n, world| (0..world).map(|rank| split(rank, world).share(n)).collect::<Vec<_>>();
        assert_eq!(shares(6, 3), [0..2, 2..4, 4..6]);
        assert_eq!(shares(7, 3), [0..3, 3..6, 6..7]);
        assert_eq!(shares(4, 3), [0..2, 2..4, 4..4]);
    }
}
