//! Commands that look at a store without running anything: status, explain, verify, gc, and reading rows.

pub mod estimate;
pub mod explain;
pub mod gc;
pub mod status;
pub mod verify;
