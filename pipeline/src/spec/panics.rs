//! Turns a panic into an error. What was being worked on is thrown away by whoever catches.

use super::error::StageError;
use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs `work`; `what` says where it was ("on rows 0..128 of the partition").
pub fn catch<T>(what: &str, work: impl FnOnce() -> Result<T, StageError>) -> Result<T, StageError> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let text = format!("it panicked {what}: {}", message(panic.as_ref()));
        Err(StageError::new(text).help("This is a bug in the stage; please report it with the row."))
    })
}

/// What a panic says.
pub fn message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}
