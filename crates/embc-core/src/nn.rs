//! Layers with hand-written forward and backward passes over buffers that keep their memory.

mod batch_norm;
mod body;
mod interaction;
mod item_softmax;
mod joined;
mod linear;
mod mlp;

pub use batch_norm::BatchNorm;
pub use body::{BODY_KNOBS, Body, BodyKnobs};
pub use interaction::DotInteraction;
pub use item_softmax::ItemSoftmax;
pub use joined::Joined;
pub use linear::Linear;
pub use mlp::Mlp;
