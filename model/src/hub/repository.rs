//! `[datasets/]ORG/NAME[@REV]`: which repository of which source, at which revision, and its names in the cache and in
//! addresses.
//!
//! | source | layout of the cache |
//! |---|---|
//! | Hugging Face | `models--ORG--NAME/blobs/ETAG`, shown as `models--ORG--NAME/snapshots/COMMIT/PATH`; `refs/REV` holds the commit |
//! | ModelScope | `models/ORG--NAME/snapshots/REV/PATH`; clients before 1.38 have `[hub/]models/ORG/NAME` with `___` for points |
//!
//! Addresses and paths of the first are those of the crate `hf-hub`, those of the second `modelscope_hub`'s
//! (`_download.py`, `_legacy_api.py`), so that they are the same in all tools.

use super::digest::sha256_of;
use super::source::Source;
use hf_hub::{Cache, CacheRepo, Repo, RepoType};
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

/// A repository at one revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repository {
    /// Where it comes from.
    pub source: Source,
    /// `models` or `datasets`.
    pub kind: &'static str,
    /// `ORG/NAME`, or `NAME` alone for the oldest models.
    pub name: String,
    /// Branch, tag or commit.
    pub revision: String,
}

impl Repository {
    /// Reads `[datasets/]ORG/NAME[@REV]` (a locator without its prefix).
    pub fn parse(source: Source, text: &str) -> Option<Self> {
        let (kind, text) = match text.strip_prefix("datasets/") {
            Some(rest) => ("datasets", rest),
            None => ("models", text),
        };
        let (name, revision) = text.split_once('@').unwrap_or((text, source.default_revision()));
        let parts = name.split('/').count();
        let count = parts == 2 || (parts == 1 && source == Source::HuggingFace);
        let valid = count && name.split('/').all(is_name) && revision.split('/').all(is_name);
        valid.then(|| Self { source, kind, name: name.to_owned(), revision: revision.to_owned() })
    }

    /// The folder of this repository below the cache folder.
    fn folder_name(&self) -> PathBuf {
        match self.source {
            Source::HuggingFace => self.repo().folder_name().into(),
            Source::ModelScope => Path::new(self.kind).join(self.name.replace('/', "--")),
        }
    }

    /// Where the content of a file is kept in the cache folder.
    pub fn blob(&self, cache: &Path, commit: &str, path: &str, etag: &str) -> PathBuf {
        match self.source {
            Source::HuggingFace => self.in_cache(cache).blob_path(etag),
            Source::ModelScope => self.snapshot_folder(cache, commit).join(path),
        }
    }

    /// The folder that shows a commit's files under their own names.
    pub fn snapshot_folder(&self, cache: &Path, commit: &str) -> PathBuf {
        match self.source {
            Source::HuggingFace => self.in_cache(cache).pointer_path(commit),
            Source::ModelScope => cache.join(self.folder_name()).join("snapshots").join(commit),
        }
    }

    /// The file that holds the commit this revision stands for (Hugging Face).
    pub fn reference(&self, cache: &Path) -> PathBuf {
        cache.join(self.folder_name()).join("refs").join(&self.revision)
    }

    /// A file that is there while the snapshot lacks files that are being fetched (ModelScope, whose snapshots are found by
    /// their folder alone).
    pub fn unfinished(&self, cache: &Path) -> PathBuf {
        let name = format!(".{}.unfinished", self.revision.replace('/', "--"));
        cache.join(self.folder_name()).join("snapshots").join(name)
    }

    /// The lock of a file, where the source's own client has it.
    pub fn lock(&self, cache: &Path, path: &str, etag: &str) -> PathBuf {
        match self.source {
            Source::HuggingFace => cache.join(".locks").join(self.folder_name()).join(format!("{etag}.lock")),
            Source::ModelScope => {
                let kind = self.kind.trim_end_matches('s');
                let key = ["modelscope-hub-download-lock-v2", "file", kind, &self.name, path].join("\0");
                cache.join(".lock").join(format!("file_{}.lock", sha256_of(key.as_bytes())))
            }
        }
    }

