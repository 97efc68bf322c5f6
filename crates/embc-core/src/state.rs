//! One walk over everything a checkpoint needs, for saving, restoring and hashing alike.

use std::collections::BTreeMap;

/// A tensor handed out by a state walk, writable so that the same walk restores it.
pub enum TensorMut<'a> {
    /// Parameters and moments.
    F32(&'a mut [f32]),
    /// Pointers, codes, remaps.
    U32(&'a mut [u32]),
    /// Counters and seeds.
    U64(&'a mut [u64]),
}

/// The visitor of a state walk: a name, unique within the trial, and the tensor.
pub type State<'a> = &'a mut dyn FnMut(&str, TensorMut<'_>);

/// A copy of a tensor.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)] // the same three kinds as `TensorMut`
pub enum Tensor {
    F32(Vec<f32>),
    U32(Vec<u32>),
    U64(Vec<u64>),
}

/// Something whose state can be walked.
pub trait HasState {
    /// Visits every tensor in a fixed order.
    fn state(&mut self, visit: State<'_>);
}

/// Marks the names of optimizer state.
pub(crate) const OPTIMIZER: char = '#';

/// True for the name of optimizer state.
pub fn is_optimizer(name: &str) -> bool {
    name.contains(OPTIMIZER)
}

/// Which tensors to save.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// All that resuming needs.
    Everything,
    /// All that scoring needs: no optimizer state.
    Weights,
}

/// Copies of named tensors.
pub type Saved = BTreeMap<String, Tensor>;

/// Copies state, by name.
pub fn save(of: &mut dyn HasState, what: What) -> Saved {
    let mut saved = BTreeMap::new();
    of.state(&mut |name, tensor| {
        if what == What::Weights && is_optimizer(name) {
            return;
        }
        let copy = match tensor {
            TensorMut::F32(x) => Tensor::F32(x.to_vec()),
            TensorMut::U32(x) => Tensor::U32(x.to_vec()),
            TensorMut::U64(x) => Tensor::U64(x.to_vec()),
        };
        assert!(saved.insert(name.to_string(), copy).is_none(), "two tensors named {name}");
    });
    saved
}

/// Where tensors are restored from.
pub trait Tensors {
    /// Copies the tensor `name`; false where it is missing or has another shape.
    fn copy(&self, name: &str, into: &mut TensorMut<'_>) -> bool;
}

impl Tensors for Saved {
    fn copy(&self, name: &str, into: &mut TensorMut<'_>) -> bool {
        match (into, self.get(name)) {
            (TensorMut::F32(x), Some(Tensor::F32(y))) if x.len() == y.len() => {
                x.copy_from_slice(y);
            }
            (TensorMut::U32(x), Some(Tensor::U32(y))) if x.len() == y.len() => {
                x.copy_from_slice(y);
            }
            (TensorMut::U64(x), Some(Tensor::U64(y))) if x.len() == y.len() => {
                x.copy_from_slice(y);
            }
            _ => return false,
        }
        true
    }
}

/// Writes saved state back. An error names the tensor that is missing or of another shape.
pub fn restore(into: &mut dyn HasState, saved: &dyn Tensors, what: What) -> Result<(), String> {
    let mut error = None;
    into.state(&mut |name, mut tensor| {
        let wanted = what == What::Everything || !is_optimizer(name);
        if wanted && !saved.copy(name, &mut tensor) && error.is_none() {
            error = Some(format!("tensor {name} is missing or has another shape"));
        }
    });
    error.map_or(Ok(()), Err)
}

/// Names the tensors of an inner walk `prefix/…`.
pub fn prefix<'a>(prefix: &'a str, visit: State<'a>) -> impl FnMut(&str, TensorMut<'_>) + 'a {
    move |name, tensor| visit(&format!("{prefix}/{name}"), tensor)
}
