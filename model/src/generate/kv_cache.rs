//! The KV cache: pages that sequences share, with copy-on-write (PagedAttention, Kwon et
//! al., arXiv 2309.06180, section 4).

use crate::llama::{Layer, Llama};
use codelsi_engine::{Ctx, Device, Error, Label, Result, Tensor};
use codelsi_kernels::embed::embed;
use codelsi_kernels::flash::{Heads, arrivals};
use codelsi_kernels::kvstore::kvstore;
use codelsi_kernels::lora::Turns;

/// Keys and values of every layer, in pages of `page_size` tokens, with reference counts of the pages.
pub(super) struct KvCache {
    /// Keys and values of each layer, (pages, K, page_size, D): a page of one head is contiguous.
    layers: Vec<(Tensor, Tensor)>,
    /// Counters of attention's blocks, see [`arrivals`].
    arrivals: Tensor,
    /// Counters of adapters' blocks.
    pub turns: Turns,
    page_size: usize,
    /// Number of sequences that use each page.
    ref_counts: Vec<u32>,
    free: Vec<usize>,
    /// Pending copies of tokens: from slot, to slot.
    copies: Vec<(usize, usize)>,
}

/// The pages of one sequence, in order: vLLM's block table. Return it with [`KvCache::release`].
#[derive(Debug, Default)]
pub(super) struct BlockTable {
    pub pages: Vec<usize>,
}

impl KvCache {
    /// Allocates `pages` free pages of `page_size` tokens each, for the heads of `model` on this rank and up to
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
            ref_counts: vec![0; pages],
            free: (0..pages).rev().collect(),
            copies: Vec::new(),
        }
    }

    /// Keys and values of a layer, (pages, K, page_size, D), and the [`arrivals`] of attention over them.
    pub fn layer(&mut self, layer: usize) -> ([&mut Tensor; 2], &mut Tensor) {
        let (k, v) = &mut self.layers[layer];
        ([k, v], &mut self.arrivals)
    }

    /// Returns the slot (page · page_size + offset) of `position`, to be written after [`KvCache::copy_shared`].
    /// Allocates its page, or schedules a copy of a page that is shared (copy-on-write).
    ///
    /// # Errors
    /// When no page is free.
    pub fn slot(&mut self, table: &mut BlockTable, position: usize) -> Result<usize> {
        let (index, offset) = (position / self.page_size, position % self.page_size);
        if index == table.pages.len() {
            let page = self.allocate()?;
            table.pages.push(page);
        } else if self.ref_counts[table.pages[index]] > 1 {
            let (shared, copy) = (table.pages[index], self.allocate()?);
            let slots = |offset| (shared * self.page_size + offset, copy * self.page_size + offset);
            self.copies.extend((0..offset).map(slots));
            self.ref_counts[shared] -= 1;
            table.pages[index] = copy;
        }
        Ok(table.pages[index] * self.page_size + offset)
    }

    /// Returns a table for another sequence that shares the same pages.
    pub fn fork(&mut self, table: &BlockTable) -> BlockTable {
        table.pages.iter().for_each(|&page| self.ref_counts[page] += 1);
        BlockTable { pages: table.pages.clone() }
    }

    /// Releases a sequence's pages.
    pub fn release(&mut self, table: BlockTable) {
        for page in table.pages {
            self.ref_counts[page] -= 1;
            if self.ref_counts[page] == 0 {
                self.free.push(page);
            }
        }
    }

    fn allocate(&mut self) -> Result<usize> {
        let page = self.free.pop().ok_or_else(|| Error::new("the KV cache has no free page"))?;
        self.ref_counts[page] = 1;
        Ok(page)
    }

    /// Copies the pending tokens of shared pages, in every layer.
    ///
    /// # Errors
    /// When an op fails.
    pub fn copy_shared(&mut self, cx: &Ctx) -> Result<()> {
        let Some((k_pages, _)) = self.layers.first().filter(|_| !self.copies.is_empty()) else {
            return Ok(());
        };
        let (page_size, kv_heads, head_dim) = (self.page_size, k_pages.shape()[1], k_pages.shape()[3]);
        let head_row =
            |slot: usize, head| (slot / page_size * kv_heads + head) * page_size + slot % page_size;
        let heads_of = |slot: usize| (0..kv_heads).map(move |head| head_row(slot, head) as i32);
        let from: Vec<i32> = self.copies.iter().flat_map(|&(from, _)| heads_of(from)).collect();
        let to: Vec<i32> = self.copies.drain(..).map(|(_, to)| to as i32).collect();
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