    /// The address, below the endpoint, of the list of files with their digests (Hugging Face).
    pub fn info_address(&self) -> String {
        format!("api/{}?blobs=true", self.repo().api_url())
    }

    /// The address of a commit's files, a page at a time (Hugging Face).
    pub fn tree_address(&self, commit: &str) -> String {
        format!("api/{}/{}/tree/{commit}?recursive=true", self.kind, self.name)
    }

    /// The address of the files in a folder, or in all folders below it (ModelScope). Data sets come in pages, from 1.
    pub fn files_address(&self, folder: &str, recursive: bool, page: usize, page_size: usize) -> String {
        let recursive = if recursive { "True" } else { "False" };
        let what = if self.kind == "datasets" { "tree" } else { "files" };
        let root = if folder.is_empty() { String::new() } else { format!("&Root={}", query(folder)) };
        let pages = match self.kind {
            "datasets" => format!("&PageNumber={page}&PageSize={page_size}"),
            _ => String::new(),
        };
        let revision = query(&self.revision);
        format!(
            "api/v1/{}/{}/repo/{what}?Revision={revision}&Recursive={recursive}{root}{pages}",
            self.kind, self.name
        )
    }

    /// The address of a file of a commit; of the repository's page for people when there is no file.
    pub fn address(&self, file: Option<(&str, &str)>) -> String {
        match (self.source, file) {
            (Source::HuggingFace, Some((commit, path))) => {
                format!("{}/resolve/{commit}/{}", self.repo().url(), encoded(path))
            }
            (Source::HuggingFace, None) => self.repo().url(),
            (Source::ModelScope, Some((commit, path))) => format!(
                "api/v1/{}/{}/repo?Revision={}&FilePath={}",
                self.kind,
                self.name,
                query(commit),
                query(path)
            ),
            (Source::ModelScope, None) => format!("{}/{}", self.kind, self.name),
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
        if self.source == Source::ModelScope {
            return self.modelscope_snapshot(cache);
        }
        let by_commit = self.snapshot_folder(cache, &self.revision);
        if by_commit.is_dir() {
            return Ok(by_commit);
        }
        let reference = self.reference(cache);
        let commit = fs::read_to_string(&reference).map_err(|_| reference)?;
        let snapshot = self.snapshot_folder(cache, commit.trim());
        if snapshot.is_dir() { Ok(snapshot) } else { Err(snapshot) }
    }

    fn modelscope_snapshot(&self, cache: &Path) -> Result<PathBuf, PathBuf> {
        let snapshot = self.snapshot_folder(cache, &self.revision);
        if snapshot.is_dir() && !self.unfinished(cache).exists() {
            return Ok(snapshot);
        }
        // What older clients have fetched is of one revision, which they do not note.
        let older =
            [cache.to_owned(), cache.join("hub")].map(|base| base.join(self.kind).join(self.older_name()));
        let default = self.revision == self.source.default_revision();
        older.into_iter().find(|folder| default && folder.is_dir()).ok_or(snapshot)
    }

    fn older_name(&self) -> String {
        match self.name.split_once('/') {
            Some((owner, name)) => format!("{owner}/{}", name.replace('.', "___")),
            None => self.name.clone(),
        }
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
        write!(f, "{}{kind}{}", self.source.prefix(), self.name)?;
        if self.revision == self.source.default_revision() { Ok(()) } else { write!(f, "@{}", self.revision) }
    }
}

/// Whether `part` may stand in a repository or revision name: no empty part, no climbing out of the cache.
pub fn is_name(part: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    !part.is_empty() && part != "." && part != ".." && part.chars().all(allowed)
}

/// A path as it stands in an address.
fn encoded(path: &str) -> String {
    percent(path, b"-_.~/")
}

/// A text as it stands in the query of an address.
fn query(text: &str) -> String {
    percent(text, b"-_.~")
}

fn percent(path: &str, signs: &[u8]) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || signs.contains(&byte);
    let byte = |byte: u8| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    path.bytes().map(byte).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_those_of_the_hub() {
        let model = Repository::parse(Source::HuggingFace, "Qwen/Qwen3-0.6B@refs/pr/1").unwrap();
        assert_eq!(model.info_address(), "api/models/Qwen/Qwen3-0.6B/revision/refs%2Fpr%2F1?blobs=true");
        let set = Repository::parse(Source::HuggingFace, "datasets/a/b").unwrap();
        let file = set.address(Some(("0abc", "data/图 1+#%.parquet")));
        assert_eq!(file, "datasets/a/b/resolve/0abc/data/%E5%9B%BE%201%2B%23%25.parquet");
        assert_eq!(set.tree_address("0abc"), "api/datasets/a/b/tree/0abc?recursive=true");
    }

