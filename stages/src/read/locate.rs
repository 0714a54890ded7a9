//! Paths of a manifest on this disk: `hub:datasets/ORG/NAME[@REV]/…` is looked up in the Hugging Face cache, `ms:…` in that
//! of ModelScope, anything else is taken as it is.

use llavm_model::hub::{Source, fetch_command, resolve};
use llavm_pipeline::StageError;
use std::path::{Path, PathBuf};

/// The locator that `path` begins with, if it does, and the rest of the path below it.
pub fn parts(path: &str) -> Option<(&str, &str)> {
    let (_, name) = Source::of(path)?;
    let prefix = path.len() - name.len();
    let end = |segments: usize| {
        name.match_indices('/').nth(segments - 1).map_or(path.len(), |(slash, _)| prefix + slash)
    };
    let segments = if name.starts_with("datasets/") { 3 } else { 2 };
    let end = match path.split_at(end(segments)).0 {
        // The hub's own branches have three parts, such as refs/convert/parquet.
        locator if locator.ends_with("@refs") => end(segments + 2),
        locator => locator.len(),
    };
    let (locator, rest) = path.split_at(end);
    Some((locator, rest.trim_start_matches('/')))
}

/// The folder that a locator names, if `path` is one, and the rest of the path below it.
pub fn split(path: &str) -> Result<(Option<PathBuf>, &str), StageError> {
    let Some((locator, rest)) = parts(path) else {
        return Ok((None, path));
    };
    let include = include(rest);
    let folder = resolve(locator).map_err(|error| {
        StageError::new(error.needing(&include).to_string()).help(download(locator, &include))
    })?;
    Ok((Some(folder), rest))
}

/// The download that brings the files of `path`, when it begins with a locator.
pub fn advice(path: &str) -> Option<String> {
    parts(path).map(|(locator, rest)| download(locator, &include(rest)))
}

fn include(rest: &str) -> Vec<&str> {
    if rest.is_empty() { Vec::new() } else { vec![rest] }
}

fn download(locator: &str, include: &[&str]) -> String {
    format!("Download it with `{}`.", fetch_command(locator, include))
}

/// The path of one file or folder.
pub fn local(path: &str) -> Result<PathBuf, StageError> {
    let (folder, rest) = split(path)?;
    Ok(match folder {
        None => PathBuf::from(rest),
        Some(folder) if rest.is_empty() => folder,
        Some(folder) => folder.join(rest),
    })
}

/// A pattern for `glob`; what the folder's own name holds of `*` or `[` is no pattern.
pub fn pattern(path: &str) -> Result<String, StageError> {
    let (folder, rest) = split(path)?;
    Ok(match folder {
        None => rest.to_owned(),
        Some(folder) => {
            let folder = glob::Pattern::escape(&folder.to_string_lossy());
            Path::new(&folder).join(rest).to_string_lossy().into_owned()
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_path_is_itself() {
        assert_eq!(local("data/images.zip").unwrap(), Path::new("data/images.zip"));
        assert_eq!(pattern("data/[ab]*.parquet").unwrap(), "data/[ab]*.parquet");
    }

    #[test]
    fn a_branch_of_the_hub_itself_has_three_parts() {
        let expected = ("hub:datasets/a/b@refs/convert/parquet", "default/*.parquet");
        assert_eq!(parts("hub:datasets/a/b@refs/convert/parquet/default/*.parquet"), Some(expected));
        assert_eq!(parts("hub:a/b/c/d.json"), Some(("hub:a/b", "c/d.json")));
        assert_eq!(parts("ms:datasets/a/b/c.jsonl"), Some(("ms:datasets/a/b", "c.jsonl")));
        assert_eq!(parts("data/x"), None);
    }

    #[test]
    fn what_is_not_in_the_cache_names_the_download() {
        let set = "hub:datasets/no-such/set@main";
        for (path, flags) in [("", ""), ("/**/*.parquet", r#" --include "**/*.parquet""#)] {
            let error = pattern(&format!("{set}{path}")).unwrap_err();
            let command = format!("Download it with `llavm fetch {set}{flags}`.");
            assert_eq!(error.advice(), Some(command.as_str()));
            assert!(
                error
                    .to_string()
                    .contains("`hub:datasets/no-such/set@main` is not in the Hugging Face cache"),
                "{error}"
            );
        }
    }
}
