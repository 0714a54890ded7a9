//! What `store` in a manifest names: a folder, or a bucket of an object storage and a prefix in it.

use crate::spec::error::StageError;
use std::env;
use std::path::{Path, PathBuf};

/// How the address of a bucket begins.
const S3: &str = "s3://";

/// Where the server of buckets is, if not at Amazon.
pub const ENDPOINT: &str = "AWS_ENDPOINT_URL";

/// Names the folder for what this machine keeps of buckets.
const CACHE: &str = "LLAVM_CACHE";

/// A bucket, and what the names of objects in it begin with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub bucket: String,
    /// Without slashes at its ends; empty for the whole bucket.
    pub prefix: String,
}

impl Place {
    /// `s3://bucket/prefix`; `None` for the path of a folder.
    pub fn parse(text: &str) -> Option<Result<Self, StageError>> {
        let rest = text.strip_prefix(S3)?;
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let (bucket, prefix) = (bucket.to_owned(), prefix.trim_matches('/').to_owned());
        let is_plain = |part: &str| !matches!(part, "" | "." | "..") && !part.contains(char::is_control);
        if bucket.is_empty() || !(prefix.is_empty() || prefix.split('/').all(is_plain)) {
            let text = format!("`{text}` names no bucket");
            return Some(Err(StageError::new(text).help("Write s3://BUCKET/PREFIX.")));
        }
        Some(Ok(Self { bucket, prefix }))
    }

    /// `s3://bucket/prefix`.
    pub fn name(&self) -> String {
        if self.prefix.is_empty() {
            return format!("{S3}{}", self.bucket);
        }
        format!("{S3}{}/{}", self.bucket, self.prefix)
    }
}

/// The folder of this machine that belongs to a store: the store's own, or one in the user's cache for a bucket.
pub fn workdir(store: &Path) -> PathBuf {
    let text = store.to_string_lossy();
    let Some(place) = text.strip_prefix(S3).map(|place| place.trim_end_matches('/')) else {
        return store.to_owned();
    };
    // Buckets of one name at two servers are two.
    let server = env::var(ENDPOINT).unwrap_or_default();
    let digest = blake3::hash(format!("{server} {place}").as_bytes()).to_hex();
    let plain = |c: char| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' };
    let name: String = place.chars().map(plain).take(60).collect();
    cache().join("stores").join(format!("{name}-{}", &digest[..16]))
}

/// Where this user's machine keeps what can be fetched again.
fn cache() -> PathBuf {
    let set = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    set(CACHE)
        .or_else(|| set("XDG_CACHE_HOME").map(|folder| folder.join("llavm")))
        .or_else(|| set("HOME").map(|folder| folder.join(".cache").join("llavm")))
        .unwrap_or_else(|| env::temp_dir().join("llavm"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_bucket_and_a_prefix_and_anything_else_a_folder() {
        let parsed = |text: &str| Place::parse(text).map(|place| place.map(|place| place.name()).ok());
        assert_eq!(parsed("s3://b/p/q/"), Some(Some("s3://b/p/q".to_owned())));
        assert_eq!(parsed("s3://b"), Some(Some("s3://b".to_owned())));
        for wrong in ["s3://", "s3:///p", "s3://b/p//q", "s3://b/../q"] {
            assert_eq!(parsed(wrong), Some(None), "{wrong}");
        }
        assert_eq!(parsed(".llavm"), None);
        assert_eq!(workdir(Path::new(".llavm")), Path::new(".llavm"));
    }

    #[test]
    fn every_prefix_has_a_folder_of_its_own_on_a_machine() {
        let folders = ["s3://b/p", "s3://b/q", "s3://b_p", "s3://b"].map(|text| workdir(Path::new(text)));
        for (n, folder) in folders.iter().enumerate() {
            assert!(!folders[..n].contains(folder) && folder.is_absolute(), "{}", folder.display());
        }
        assert_eq!(workdir(Path::new("s3://b/p/")), folders[0]);
    }
}
