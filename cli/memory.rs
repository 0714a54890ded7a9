//! What becomes of memory that is freed.

use libmimalloc_sys::{mi_option_set, mi_option_t};

/// `mi_option_purge_delay` of mimalloc 3 (`mimalloc.h`), after how many milliseconds unused pages go back to the system; -1 is never.
const PURGE_DELAY: mi_option_t = 15;

/// Keeps pages for what comes next. Tensors and batches of pixels are megabytes that come and go: the system clears every page
/// that it hands out again, which took a quarter of the time of a training step. The peak is 2 to 15% higher.
pub fn keep_freed_pages() {
    // SAFETY: the option exists in the linked version, takes any number, and no other thread runs yet.
    unsafe { mi_option_set(PURGE_DELAY, -1) }
}
