//! The C interface, `include/embc.h`: five functions, and those that say what there is. A handle is
//! a reader of its own: one a thread; what is mapped is shared. Of pointers from C it is asked what
//! embc.h says: handles are open and used by one thread, strings end in 0, arrays are as long as said.

#![allow(unsafe_code, clippy::missing_safety_doc)]

use crate::{Bag, Error, Model, Reader};
use std::cell::RefCell;
use std::ffi::{CStr, CString, c_char};
use std::path::Path;
use std::ptr::null;
use std::sync::Arc;

thread_local! {
    static ERROR: RefCell<CString> = RefCell::default();
}

/// Notes an error for [`embc_error`]; -1 for the caller.
fn failed(error: &Error) -> i32 {
    let text = CString::new(error.0.replace('\0', "")).unwrap_or_default();
    ERROR.with(|last| *last.borrow_mut() = text);
    -1
}

fn done(result: Result<(), Error>) -> i32 {
    result.map_or_else(|error| failed(&error), |()| 0)
}

/// A slice of what C says; none of none.
unsafe fn slice<'a, T>(from: *const T, n: usize) -> &'a [T] {
    if n == 0 { &[] } else { unsafe { std::slice::from_raw_parts(from, n) } }
}

unsafe fn slice_mut<'a, T>(from: *mut T, n: usize) -> &'a mut [T] {
    if n == 0 { &mut [] } else { unsafe { std::slice::from_raw_parts_mut(from, n) } }
}

/// Opens a file. Null where it cannot be; `embc_error` says why.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn embc_open(path: *const c_char) -> *mut Reader {
    let path = unsafe { CStr::from_ptr(path) };
    #[cfg(unix)]
    let path = <std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(path.to_bytes());
    #[cfg(not(unix))]
    let path = &*path.to_string_lossy();
    let reader = Model::open(Path::new(path)).and_then(|model| Reader::new(Arc::new(model)));
    match reader {
        Ok(reader) => Box::into_raw(Box::new(reader)),
        Err(error) => {
            failed(&error);
            std::ptr::null_mut()
        }
    }
}

/// Another handle on the same mapping, for another thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn embc_share(reader: *const Reader) -> *mut Reader {
    match Reader::new(unsafe { &*reader }.model().clone()) {
        Ok(reader) => Box::into_raw(Box::new(reader)),
        Err(error) => {
            failed(&error);
            std::ptr::null_mut()
        }
    }
}

/// Closes a handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn embc_close(reader: *mut Reader) {
    if !reader.is_null() {
        drop(unsafe { Box::from_raw(reader) });
    }
}

/// What went wrong last in this thread.
#[unsafe(no_mangle)]
pub extern "C" fn embc_error() -> *const c_char {
    ERROR.with(|last| last.borrow().as_ptr())
}

/// Number of inputs.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn embc_inputs(reader: *const Reader) -> usize {
    unsafe { &*reader }.model().header().inputs.len()
}

/// The input called `name`, or -1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn embc_input(reader: *const Reader, name: *const c_char) -> i64 {
    let name = unsafe { CStr::from_ptr(name) }.to_string_lossy();
    unsafe { &*reader }.model().input(&name).map_or(-1, |input| input as i64)
}

/// Number of ids of an input; 0 where there is no such input.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn embc_vocab(reader: *const Reader, input: usize) -> u32 {
    unsafe { &*reader }.model().header().inputs.get(input).map_or(0, |input| input.vocab)
}

/// Columns of an input's rows; 0 where there is no such input.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn embc_width(reader: *const Reader, input: usize) -> usize {
    unsafe { &*reader }.model().width(input)
}

/// Number of dense features.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn embc_dense(reader: *const Reader) -> usize {
    unsafe { &*reader }.model().header().features.len()
}

/// Logits an example; 0 where the file holds tables alone.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn embc_outputs(reader: *const Reader) -> usize {
    unsafe { &*reader }.model().outputs()
}

/// The id of a value of `length` bytes, or -1 where it has none.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn embc_id(
    reader: *const Reader,
    input: usize,
    value: *const c_char,
    length: usize,
) -> i64 {
    let value = unsafe { slice(value.cast(), length) };
    unsafe { &*reader }.model().id(input, value).map_or(-1, i64::from)
}

/// The rows of `n` ids of an input, to `out` [n × width]; 0, or -1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn embc_rows(
    reader: *mut Reader,
    input: usize,
    ids: *const u32,
    n: usize,
    out: *mut f32,
) -> i32 {
    let reader = unsafe { &mut *reader };
    let out = unsafe { slice_mut(out, n * reader.model().width(input)) };
    done(reader.rows(input, unsafe { slice(ids, n) }, out))
}

/// The logits of `batch` examples, to `out` [batch × outputs]; 0, or -1. `ids` has for each input the
/// ids of all examples; `offsets` has for each null, where an example has one id, or where its ids
/// begin [batch + 1]. `dense` is [batch × dense], NaN where a value is missing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn embc_score(
    reader: *mut Reader,
    ids: *const *const u32,
    offsets: *const *const u32,
    dense: *const f64,
    batch: usize,
    out: *mut f32,
) -> i32 {
    const MOST: usize = 256;
    let reader = unsafe { &mut *reader };
    let (inputs, outputs) = (reader.model().header().inputs.len(), reader.model().outputs());
    if inputs > MOST {
        return failed(&Error(format!("more than {MOST} inputs: score them from Rust")));
    }
    let mut bags = [Bag { ids: &[], offsets: &[] }; MOST];
    for (input, bag) in bags[..inputs].iter_mut().enumerate() {
        let from = if offsets.is_null() { null() } else { unsafe { *offsets.add(input) } };
        let starts = unsafe { slice(from, if from.is_null() { 0 } else { batch + 1 }) };
        let n = starts.last().map_or(batch, |&end| end as usize);
        *bag = Bag { ids: unsafe { slice(*ids.add(input), n) }, offsets: starts };
    }
    let dense = unsafe { slice(dense, batch * reader.model().header().features.len()) };
    let out = unsafe { slice_mut(out, batch * outputs) };
    done(reader.score(&bags[..inputs], dense, out))
}
