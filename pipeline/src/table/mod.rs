//! Tables: reading and writing partitions, and putting rows together from several of them.

pub mod access;
pub mod assemble;
pub mod counts;
pub mod direct;
pub mod find;
pub mod ipc;
pub mod read;
pub mod rejects;
pub mod view;
pub mod writer;
