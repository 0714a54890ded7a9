//! Decoders of untrusted input: some panic on bytes that nobody thought of. One image or page must not end a run.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};

thread_local! {
    static GUARDED: Cell<bool> = const { Cell::new(false) };
}

/// What a decoder gives; none if it panicked.
pub fn guarded<T>(decoder: impl FnOnce() -> T) -> Option<T> {
    let before = GUARDED.replace(true);
    let given = catch_unwind(AssertUnwindSafe(decoder));
    GUARDED.set(before);
    given.ok()
}

/// Whether a panic of this thread would be caught by [`guarded`], and so is nothing to alarm a person with.
pub fn is_guarded() -> bool {
    GUARDED.get()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_gives_nothing_and_leaves_the_guard() {
        assert_eq!(guarded(is_guarded), Some(true));
        assert_eq!(guarded(|| -> u8 { panic!("on purpose") }), None);
        assert!(!is_guarded());
    }
}
