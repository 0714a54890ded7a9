//! `[datasets/]ORG/NAME[@REV]`: which repository, at which revision, and its names in the cache and in addresses.
//!
//! Addresses and paths in the cache are those of the crate `hf-hub`, so that they are the same in all tools.

use super::locate::HUB;
use hf_hub::{Cache, CacheRepo, Repo, RepoType};
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

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
        self.repo().folder_name()
    }

    /// Where the file with this etag is kept in the cache folder.
    pub fn blob(&self, cache: &Path, etag: &str) -> PathBuf {
        self.in_cache(cache).blob_path(etag)
    }

    /// The folder that shows a commit's files under their own names.
    pub fn snapshot_folder(&self, cache: &Path, commit: &str) -> PathBuf {
        self.in_cache(cache).pointer_path(commit)
    }

    /// The file that holds the commit this revision stands for.
    pub fn reference(&self, cache: &Path) -> PathBuf {
        cache.join(self.folder_name()).join("refs").join(&self.revision)
    }

    /// The lock of a blob, where `huggingface_hub` has it.
    pub fn lock(&self, cache: &Path, etag: &str) -> PathBuf {
        cache.join(".locks").join(self.folder_name()).join(format!("{etag}.lock"))
    }

    /// The address, below the endpoint, of the list of files with their digests.
    pub fn info_address(&self) -> String {
        format!("api/{}?blobs=true", self.repo().api_url())
    }

    /// The address of a commit's files, a page at a time.
    pub fn tree_address(&self, commit: &str) -> String {
        format!("api/{}/{}/tree/{commit}?recursive=true", self.kind, self.name)
    }

    /// The address of a file of a commit; of the repository's page for people when there is no file.
    pub fn address(&self, file: Option<(&str, &str)>) -> String {
        let page = self.repo().url();
        match file {
            Some((commit, path)) => format!("{page}/resolve/{commit}/{}", encoded(path)),
            None => page,
        }
    }

    /// The repository of the same name among data sets, or among models.
    #[must_use]
    pub fn other_kind(&self) -> Self {
        let kind = if self.kind == "models" { "datasets" } else { "models" };
        Self { kind, ..self.clone() }
    }

    /// The snapshot folder of this revision; the path that was looked for when there is none.
    pub fn snapshot(&self, cache: &Path) -> Result<PathBuf, PathBuf> {
        let by_commit = self.snapshot_folder(cache, &self.revision);
        if by_commit.is_dir() {
            return Ok(by_commit);
        }
        let reference = self.reference(cache);
        let commit = fs::read_to_string(&reference).map_err(|_| reference)?;
        let snapshot = self.snapshot_folder(cache, commit.trim());
        if snapshot.is_dir() { Ok(snapshot) } else { Err(snapshot) }
    }

    fn repo(&self) -> Repo {
        let kind = if self.kind == "datasets" { RepoType::Dataset } else { RepoType::Model };
        Repo::with_revision(self.name.clone(), kind, self.revision.clone())
    }

    fn in_cache(&self, cache: &Path) -> CacheRepo {
        Cache::new(cache.to_owned()).repo(self.repo())
    }
}

/// The locator, as short as it can be written.
impl fmt::Display for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.kind == "datasets" { "datasets/" } else { "" };
        write!(f, "{HUB}{kind}{}", self.name)?;
        if self.revision == "main" { Ok(()) } else { write!(f, "@{}", self.revision) }
    }
}

/// Whether `part` may stand in a repository or revision name: no empty part, no climbing out of the cache.
pub fn is_name(part: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    !part.is_empty() && part != "." && part != ".." && part.chars().all(allowed)
}

/// A path as it stands in an address.
fn encoded(path: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~/".contains(&byte);
    let byte = |byte: u8| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    path.bytes().map(byte).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_those_of_the_hub() {
        let model = Repository::parse("Qwen/Qwen3-0.6B@refs/pr/1").unwrap();
        assert_eq!(model.info_address(), "api/models/Qwen/Qwen3-0.6B/revision/refs%2Fpr%2F1?blobs=true");
        let set = Repository::parse("datasets/a/b").unwrap();
        let file = set.address(Some(("0abc", "data/图 1+#%.parquet")));
        assert_eq!(file, "datasets/a/b/resolve/0abc/data/%E5%9B%BE%201%2B%23%25.parquet");
        assert_eq!(set.tree_address("0abc"), "api/datasets/a/b/tree/0abc?recursive=true");
    }

    #[test]
    fn a_locator_is_read_as_it_is_written() {
        for text in ["hub:gpt2", "hub:Qwen/Qwen3-0.6B", "hub:datasets/a/b@v1.0"] {
            let repository = Repository::parse(text.trim_start_matches(HUB)).unwrap();
            assert_eq!(repository.to_string(), text);
        }
    }
}
