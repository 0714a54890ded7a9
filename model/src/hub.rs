//! Where model and data folders are: `hub:ORG/NAME[@REV]` in the Hugging Face cache, or a plain folder.
//!
//! In: a locator and the environment variables that `huggingface_hub` 1.x reads (`HF_HUB_CACHE`, `HF_HOME`,
//! `XDG_CACHE_HOME`). Out: a folder that exists. Nothing here uses the network; what is not on the disk is an
//! error that names the command which downloads it.
//!
//! Cache layout (`huggingface_hub/file_download.py`): `models--ORG--NAME/refs/REV` holds a commit,
//! `models--ORG--NAME/snapshots/COMMIT/` holds that commit's files. Data sets start with `datasets--`.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

/// Prefix of a locator that names a repository instead of a folder.
pub const HUB: &str = "hub:";

/// A folder or file that a locator names is not on this disk.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum HubError {
    /// The text after `hub:` is not a repository name.
    #[error(
        "`{locator}` is no repository name. Write hub:ORG/NAME, hub:ORG/NAME@REVISION or hub:datasets/ORG/NAME."
    )]
    BadName {
        /// As it was written.
        locator: String,
    },
    /// The repository, or this revision of it, was never downloaded.
    #[error("`{locator}` is not in the Hugging Face cache: looked for {}. Download it with `llavm fetch {locator}`, or set HF_HOME to the cache that has it.", looked_for.display())]
    NotCached {
        /// As it was written.
        locator: String,
        /// The file or folder that would have to exist.
        looked_for: PathBuf,
    },
    /// A plain path names nothing.
    #[error("the folder {} does not exist. Write hub:ORG/NAME for a repository of the Hugging Face hub.", .0.display())]
    NoFolder(PathBuf),
    /// The folder is there, one of its files is not.
    #[error("{} lacks {name}: looked for {}.{hint}", folder.display(), folder.join(name).display())]
    NoFile {
        /// The folder that the locator names.
        folder: PathBuf,
        /// The file's name.
        name: String,
        /// ` …` what to do next, starting with a space; empty for plain folders.
        hint: String,
    },
}

/// The folder that `locator` names, which exists.
pub fn resolve(locator: &str) -> Result<PathBuf, HubError> {
    resolve_in(&cache_folder(), locator)
}

/// The file `name` in the folder that `locator` names; both exist.
pub fn resolve_file(locator: &str, name: &str) -> Result<PathBuf, HubError> {
    let folder = resolve(locator)?;
    require_file(&folder, name).map_err(|error| match error {
        HubError::NoFile { folder, name, .. } if locator.starts_with(HUB) => HubError::NoFile {
            folder,
            name,
            hint: format!(" Download the whole repository with `llavm fetch {locator}`."),
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

/// The cache folder, by the rules and precedence of `huggingface_hub/constants.py`.
pub fn cache_folder() -> PathBuf {
    let var = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(cache) = var("HF_HUB_CACHE").or_else(|| var("HUGGINGFACE_HUB_CACHE")) {
        return cache;
    }
    let home = var("HF_HOME").unwrap_or_else(|| {
        let cache =
            var("XDG_CACHE_HOME").unwrap_or_else(|| env::home_dir().unwrap_or_default().join(".cache"));
        cache.join("huggingface")
    });
    home.join("hub")
}

/// [`resolve`] in a given cache folder.
pub fn resolve_in(cache: &Path, locator: &str) -> Result<PathBuf, HubError> {
    let Some(name) = locator.strip_prefix(HUB) else {
        let folder = PathBuf::from(locator);
        return if folder.is_dir() { Ok(folder) } else { Err(HubError::NoFolder(folder)) };
    };
    let repository =
        Repository::parse(name).ok_or_else(|| HubError::BadName { locator: locator.to_owned() })?;
    repository
        .snapshot(cache)
        .map_err(|looked_for| HubError::NotCached { locator: locator.to_owned(), looked_for })
}

/// A repository of the hub at one revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repository {
    /// `models` or `datasets`.
    pub kind: &'static str,
    /// `ORG/NAME`, or `NAME` alone for the oldest models.
    pub name: String,
    /// Branch, tag or commit.
    pub revision: String,
}

impl Repository {
    /// Reads `[datasets/]ORG/NAME[@REV]` (without the prefix `hub:`).
    pub fn parse(text: &str) -> Option<Self> {
        let (kind, text) = match text.strip_prefix("datasets/") {
            Some(rest) => ("datasets", rest),
            None => ("models", text),
        };
        let (name, revision) = text.split_once('@').unwrap_or((text, "main"));
        let valid =
            name.split('/').count() <= 2 && name.split('/').all(is_name) && revision.split('/').all(is_name);
        valid.then(|| Self { kind, name: name.to_owned(), revision: revision.to_owned() })
    }

    /// The folder of this repository below the cache folder, such as `models--Qwen--Qwen3-0.6B`.
    pub fn folder_name(&self) -> String {
        format!("{}--{}", self.kind, self.name.replace('/', "--"))
    }

    /// The snapshot folder of this revision; the path that was looked for when there is none.
    fn snapshot(&self, cache: &Path) -> Result<PathBuf, PathBuf> {
        let folder = cache.join(self.folder_name());
        let by_commit = folder.join("snapshots").join(&self.revision);
        if by_commit.is_dir() {
            return Ok(by_commit);
        }
        let reference = folder.join("refs").join(&self.revision);
        let commit = fs::read_to_string(&reference).map_err(|_| reference)?;
        let snapshot = folder.join("snapshots").join(commit.trim());
        if snapshot.is_dir() { Ok(snapshot) } else { Err(snapshot) }
    }
}

/// Whether `part` may stand in a repository or revision name: no empty part, no climbing out of the cache.
fn is_name(part: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    !part.is_empty() && part != "." && part != ".." && part.chars().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

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
