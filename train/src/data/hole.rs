//! The place that a row of infilling fills.

/// The text around a hole that infilling fills.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hole {
    pub prefix: String,
    pub suffix: String,
}
