//! Libraries that panic on damaged files: here that is an error like others.

use crate::error::{Error, Result};
use polars_error::PolarsResult;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Once;

thread_local! {
    /// A panic on this thread is expected, and says nothing.
    static CALM: Cell<bool> = const { Cell::new(false) };
}

/// Reads a part of the file `path`; a panic means that the file is damaged.
pub(crate) fn calmly<T>(path: &Path, read: impl FnOnce() -> PolarsResult<T>) -> Result<T> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !CALM.get() {
                before(info);
            }
        }));
    });
    let outer = CALM.replace(true);
    let done = catch_unwind(AssertUnwindSafe(read));
    CALM.set(outer);
    match done {
        Ok(done) => done.map_err(|error| Error::polars(path, error)),
        Err(_) => Err(Error::file(path, "is damaged: it is not what it says; get it again")),
    }
}
