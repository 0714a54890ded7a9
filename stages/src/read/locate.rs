//! Paths of a manifest on this disk: `hub:datasets/ORG/NAME[@REV]/…` is looked up in the Hugging Face cache, anything else is
//! taken as it is.

use llavm_model::hub::{HUB, resolve};
use llavm_pipeline::StageError;
use std::path::{Path, PathBuf};

/// The folder that a locator names, if `path` is one, and the rest of the path below it.
pub fn split(path: &str) -> Result<(Option<PathBuf>, &str), StageError> {
    let Some(name) = path.strip_prefix(HUB) else {
        return Ok((None, path));
    };
    let segments = if name.starts_with("datasets/") { 3 } else { 2 };
    let end = name.match_indices('/').nth(segments - 1).map_or(path.len(), |(slash, _)| HUB.len() + slash);
    let (locator, rest) = path.split_at(end);
    let folder = resolve(locator).map_err(|error| {
        StageError::new(error.to_string())
            .help(format!("Download it with `llavm fetch {locator}`."))
            .because(error)
    })?;
    Ok((Some(folder), rest.trim_start_matches('/')))
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
    fn what_is_not_in_the_cache_names_the_download() {
        for path in ["hub:datasets/no-such/set@main", "hub:datasets/no-such/set@main/**/*.parquet"] {
            let error = pattern(path).unwrap_err();
            assert_eq!(error.advice(), Some("Download it with `llavm fetch hub:datasets/no-such/set@main`."));
            assert!(
                error
                    .to_string()
                    .contains("`hub:datasets/no-such/set@main` is not in the Hugging Face cache"),
                "{error}"
            );
        }
    }
}
