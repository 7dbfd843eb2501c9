//! A documentation comment in its parts.

/// The content of a documentation comment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DocComment {
    /// Paragraphs and list items, one per line; paragraphs are separated by an empty line.
    pub description: String,
    /// Name and meaning of each documented parameter.
    pub params: Vec<(String, String)>,
    pub returns: String,
    pub throws: Vec<String>,
    pub deprecated: bool,
}

impl DocComment {
    /// The number of words in the description.
    pub fn word_count(&self) -> usize {
        self.description.split_whitespace().count()
    }
}
