//! What `llavm run` promises, shown on the built program and the sample data: nothing runs twice, nothing depends on timing,
//! nothing is lost by a crash, no row vanishes.
//!
//! | file | promise |
//! |---|---|
//! | `answers.rs` | a model is asked nothing twice |
//! | `incremental.rs` | a change reruns what depends on it, and nothing else; `explain` says why |
//! | `determinism.rs` | any number of threads writes the same bytes |
//! | `crash.rs` | killed anywhere, run again: as if never killed; damage is found and mended; full disks; many processes |
//! | `distinct.rs` | an image that several rows show is decoded and kept once, and every row shows its own |
//! | `filter.rs` | what a filter leaves out is counted, and no reason to stop |
//! | `rows.rs` | every broken row is a reject with the reason `data/broken/README.md` states; counts add up |
//! | `limits.rs` | few open files are enough, however many partitions and shards |
//! | `held_back.rs` | odd but legal values in every public layout give the right rows, or a reject with a name |
//! | `train.rs` | a training ends with the same bytes however it went: threads, interruptions, rows that come late |
//! | `ranks.rs` | a training on several devices is the one on one |
//! | `recipes.rs` | the full recipe fits the data sets' layouts, and a dry run tells what it takes |
//! | `samples.rs` | every sample manifest runs, and its shards hold what Transformers would give |
//! | `shards.rs` | processes that split a manifest among themselves give what one run gives |
//! | `work.rs` | tasks done by processes of their own give what a run gives; damage is made good at once; few open files do |
//! | `sets.rs` | every manifest of a public data set gives the rows it should, and mixing counts sources and languages |

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test whose helpers fail has failed")]

mod answers;
mod crash;
mod determinism;
mod distinct;
mod filter;
mod held_back;
mod incremental;
mod limits;
mod project;
mod ranks;
mod recipes;
mod rows;
mod samples;
mod sets;
mod shards;
mod tables;
mod train;
mod work;
