//! The KV cache: pages shared by sequences, copied when one of several holders writes.
//!
//! PagedAttention (Kwon et al., arXiv 2309.06180, section 4).

use crate::llama::{Layer, Llama};
use codelsi_engine::{Ctx, Device, Error, Label, Result, Tensor};
use codelsi_kernels::embed::embed;
use codelsi_kernels::flash::Heads;
use codelsi_kernels::kvstore::kvstore;

/// Keys and values of every layer, in pages of `page_size` tokens, and who holds which page.
pub struct Cache {
    /// (N, page, K·D) of each layer: keys, values.
    layers: Vec<(Tensor, Tensor)>,
    page_size: usize,
    holders: Vec<u32>,
    free: Vec<usize>,
    /// Slots whose rows are still to be copied: from, to.
    copies: Vec<(usize, usize)>,
}

/// The pages of one sequence, in order. Give it back with [`Cache::release`].
#[derive(Debug, Default)]
pub(super) struct Table {
    pub pages: Vec<usize>,
}

impl Cache {
    /// `pages` empty pages of `page_size` tokens each, for the heads of `model` on this rank.
    pub fn new(device: &Device, model: &Llama, pages: usize, page_size: usize) -> Self {
        let layer = |layer: &Layer| {
            let Heads { kv_heads, head_dim, .. } = layer.heads();
            let page = || device.empty(Label::Kv, [pages, page_size, kv_heads * head_dim], model.compute());
            (page(), page())
        };
        Cache {
            layers: model.layers().iter().map(|l| layer(l)).collect(),
            page_size,
            holders: vec![0; pages],
            free: (0..pages).rev().collect(),
            copies: Vec::new(),
        }
    }

    /// Pages that nobody holds.
    pub fn free_pages(&self) -> usize {
        self.free.len()
    }

    /// Tokens of a page.
    pub fn page_size(&self) -> usize {
        self.page_size
    }

    /// Keys and values of a layer.
    pub(super) fn layer(&mut self, layer: usize) -> &mut (Tensor, Tensor) {
        &mut self.layers[layer]
    }

    /// The flat slot of `position`, to be written after [`Cache::copy_shared`]: allocates its page, or has it copied
    /// when it is shared.
    ///
    /// # Errors
    /// When no page is free.
    pub(super) fn slot(&mut self, table: &mut Table, position: usize) -> Result<usize> {
        let (index, offset) = (position / self.page_size, position % self.page_size);
        if index == table.pages.len() {
            let page = self.take()?;
            table.pages.push(page);
        } else if self.holders[table.pages[index]] > 1 {
            let (shared, own) = (table.pages[index], self.take()?);
            let row = |offset| (shared * self.page_size + offset, own * self.page_size + offset);
            self.copies.extend((0..offset).map(row));
            self.holders[shared] -= 1;
            table.pages[index] = own;
        }
        Ok(table.pages[index] * self.page_size + offset)
    }

    /// Another sequence with the same pages.
    pub(super) fn fork(&mut self, table: &Table) -> Table {
        table.pages.iter().for_each(|&page| self.holders[page] += 1);
        Table { pages: table.pages.clone() }
    }

    /// Lets go of a sequence's pages.
    pub(super) fn release(&mut self, table: Table) {
        for page in table.pages {
            self.holders[page] -= 1;
            if self.holders[page] == 0 {
                self.free.push(page);
            }
        }
    }

    fn take(&mut self) -> Result<usize> {
        let page = self.free.pop().ok_or_else(|| Error::new("the KV cache has no free page"))?;
        self.holders[page] = 1;
        Ok(page)
    }

    /// Copies the rows of shared pages that got a holder of their own, in every layer.
    ///
    /// # Errors
    /// Those of the ops.
    pub(super) fn copy_shared(&mut self, cx: &Ctx) -> Result<()> {
        if self.copies.is_empty() {
            return Ok(());
        }
        let (from, to): (Vec<i32>, Vec<i32>) =
            self.copies.drain(..).map(|(from, to)| (from as i32, to as i32)).unzip();
        let slots = |slots: &[i32]| cx.device().tensor(Label::Activations, [slots.len()], slots);
        let (from, to) = (slots(&from)?, slots(&to)?);
        for (k, v) in &mut self.layers {
            for pages in [k, v] {
                // Gathering rows is what an embedding does.
                let (slots, width) = pages.shape().as_matrix();
                let rows = embed(cx, &pages.reshape([slots, width]), &from, pages.dtype())?;
                kvstore(cx, pages, &rows, &to)?;
            }
        }
        Ok(())
    }
}
