//! One walk over everything a checkpoint needs, for saving, restoring and hashing alike.

use ndarray::{ArrayD, ArrayViewD, ArrayViewMut, ArrayViewMutD};
use std::collections::BTreeMap;

/// A tensor handed out by a state walk, writable so that the same walk restores it; row-major.
pub enum TensorMut<'a> {
    /// Parameters and moments.
    F32(ArrayViewMutD<'a, f32>),
    /// Pointers, codes, remaps.
    U32(ArrayViewMutD<'a, u32>),
    /// Counters and seeds.
    U64(ArrayViewMutD<'a, u64>),
}

/// The same three kinds, to be read.
#[allow(missing_docs)]
pub enum TensorRef<'a> {
    F32(ArrayViewD<'a, f32>),
    U32(ArrayViewD<'a, u32>),
    U64(ArrayViewD<'a, u64>),
}

/// A copy of a tensor: the same three kinds.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub enum Tensor {
    F32(ArrayD<f32>),
    U32(ArrayD<u32>),
    U64(ArrayD<u64>),
}

impl<'a> TensorMut<'a> {
    /// Rows of so many columns [values.len() / columns × columns]; a vector where that is 1.
    pub fn rows(values: &'a mut [f32], columns: usize) -> Self {
        let shape = match columns {
            1 => vec![values.len()],
            _ => vec![values.len() / columns, columns],
        };
        TensorMut::F32(ArrayViewMutD::from_shape(shape, values).expect("whole rows"))
    }

    /// A vector of numbers.
    pub fn u32(values: &'a mut [u32]) -> Self {
        TensorMut::U32(ArrayViewMut::from(values).into_dyn())
    }

    /// A vector of numbers.
    pub fn u64(values: &'a mut [u64]) -> Self {
        TensorMut::U64(ArrayViewMut::from(values).into_dyn())
    }

    /// To be read.
    pub fn view(&self) -> TensorRef<'_> {
        match self {
            TensorMut::F32(x) => TensorRef::F32(x.view()),
            TensorMut::U32(x) => TensorRef::U32(x.view()),
            TensorMut::U64(x) => TensorRef::U64(x.view()),
        }
    }
}

impl TensorRef<'_> {
    /// Its shape.
    pub fn shape(&self) -> &[usize] {
        match self {
            TensorRef::F32(x) => x.shape(),
            TensorRef::U32(x) => x.shape(),
            TensorRef::U64(x) => x.shape(),
        }
    }

    fn to_owned(&self) -> Tensor {
        match self {
            TensorRef::F32(x) => Tensor::F32(x.to_owned()),
            TensorRef::U32(x) => Tensor::U32(x.to_owned()),
            TensorRef::U64(x) => Tensor::U64(x.to_owned()),
        }
    }
}

impl Tensor {
    /// To be read.
    pub fn view(&self) -> TensorRef<'_> {
        match self {
            Tensor::F32(x) => TensorRef::F32(x.view()),
            Tensor::U32(x) => TensorRef::U32(x.view()),
            Tensor::U64(x) => TensorRef::U64(x.view()),
        }
    }
}

impl From<Vec<f32>> for Tensor {
    fn from(values: Vec<f32>) -> Self {
        Tensor::F32(ArrayD::from_shape_vec(vec![values.len()], values).expect("a vector"))
    }
}

impl From<Vec<u32>> for Tensor {
    fn from(values: Vec<u32>) -> Self {
        Tensor::U32(ArrayD::from_shape_vec(vec![values.len()], values).expect("a vector"))
    }
}

impl From<Vec<u64>> for Tensor {
    fn from(values: Vec<u64>) -> Self {
        Tensor::U64(ArrayD::from_shape_vec(vec![values.len()], values).expect("a vector"))
    }
}

/// The visitor of a state walk: a name, unique within the trial, and the tensor.
pub type State<'a> = &'a mut dyn FnMut(&str, TensorMut<'_>);

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
        let copy = tensor.view().to_owned();
        assert!(saved.insert(name.to_string(), copy).is_none(), "two tensors named {name}");
    });
    saved
}

/// Where tensors are restored from.
pub trait Tensors: Sync {
    /// The shape of the tensor `name`, if there is one.
    fn shape(&self, name: &str) -> Option<Vec<usize>>;
    /// Copies the tensor `name`; false where it is missing, or has another type or shape. Of a
    /// vector the values count in their order, whatever it is copied to.
    fn copy(&self, name: &str, into: &mut TensorMut<'_>) -> bool;
}

/// Whether a tensor of one shape can be copied into one of another.
pub fn fits(from: &[usize], into: &[usize]) -> bool {
    from == into || from.len() == 1 && into.iter().product::<usize>() == from[0]
}

impl Tensors for Saved {
    fn shape(&self, name: &str) -> Option<Vec<usize>> {
        self.get(name).map(|tensor| tensor.view().shape().to_vec())
    }

    fn copy(&self, name: &str, into: &mut TensorMut<'_>) -> bool {
        fn fill<T: Copy>(into: &mut ArrayViewMutD<'_, T>, from: &ArrayD<T>) -> bool {
            let fits = fits(from.shape(), into.shape());
            if fits {
                into.iter_mut().zip(from).for_each(|(into, &from)| *into = from);
            }
            fits
        }
        match (into, self.get(name)) {
            (TensorMut::F32(x), Some(Tensor::F32(y))) => fill(x, y),
            (TensorMut::U32(x), Some(Tensor::U32(y))) => fill(x, y),
            (TensorMut::U64(x), Some(Tensor::U64(y))) => fill(x, y),
            _ => false,
        }
    }
}

/// The tensors whose names begin with a prefix, without it.
pub struct Under<'a> {
    /// How names begin.
    pub prefix: String,
    /// All tensors.
    pub all: &'a dyn Tensors,
}

impl Tensors for Under<'_> {
    fn shape(&self, name: &str) -> Option<Vec<usize>> {
        self.all.shape(&format!("{}{name}", self.prefix))
    }

    fn copy(&self, name: &str, into: &mut TensorMut<'_>) -> bool {
        self.all.copy(&format!("{}{name}", self.prefix), into)
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
