//! What a run is expected to take, before it has begun.

/// What a stage is expected to be handed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Expected {
    /// Rows and weight of each group of tables; of a job, rows of each input and 1.
    pub groups: Vec<(u64, f64)>,
}

impl Expected {
    /// Rows of the first group.
    pub fn rows(&self) -> u64 {
        self.groups.first().map_or(0, |(rows, _)| *rows)
    }
}

/// What a stage is expected to take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Estimate {
    /// Rows it gives; of a gather stage those to train on.
    pub rows: u64,
    /// Bytes it keeps in the store.
    pub disk: u64,
    /// Bytes it holds in memory at once, where that is worth saying.
    pub memory: Option<u64>,
    /// Steps of a training.
    pub steps: Option<u64>,
}

impl Estimate {
    /// A stored table of about `bytes` bytes a row.
    pub fn table(expected: &Expected, bytes: u64) -> Self {
        Self { rows: expected.rows(), disk: expected.rows() * bytes, ..Self::default() }
    }
}
