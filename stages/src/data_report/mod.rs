//! What a data set is like, on one page: counts, lengths, image sizes, languages, sources, repetitions, rejects with their
//! images, and samples.
//!
//! In: the tables of a stage, read once from beginning to end, whatever columns they have. Out: a [`Report`], which [`render`]
//! draws as an HTML file that needs nothing else. Memory holds counts and a digest for each image and answer, not rows.
//!
//! | file | what |
//! |---|---|
//! | [`tally`] | counts rows as they come |
//! | [`spread`] | how a number is spread over the rows: quantiles, and bars of a histogram |
//! | [`shown`] | a row as the page shows it, with small images |
//! | [`page`] | the numbers as they are written, and the template |

pub mod page;
pub mod shown;
pub mod spread;
pub mod tally;

pub use page::{Report, render};

use llavm_pipeline::{Engine, RunError, StageError};
use tally::Tally;

/// The columns that are looked at, as far as the tables have them.
const COLUMNS: [&str; 9] =
    ["id", "n_images", "images", "messages", "language", "source", "input_ids", "labels", "train"];

/// What a report shows of the rows.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// At most so many rows of each table are read; all when `None`.
    pub rows: Option<u64>,
    /// Rows shown as samples.
    pub samples: usize,
}

/// Reads the rows that `stage` works on; `progress` is called with how many were read so far.
pub fn report(
    engine: &Engine,
    stage: &str,
    options: Options,
    progress: &dyn Fn(u64),
) -> Result<Report, RunError> {
    let tables = engine.rows_of(stage)?;
    if tables.is_empty() {
        let help = "Name a stage that gives a table, or one that takes tables, such as `shard`.";
        return Err(StageError::new(format!("`{stage}` has no rows to look at")).help(help).into());
    }
    let mut tally = Tally::new(options.samples);
    for table in &tables {
        let known = table.columns();
        let has = |name: &str| known.iter().any(|column| column.name == name);
        // The labels say what is trained; without them `train` does.
        let wanted = |name: &&str| has(name) && !(*name == "train" && has("labels"));
        let columns: Vec<&str> = COLUMNS.iter().copied().filter(wanted).collect();
        let mut left = options.rows.unwrap_or(u64::MAX);
        for partition in 0..table.partitions() {
            if left == 0 {
                break;
            }
            for batch in table.scan(partition, &columns)? {
                let batch = batch?;
                let count = left.min(batch.num_rows() as u64);
                tally.add(&batch.slice(0, count as usize))?;
                progress(tally.rows);
                left -= count;
                if left == 0 {
                    break;
                }
            }
        }
    }
    let graph = engine.graph();
    let kind = graph.find(stage).map_or("", |node| graph.nodes[node].stage.kind);
    let mut report = tally.report(&graph.name, stage, kind, options.rows);
    report.notes = tables.iter().flat_map(|table| table.notes().to_vec()).collect();
    Ok(report)
}
