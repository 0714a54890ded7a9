//! Values that jobs found out one by one, kept from run to run whatever becomes of the jobs' folders.
//!
//! ```text
//! ledgers/<name>.log    a value a line: key, value, check
//! ```
//!
//! A file only grows, by whole lines, so that a process that is killed loses nothing but what it had not written, and several may
//! write at once. A line that is damaged or was cut off is as if it had never been written: what it held is found out again.

use super::files::{self, at};
use super::scratch::Scratch;
use crate::spec::error::StageError;
use crate::spec::stage::Ledger;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

/// Hexadecimal digits of a line's check.
const CHECK: usize = 16;

/// A ledger on a disk.
#[derive(Debug)]
pub struct LedgerFile {
    path: PathBuf,
    known: BTreeMap<String, String>,
}

impl LedgerFile {
    /// Reads the ledger `name` of the store's folder; one that is not there is empty.
    pub fn open(folder: &Path, name: &str, scratch: &Arc<Scratch>) -> Result<Self, StageError> {
        let path = folder.join(format!("{name}.log"));
        let bytes = files::read_if_there(&path)?.unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        let owned = |(key, value): (&str, &str)| (key.to_owned(), value.to_owned());
        let ledger = Self { path, known: text.lines().filter_map(parse).map(owned).collect() };
        if is_damaged(&bytes) || (!text.is_empty() && !text.ends_with('\n')) {
            let whole = text.lines().filter(|line| parse(line).is_some());
            let whole: String = whole.map(|line| format!("{line}\n")).collect();
            scratch.write(&ledger.path, whole.as_bytes())?;
        } else if !bytes.is_empty() {
            // `gc` drops what was not used for long. In a store that cannot be written, nothing is dropped.
            let file = File::options().append(true).open(&ledger.path);
            let _ = file.and_then(|file| file.set_modified(SystemTime::now()));
        }
        Ok(ledger)
    }
}

impl Ledger for LedgerFile {
    fn get(&self, key: &str) -> Option<&str> {
        self.known.get(key).map(String::as_str)
    }

    fn add(&mut self, values: &[(String, String)]) -> Result<(), StageError> {
        let mut lines = String::new();
        for (key, value) in values {
            if key.contains([' ', '\n']) || value.contains('\n') {
                return Err(StageError::new(format!("the value of `{key}` is no single line")));
            }
            let line = format!("{key} {value}");
            lines.extend([&line, " ", &check(&line), "\n"]);
        }
        if lines.is_empty() {
            return Ok(());
        }
        files::make_folder(self.path.parent().unwrap_or(&self.path))?;
        let file = File::options().create(true).append(true).open(&self.path);
        at(&self.path, file.and_then(|mut file| file.write_all(lines.as_bytes())))?;
        self.known.extend(values.iter().cloned());
        Ok(())
    }
}

/// Whether a whole line is not what was written. The end of a file may be a line that a killed process left open.
pub fn is_damaged(bytes: &[u8]) -> bool {
    let end = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    let whole = String::from_utf8_lossy(&bytes[..end]);
    whole.lines().any(|line| !line.is_empty() && parse(line).is_none())
}

fn parse(line: &str) -> Option<(&str, &str)> {
    let (rest, given) = line.rsplit_once(' ')?;
    (check(rest) == given).then(|| rest.split_once(' '))?
}

fn check(line: &str) -> String {
    blake3::hash(line.as_bytes()).to_hex().chars().take(CHECK).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn open(store: &Path) -> LedgerFile {
        for folder in ["tmp", "claims"] {
            fs::create_dir_all(store.join(folder)).unwrap();
        }
        LedgerFile::open(&store.join("ledgers"), "x", &Arc::new(Scratch::create(store).unwrap())).unwrap()
    }

    fn pair(key: &str, value: &str) -> (String, String) {
        (key.to_owned(), value.to_owned())
    }

    #[test]
    fn values_outlive_the_process_and_a_torn_line_costs_only_itself() {
        let folder = tempfile::tempdir().unwrap();
        open(folder.path()).add(&[pair("a", "one two"), pair("b", "")]).unwrap();
        let path = folder.path().join("ledgers").join("x.log");
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, text.clone() + "c half of a li").unwrap();
        assert!(!is_damaged(&fs::read(&path).unwrap()), "a line that was cut off is no damage");
        let mut ledger = open(folder.path());
        assert_eq!((ledger.get("a"), ledger.get("b"), ledger.get("c")), (Some("one two"), Some(""), None));
        ledger.add(&[pair("d", "four")]).unwrap();
        assert_eq!(open(folder.path()).get("d"), Some("four"));
    }

    #[test]
    fn a_flipped_bit_is_seen_and_the_line_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        open(folder.path()).add(&[pair("a", "one"), pair("b", "two")]).unwrap();
        let path = folder.path().join("ledgers").join("x.log");
        let mut bytes = fs::read(&path).unwrap();
        bytes[2] ^= 1;
        fs::write(&path, &bytes).unwrap();
        assert!(is_damaged(&bytes));
        let ledger = open(folder.path());
        assert_eq!((ledger.get("a"), ledger.get("b")), (None, Some("two")));
        assert!(!is_damaged(&fs::read(&path).unwrap()), "what is left is whole");
        assert!(open(folder.path()).add(&[pair("a", "x\ny")]).is_err());
    }
}
