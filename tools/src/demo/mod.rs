//! The demo's own world: everything the paper's pipeline needs, generated from a seed.
//!
//! [`language`] and [`operations`] are a little world of list operations; [`corpus`] writes public-like code in it,
//! [`sdk`] a company's library and its private examples, [`problems`] held-out problems, [`tongues`] both in other programming languages, [`tokenizer`] the base
//! model's vocabulary. [`recipe`] says how its three models are trained, [`base`] makes the first.

pub mod base;
pub mod corpus;
mod embedded;
pub mod language;
mod libraries;
pub mod operations;
pub mod problems;
pub mod recipe;
pub mod rng;
pub mod sdk;
pub mod tokenizer;
pub mod tongues;
pub mod world;

pub use embedded::{in_languages, sources};
pub use world::World;
