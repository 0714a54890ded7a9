//! Models and data sets of the Hugging Face hub and of ModelScope: where they are on this disk, and how they get there.
//!
//! | file | what |
//! |---|---|
//! | [`source`] | the two sources, and what tells them apart |
//! | [`locate`] | `hub:ORG/NAME[@REV]`, `ms:ORG/NAME[@REV]` or a folder to a folder that exists; never the network |
//! | [`repository`] | a repository's names in the cache and in addresses |
//! | [`settings`] | the environment variables that the sources' own clients read |
//! | [`fetch`] | what a fetch has to do, and doing it: the start of the downloading half |
//! | [`listing`], [`modelscope`] | the source's list of files with sizes and digests |
//! | [`download`] | one file: resumed, checked, published |
//! | [`ranges`] | files read by range where they lie, without a copy |
//! | [`web_file`] | one file at an address of its own |
//! | [`disk`], [`lock`] | locks and links, and what stands for them where the file system has none |
//! | [`client`], [`certificates`] | requests: redirects, who gets the token, which failures are tried again |
//! | [`remote_image`] | images of requests to a server, from hosts that were named |
//! | [`event`] | what a fetch reports |
//! | [`hub_error`], [`fetch_error`], [`trouble`], [`asked`] | what can go wrong, and what to do about it |
//!
//! The crate `hf-hub` gives addresses and cache paths. Its downloads are not used: they trust what arrives (no digest, any status
//! taken for the range that was asked for) and know neither `Retry-After` nor proxies for all requests.

pub mod asked;
pub mod certificates;
pub mod client;
pub mod digest;
pub mod disk;
pub mod download;
pub mod event;
pub mod fetch;
pub mod fetch_error;
pub mod hub_error;
pub mod listing;
pub mod locate;
pub mod lock;
pub mod modelscope;
mod partial;
pub mod ranges;
pub mod remote_image;
pub mod repository;
pub mod settings;
pub mod source;
pub mod trouble;
pub mod web_file;

pub use event::{FetchEvent, Observer, State};
pub use fetch::{Hub, Patterns, Plan};
pub use fetch_error::FetchError;
pub use hub_error::{HubError, fetch_command};
pub use listing::RemoteFile;
pub use locate::{require_file, resolve, resolve_file, resolve_in};
pub use ranges::Ranges;
pub use repository::Repository;
pub use settings::{Settings, cache_folder};
pub use source::{HUB, MODELSCOPE, Source, is_repository};
pub use web_file::WebFile;

#[cfg(test)]
mod tests;
