//! The files of a repository at one commit, with sizes and digests.
//!
//! One request gives all of them (`/api/models/ORG/NAME/revision/REV?blobs=true`). Of repositories with very many files it gives
//! only a part; those are read from the tree, a page at a time. A file without a digest there (an old mirror) is asked
//! for by its headers, as `huggingface_hub` does (`x-linked-etag`, `etag`, `x-linked-size`).

use super::client::Client;
use super::digest::Digest;
use super::fetch_error::FetchError;
use super::repository::{Repository, is_name};
use super::source::Source;
use super::trouble::{Trouble, header};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::path::{Component, Path};
use ureq::Body;
use ureq::http::Response;

/// From this many files on, the first answer may be cut short (`huggingface_hub`: `VERY_LARGE_REPO_THRESHOLD`).
pub const MANY: usize = 50_000;
/// Bytes of JSON that are read at most.
const LONGEST_ANSWER: u64 = 1 << 30;

/// A file of a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteFile {
    /// Its path in the repository.
    pub path: String,
    /// Its size in bytes.
    pub size: u64,
    /// Its name among the cache's blobs.
    pub etag: String,
}

impl RemoteFile {
    /// What its content must come to; `None` on a server that lists none.
    pub fn digest(&self) -> Option<Digest> {
        Digest::of_etag(&self.etag)
    }
}

/// A repository at one commit.
#[derive(Clone, Debug)]
pub struct Listing {
    /// The commit.
    pub commit: String,
    /// Its files by path; those whose size or digest is not known yet have none.
    pub files: Vec<Listed>,
}

/// A file as it is listed.
#[derive(Clone, Debug)]
pub struct Listed {
    /// Its path in the repository.
    pub path: String,
    /// Size and etag, when the list has both.
    pub(super) known: Option<(u64, String)>,
}

#[derive(Deserialize)]
struct Info {
    sha: String,
    #[serde(default)]
    siblings: Vec<Entry>,
}

/// A file, as either list writes it.
#[derive(Deserialize)]
struct Entry {
    #[serde(alias = "rfilename")]
    path: String,
    /// `file` or `directory`, in the tree only.
    #[serde(rename = "type")]
    kind: Option<String>,
    size: Option<u64>,
    #[serde(alias = "blobId")]
    oid: Option<String>,
    lfs: Option<Lfs>,
}

#[derive(Deserialize)]
struct Lfs {
    #[serde(alias = "oid")]
    sha256: Option<String>,
    size: Option<u64>,
}

impl From<Entry> for Listed {
    fn from(entry: Entry) -> Self {
        let (size, etag) = match entry.lfs {
            Some(lfs) => (lfs.size.or(entry.size), lfs.sha256),
            None => (entry.size, entry.oid),
        };
        let known = size.zip(etag).filter(|(_, etag)| Digest::of_etag(etag).is_some());
        Self { path: entry.path, known }
    }
}

/// Asks the hub for lists and headers.
pub struct Lister<'a> {
    /// The hub.
    pub client: &'a Client,
    /// Its address.
    pub endpoint: &'a str,
    /// Called before a pause.
    pub waiting: &'a dyn Fn(&Trouble, std::time::Duration),
}

/// Why there is no list.
pub enum Unlisted {
    /// The hub refuses, or is not there.
    Trouble(Trouble),
    /// The hub answers something else.
    Error(FetchError),
}

impl From<Trouble> for Unlisted {
    fn from(trouble: Trouble) -> Self {
        Self::Trouble(trouble)
    }
}

impl From<FetchError> for Unlisted {
    fn from(error: FetchError) -> Self {
        Self::Error(error)
    }
}

