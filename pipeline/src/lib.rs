//! The engine of LLaVM: a TOML manifest becomes a graph of stages, a plan, and tables kept under a content address.
//!
//! Nothing here knows images, tokens or models; stages come in through a [`registry::Registry`].

pub mod columns;
pub mod error;
pub mod graph;
pub mod manifest;
pub mod registry;
pub mod rejects;
pub mod stage;

pub use columns::{Column, Columns};
pub use error::StageError;
pub use graph::Graph;
pub use manifest::{Manifest, ManifestError};
pub use registry::Registry;
pub use rejects::Rejects;
