//! Where model and data folders are: `hub:ORG/NAME[@REV]` in the Hugging Face cache, `ms:ORG/NAME[@REV]` in that of
//! ModelScope, or a plain folder.
//!
//! In: a locator and the environment variables that the sources' own clients read (`settings.rs`). Out: a folder that
//! exists. Nothing here uses the network; what is not on the disk is an error that names the command which downloads it.
//! The caches' layouts stand in `repository.rs`.

use super::hub_error::{HubError, fetch_command};
use super::repository::Repository;
use super::settings::cache_folder;
use super::source::{Source, is_repository};
use std::path::{Path, PathBuf};

/// The folder that `locator` names, which exists.
pub fn resolve(locator: &str) -> Result<PathBuf, HubError> {
    let cache = Source::of(locator).map(|(source, _)| cache_folder(source));
    resolve_in(&cache.unwrap_or_default(), locator)
}

/// The file `name` in the folder that `locator` names; both exist. `include` names the files that are needed with it.
pub fn resolve_file(locator: &str, name: &str, include: &[&str]) -> Result<PathBuf, HubError> {
    let folder = resolve(locator).map_err(|error| error.needing(include))?;
    require_file(&folder, name).map_err(|error| match error {
        HubError::NoFile { folder, name, .. } if is_repository(locator) => HubError::NoFile {
            folder,
            name,
            hint: format!(" Download it with `{}`.", fetch_command(locator, include)),
        },
        other => other,
    })
}

/// The path of `folder/name`, an error when there is no such file.
pub fn require_file(folder: &Path, name: &str) -> Result<PathBuf, HubError> {
    let path = folder.join(name);
    if path.is_file() {
        return Ok(path);
    }
    Err(HubError::NoFile { folder: folder.to_owned(), name: name.to_owned(), hint: String::new() })
}

/// [`resolve`] in a given cache folder.
pub fn resolve_in(cache: &Path, locator: &str) -> Result<PathBuf, HubError> {
    let Some((source, name)) = Source::of(locator) else {
        let folder = PathBuf::from(locator);
        return if folder.is_dir() { Ok(folder) } else { Err(HubError::NoFolder(folder)) };
    };
    let repository = Repository::parse(source, name)
        .ok_or_else(|| HubError::BadName { locator: locator.to_owned(), prefix: source.prefix() })?;
    repository.snapshot(cache).map_err(|looked_for| HubError::NotCached {
        locator: locator.to_owned(),
        from: source,
        looked_for,
        include: Vec::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn cache_with(folder: &str, reference: &str, commit: &str) -> tempfile::TempDir {
        let cache = tempfile::tempdir().unwrap();
        let repository = cache.path().join(folder);
        fs::create_dir_all(repository.join("refs")).unwrap();
        fs::create_dir_all(repository.join("snapshots").join(commit)).unwrap();
        fs::write(repository.join("refs").join(reference), commit).unwrap();
        cache
    }

    #[test]
    fn a_branch_and_its_commit_name_the_same_snapshot() {
        let cache = cache_with("models--Qwen--Qwen3-0.6B", "main", "c1899de2");
        let expected = cache.path().join("models--Qwen--Qwen3-0.6B/snapshots/c1899de2");
        for locator in ["hub:Qwen/Qwen3-0.6B", "hub:Qwen/Qwen3-0.6B@main", "hub:Qwen/Qwen3-0.6B@c1899de2"] {
            assert_eq!(resolve_in(cache.path(), locator).as_ref(), Ok(&expected), "{locator}");
        }
    }

    #[test]
    fn data_sets_have_their_own_folders() {
        let cache = cache_with("datasets--trl-lib--llava-instruct-mix", "main", "0abc");
        assert!(resolve_in(cache.path(), "hub:datasets/trl-lib/llava-instruct-mix").is_ok());
        assert!(resolve_in(cache.path(), "hub:trl-lib/llava-instruct-mix").is_err());
    }

    #[test]
    fn what_is_not_cached_says_where_it_was_looked_for_and_how_to_get_it() {
        let error = resolve_in(Path::new("/cache"), "hub:Qwen/Qwen3-0.6B@v1").unwrap_err();
        insta::assert_snapshot!(error, @"`hub:Qwen/Qwen3-0.6B@v1` is not in the Hugging Face cache: looked for /cache/models--Qwen--Qwen3-0.6B/refs/v1. Download it with `llavm fetch hub:Qwen/Qwen3-0.6B@v1`, or set HF_HOME to the cache that has it.");
    }

    #[test]
    fn the_command_downloads_only_what_is_needed() {
        let error =
            resolve_in(Path::new("/cache"), "hub:a/b").unwrap_err().needing(&["tokenizer*", "*.jinja"]);
        let command = r#"`llavm fetch hub:a/b --include "tokenizer*" --include "*.jinja"`"#;
        assert!(error.to_string().contains(command), "{error}");
    }

    #[test]
    fn a_half_downloaded_repository_names_the_missing_snapshot() {
        let cache = cache_with("models--a--b", "main", "c0ffee");
        fs::remove_dir(cache.path().join("models--a--b/snapshots/c0ffee")).unwrap();
        let error = resolve_in(cache.path(), "hub:a/b").unwrap_err();
        assert!(error.to_string().contains("models--a--b/snapshots/c0ffee"), "{error}");
    }

    #[test]
    fn names_that_leave_the_cache_are_refused() {
        for name in ["hub:", "hub:../x", "hub:a/../b", "hub:a/b/c", "hub:a//b", "hub:a/b@", "hub:a/b@../x"] {
            let error = resolve_in(Path::new("/cache"), name).unwrap_err();
            assert!(matches!(error, HubError::BadName { .. }), "{name}: {error}");
        }
    }

    #[test]
    fn a_plain_folder_is_itself_and_a_missing_one_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().to_str().unwrap();
        assert_eq!(resolve_in(Path::new("/cache"), path).unwrap(), folder.path());
        assert!(matches!(resolve_in(Path::new("/c"), "/no/such"), Err(HubError::NoFolder(_))));
    }

    #[test]
    fn a_folder_without_config_says_which_file_it_lacks() {
        let error = require_file(Path::new("/models/qwen"), "config.json").unwrap_err();
        insta::assert_snapshot!(error, @"/models/qwen lacks config.json: looked for /models/qwen/config.json.");
    }
}
