//! What is there and what would run, worked out without running anything: the cache lookup, plan, explain, status, estimate.

pub mod causes;
pub mod estimate;
pub mod explain;
pub mod lookup;
pub mod plan;
pub mod status;
