//! Tables: reading and writing partitions, and putting rows together from several of them.

pub mod access;
pub mod assemble;
pub mod ipc;
pub mod read;
pub mod rejects;
pub mod view;
pub mod writer;
