//! Building one task: reading its inputs, doing the stage's work, and committing what comes out.
//!
//! | file | what |
//! |---|---|
//! | `executor.rs` | [`Executor`](executor::Executor): a [`TaskSpec`](executor::TaskSpec) in, a commit out |
//! | `local.rs` | the executor of this process |
//! | `elsewhere.rs` | tasks done by an executor that the caller brings |
//! | `builder.rs` | [`Builder`](builder::Builder): what all builds of a process share, and what they see of the run |
//! | `map.rs`, `sequential.rs`, `gather.rs`, `job.rs` | one way to build each |
//! | `checked.rs` | inputs are compared with their records before they are used, and damaged ones made again |
//! | `context.rs` | what a job sees of the run |
//! | `permits.rs` | how much may be in memory at once |

pub mod builder;
mod checked;
mod context;
pub mod elsewhere;
pub mod executor;
mod gather;
mod job;
pub mod local;
mod map;
pub mod permits;
mod sequential;
mod shared;
