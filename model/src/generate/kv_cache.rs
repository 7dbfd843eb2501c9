//! The KV cache on the device: keys and values of every layer, in pages.

use crate::llama::{Layer, Llama};
use codelsi_engine::{Ctx, Device, Label, Result, Tensor};
use codelsi_kernels::embed::embed;
use codelsi_kernels::flash::{Heads, arrivals};
use codelsi_kernels::kvstore::kvstore;
use codelsi_kernels::lora::Turns;

/// Keys and values of every layer, in pages of `page_size` tokens, and what attention over them needs.
pub(super) struct KvCache {
    /// Keys and values of each layer, (pages, K, page_size, D): a page of one head is contiguous.
    layers: Vec<(Tensor, Tensor)>,
    /// Counters of attention's blocks, see [`arrivals`].
    arrivals: Tensor,
    /// Counters of adapters' blocks.
    pub turns: Turns,
    page_size: usize,
}

impl KvCache {
    /// Allocates `pages` pages of `page_size` tokens each, for the heads of `model` on this rank and up to
    /// `sequences` sequences.
    pub fn new(device: &Device, model: &Llama, sequences: usize, pages: usize, page_size: usize) -> Self {
        let allocate = |layer: &Layer| {
            let Heads { kv_heads, head_dim, .. } = layer.heads();
            let empty = || device.empty(Label::Kv, [pages, kv_heads, page_size, head_dim], model.compute());
            (empty(), empty())
        };
        KvCache {
            layers: model.layers().iter().map(|layer| allocate(layer)).collect(),
            arrivals: arrivals(device, sequences, model.rank_layout().heads(model.config())),
            turns: Turns::new(device),
            page_size,
        }
    }

    /// Keys and values of a layer, (pages, K, page_size, D), and the [`arrivals`] of attention over them.
    pub fn layer(&mut self, layer: usize) -> ([&mut Tensor; 2], &mut Tensor) {
        let (k, v) = &mut self.layers[layer];
        ([k, v], &mut self.arrivals)
    }

    /// Copies tokens from slot to slot, in every layer.
    ///
    /// # Errors
    /// When an op fails.
    pub fn copy(&mut self, cx: &Ctx, copies: &[(usize, usize)]) -> Result<()> {
        let Some((k_pages, _)) = self.layers.first().filter(|_| !copies.is_empty()) else {
            return Ok(());
        };
        let (page_size, kv_heads, head_dim) = (self.page_size, k_pages.shape()[1], k_pages.shape()[3]);
        let head_row =
            |slot: usize, head| (slot / page_size * kv_heads + head) * page_size + slot % page_size;
        let heads_of = |slot: usize| (0..kv_heads).map(move |head| head_row(slot, head) as i32);
        let from: Vec<i32> = copies.iter().flat_map(|&(from, _)| heads_of(from)).collect();
        let to: Vec<i32> = copies.iter().map(|&(_, to)| to as i32).collect();
        let ints = |values: &[i32]| cx.device().tensor(Label::Activations, [values.len()], values);
        let (from, to) = (ints(&from)?, ints(&to)?);
        for (k, v) in &mut self.layers {
            for pages in [k, v] {
                // `embed` gathers the rows of each token's heads.
                let (rows, _) = pages.shape().as_matrix();
                let heads = embed(cx, &pages.reshape([rows, head_dim]), &from, pages.dtype())?;
                kvstore(cx, pages, &heads.reshape([to.shape()[0], kv_heads * head_dim]), &to)?;
            }
        }
        Ok(())
    }
}
