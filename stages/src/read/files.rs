//! Which files a pattern names, in which order, and of which format they are.

use super::locate::{advice, local};
use llavm_pipeline::StageError;
use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use std::fmt;
use std::path::{Path, PathBuf};

/// How the rows of a file are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    Parquet,
    #[serde(alias = "ndjson")]
    Jsonl,
    /// One JSON array of objects. A file of JSON lines that is called .json is recognised.
    Json,
    Csv,
    /// Tab-separated, without quoting.
    Tsv,
    /// A tar in which members of the same base name are a row.
    #[serde(alias = "tar")]
    Webdataset,
}

impl Format {
    /// By extension.
    pub fn of(path: &Path) -> Result<Self, StageError> {
        let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
        match extension.to_ascii_lowercase().as_str() {
            "parquet" | "pq" => Ok(Self::Parquet),
            "jsonl" | "ndjson" => Ok(Self::Jsonl),
            "json" => Ok(Self::Json),
            "csv" => Ok(Self::Csv),
            "tsv" | "tab" => Ok(Self::Tsv),
            "tar" => Ok(Self::Webdataset),
            _ => Err(StageError::new(format!("{}: cannot tell the format from the name", path.display())).help(
                "Set format = \"parquet\", \"jsonl\", \"json\", \"csv\", \"tsv\" or \"webdataset\"; unpack compressed files first.",
            )),
        }
    }
}

/// `files`: one pattern or several (and `images`: one place or several).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Patterns(pub Vec<String>);

impl Patterns {
    /// All files that match, sorted by path, each once.
    pub fn files(&self) -> Result<Vec<PathBuf>, StageError> {
        let mut files = Vec::new();
        for pattern in &self.0 {
            files.extend(matching(pattern)?);
        }
        files.sort();
        files.dedup();
        Ok(files)
    }

    /// Patterns that match no file, each with what to do.
    pub fn unmatched(&self) -> Vec<(String, String)> {
        self.0
            .iter()
            .filter_map(|pattern| matching(pattern).err().map(|error| explained(pattern, &error)))
            .collect()
    }
}

fn explained(pattern: &str, error: &StageError) -> (String, String) {
    let help = error.advice().map_or_else(|| format!("Check the pattern `{pattern}`."), str::to_owned);
    (error.to_string(), help)
}

/// What to do about a pattern that matches nothing.
const RELATIVE: &str = "Paths are relative to the folder llavm is started in; `*` stands for any part of a name, `**` for folders.";

/// The files of one pattern; a name that exists is taken as it is, even where it holds `[` or `*`.
fn matching(pattern: &str) -> Result<Vec<PathBuf>, StageError> {
    let literal = local(pattern)?;
    if literal.is_file() {
        return Ok(vec![literal]);
    }
    if literal.is_dir() {
        let help = format!("Say which files in it, such as `{}/*.parquet`.", pattern.trim_end_matches('/'));
        return Err(StageError::new(format!("`{pattern}` is a folder")).help(help));
    }
    let paths = glob::glob(&super::locate::pattern(pattern)?)
        .map_err(|cause| StageError::new(format!("`{pattern}` is no pattern: {cause}")).because(cause))?;
    let mut files = Vec::new();
    for path in paths {
        let path = path.map_err(|cause| StageError::new(cause.to_string()).because(cause))?;
        if path.is_file() {
            files.push(path);
        }
    }
    if files.is_empty() {
        let help = advice(pattern).unwrap_or_else(|| RELATIVE.to_owned());
        return Err(StageError::new(format!("no file matches `{pattern}`")).help(help));
    }
    Ok(files)
}

/// Short names of files, unique: relative to the deepest folder that holds them all.
pub fn short_names(files: &[PathBuf]) -> Vec<String> {
    let parent = |path: &PathBuf| path.parent().map(Path::to_owned).unwrap_or_default();
    let mut common = files.first().map(parent).unwrap_or_default();
    for file in files {
        while !file.starts_with(&common) && common.pop() {}
    }
    let short = |path: &PathBuf| path.strip_prefix(&common).unwrap_or(path).display().to_string();
    files.iter().map(short).collect()
}

impl<'de> Deserialize<'de> for Patterns {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(PatternsVisitor)
    }
}

struct PatternsVisitor;

impl<'de> Visitor<'de> for PatternsVisitor {
    type Value = Patterns;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a file pattern or a list of file patterns")
    }

    fn visit_str<E: serde::de::Error>(self, pattern: &str) -> Result<Patterns, E> {
        Ok(Patterns(vec![pattern.to_owned()]))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Patterns, A::Error> {
        let mut patterns = Vec::new();
        while let Some(pattern) = items.next_element()? {
            patterns.push(pattern);
        }
        Ok(Patterns(patterns))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_sorted_and_counted_once_whatever_the_patterns() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["b.jsonl", "a.jsonl", "a[1].jsonl", "c.txt"] {
            std::fs::write(folder.path().join(name), "").unwrap();
        }
        let at = |name: &str| folder.path().join(name).display().to_string();
        let patterns = Patterns(vec![at("*.jsonl"), at("a[1].jsonl"), at("b.jsonl")]);
        assert_eq!(short_names(&patterns.files().unwrap()), ["a.jsonl", "a[1].jsonl", "b.jsonl"]);
    }

    #[test]
    fn a_pattern_without_files_is_named() {
        let (text, help) = Patterns(vec!["no-such-folder/*.parquet".into()]).unmatched().remove(0);
        assert_eq!(text, "no file matches `no-such-folder/*.parquet`");
        assert!(help.starts_with("Paths are relative"));
        let (text, help) = Patterns(vec!["src".into()]).unmatched().remove(0);
        assert_eq!(
            (text.as_str(), help.as_str()),
            ("`src` is a folder", "Say which files in it, such as `src/*.parquet`.")
        );
    }

    #[test]
    fn names_in_different_folders_stay_different() {
        let files = ["data/en/train.jsonl", "data/zh/train.jsonl"].map(PathBuf::from);
        assert_eq!(short_names(&files), ["en/train.jsonl", "zh/train.jsonl"]);
    }

    #[test]
    fn the_extension_tells_the_format() {
        assert_eq!(Format::of(Path::new("a.PARQUET")).unwrap(), Format::Parquet);
        assert_eq!(Format::of(Path::new("a.ndjson")).unwrap(), Format::Jsonl);
        assert!(Format::of(Path::new("a.jsonl.gz")).unwrap_err().advice().unwrap().contains("unpack"));
    }
}
