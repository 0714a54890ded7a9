//! Runs what is not there: workers that read and write, a pool of threads that compute, threads for jobs.
//!
//! A worker takes one task at a time. For a partition of a map stage it reads batches in order, hands each to the pool, and
//! writes what comes back in order. A batch in flight holds one of a fixed number of permits, and so memory does not grow
//! with the number of rows, of partitions or of stages. Tasks are taken first partition first, so that whatever consumes
//! partition by partition can begin early. What is made does not depend on any of this: a batch is computed by a pure
//! function of its rows, and written at its place.
//!
//! | file | what |
//! |---|---|
//! | `scheduler.rs` | what is next |
//! | `run.rs`, `worker.rs`, `job.rs` | a run, its workers and its jobs |
//! | `work.rs` | single tasks that another process has planned |
//! | `rehearsal/` | a run gone through without doing anything, to see what bounds it |
//! | `host.rs`, `events.rs` | what builds see of the run, and what is reported of it |
//! | `budgets.rs` | rejects against what the manifest allows |
//! | `roots.rs` | writes down what the manifest stands for |
//! | `report.rs`, `ids.rs`, `disk_space.rs`, `memory.rs` | summary, ids of rejected rows, advice on a full disk, peak memory |

mod budgets;
mod disk_space;
mod events;
mod host;
mod ids;
mod job;
pub mod memory;
pub mod options;
pub mod rehearsal;
mod report;
mod roots;
pub mod run;
mod scheduler;
pub mod work;
mod worker;
mod written;
