//! What `llavm run` promises, shown on the built program and the sample data: nothing runs twice, nothing depends on timing,
//! nothing is lost by a crash, no row vanishes.
//!
//! | file | promise |
//! |---|---|
//! | `incremental.rs` | a change reruns what hangs on it, and nothing else; `explain` says why |
//! | `determinism.rs` | any number of threads writes the same bytes |
//! | `crash.rs` | killed anywhere, run again: as if never killed; damage is found and mended; full disks; many processes |
//! | `filter.rs` | what a filter leaves out is counted, and no reason to stop |
//! | `rows.rs` | every broken row is a reject with the reason `data/broken/README.md` states; counts add up |
//! | `held_back.rs` | odd but legal values in every public layout give the right rows, or a reject with a name |
//! | `train.rs` | a training ends with the same bytes however it went: threads, interruptions, rows that come late |
//! | `recipes.rs` | the full recipe fits the data sets' layouts, and a dry run tells what it takes |
//! | `samples.rs` | every sample manifest runs, and its shards hold what Transformers would give |
//! | `sets.rs` | every manifest of a public data set gives the rows it should, and mixing counts sources and languages |

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test whose helpers fail has failed")]

mod crash;
mod determinism;
mod filter;
mod held_back;
mod incremental;
mod project;
mod recipes;
mod rows;
mod samples;
mod sets;
mod tables;
mod train;
