//! The demo's own world: everything the paper's pipeline needs, generated from a seed.
//!
//! [`op`], [`operations`] and [`program`] are a little world of list operations; [`corpus`] writes public-like code in it,
//! [`sdk`] a company's library and its private examples, [`problems`] held-out problems, [`languages`] both in other
//! programming languages, [`tokenizer`] the base model's vocabulary. [`recipe`] says how its three models are trained,
//! [`base`] makes the first.

#![forbid(unsafe_code)]

pub mod base;
pub mod corpus;
mod embedded;
pub mod languages;
mod libraries;
pub mod op;
pub mod operations;
pub mod problems;
pub mod program;
pub mod recipe;
mod reserved;
pub mod rng;
pub mod sdk;
pub mod tokenizer;
pub mod world;

pub use embedded::{DemoFiles, write};
pub use world::{World, WorldFiles};
