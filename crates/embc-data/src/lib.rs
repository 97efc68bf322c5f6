//! Readers, cache, splits and loaders for data sets: all reading and writing of data files.
//!
//! A [`registry`] names raw files; [`ingest`] turns them into a memory-mapped [`cache`] once; a
//! [`view::View`] applies an experiment's labels, split and vocabularies, and streams batches.

pub mod atomic;
pub mod block;
pub mod cache;
mod calm;
mod candidates;
mod columns;
pub mod dataset;
pub mod error;
pub mod fetch;
mod history;
pub mod ingest;
pub mod init;
mod input;
pub mod lease;
mod loader;
pub use loader::VERSION as LOADER_VERSION;
mod negative;
mod queries;
pub mod raw;
pub mod registry;
pub mod rows;
pub mod split;
pub mod synth;
pub mod table;
pub mod view;
mod vocab;

pub use error::{Error, Result};
pub use input::hex;
