//! The pages of the KV cache: which sequences use them, what they hold, and which are free (PagedAttention, Kwon et
//! al., arXiv 2309.06180, sections 4.3 to 4.5; prefix cache as in vLLM).
//!
//! A full page is known by its contents: its tokens, those before it and the adapter. It is shared by all sequences that
//! begin with the same tokens, and stays in the cache when the last of them is gone, until it is the least recently used
//! one and a page is needed. Nothing here knows a device.

use crate::adapter_stack::AdapterId;
use codelsi_engine::{Error, Result};
use std::collections::{BTreeMap, HashMap};

/// The pages of one sequence, in order: vLLM's block table. Return it with [`BlockManager::release`].
#[derive(Debug, Default)]
pub(super) struct BlockTable {
    pub pages: Vec<usize>,
    /// Contents of the first pages, which are full and registered.
    contents: Vec<ContentId>,
}

/// Identifies what a full page holds, with all that stands before it. Never used for other contents.
type ContentId = u64;

/// The contents of a full page, compared token by token: no two texts share a page by accident.
#[derive(Clone, PartialEq, Eq, Hash)]
struct PageKey {
    before: Before,
    tokens: Box<[u32]>,
}

/// Predecessor of a page.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Before {
    /// Nothing: the page begins a sequence that this adapter computes.
    Start(Option<AdapterId>),
    Page(ContentId),
}

/// A registered page.
#[derive(Clone, Copy)]
struct CachedPage {
    page: usize,
    content: ContentId,
}

/// Reference counts, free pages and the prefix cache.
pub(super) struct BlockManager {
    page_size: usize,
    prefix_cache: bool,
    /// Number of sequences that use each page.
    ref_counts: Vec<u32>,
    /// The key of each registered page.
    keys: Vec<Option<PageKey>>,
    cached: HashMap<PageKey, CachedPage>,
    /// Pages without contents that no sequence uses.
    free: Vec<usize>,
    /// Registered pages that no sequence uses, by the time of their last use.
    unused: BTreeMap<u64, usize>,
    /// The key in `unused` of each page that is there.
    unused_since: Vec<u64>,
    clock: u64,
    next_content: ContentId,
    /// Pending copies of tokens: from slot, to slot.
    copies: Vec<(usize, usize)>,
}

impl BlockManager {
    /// Manages `pages` free pages of `page_size` tokens.
    pub fn new(pages: usize, page_size: usize, prefix_cache: bool) -> Self {
        BlockManager {
            page_size,
            prefix_cache,
            ref_counts: vec![0; pages],
            keys: vec![None; pages],
            cached: HashMap::new(),
            free: (0..pages).rev().collect(),
            unused: BTreeMap::new(),
            unused_since: vec![0; pages],
            clock: 0,
            next_content: 0,
            copies: Vec::new(),
        }
    }

    /// Number of pages.
    pub fn pages(&self) -> usize {
        self.ref_counts.len()
    }

    /// Number of pages that no sequence uses, also those that the prefix cache holds.
    pub fn available(&self) -> usize {
        self.free.len() + self.unused.len()
    }

    /// Number of pages that the prefix cache holds and no sequence uses.
    pub fn cached_pages(&self) -> usize {
        self.unused.len()
    }

    /// Number of pages of `tokens` tokens.
    pub fn pages_of(&self, tokens: usize) -> usize {
        tokens.div_ceil(self.page_size)
    }

    /// Returns a table of the cached pages that hold the first of `tokens`, and their number of tokens. At least one token
    /// is left to be computed, since the next one is sampled from it.
    pub fn lookup(&mut self, adapter: Option<AdapterId>, tokens: &[u32]) -> (BlockTable, usize) {
        let mut table = BlockTable::default();
        let most = tokens.len().saturating_sub(1) / self.page_size;
        for tokens in tokens.chunks_exact(self.page_size).take(most) {
            let key = PageKey { before: before(&table, adapter), tokens: tokens.into() };
            let Some(&CachedPage { page, content }) = self.cached.get(&key) else { break };
            self.retain(page);
            table.pages.push(page);
            table.contents.push(content);
        }
        let cached = table.pages.len() * self.page_size;
        (table, cached)
    }

