//! What a person sees: text and tables, progress, failures, and Ctrl-C. Knows no command.

pub mod failure;
pub mod interrupt;
pub mod log;
pub mod output;
pub mod progress;
pub mod summary;
pub mod table;
pub mod transfers;
mod visible;

pub use visible::{one_line, visible};
