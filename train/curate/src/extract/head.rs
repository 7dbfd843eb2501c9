//! The signature of a declaration, and the words for its kind.

use super::file::{DeclarationNodes, ParsedFile};
use crate::language::{SignatureForm, named_children};
use tree_sitter::Node;

impl ParsedFile<'_> {
    /// The signature of a function on one line.
    pub(super) fn signature(&self, name: &str, nodes: DeclarationNodes) -> String {
        match self.table.head {
            SignatureForm::Fields(arrow) => self.signature_of_fields(name, nodes.declaration, arrow),
            SignatureForm::Text => self.signature_of_text(nodes),
        }
    }

    /// `name<T>(a: A): R` from the fields of a node.
    fn signature_of_fields(&self, name: &str, node: Node, arrow: &str) -> String {
        let generics = self.field(node, "type_parameters").unwrap_or_default();
        let parameters: Vec<&str> = match node.child_by_field_name("parameters") {
            Some(list) => {
                named_children(list).filter(|p| !self.is_comment(*p)).map(|p| self.slice(p)).collect()
            }
            // `x => …` has one bare parameter.
            None => self.field(node, "parameter").into_iter().collect(),
        };
        let returns = self.field(node, "return_type").map(|r| format!("{arrow}{r}")).unwrap_or_default();
        let bounds = named_children(node).find(|n| n.kind() == "where_clause");
        let bounds = bounds.map(|b| format!(" {}", self.slice(b))).unwrap_or_default();
        let text = one_line(&format!("{name}{generics}({}){returns}{bounds}", parameters.join(", ")));
        text.trim_end_matches(',').to_string()
    }

    /// The text before the body, without modifiers, comments and constructor initializers.
    fn signature_of_text(&self, nodes: DeclarationNodes) -> String {
        let node = nodes.declaration;
        let mut cursor = node.walk();
        let children: Vec<Node> = node.children(&mut cursor).collect();
        let body = node.child_by_field_name("body");
        let ends = |n: &Node| Some(*n) == body || n.kind() == "field_initializer_list";
        let head = children.iter().take_while(|n| !ends(n));
        let signature = head.filter(|n| !self.is_comment(**n) && !self.table.modifiers.contains(&n.kind()));
        let around = if nodes.kept.start_byte() < node.start_byte() {
            &self.text[nodes.kept.start_byte()..node.start_byte()]
        } else {
            ""
        };
        let mut text = around.to_string();
        let mut last: Option<&Node> = None;
        for part in signature {
            // Keeps parts adjacent that are adjacent in the source.
            if last.is_some_and(|last| last.end_byte() < part.start_byte()) {
                text.push(' ');
            }
            text.push_str(self.slice(*part));
            last = Some(part);
        }
        one_line(&text)
    }

    /// The words for a declaration: keywords, then `what` or the word that a keyword replaces it by (`getter` for
    /// `get`).
    pub(super) fn noun(&self, nodes: DeclarationNodes, what: &str) -> String {
        let (node, table) = (nodes.declaration, self.table);
        let end = node.child_by_field_name("body").map_or(node.end_byte(), |body| body.start_byte());
        let mut heads: Vec<Node> = vec![node];
        heads.extend(named_children(node).filter(|n| table.modifiers.contains(&n.kind())));
        let keywords = heads.iter().flat_map(|head| {
            let mut cursor = head.walk();
            head.children(&mut cursor).collect::<Vec<_>>()
        });
        let keywords = keywords.filter(|n| !n.is_named() && n.end_byte() <= end).map(|n| n.kind());
        let decorators = named_children(nodes.kept).filter(|n| table.decorators.contains(&n.kind()));
        let markers: Vec<&str> = decorators.map(|n| self.slice(n).trim()).chain(keywords).collect();
        let noun = |word: &&str| table.nouns.iter().find(|(keyword, _)| keyword == word);
        let what = markers.iter().filter_map(noun).next_back().map_or(what, |(_, noun)| noun);
        let word = |word: &&str| table.words.iter().find(|(keyword, _)| keyword == word);
        let words = markers.iter().filter_map(word).map(|(_, word)| *word);
        words.chain([what]).collect::<Vec<_>>().join(" ")
    }
}

/// Joins text to one line and removes the spaces and trailing commas that a formatter puts at line breaks.
pub(super) fn one_line(text: &str) -> String {
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    text.replace("( ", "(")
        .replace(", )", ")")
        .replace(" )", ")")
        .replace("< ", "<")
        .replace(", >", ">")
        .replace(" >(", ">(")
}
