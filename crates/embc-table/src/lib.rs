//! Embedding tables that exist already: of words, tokens, items.
//!
//! A [`source`] reads a file as a [`table::Table`]. A method of [`form`] plans what fits a budget,
//! fits it to the table, and states how its rows come, as a trained scheme does: the packed file is
//! written, read again, and what it gives is measured ([`measure`]), also by a [`task`]. [`choose`]
//! does this for all methods and says which is best; [`output`] writes it for elsewhere.

pub mod choose;
pub mod form;
pub mod measure;
pub mod output;
pub mod packed;
pub mod source;
pub mod table;
pub mod task;
pub mod words;
