//! The parts of a documentation comment.

/// What a comment says about the declaration under it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Doc {
    /// Paragraphs and list items, one a line; paragraphs are parted by an empty line.
    pub description: String,
    /// Name and meaning of each described parameter.
    pub params: Vec<(String, String)>,
    pub returns: String,
    pub throws: Vec<String>,
    pub deprecated: bool,
}

impl Doc {
    /// Words of the description.
    pub fn words(&self) -> usize {
        self.description.split_whitespace().count()
    }
}