    #[test]
    fn a_locator_is_read_as_it_is_written() {
        for text in
            ["hub:gpt2", "hub:Qwen/Qwen3-0.6B", "hub:datasets/a/b@v1.0", "ms:a/b", "ms:datasets/a/b@v1.0"]
        {
            let (source, name) = Source::of(text).unwrap();
            assert_eq!(Repository::parse(source, name).unwrap().to_string(), text);
        }
        assert_eq!(
            Repository::parse(Source::ModelScope, "gpt2"),
            None,
            "ModelScope has no names without an owner"
        );
    }

    /// `modelscope_hub` 0.5.1: `DownloadManager._repo_cache_dir_path`, `_lock_path`, `LegacyClient.get_download_url`.
    #[test]
    fn names_at_modelscope_are_those_of_its_client() {
        let model = Repository::parse(Source::ModelScope, "Qwen/Qwen3-0.6B").unwrap();
        let cache = Path::new("/c");
        let file = model.blob(cache, "master", "a/b.json", "ab");
        assert_eq!(file, Path::new("/c/models/Qwen--Qwen3-0.6B/snapshots/master/a/b.json"));
        assert_eq!(
            model.address(Some(("master", "图 1+.bin"))),
            "api/v1/models/Qwen/Qwen3-0.6B/repo?Revision=master&FilePath=%E5%9B%BE%201%2B.bin"
        );
        assert_eq!(
            model.lock(cache, "config.json", "ab"),
            Path::new("/c/.lock/file_fe47577b0085d875991c8984c01aba27ad4e2edbe4fa32c65bd22e345e2c7543.lock")
        );
        let set = Repository::parse(Source::ModelScope, "datasets/a/b@v1").unwrap();
        assert_eq!(
            set.files_address("", true, 2, 200),
            "api/v1/datasets/a/b/repo/tree?Revision=v1&Recursive=True&PageNumber=2&PageSize=200"
        );
        assert_eq!(
            model.files_address("x y", false, 1, 200),
            "api/v1/models/Qwen/Qwen3-0.6B/repo/files?Revision=master&Recursive=False&Root=x%20y"
        );
    }

    #[test]
    fn what_an_older_modelscope_client_has_fetched_is_found() {
        let cache = tempfile::tempdir().unwrap();
        let model = Repository::parse(Source::ModelScope, "Qwen/Qwen3-0.6B").unwrap();
        assert!(model.snapshot(cache.path()).is_err());
        let older = cache.path().join("hub/models/Qwen/Qwen3-0___6B");
        fs::create_dir_all(&older).unwrap();
        assert_eq!(model.snapshot(cache.path()), Ok(older));
        let newer = model.snapshot_folder(cache.path(), "master");
        fs::create_dir_all(&newer).unwrap();
        assert_eq!(model.snapshot(cache.path()), Ok(newer.clone()));
        fs::write(model.unfinished(cache.path()), "").unwrap();
        assert_ne!(model.snapshot(cache.path()), Ok(newer), "some of its files are still to come");
    }
}
