//! The allocator: batches of pixels are megabytes that come and go, and it hands the same pages out again.

use libmimalloc_sys::{mi_option_set, mi_option_t};
use mimalloc::MiMalloc;

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// `mi_option_purge_delay` of `mimalloc.h`, which the bindings leave out.
const PURGE_DELAY: mi_option_t = 15;

/// Keeps pages that are free now for the batches to come. Giving them back to the system, to be zeroed and mapped again for the
/// next batch, took 5% of the time of preprocessing; memory is bounded by the batches in flight either way.
pub fn keep_pages() {
    // SAFETY: sets a number before other threads are there; mimalloc ignores options it does not know.
    unsafe { mi_option_set(PURGE_DELAY, -1) };
}