    /// Makes the positions `from..to` of a sequence writable: allocates their pages, and schedules the copy of a page that
    /// is shared (copy-on-write). Returns false if no page is free; the table is then valid, and still too short.
    pub fn reserve(&mut self, table: &mut BlockTable, from: usize, to: usize) -> bool {
        let (first, end) = (from / self.page_size, self.pages_of(to));
        if let Some(&shared) = table.pages.get(first)
            && self.ref_counts[shared] > 1
            && from < to
        {
            let Some(copy) = self.allocate() else { return false };
            let slot = |page: usize, offset| page * self.page_size + offset;
            let before = from % self.page_size;
            self.copies.extend((0..before).map(|offset| (slot(shared, offset), slot(copy, offset))));
            self.ref_counts[shared] -= 1;
            table.pages[first] = copy;
        }
        while table.pages.len() < end {
            let Some(page) = self.allocate() else { return false };
            table.pages.push(page);
        }
        true
    }

    /// Returns the slot (page · page_size + offset) of a reserved position.
    ///
    /// # Errors
    /// When it was not reserved.
    pub fn slot(&self, table: &BlockTable, position: usize) -> Result<usize> {
        match table.pages.get(position / self.page_size) {
            Some(page) => Ok(page * self.page_size + position % self.page_size),
            None => Err(Error::new(format!("position {position} has no page of the KV cache"))),
        }
    }

    /// Registers the full pages of a sequence whose first `computed` tokens have keys and values.
    pub fn register(
        &mut self,
        table: &mut BlockTable,
        adapter: Option<AdapterId>,
        tokens: &[u32],
        computed: usize,
    ) {
        if !self.prefix_cache {
            return;
        }
        for index in table.contents.len()..computed / self.page_size {
            let tokens = &tokens[index * self.page_size..(index + 1) * self.page_size];
            let (key, page) =
                (PageKey { before: before(table, adapter), tokens: tokens.into() }, table.pages[index]);
            // A page that another sequence computed at the same time stays the registered one.
            let content = self.cached.get(&key).map(|cached| cached.content).unwrap_or_else(|| {
                let content = self.next_content;
                self.next_content += 1;
                self.keys[page] = Some(key.clone());
                self.cached.insert(key, CachedPage { page, content });
                content
            });
            table.contents.push(content);
        }
    }

    /// Returns a table for another sequence that shares the same pages.
    pub fn fork(&mut self, table: &BlockTable) -> BlockTable {
        table.pages.iter().for_each(|&page| self.ref_counts[page] += 1);
        BlockTable { pages: table.pages.clone(), contents: table.contents.clone() }
    }

    /// Releases a sequence's pages. The last ones are the first to be reused: what begins a text is shared most.
    pub fn release(&mut self, table: BlockTable) {
        for page in table.pages.into_iter().rev() {
            self.ref_counts[page] -= 1;
            if self.ref_counts[page] > 0 {
                continue;
            }
            // Copies to it are pending if its sequence is preempted in the step that made it.
            self.copies.retain(|&(_, to)| to / self.page_size != page);
            match self.keys[page] {
                Some(_) => {
                    self.clock += 1;
                    self.unused.insert(self.clock, page);
                    self.unused_since[page] = self.clock;
                }
                None => self.free.push(page),
            }
        }
    }

    /// Takes the pending copies, to be done before anything is written.
    pub fn take_copies(&mut self) -> Vec<(usize, usize)> {
        std::mem::take(&mut self.copies)
    }

    /// Adds a user of a registered page.
    fn retain(&mut self, page: usize) {
        if self.ref_counts[page] == 0 {
            self.unused.remove(&self.unused_since[page]);
        }
        self.ref_counts[page] += 1;
    }

    /// Returns a page for one sequence: a free one, else the least recently used of the prefix cache.
    fn allocate(&mut self) -> Option<usize> {
        let page = self.free.pop().or_else(|| {
            let (_, page) = self.unused.pop_first()?;
            self.keys[page].take().iter().for_each(|key| {
                self.cached.remove(key);
            });
            Some(page)
        })?;
        self.ref_counts[page] = 1;
        Some(page)
    }
}

/// Returns what stands before the first page of a table that is not registered.
fn before(table: &BlockTable, adapter: Option<AdapterId>) -> Before {
    table.contents.last().map_or(Before::Start(adapter), |&content| Before::Page(content))
}