impl Lister<'_> {
    /// The files of `repository`, sorted by path, none outside the snapshot folder.
    pub fn list(&self, repository: &Repository) -> Result<Listing, Unlisted> {
        let mut listing = match repository.source {
            Source::HuggingFace => self.hugging_face(repository)?,
            Source::ModelScope => self.modelscope(repository)?,
        };
        listing.files.sort_by(|a, b| a.path.cmp(&b.path));
        match listing.files.iter().find(|file| !is_inside(&file.path)) {
            Some(Listed { path, .. }) => {
                Err(FetchError::UnsafePath { repository: repository.to_string(), path: path.clone() }.into())
            }
            None => Ok(listing),
        }
    }

    fn hugging_face(&self, repository: &Repository) -> Result<Listing, Unlisted> {
        let address = format!("{}/{}", self.endpoint, repository.info_address());
        let Info { sha, siblings } = self.json(&address)?;
        if !is_name(&sha) {
            return Err(wrong(&address, format!("its commit is `{sha}`")).into());
        }
        let entries = if siblings.len() < MANY { siblings } else { self.tree(repository, &sha)? };
        let files =
            entries.into_iter().filter(|entry| entry.kind.as_deref().is_none_or(|kind| kind == "file"));
        Ok(Listing { commit: sha, files: files.map(Listed::from).collect() })
    }

    /// The JSON at an address.
    pub(super) fn json<T: DeserializeOwned>(&self, address: &str) -> Result<T, Unlisted> {
        json(address, &mut self.get(address)?)
    }

    /// All pages of the tree.
    fn tree(&self, repository: &Repository, commit: &str) -> Result<Vec<Entry>, Unlisted> {
        let mut entries = Vec::new();
        let mut next = Some(repository.tree_address(commit));
        while let Some(address) = next {
            let address = format!("{}/{address}", self.endpoint);
            let mut response = self.get(&address)?;
            next = header(&response, "link").and_then(next_page);
            entries.extend(json::<Vec<Entry>>(&address, &mut response)?);
        }
        Ok(entries)
    }

    /// The file with its size and etag.
    pub fn complete(
        &self,
        repository: &Repository,
        commit: &str,
        file: Listed,
    ) -> Result<RemoteFile, Unlisted> {
        if let Some((size, etag)) = file.known {
            return Ok(RemoteFile { path: file.path, size, etag });
        }
        let address = format!("{}/{}", self.endpoint, repository.address(Some((commit, &file.path))));
        let response = self.patiently(|| self.client.head(&address))?;
        let either = |linked: &str, own: &str| header(&response, linked).or_else(|| header(&response, own));
        let etag =
            either("x-linked-etag", "etag").map(|etag| etag.trim_start_matches("W/").trim_matches('"'));
        let etag = etag.filter(|etag| is_name(etag)).ok_or_else(|| wrong(&address, "it has no etag"))?;
        let size = either("x-linked-size", "content-length").and_then(|size| size.parse().ok());
        let size = size.ok_or_else(|| wrong(&address, "it tells no size"))?;
        Ok(RemoteFile { path: file.path, size, etag: etag.to_owned() })
    }

    /// Whether the hub has this repository.
    pub fn has(&self, repository: &Repository) -> bool {
        let address = match repository.source {
            Source::HuggingFace => repository.info_address(),
            Source::ModelScope => repository.files_address("", false, 1, 1),
        };
        self.client.get(&format!("{}/{address}", self.endpoint), 0).is_ok()
    }

    fn get(&self, address: &str) -> Result<Response<Body>, Trouble> {
        self.patiently(|| self.client.get(address, 0))
    }

    fn patiently<T>(&self, request: impl Fn() -> Result<T, Trouble>) -> Result<T, Trouble> {
        let mut patience = self.client.patience();
        loop {
            let trouble = match request() {
                Ok(answer) => return Ok(answer),
                Err(trouble) => trouble,
            };
            let pause = patience.after(trouble.clone())?;
            (self.waiting)(&trouble, pause);
            std::thread::sleep(pause);
        }
    }
}

fn json<T: DeserializeOwned>(address: &str, response: &mut Response<Body>) -> Result<T, Unlisted> {
    let body = response.body_mut().with_config().limit(LONGEST_ANSWER).read_to_vec();
    let body = match body {
        Ok(body) => body,
        Err(error) => {
            let address = address.parse().unwrap_or_default();
            return Err(super::client::network(&address, &error).into());
        }
    };
    serde_json::from_slice(&body).map_err(|error| wrong(address, error.to_string()).into())
}

pub(super) fn wrong(address: &str, why: impl Into<String>) -> FetchError {
    FetchError::Answer { address: address.to_owned(), why: why.into() }
}

/// The address, below the endpoint, of `<https://hub/api/…?cursor=…>; rel="next"`. A mirror may name the hub itself, which its
/// users may not reach: the next page is asked of the same server.
fn next_page(link: &str) -> Option<String> {
    let next = link.split(',').find(|part| part.contains("rel=\"next\""))?;
    let address = next.split_once('<')?.1.split_once('>')?.0;
    let start = address.find("/api/")?;
    Some(address[start + 1..].to_owned())
}

/// Whether a path of the repository stays in the snapshot folder.
fn is_inside(path: &str) -> bool {
    let normal = |part| matches!(part, Component::Normal(_));
    !path.is_empty() && !path.contains('\\') && Path::new(path).components().all(normal)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(json: &str) -> Listed {
        serde_json::from_str::<Entry>(json).unwrap().into()
    }

    #[test]
    fn both_lists_give_the_same_file() {
        let sha = "a".repeat(64);
        let git = "b".repeat(40);
        let info = format!(
            r#"{{"rfilename":"m.safetensors","size":7,"blobId":"{git}","lfs":{{"sha256":"{sha}","size":7,"pointerSize":134}}}}"#
        );
        let tree = format!(
            r#"{{"type":"file","path":"m.safetensors","size":7,"oid":"{git}","lfs":{{"oid":"{sha}","size":7}},"xetHash":"x"}}"#
        );
        for json in [info, tree] {
            let file = listed(&json);
            assert_eq!((file.path.as_str(), file.known), ("m.safetensors", Some((7, sha.clone()))));
        }
        let small = listed(&format!(r#"{{"rfilename":"config.json","size":3,"blobId":"{git}"}}"#));
        assert_eq!(small.known, Some((3, git)));
        assert_eq!(listed(r#"{"rfilename":"config.json"}"#).known, None);
    }

    #[test]
    fn the_next_page_is_asked_of_the_same_server() {
        let link =
            r#"<https://huggingface.co/api/datasets/a/b/tree/c?recursive=true&cursor=Zg%3D%3D>; rel="next""#;
        assert_eq!(
            next_page(link).as_deref(),
            Some("api/datasets/a/b/tree/c?recursive=true&cursor=Zg%3D%3D")
        );
        assert_eq!(next_page(r#"<https://huggingface.co/api/x>; rel="prev""#), None);
    }

    #[test]
    fn a_path_that_leaves_the_snapshot_is_recognised() {
        assert!(is_inside("data/train-00000.parquet") && is_inside(".gitattributes"));
        for path in ["", "/etc/passwd", "../x", "a/../../x", "./a", r"..\x"] {
            assert!(!is_inside(path), "{path}");
        }
    }
}
