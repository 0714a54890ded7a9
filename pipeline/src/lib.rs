//! The engine of LLaVM: a TOML manifest becomes a graph of stages, a plan, and tables kept under a content address.
//!
//! Nothing here knows images, tokens or models; stages come in through a [`registry::Registry`].
//!
//! The folders are layers; each uses only those below it (`tests/layers.rs` keeps that):
//!
//! | layer | what |
//! |---|---|
//! | `engine` | the public face: plan, run, inspect |
//! | `schedule` | what is next, workers, events, budgets |
//! | `state`, `exec` | the cache lookup, plan, explain, status; how one task is made |
//! | `table` | partitions: read, write, put together |
//! | `keys` | what decides an output's bytes, tasks |
//! | `store` | content, records, roots, leases, gc, verify |
//! | `spec` | columns, errors, what a stage is, the registry, manifest and graph |

mod engine;
mod exec;
mod keys;
mod schedule;
mod spec;
mod state;
mod store;
mod table;

pub use engine::{Engine, Table};
pub use exec::executor::{Committed, Executor, TaskError, TaskSpec};
pub use keys::builder::Entry;
pub use keys::tasks::Pass;
pub use schedule::memory::peak_rss_mib;
pub use schedule::options::{Finished, Options};
pub use schedule::work::Ended;
pub use spec::columns::{Column, Columns};
pub use spec::error::StageError;
pub use spec::event::{Event, Observer, Silent};
pub use spec::graph::Graph;
pub use spec::manifest::{Manifest, ManifestError};
pub use spec::registry::Registry;
pub use spec::rejects::Rejects;
pub use spec::run_error::RunError;
pub use spec::shard::Shard;
pub use spec::summary::Summary;
pub use spec::{columns, graph, manifest, registry, rejects, run_error, stage, summary, units};
pub use state::{estimate, explain, plan, status};
pub use store::{gc, verify};
pub use table::counts::{Counts, Exceeded};
pub use table::ipc::ArrowFile;

/// Runs gone through without doing anything.
pub mod rehearsal {
    pub use crate::exec::elsewhere::LOOKUPS;
    pub use crate::schedule::rehearsal::keys_only::KeysOnly;
    pub use crate::schedule::rehearsal::{Ask, Cluster, How, Rehearsed, Wave, Work};
}

/// Where results are kept: in a folder, in a bucket, or wherever else [`Store`](storage::Store) is implemented.
pub mod storage {
    pub use crate::store::folder::Folder;
    pub use crate::store::objects::remote;
    pub use crate::store::objects::{Limits, Objects};
    pub use crate::store::place::workdir;
    pub use crate::store::workdir::Workdir;
    pub use crate::store::{Address, Commit, Held, Kind, Listed, Store, What};
}
