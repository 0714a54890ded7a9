//! The key of a partition, a gather unit or a job: a blake3 hash over everything that decides its bytes, and nothing else.
//!
//! # What invalidates what
//!
//! | what changes | what is made again |
//! |---|---|
//! | the content of a raw file | the partitions cut from it, in the stages that read the changed columns |
//! | a file is added or removed | its own partitions; gather stages and jobs |
//! | a parameter of a stage | all partitions of that stage |
//! | a parameter spelled out that has its default value | nothing |
//! | the content of a resource (a tokenizer) | all partitions of the stages that use it |
//! | the version of a stage kind | all partitions of the stages of that kind |
//! | the output of an input | the same partitions of the stages that read it |
//! | an input is made again with the same bytes | nothing (early cutoff; but see the next line) |
//! | what a model repeats of a map stage (`Parameters::settings`), its output staying the same | that stage, and jobs that read it (`train`, `evaluate`) |
//! | `seed` | gather stages, jobs, and stages that say they use it |
//! | the order of partitions, weights or names of the tables of a gather stage | that gather stage |
//! | a path, a modification time, the name of a file, the order of sections in the manifest | nothing (shards keep the ids they were made with) |
//! | the number of threads, a reject budget, the name of the manifest | nothing |
//! | the name of a stage | that stage, once: its outputs lie under its name |
//!
//! - `session.rs`: an open graph, and what of each stage enters its keys
//! - `recipe.rs`: which columns of which tables are read
//! - `tasks.rs`: the pieces of work, in order
//! - `builder.rs`: gathers the parts of a key
//! - `cause.rs`: what changed between two keys

pub mod builder;
pub mod cause;
pub mod recipe;
pub mod session;
pub mod tasks;

#[cfg(test)]
mod tests;
