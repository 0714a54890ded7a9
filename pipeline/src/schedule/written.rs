//! When the root of a run was last written.

use std::time::{Duration, Instant};

/// When, and how long that took.
pub struct Written {
    pub at: Instant,
    pub took: Duration,
}
