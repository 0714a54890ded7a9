//! Rows that are left out, written to `rejects.json` as they come: a set may reject more rows than memory should hold.

use llavm_pipeline::StageError;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

/// A row that is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct LeftOut<'a> {
    pub group: u32,
    pub partition: u32,
    pub row: u32,
    /// `<kind>/<code>: <detail>` of the stage that rejected it first.
    pub reason: &'a str,
}

/// The rows so far, in a file that becomes the list of `rejects.json`.
pub struct Rejects {
    path: PathBuf,
    rows: BufWriter<File>,
    total: u64,
    /// By `<kind>/<code>`.
    pub by_reason: BTreeMap<String, u64>,
}

impl Rejects {
    /// In the folder of the shards.
    pub fn create(folder: &Path) -> Result<Self, StageError> {
        let path = folder.join("rejects.rows");
        let rows = File::create_new(&path).map_err(|cause| StageError::io(&path, cause))?;
        Ok(Self { path, rows: BufWriter::new(rows), total: 0, by_reason: BTreeMap::new() })
    }

    pub fn push(&mut self, row: LeftOut<'_>) -> Result<(), StageError> {
        let code = row.reason.split_once(':').map_or(row.reason, |(code, _)| code);
        match self.by_reason.get_mut(code) {
            Some(count) => *count += 1,
            None => {
                self.by_reason.insert(code.to_owned(), 1);
            }
        }
        let comma = if self.total == 0 { "" } else { "," };
        self.total += 1;
        let line = serde_json::to_string(&row).map_err(|error| StageError::new(error.to_string()))?;
        write!(self.rows, "{comma}\n    {line}").map_err(|cause| StageError::io(&self.path, cause))
    }

    /// Writes `rejects.json`: how many, by reason, and the rows.
    pub fn finish(self) -> Result<(), StageError> {
        let Self { path, rows, total, by_reason } = self;
        let counts = serde_json::to_string(&by_reason).map_err(|error| StageError::new(error.to_string()))?;
        let write = || -> io::Result<()> {
            rows.into_inner().map_err(io::IntoInnerError::into_error)?;
            let mut file = BufWriter::new(File::create(path.with_file_name("rejects.json"))?);
            write!(file, "{{\n  \"total\": {total},\n  \"by_reason\": {counts},\n  \"rows\": [")?;
            io::copy(&mut File::open(&path)?, &mut file)?;
            writeln!(file, "{}]\n}}", if total == 0 { "" } else { "\n  " })?;
            file.flush()?;
            std::fs::remove_file(&path)
        };
        write().map_err(|cause| StageError::io(&path, cause))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rows_are_json_however_many_there_are() {
        for count in [0, 1, 3_u32] {
            let folder = tempfile::tempdir().unwrap();
            let mut rejects = Rejects::create(folder.path()).unwrap();
            for row in 0..count {
                rejects
                    .push(LeftOut { group: 0, partition: 1, row, reason: "read/no-answer: \"null\"" })
                    .unwrap();
            }
            rejects.finish().unwrap();
            let text = std::fs::read(folder.path().join("rejects.json")).unwrap();
            let json: serde_json::Value = serde_json::from_slice(&text).unwrap();
            assert_eq!(
                (json["total"].as_u64(), json["rows"].as_array().unwrap().len()),
                (Some(count.into()), count as usize)
            );
            if count > 0 {
                assert_eq!(json["by_reason"]["read/no-answer"], count);
                assert_eq!(json["rows"][0]["reason"], "read/no-answer: \"null\"");
            }
            assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        }
    }
}
