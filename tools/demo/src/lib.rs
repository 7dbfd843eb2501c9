//! The demo's data: everything that the paper's pipeline needs, generated from a seed.
//!
//! [`operation`], [`catalog`] and [`chain`] define list operations and their compositions. From these [`corpus`] writes
//! public-like code, [`sdk`] a company's library and its private examples, [`problems`] held-out problems,
//! [`languages`] both in other programming languages, and [`dataset`] puts them together. [`tokenizer`] learns the base
//! model's vocabulary, [`recipe`] holds the hyperparameters of the three models, and [`base`] trains the first.

#![forbid(unsafe_code)]

pub mod base;
pub mod catalog;
pub mod chain;
pub mod corpus;
pub mod dataset;
mod embedded;
pub mod languages;
mod libraries;
pub mod operation;
pub mod problems;
pub mod recipe;
mod reserved;
pub mod rng;
pub mod sdk;
pub mod tokenizer;

pub use dataset::{DatasetFiles, DemoDataset};
pub use embedded::{DemoFiles, write};
