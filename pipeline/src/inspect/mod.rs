//! Commands that look at a store without running anything: status, explain, verify, gc, and reading rows.

pub mod explain;
pub mod gc;
pub mod status;
pub mod verify;
