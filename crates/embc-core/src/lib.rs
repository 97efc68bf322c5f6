//! Embedding compression schemes and a small autograd-free trainer: pure compute.
//!
//! Ids of a field go through the [`layer`], which looks each unique id up once in a
//! [`scheme::Embedding`]; a [`model::Model`] turns rows into logits; the gradient walks back the
//! same way and [`optim::Optim`] steps every touched [`param::Param`]. No I/O, no clock, no
//! environment, no printing.

pub mod allocate;
pub mod batch;
pub mod books;
pub mod budget;
pub mod cancel;
pub mod census;
mod codebook;
pub mod gather;
pub mod graph;
pub mod hash;
pub mod init;
pub mod kmeans;
pub mod layer;
pub mod linalg;
pub mod loss;
pub mod lsq;
pub mod metric;
pub mod minhash;
pub mod model;
pub mod net;
pub mod nn;
pub mod optim;
pub mod packed;
pub mod param;
pub mod quantize;
pub mod rng;
pub mod scheme;
pub mod signs;
pub mod state;
pub mod task;
pub mod train;
