//! Specialization to a private repository: its exported names, the rows that cover most of them, and held-out rows.

mod api;
mod choose;

pub use api::ExportedApi;
pub use choose::{choose_rows, held_out, split_rows};
