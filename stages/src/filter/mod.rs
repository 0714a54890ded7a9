//! `filter`: leave rows out, by a condition or because they were seen before.
//!
//! In: the columns that the condition names or is computed from. Out: no column of its own; rows that are left out are rejects
//! with the values that decided, or with the row they repeat, and everything else passes through.
//!
//! | in `where` | what |
//! |---|---|
//! | `id`, `language`, `source` | as read |
//! | `images`, `image_width`, `image_height` | number of images; size of the first, null without one |
//! | `turns` | number of user turns |
//! | `prompt`, `answer` | the texts of the user's or the assistant's turns, joined by line breaks |
//! | `prompt_chars`, `answer_chars` | their lengths in characters |
//!
//! A condition that is null (such as `image_width > 100` without an image) leaves the row out, as in SQL.

mod duplicates;
mod fingerprint;
mod hashes;
pub(crate) mod measure;
mod sameness;

use crate::arrays::batch_of;
use crate::row::{images_type, messages_type};
use crate::sql::{Predicate, Scalars};
use arrow::array::RecordBatch;
use arrow::datatypes::DataType;
use duplicates::Duplicates;
use fingerprint::{FINGERPRINT, Fingerprints};
use llavm_pipeline::manifest::did_you_mean;
use llavm_pipeline::stage::{Apply, MapStage, OpenContext, Parameters, SequentialPass, StageKind};
use llavm_pipeline::{Columns, Rejects, StageError};
use measure::Measure;
pub use sameness::{By, Dedup};
use serde::{Deserialize, Serialize};

/// Largest distance: beyond a quarter of the 64 bits, any two images may be alike.
const MAX_DISTANCE: u32 = 16;

/// Parameters of `filter`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Filter {
    /// SQL condition that rows must meet. Default: none.
    #[serde(default, rename = "where")]
    pub predicate: Option<String>,
    /// Leave out rows that repeat an earlier one: `exact` or `perceptual`. Default: none.
    #[serde(default)]
    pub dedup: Option<Dedup>,
    /// What must be alike: `image`, `text` or `both`. Default: `both` when exact, `image` when perceptual.
    #[serde(default)]
    pub by: Option<By>,
    /// Bits of 64 in which the hashes of images that look alike may differ; for `perceptual`. Default 4.
    #[serde(default = "default_distance")]
    pub distance: u32,
}

fn default_distance() -> u32 {
    4
}

impl Filter {
    fn by(&self) -> By {
        self.by.unwrap_or(if self.dedup == Some(Dedup::Perceptual) { By::Image } else { By::Both })
    }

    /// The parsed condition and what computes its columns.
    fn condition(&self) -> Result<Option<Condition>, StageError> {
        let Some(text) = &self.predicate else {
            return Ok(None);
        };
        let predicate = Predicate::parse(text)?;
        let measures = predicate.columns().iter().map(|name| Measure::named(name).ok_or(name));
        let measures = measures.collect::<Result<Vec<_>, _>>().map_err(|name| {
            let known = Measure::ALL.map(Measure::name);
            StageError::new(format!("there is no `{name}`. {}", did_you_mean(name, "columns", known)))
        })?;
        let types: Vec<_> = measures.iter().map(|measure| measure.scalar_type()).collect();
        predicate.check(&types)?;
        Ok(Some(Condition { predicate, measures }))
    }
}

impl StageKind for Filter {
    const KIND: &'static str = "filter";
    const VERSION: u32 = 2;
    const ABOUT: &'static str = "leave rows out: by an SQL condition, or because they repeat an earlier row";
}

impl Parameters for Filter {
    fn check(&self) -> Vec<(&'static str, String)> {
        let mut wrong = Vec::new();
        if self.predicate.is_none() && self.dedup.is_none() {
            wrong.push(("where", "nothing to filter by: set `where`, `dedup` or both".to_owned()));
        }
        if let Err(error) = self.condition() {
            wrong.push(("where", error.to_string()));
        }
        if self.dedup == Some(Dedup::Perceptual) && self.by() == By::Text {
            wrong.push(("by", "\"perceptual\" compares images: set by = \"image\" or \"both\"".to_owned()));
        }
        if self.distance > MAX_DISTANCE {
            wrong.push(("distance", format!("must be at most {MAX_DISTANCE} of 64 bits")));
        }
        wrong
    }
}

impl MapStage for Filter {
    fn input(&self) -> Columns {
        let measures =
            self.condition().ok().flatten().map(|condition| condition.measures).unwrap_or_default();
        let needed = |name: &str| measures.iter().any(|measure| measure.column() == name);
        let deduplicates = |what: fn(By) -> bool| self.dedup.is_some() && what(self.by());
        let mut columns = Columns::new();
        for name in ["id", "language", "source"] {
            if needed(name) {
                columns = columns.with(name, DataType::Utf8);
            }
        }
        if needed("images") || deduplicates(By::images) {
            columns = columns.with("images", images_type());
        }
        if needed("messages") || deduplicates(By::text) {
            columns = columns.with("messages", messages_type());
        }
        columns
    }

    fn output(&self) -> Columns {
        Columns::new()
    }

    fn passes_through(&self) -> bool {
        true
    }

    fn rejects_on_purpose(&self) -> bool {
        true
    }

    fn open(&self, _context: &dyn OpenContext) -> Result<Box<dyn Apply>, StageError> {
        let fingerprints = self.dedup.map(|dedup| Fingerprints { dedup, by: self.by() });
        let condition = self.condition()?;
        Ok(Box::new(move |rows: &RecordBatch, rejects: &mut Rejects| {
            if let Some(condition) = &condition {
                condition.apply(rows, rejects)?;
            }
            let column =
                fingerprints.as_ref().map(|fingerprints| fingerprints.column(rows, rejects)).transpose()?;
            batch_of(column.map(|column| (FINGERPRINT, column)), rows.num_rows())
        }))
    }

    fn sequential(&self) -> Option<Box<dyn SequentialPass>> {
        let dedup = self.dedup?;
        Some(Box::new(Duplicates::new(dedup, self.by(), self.distance)))
    }

    fn intermediate(&self) -> Columns {
        if self.dedup.is_some() { Columns::new().with(FINGERPRINT, DataType::Binary) } else { Columns::new() }
    }
}

/// `where`, ready.
struct Condition {
    predicate: Predicate,
    measures: Vec<Measure>,
}

impl Condition {
    /// Rejects the rows for which the condition does not hold.
    fn apply(&self, rows: &RecordBatch, rejects: &mut Rejects) -> Result<(), StageError> {
        let columns: Vec<Scalars> =
            self.measures.iter().map(|measure| measure.of(rows)).collect::<Result<_, _>>()?;
        let kept = self.predicate.mask(&columns, rows.num_rows())?;
        for (row, _) in kept.iter().enumerate().filter(|(_, kept)| !**kept) {
            let names = self.measures.iter().map(|measure| measure.name());
            let values = names.zip(&columns).map(|(name, column)| format!("{name} = {}", column.shown(row)));
            let values: Vec<_> = values.collect();
            rejects.reject(
                row,
                "where",
                format!("{} does not hold: {}", self.predicate.text(), values.join(", ")),
            );
        }
        Ok(())
    }
}

#[cfg(test)]
pub(crate) mod tests;
