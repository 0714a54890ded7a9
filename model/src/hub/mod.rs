//! Models and data sets of the Hugging Face hub: where they are on this disk, and how they get there.
//!
//! | file | what |
//! |---|---|
//! | [`locate`] | `hub:ORG/NAME[@REV]` or a folder to a folder that exists; never the network |
//! | [`repository`] | a repository's names in the cache and in addresses |
//! | [`settings`] | the environment variables that `huggingface_hub` reads |
//! | [`fetch`] | what a fetch has to do, and doing it: the start of the downloading half |
//! | [`listing`] | the hub's list of files with sizes and digests |
//! | [`download`] | one file: resumed, checked, published |
//! | [`client`] | requests: redirects, who gets the token, which failures are tried again |
//! | [`fetch_error`] | what can go wrong, and what to do about it |
//!
//! The crate `hf-hub` gives addresses and cache paths. Its downloads are not used: they trust what arrives (no digest, any status
//! taken for the range that was asked for) and know neither `Retry-After` nor proxies for all requests.

pub mod client;
pub mod digest;
pub mod download;
pub mod fetch;
pub mod fetch_error;
pub mod listing;
pub mod locate;
mod partial;
pub mod repository;
pub mod settings;

pub use fetch::{FetchEvent, Hub, Observer, Patterns, Plan, State};
pub use fetch_error::FetchError;
pub use locate::{HUB, HubError, fetch_command, require_file, resolve, resolve_file, resolve_in};
pub use repository::Repository;
pub use settings::{Settings, cache_folder};

#[cfg(test)]
mod tests;
