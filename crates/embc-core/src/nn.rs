//! Layers with hand-written forward and backward passes over buffers that keep their memory.

mod interaction;
mod linear;
mod mlp;

pub use interaction::DotInteraction;
pub use linear::Linear;
pub use mlp::Mlp;
