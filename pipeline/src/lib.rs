//! The engine of LLaVM: a TOML manifest becomes a graph of stages, a plan, and tables kept under a content address.
//!
//! Nothing here knows images, tokens or models; stages come in through a [`registry::Registry`].

pub mod columns;
mod digest;
pub mod engine;
pub mod error;
pub mod graph;
pub mod inspect;
mod key;
pub mod manifest;
pub mod observer;
mod parts;
pub mod plan;
mod recipe;
pub mod registry;
pub mod rejects;
pub mod run_error;
mod runner;
mod session;
pub mod stage;
mod store;
pub mod summary;
mod survey;
mod table;
mod tally;
mod tasks;

pub use columns::{Column, Columns};
pub use engine::{Engine, Finished, Options, Table};
pub use error::StageError;
pub use graph::Graph;
pub use manifest::{Manifest, ManifestError};
pub use observer::{Event, Observer};
pub use registry::Registry;
pub use rejects::Rejects;
pub use run_error::RunError;
pub use runner::report::peak_rss_mib;
pub use summary::Summary;
pub use table::ipc::ArrowFile;
