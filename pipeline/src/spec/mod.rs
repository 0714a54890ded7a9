//! What a pipeline is, before anything runs: columns, errors, what a stage is, the kinds that are registered, and the manifest
//! that becomes a checked graph. Touches no store and starts no thread.

pub mod columns;
pub mod error;
pub mod event;
mod fields;
pub mod graph;
pub mod manifest;
pub mod panics;
pub mod read_through;
pub mod registry;
pub mod rejects;
pub mod run_error;
pub mod shard;
pub mod stage;
pub mod summary;
pub mod units;
