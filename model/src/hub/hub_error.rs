//! What is not on this disk, and the command that downloads it.

use super::source::Source;
use std::path::PathBuf;

/// A folder or file that a locator names is not on this disk.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum HubError {
    /// The text after the prefix is not a repository name.
    #[error(
        "`{locator}` is no repository name. Write {prefix}ORG/NAME, {prefix}ORG/NAME@REVISION or {prefix}datasets/ORG/NAME."
    )]
    BadName {
        /// As it was written.
        locator: String,
        /// Of the source.
        prefix: &'static str,
    },
    /// The repository, or this revision of it, was never downloaded.
    #[error("`{locator}` is not in the {from} cache: looked for {}. Download it with `{}`, or set {} to the cache that has it.", looked_for.display(), fetch_command(locator, include), from.variables().cache)]
    NotCached {
        /// As it was written.
        locator: String,
        /// Where it comes from.
        from: Source,
        /// The file or folder that would have to exist.
        looked_for: PathBuf,
        /// Patterns of the files that are needed; empty for all.
        include: Vec<String>,
    },
    /// A plain path names nothing.
    #[error("the folder {} does not exist. Write hub:ORG/NAME for a repository of the Hugging Face hub, ms:ORG/NAME for one of ModelScope.", .0.display())]
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

impl HubError {
    /// The same error, whose command downloads only the files that match `include`.
    #[must_use]
    pub fn needing(self, include: &[&str]) -> Self {
        match self {
            Self::NotCached { locator, from, looked_for, .. } => {
                let include = include.iter().map(|pattern| (*pattern).to_owned()).collect();
                Self::NotCached { locator, from, looked_for, include }
            }
            other => other,
        }
    }
}

/// The command that downloads the files of `locator` that match `include`, or all of them.
pub fn fetch_command<S: AsRef<str>>(locator: &str, include: &[S]) -> String {
    let include = include.iter().map(|pattern| format!(" --include \"{}\"", pattern.as_ref()));
    format!("llavm fetch {locator}{}", include.collect::<String>())
}