#[cfg(test)]
impl BlockManager {
    /// Checks that every page is used as often as `tables` say, and otherwise free or cached, once.
    pub fn check(&self, tables: &[&BlockTable]) {
        let mut users = vec![0; self.pages()];
        tables.iter().flat_map(|table| &table.pages).for_each(|&page| users[page] += 1);
        assert_eq!(users, self.ref_counts);
        let mut unused: Vec<usize> = self.free.iter().chain(self.unused.values()).copied().collect();
        unused.sort_unstable();
        let wanted: Vec<usize> = (0..self.pages()).filter(|&page| users[page] == 0).collect();
        assert_eq!(unused, wanted, "a page that no sequence uses is free or cached, once");
        assert!(self.free.iter().all(|&page| self.keys[page].is_none()), "a free page has no contents");
        assert!(self.unused.values().all(|&page| self.keys[page].is_some()));
        let registered = self.keys.iter().flatten().count();
        assert_eq!(registered, self.cached.len());
        for (key, cached) in &self.cached {
            assert!(self.keys[cached.page].as_ref() == Some(key));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Computes a sequence of `tokens`; returns its table and the number of tokens that were cached.
    fn compute(blocks: &mut BlockManager, adapter: Option<AdapterId>, tokens: &[u32]) -> (BlockTable, usize) {
        let (mut table, cached) = blocks.lookup(adapter, tokens);
        assert!(blocks.reserve(&mut table, cached, tokens.len()));
        blocks.register(&mut table, adapter, tokens, tokens.len());
        (table, cached)
    }

    #[test]
    fn a_beginning_is_shared_by_full_pages_and_by_adapter() {
        let mut blocks = BlockManager::new(16, 4, true);
        let text: Vec<u32> = (0..10).collect();
        let (first, cached) = compute(&mut blocks, None, &text);
        assert_eq!(cached, 0);
        let (second, cached) = compute(&mut blocks, None, &[&text[..9], &[77, 78]].concat());
        assert_eq!((cached, &second.pages[..2]), (8, &first.pages[..2]));
        assert_ne!(second.pages[2], first.pages[2]);
        assert_eq!(
            compute(&mut blocks, Some(AdapterId(1)), &text).1,
            0,
            "another adapter, other keys and values"
        );
        // The last token is computed, so that the next one can be sampled.
        assert_eq!(compute(&mut blocks, None, &text[..8]).1, 4);
        // The same second page after another first one.
        assert_eq!(compute(&mut blocks, None, &[&[9; 4], &text[4..9]].concat()).1, 0);
    }

    #[test]
    fn the_least_recently_used_page_goes_first_and_ends_go_before_beginnings() {
        let mut blocks = BlockManager::new(3, 2, true);
        let (old, new) = ([1, 2, 3, 4, 5], [6, 7, 8]);
        for text in [&old[..], &new] {
            let (table, _) = compute(&mut blocks, None, text);
            blocks.release(table);
        }
        blocks.check(&[]);
        assert_eq!(blocks.available(), 3);
        // Of the old text's two full pages the end was given up for the new one's second page.
        let (table, cached) = blocks.lookup(None, &old);
        assert_eq!(cached, 2);
        blocks.release(table);
        let (table, cached) = blocks.lookup(None, &new);
        assert_eq!(cached, 2);
        blocks.check(&[&table]);
    }

    #[test]
    fn a_shared_page_is_copied_before_it_is_written() {
        let mut blocks = BlockManager::new(4, 4, true);
        let (mut parent, _) = compute(&mut blocks, None, &[1, 2, 3, 4, 5]);
        let mut child = blocks.fork(&parent);
        assert!(blocks.reserve(&mut child, 5, 6));
        assert_eq!(child.pages[0], parent.pages[0]);
        let (from, to) = (parent.pages[1] * 4, child.pages[1] * 4);
        assert_eq!(blocks.take_copies(), [(from, to)]);
        assert!(blocks.reserve(&mut parent, 5, 6));
        assert_eq!(blocks.take_copies(), [], "the last user writes in place");
        blocks.check(&[&parent, &child]);
        // Nothing is copied to a page that was given back.
        let mut other = blocks.fork(&parent);
        assert!(blocks.reserve(&mut other, 5, 6));
        blocks.release(other);
        assert_eq!(blocks.take_copies(), []);
        assert!(!blocks.reserve(&mut child, 6, 17), "four pages of four tokens");
        blocks.check(&[&parent, &child]);
    }

    #[test]
    fn without_a_prefix_cache_nothing_is_kept() {
        let mut blocks = BlockManager::new(4, 2, false);
        for _ in 0..2 {
            let (table, cached) = compute(&mut blocks, None, &[1, 2, 3, 4]);
            assert_eq!(cached, 0);
            blocks.release(table);
        }
        assert_eq!((blocks.available(), blocks.cached_pages()), (4, 0));
    }
}
