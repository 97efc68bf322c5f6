//! Experiments with compressed embeddings as values.
//!
//! A [`TrialSpec`](spec::TrialSpec) is all that decides a trial's numbers, and its id. An
//! [`Experiment`](config::Experiment) wants many of them ([`plan`], [`schedule`]); a
//! [`Desk`](desk::Desk) hands them out as [`Order`](order::Order)s to whoever runs them
//! ([`executor`]), each on the data of a [`Bench`](bench::Bench), and keeps their
//! [`Record`](record::Record)s; a [`Grid`](grid::Grid) is a query over these, and what they say has
//! intervals ([`estimate`], [`difference`]). A trained net is kept as an [`artefact`]. Nothing here prints or asks for the world: progress and
//! cancellation are arguments.

pub mod artefact;
pub mod axis;
pub mod bench;
pub mod blueprint;
pub mod checkpoint;
pub mod choice;
pub mod config;
pub mod desk;
pub mod device;
pub mod difference;
pub mod estimate;
pub mod executor;
pub mod export;
pub mod grid;
mod legacy;
pub mod machine;
pub mod memory;
pub mod order;
pub mod overrides;
pub mod parent;
pub mod plan;
pub mod predict;
pub mod provenance;
mod query;
pub mod race;
pub mod record;
pub mod sample;
pub mod schedule;
pub mod scores;
pub mod spec;
pub mod store;
pub mod suggest;
pub mod sweep;
pub mod tensors;
pub mod top;
pub mod units;
pub mod watch;
pub mod workers;
