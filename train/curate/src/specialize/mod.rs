//! What a private repository has to teach: its exported names, the rows that show most of them, and rows held out.

mod api;
mod choose;

pub use api::Api;
pub use choose::{choose, split};
