//! Which files a pattern names, and in which order.
//!
//! Hidden files (`.ipynb_checkpoints/`, `._photo.jpg`) and what the Finder adds to a zip (`__MACOSX/`) match only a pattern that
//! names them: they are copies and leftovers that would be trained on twice. `s3://BUCKET/…` names objects in a bucket, which are
//! read where they lie, as are files of a repository (`hub:…`, `ms:…`) that is not in the cache.

use super::locate::{advice, local};
use super::repository_files;
use llavm_pipeline::StageError;
use llavm_pipeline::storage::remote::{self, is_object, is_remote};
use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use std::collections::HashSet;
use std::fmt;
use std::path::{Component, Path, PathBuf};

/// `files`: one pattern or several (and `images`: one place or several).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Patterns(pub Vec<String>);

impl Patterns {
    /// All files that match, sorted by path, each once.
    pub fn files(&self) -> Result<Vec<PathBuf>, StageError> {
        let mut files = Vec::new();
        for pattern in &self.0 {
            files.extend(matching(pattern)?.into_iter().map(plain));
        }
        files.sort();
        files.dedup();
        let mut places = HashSet::new();
        files.retain(|file| places.insert(place(file)));
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

/// The path without `.` in it.
fn plain(path: PathBuf) -> PathBuf {
    if is_remote(&path) {
        return path;
    }
    path.components().filter(|component| *component != Component::CurDir).collect()
}

/// The same for two paths of one file; a link is a file of its own.
fn place(path: &Path) -> PathBuf {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    match (folder.canonicalize(), path.file_name()) {
        (Ok(folder), Some(name)) => folder.join(name),
        _ => path.to_owned(),
    }
}

/// Whether a file or folder of this name is left out unless it is asked for.
pub fn is_hidden(name: &str) -> bool {
    name.starts_with('.') || name == "__MACOSX"
}

/// Whether the pattern names every hidden part of the path.
fn is_asked_for(path: &Path, pattern: &str) -> bool {
    let named: Vec<glob::Pattern> = Path::new(pattern)
        .components()
        .filter_map(|part| part.as_os_str().to_str())
        .filter(|part| is_hidden(part) || part.starts_with("__"))
        .filter_map(|part| glob::Pattern::new(part).ok())
        .collect();
    path.components().all(|part| match part {
        Component::Normal(name) => {
            let name = name.to_string_lossy();
            !is_hidden(&name) || named.iter().any(|pattern| pattern.matches(&name))
        }
        _ => true,
    })
}

fn explained(pattern: &str, error: &StageError) -> (String, String) {
    let help = error.advice().map_or_else(|| format!("Check the pattern `{pattern}`."), str::to_owned);
    (error.to_string(), help)
}

/// What to do about a pattern that matches nothing.
const RELATIVE: &str = "Paths are relative to the folder llavm is started in; `*` stands for any part of a name, `**` for folders.";

const ANYWHERE: &str = "`*` stands for any part of a name, `**` for folders.";

/// The files of one pattern; a name that exists is taken as it is, even where it holds `[` or `*`.
fn matching(pattern: &str) -> Result<Vec<PathBuf>, StageError> {
    if is_object(pattern) {
        return in_bucket(pattern);
    }
    let literal = match local(pattern) {
        Ok(literal) => literal,
        Err(not_here) => return in_repository(pattern, not_here),
    };
    if literal.is_file() {
        return Ok(vec![literal]);
    }
    if literal.is_dir() {
        let help = format!("Say which files in it, such as `{}/*.parquet`.", pattern.trim_end_matches('/'));
        return Err(StageError::new(format!("`{pattern}` is a folder")).help(help));
    }
    let resolved = super::locate::pattern(pattern)?;
    let paths = glob::glob(&resolved)
        .map_err(|cause| StageError::new(format!("`{pattern}` is no pattern: {cause}")).because(cause))?;
    let mut files = Vec::new();
    for path in paths {
        let path = path.map_err(|cause| StageError::new(cause.to_string()).because(cause))?;
        if path.is_file() && is_asked_for(&path, &resolved) {
            files.push(path);
        }
    }
    if files.is_empty() {
        let help = advice(pattern).unwrap_or_else(|| RELATIVE.to_owned());
        return Err(StageError::new(format!("no file matches `{pattern}`")).help(help));
    }
    Ok(files)
}

/// The files of one pattern in a repository of which there is no copy.
fn in_repository(pattern: &str, not_here: StageError) -> Result<Vec<PathBuf>, StageError> {
    let mut found = repository_files::matching(pattern, not_here)?;
    found.retain(|path| is_asked_for(path, pattern));
    if found.is_empty() {
        return Err(StageError::new(format!("no file matches `{pattern}`")).help(ANYWHERE));
    }
    Ok(found)
}

/// The objects of one pattern; a name that exists is taken as it is.
fn in_bucket(pattern: &str) -> Result<Vec<PathBuf>, StageError> {
    if let Some(found) = remote::find(pattern)? {
        return Ok(vec![found]);
    }
    let wrong = |cause| StageError::new(format!("`{pattern}` is no pattern: {cause}"));
    let compiled = glob::Pattern::new(pattern).map_err(wrong)?;
    let options = glob::MatchOptions { require_literal_separator: true, ..glob::MatchOptions::new() };
    // All objects below the folder that the pattern's own characters begin behind.
    let fixed = &pattern[..pattern.find(['*', '?', '[']).unwrap_or(pattern.len())];
    let folder = fixed.rsplit_once('/').map_or(fixed, |(folder, _)| folder);
    let mut found = remote::list(folder)?;
    found.retain(|path| compiled.matches_path_with(path, options) && is_asked_for(path, pattern));
    if found.is_empty() {
        return Err(StageError::new(format!("no object matches `{pattern}`")).help(ANYWHERE));
    }
    Ok(found)
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
    fn hidden_files_match_only_a_pattern_that_names_them() {
        let folder = tempfile::tempdir().unwrap();
        let names =
            ["a.jsonl", ".ipynb_checkpoints/a.jsonl", "b/._b.jsonl", "b/b.jsonl", "__MACOSX/b/b.jsonl"];
        for name in names {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        }
        let found = |pattern: &str| {
            let files = Patterns(vec![folder.path().join(pattern).display().to_string()]).files().unwrap();
            let short = |file: PathBuf| file.strip_prefix(folder.path()).unwrap().display().to_string();
            files.into_iter().map(short).collect::<Vec<_>>()
        };
        assert_eq!(found("**/*.jsonl"), ["a.jsonl", "b/b.jsonl"]);
        assert_eq!(found("*/*.jsonl"), ["b/b.jsonl"]);
        assert_eq!(found(".ipynb_checkpoints/*.jsonl"), [".ipynb_checkpoints/a.jsonl"]);
        assert_eq!(found(".ipynb*/*.jsonl"), [".ipynb_checkpoints/a.jsonl"]);
        assert_eq!(found("__MACOSX/**/*.jsonl"), ["__MACOSX/b/b.jsonl"]);
        assert_eq!(found("b/._b.jsonl"), ["b/._b.jsonl"], "a name that exists is taken as it is");
    }

    #[test]
    fn one_file_under_two_paths_is_one_file() {
        let at = |path: &str| path.to_owned();
        let patterns =
            Patterns(vec![at("src/read/mod.rs"), at("./src/read/mod.rs"), at("src/../src/read/m?d.rs")]);
        assert_eq!(patterns.files().unwrap(), [PathBuf::from("src/../src/read/mod.rs")]);
    }
}
