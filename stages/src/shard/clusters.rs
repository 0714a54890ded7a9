//! Rows that belong together: those that share an image (the column `group` of `read`), so that none of them is trained on while another
//! measures.
//!
//! In: for each usable row, what it is grouped by. Out: one number per row, the same for rows that are linked by any chain of common
//! names.

use arrow::array::{Array, AsArray, ListArray, RecordBatch};
use std::collections::HashMap;

/// The column by which rows are grouped.
pub const GROUP: &str = "group";

/// Sets of rows (disjoint-set forest over the row numbers).
#[derive(Debug, Default)]
pub struct Clusters {
    /// How many rows there are.
    rows: u32,
    /// By row: another row of its set, or itself. Empty while no row has a name.
    parents: Vec<u32>,
    /// By row: a number that its names decide, the same wherever in the data it stands; 0 without names. Empty as the parents are.
    hashes: Vec<u64>,
    /// By hash of a name: the first row that has it.
    first: HashMap<u64, u32>,
}

impl Clusters {
    /// Adds the next row, by what it is grouped by.
    pub fn push(&mut self, names: &[&str]) {
        let row = self.rows;
        self.rows += 1;
        if names.is_empty() && self.parents.is_empty() {
            return;
        }
        // Sets without names take no memory.
        self.parents.extend(self.parents.len() as u32..self.rows);
        self.hashes.resize(row as usize, 0);
        let mut own = 0;
        for name in names {
            let hash = hash(name);
            own = if own == 0 { hash } else { hash.min(own) };
            let first = *self.first.entry(hash).or_insert(row);
            self.link(first, row);
        }
        self.hashes.push(own);
    }

    fn link(&mut self, one: u32, other: u32) {
        let (one, other) = (self.find(one), self.find(other));
        // The earliest row stands for its set.
        self.parents[one.max(other) as usize] = one.min(other);
    }

    fn find(&mut self, mut row: u32) -> u32 {
        while self.parents[row as usize] != row {
            let grandparent = self.parents[self.parents[row as usize] as usize];
            self.parents[row as usize] = grandparent;
            row = grandparent;
        }
        row
    }

    /// Whether any row has a name.
    pub fn any(&self) -> bool {
        !self.first.is_empty()
    }

    /// By row: the first row of its set.
    pub fn roots(&mut self) -> Vec<u32> {
        let by_itself = self.parents.is_empty();
        (0..self.rows).map(|row| if by_itself { row } else { self.find(row) }).collect()
    }

    /// A number that decides the side of a row without a look at the others; `None` for a row without names.
    pub fn hash(&self, row: u32) -> Option<u64> {
        self.hashes.get(row as usize).copied().filter(|hash| *hash > 0)
    }
}

fn hash(name: &str) -> u64 {
    let mut bytes = [0; 8];
    blake3::Hasher::new().update(name.as_bytes()).finalize_xof().fill(&mut bytes);
    u64::from_le_bytes(bytes).max(1)
}

/// What row `row` of a batch is grouped by; nothing where the batch has no such column.
pub fn names(batch: &RecordBatch, row: usize) -> Vec<String> {
    let column = batch.column_by_name(GROUP).and_then(|column| column.as_any().downcast_ref::<ListArray>());
    let Some(lists) = column.filter(|lists| lists.is_valid(row)) else { return Vec::new() };
    let items = lists.value(row);
    let texts = items.as_string_opt::<i32>();
    texts.map(|texts| texts.iter().flatten().map(str::to_owned).collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_linked_by_any_common_name() {
        let mut clusters = Clusters::default();
        let rows: [&[&str]; 7] = [&["a"], &["b"], &[], &["c"], &["b", "c"], &["a"], &[]];
        rows.iter().for_each(|names| clusters.push(names));
        assert_eq!(clusters.roots(), [0, 1, 2, 1, 1, 0, 6]);
        assert_eq!((clusters.hash(0), clusters.hash(2)), (clusters.hash(5), None));
    }

    #[test]
    fn rows_before_the_first_name_are_sets_of_their_own() {
        let mut clusters = Clusters::default();
        for names in [&[][..], &[]] {
            clusters.push(names);
        }
        assert_eq!((clusters.roots(), clusters.any(), clusters.hash(1)), (vec![0, 1], false, None));
        for names in [&["a"][..], &[], &["a"]] {
            clusters.push(names);
        }
        assert_eq!((clusters.roots(), clusters.hash(1)), (vec![0, 1, 2, 3, 2], None));
        assert_eq!(clusters.hash(2), clusters.hash(4));
    }
}
