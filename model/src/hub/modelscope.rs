//! ModelScope's list of files (`modelscope_hub`, `_legacy_api.py`).
//!
//! A model's list ends without a word after [`MOST`] entries; such a tree is listed folder by folder. A data set's comes in
//! pages. Digests are SHA-256.

use super::fetch_error::FetchError;
use super::listing::{Listed, Lister, Listing, Unlisted, wrong};
use super::repository::Repository;
use serde::Deserialize;

/// Entries of a model's list at most (`REPO_FILES_TRUNCATION_LIMIT`).
const MOST: usize = 3000;
/// Entries of a page of a data set's list.
const PAGE: usize = 200;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    #[serde(default)]
    success: Option<bool>,
    #[serde(default)]
    message: Option<String>,
    #[serde(default)]
    data: Option<Data>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Data {
    #[serde(default)]
    files: Option<Vec<Entry>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    path: String,
    /// `blob` or `tree`.
    #[serde(default)]
    r#type: Option<String>,
    #[serde(default)]
    size: Option<u64>,
    #[serde(default)]
    sha256: Option<String>,
}

impl Entry {
    fn is_folder(&self) -> bool {
        self.r#type.as_deref() == Some("tree")
    }
}

impl From<Entry> for Listed {
    fn from(entry: Entry) -> Self {
        let digest = entry.sha256.unwrap_or_default().to_ascii_lowercase();
        Self { known: entry.size.map(|size| (size, digest)), path: entry.path }
    }
}

impl Lister<'_> {
    /// The files of a repository of ModelScope. Its commit is the revision: that is how its cache names snapshots.
    pub(super) fn modelscope(&self, repository: &Repository) -> Result<Listing, Unlisted> {
        let entries = match repository.kind {
            "datasets" => self.pages(repository)?,
            _ => self.walk(repository, "")?,
        };
        let files = entries.into_iter().filter(|entry| !entry.is_folder()).map(Listed::from).collect();
        Ok(Listing { commit: repository.revision.clone(), files })
    }

    fn pages(&self, repository: &Repository) -> Result<Vec<Entry>, Unlisted> {
        let mut entries = Vec::new();
        for page in 1.. {
            let more = self.entries(&repository.files_address("", true, page, PAGE))?;
            let last = more.len() < PAGE;
            entries.extend(more);
            if last {
                break;
            }
        }
        Ok(entries)
    }

    /// Everything below `folder`.
    fn walk(&self, repository: &Repository, folder: &str) -> Result<Vec<Entry>, Unlisted> {
        let address = |recursive| repository.files_address(folder, recursive, 1, PAGE);
        let all = self.entries(&address(true))?;
        if all.len() < MOST {
            return Ok(all);
        }
        let mut entries = self.entries(&address(false))?;
        if entries.len() >= MOST {
            let why =
                format!("it lists no more than {MOST} entries, and the folder `{folder}` may have more");
            return Err(wrong(&address(false), why).into());
        }
        let folders: Vec<String> =
            entries.iter().filter(|entry| entry.is_folder()).map(|entry| entry.path.clone()).collect();
        for folder in folders {
            entries.extend(self.walk(repository, &folder)?);
        }
        Ok(entries)
    }

    fn entries(&self, address: &str) -> Result<Vec<Entry>, Unlisted> {
        let address = format!("{}/{address}", self.endpoint);
        let Answer { success, message, data } = self.json(&address)?;
        if success == Some(false) {
            return Err(Unlisted::Error(FetchError::Answer {
                address,
                why: message.unwrap_or_else(|| "it refuses without a word".to_owned()),
            }));
        }
        Ok(data.and_then(|data| data.files).unwrap_or_default())
    }
}
