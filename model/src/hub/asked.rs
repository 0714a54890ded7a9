//! What a request met, in words for the repository and the file that were asked for, and what to do about it.

use super::fetch_error::FetchError;
use super::repository::Repository;
use super::settings::{Settings, Site};
use super::source::{Source, Variables};
use super::trouble::Trouble;

/// Puts what a request met into words, for a repository and one of its files.
pub struct Asked<'a> {
    /// The repository.
    pub repository: &'a Repository,
    /// The file, unless the list of files was asked for.
    pub file: Option<&'a str>,
    /// Who asked.
    pub settings: &'a Settings,
    /// The other kind of repository that has this name, when that is known.
    pub namesake: Option<Repository>,
}

impl Asked<'_> {
    /// The error for `trouble`.
    pub fn error(&self, trouble: Trouble) -> FetchError {
        let what = match self.file {
            Some(file) => format!("{file} of {}", self.repository),
            None => self.repository.to_string(),
        };
        FetchError::Refused { what, advice: self.advice(&trouble), trouble }
    }

    fn advice(&self, trouble: &Trouble) -> String {
        let Trouble::Status { status, code, .. } = trouble else {
            return match trouble {
                Trouble::Network { .. } => format!(
                    "Check the connection to {} and HTTPS_PROXY; {} can name a mirror{}. What has arrived is kept.",
                    self.site().endpoint,
                    self.variables().endpoint,
                    self.other_source(),
                ),
                _ => "Fetch again later: what has arrived is kept.".to_owned(),
            };
        };
        match (status, code.as_deref()) {
            (_, Some("GatedRepo")) => self.gated(),
            (403, _) => {
                format!("{} If others may read it, a proxy or firewall in between refuses.", self.gated())
            }
            (_, Some("RevisionNotFound")) => "Its page lists branches, tags and commits.".to_owned(),
            (_, Some("EntryNotFound")) => {
                "Fetch again: the repository may have changed meanwhile.".to_owned()
            }
            (401 | 404, _) => self.not_found(),
            (429, None) if self.site().token.is_none() => format!(
                "Wait a few minutes; with a token ({}) more is allowed. What has arrived is kept.",
                self.variables().token
            ),
            (429, _) => "Wait a few minutes and fetch again: what has arrived is kept.".to_owned(),
            _ => format!(
                "Fetch again later; {} can name a mirror. What has arrived is kept.",
                self.variables().endpoint
            ),
        }
    }

    fn site(&self) -> &Site {
        self.settings.site(self.repository.source)
    }

    fn variables(&self) -> Variables {
        self.repository.source.variables()
    }

    /// Many models are on both.
    fn other_source(&self) -> &'static str {
        match self.repository.source {
            Source::HuggingFace => ", and ms:ORG/NAME fetches from ModelScope",
            Source::ModelScope => "",
        }
    }

    /// The owner lets only some in.
    fn gated(&self) -> String {
        let Site { endpoint, token, .. } = self.site();
        let page = format!("{endpoint}/{}", self.repository.address(None));
        let tokens = match self.repository.source {
            Source::HuggingFace => "settings/tokens",
            Source::ModelScope => "my/myaccesstoken",
        };
        match token {
            None => format!(
                "Ask for access at {page}, make a token at {endpoint}/{tokens}, and set {} to it.",
                self.variables().token
            ),
            Some(token) => format!(
                "Ask for access at {page} with the account of {token:?}; a fine-grained token must allow gated repositories."
            ),
        }
    }

    /// The hub lets nobody know whether a private repository exists.
    fn not_found(&self) -> String {
        if let Some(namesake) = &self.namesake {
            return format!("Did you mean {namesake}?");
        }
        match &self.site().token {
            None => {
                format!("Check the name. A private repository needs a token: set {}.", self.variables().token)
            }
            Some(token) => format!("Check the name, and whether {token:?} is valid and may read it."),
        }
    }
}
