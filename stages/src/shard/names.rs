//! Names that many rows share (languages, sources), kept as small numbers, and how many rows have each.

use arrow::array::{ArrayRef, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use llavm_pipeline::StageError;
use std::collections::{BTreeMap, HashMap};

/// What the counts say of rows without a name, and of those beyond the first 65,534 names.
const NONE: &str = "(none)";
const OTHERS: &str = "(others)";

/// The names of one column.
#[derive(Debug, Default)]
pub struct Names {
    known: Vec<String>,
    numbers: HashMap<String, u16>,
}

impl Names {
    /// The number of each row of a batch: 0 where it has no name, or where the batch has no such column.
    pub fn of(&mut self, batch: &RecordBatch, column: &str) -> Result<Vec<u16>, StageError> {
        let texts = batch.column_by_name(column).map(|column| cast(column, &DataType::Utf8)).transpose()?;
        let texts: Option<ArrayRef> = texts.filter(|texts| texts.null_count() < texts.len());
        let Some(texts) = texts else { return Ok(vec![0; batch.num_rows()]) };
        Ok(texts.as_string::<i32>().iter().map(|name| name.map_or(0, |name| self.number(name))).collect())
    }

    fn number(&mut self, name: &str) -> u16 {
        if let Some(number) = self.numbers.get(name) {
            return *number;
        }
        let number = u16::try_from(self.known.len() + 1).unwrap_or(u16::MAX);
        if number < u16::MAX {
            self.known.push(name.to_owned());
            self.numbers.insert(name.to_owned(), number);
        }
        number
    }

    /// How many of these rows have each name. Nothing where no row of the table has one.
    pub fn counts(&self, numbers: impl Iterator<Item = u16>) -> BTreeMap<String, u64> {
        let mut counts = BTreeMap::new();
        for number in numbers.filter(|_| !self.known.is_empty()) {
            let known = usize::from(number).checked_sub(1).map(|index| self.known.get(index));
            let name = known.map_or(NONE, |name| name.map_or(OTHERS, String::as_str));
            *counts.entry(name.to_owned()).or_default() += 1;
        }
        counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::StringArray;
    use std::sync::Arc;

    #[test]
    fn rows_are_counted_by_name() {
        let mut names = Names::default();
        let column: ArrayRef = Arc::new(StringArray::from(vec![Some("zh"), None, Some("en"), Some("zh")]));
        let batch = RecordBatch::try_from_iter([("language", column)]).unwrap();
        let numbers = names.of(&batch, "language").unwrap();
        assert_eq!(numbers, [1, 0, 2, 1]);
        assert_eq!(names.of(&batch, "source").unwrap(), [0; 4]);
        let counts: Vec<_> = names.counts(numbers.into_iter()).into_iter().collect();
        assert_eq!(counts, [("(none)".to_owned(), 1), ("en".to_owned(), 1), ("zh".to_owned(), 2)]);
        assert!(Names::default().counts([0, 0].into_iter()).is_empty());
    }
}
