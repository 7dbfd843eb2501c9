//! Edits of a source text at places that a parser found.

use oxc_span::Span;

/// Replacements of parts of a text that do not overlap, in any order.
#[derive(Debug, Default)]
pub struct Edits(Vec<(Span, String)>);

impl Edits {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Inserts a text.
    pub fn insert(&mut self, at: u32, text: impl Into<String>) {
        self.replace(at, at, text);
    }

    /// Replaces the part from `start` to `end`.
    pub fn replace(&mut self, start: u32, end: u32, text: impl Into<String>) {
        self.0.push((Span::new(start, end), text.into()));
    }

    /// Returns the edited text. Every line stays on its line: newlines of a replaced part are kept.
    pub fn apply(mut self, source: &str) -> String {
        // Stable, so that insertions at one place keep their order.
        self.0.sort_by_key(|(span, _)| (span.start, span.end));
        let (mut text, mut done) = (String::with_capacity(source.len()), 0);
        for (span, replacement) in self.0 {
            let (start, end) = (span.start as usize, span.end as usize);
            text.push_str(&source[done..start]);
            text.push_str(&replacement);
            text.extend(source[start..end].chars().filter(|c| *c == '\n'));
            done = end;
        }
        text + &source[done..]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_replaced_and_lines_stay() {
        let mut edits = Edits::default();
        edits.replace(4, 7, "B");
        edits.insert(0, "(");
        edits.insert(9, ")");
        edits.insert(9, ";");
        assert_eq!(edits.apply("let a\nb = 1"), "(let B\n =); 1");
    }
}
