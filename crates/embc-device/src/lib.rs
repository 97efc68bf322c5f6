//! Reads models that embc packed (`embc export --format packed`): mapped, never loaded.
//!
//! A [`Model`] is a mapped file, shared by all threads; a [`Reader`] looks rows up and scores
//! examples in buffers of its own, and allocates nothing after it was made. `c.rs` is the same for
//! C. A file that lies is refused at opening, or where it names a row that is not there.
//!
//! | | |
//! |---|---|
//! | `file.rs`, `bytes.rs` | the format |
//! | `tensor.rs` | floats, codes, packed integers, decoded by row |
//! | `program.rs` | the operators, each with one meaning, and what fits together |
//! | `run.rs`, `linear.rs` | what they compute |
//! | `model.rs` | files, vocabularies, lookups, scores |

mod bytes;
mod c;
pub mod file;
mod linear;
mod model;
pub mod program;
mod run;
pub mod tensor;

pub use bytes::{Field, Read, checksum};
pub use model::{Bag, Model, Reader};
pub use run::{mix64, scaled};

/// What is wrong, in a sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error(pub String);

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Error {}

pub(crate) fn wrong<T>(what: impl Into<String>) -> Result<T, Error> {
    Err(Error(what.into()))
}

/// What a model sees of a dense feature's value. A missing one, NaN, is 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transform {
    /// As it is.
    Raw,
    /// ln(max(x, 0) + 1).
    Log1p,
    /// Shifted, then scaled.
    Standard,
    /// ⌊ln(x)²⌋ above 2.
    FloorLog2,
}

impl Transform {
    /// What a model sees of `x`.
    #[inline]
    pub fn of(self, x: f64, shift: f64, scale: f64) -> f32 {
        if x.is_nan() {
            return 0.0;
        }
        // Standardised before anything is lost; the others from single precision, as papers' code.
        let single = x as f32;
        match self {
            Transform::Raw => single,
            Transform::Log1p => single.max(0.0).ln_1p(),
            Transform::FloorLog2 if x > 2.0 => single.ln().powi(2).floor(),
            Transform::FloorLog2 => single,
            Transform::Standard => ((x - shift) * scale) as f32,
        }
    }
}

impl Field for Transform {
    fn put(&self, out: &mut Vec<u8>) {
        out.push(*self as u8);
    }
    fn get(from: &mut Read<'_>) -> Result<Self, Error> {
        let all = [Transform::Raw, Transform::Log1p, Transform::Standard, Transform::FloorLog2];
        let code = u8::get(from)?;
        all.get(usize::from(code)).copied().map_or_else(|| wrong("no such transform"), Ok)
    }
}
