//! The server over real sockets, on a tiny model.

mod client;
mod fixture;

mod adapters;
mod drain;
mod editors;
mod hostile;
mod openai;
