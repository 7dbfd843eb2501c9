//! Style `infill`: a hole cut from a function at the boundaries of its syntax tree, with the text of its file around it.
//! It is what an editor asks for at the cursor.

mod holes;
mod window;

use crate::extract::Item;
use crate::filters::Filters;
use crate::item_rng::ItemRng;
use crate::language::Language;
use crate::options::RowLimits;
use crate::row::{Hole, ItemKind};
use crate::source::SourceFile;
use crate::style::InstructionStyle;
use holes::draw_hole;
use std::ops::Range;
use tree_sitter::Tree;
use window::{context_bytes, window};

/// A hole, and the text that fills it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CutHole {
    pub hole: Hole,
    pub output: String,
}

/// A file from whose functions holes are cut.
pub struct InfillFile<'a> {
    source: &'a SourceFile,
    /// The text of the file as it was parsed.
    text: &'a str,
    language: Language,
    tree: Tree,
    /// Ranges of the items that repeat a benchmark problem, which no context shows.
    repeats: Vec<Range<usize>>,
    context_bytes: usize,
    seed: u64,
}

impl<'a> InfillFile<'a> {
    /// Parses a file of these items; `None` if the parser does not read it.
    pub fn new(
        source: &'a SourceFile,
        text: &'a str,
        items: &[Item],
        filters: &Filters,
        seed: u64,
    ) -> Option<InfillFile<'a>> {
        let language = Language::from_path(&source.path).unwrap_or_default();
        let repeats = items.iter().filter(|item| {
            filters.benchmark_match(item.language, &item.name, &item.comment, &item.code).is_some()
        });
        Some(InfillFile {
            source,
            text,
            language,
            tree: language.parse(text, &source.path).ok()?,
            repeats: repeats.map(|item| item.bytes.clone()).collect(),
            context_bytes: file_context_bytes(filters),
            seed,
        })
    }

    /// Cuts a hole from a function or method, by the seed.
    ///
    /// # Errors
    /// The reason why it gives no row.
    pub fn cut(&self, item: &Item) -> Result<CutHole, &'static str> {
        let missing = InstructionStyle::Infill.missing_reason();
        if item.kind == ItemKind::Class {
            return Err(missing);
        }
        let repo = self.source.repo.as_deref().unwrap_or_default();
        let style = InstructionStyle::Infill.name();
        let rng = ItemRng::new(self.seed, &[repo, &self.source.path, &item.name, style]);
        let hole = draw_hole(self.text, self.tree.root_node(), item, self.language.table(), &rng);
        let hole = hole.ok_or(missing)?;
        let window = window(self.text, &hole, &self.repeats, self.context_bytes).ok_or("benchmark")?;
        Ok(CutHole {
            output: self.text[hole.clone()].into(),
            hole: Hole {
                prefix: self.text[window.start..hole.start].into(),
                suffix: self.text[hole.end..window.end].into(),
            },
        })
    }
}

/// Bytes of context that rows of these limits have room for.
fn file_context_bytes(filters: &Filters) -> usize {
    let RowLimits { max_instruction, max_chars, max_tokens, .. } = filters.limits;
    context_bytes(max_instruction + max_chars, filters.has_tokenizer().then_some(max_tokens))
}

#[cfg(test)]
mod tests;
