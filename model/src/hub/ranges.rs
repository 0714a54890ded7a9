//! Files of a repository read by range where they lie, without a copy on this disk.
//!
//! They are those of one commit, whose content never changes. The source sends each request on to where the bytes are; that address
//! is asked again until it gives no more, so that the source is not asked for every range.

use super::asked::Asked;
use super::client::{Client, network};
use super::download::continues;
use super::event::{FetchEvent, Observer};
use super::fetch::Hub;
use super::fetch_error::FetchError;
use super::hub_error::HubError;
use super::listing::{Lister, Listing, RemoteFile};
use super::repository::Repository;
use super::settings::Settings;
use super::source::Source;
use super::trouble::Trouble;
use std::collections::HashMap;
use std::io::Read;
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};
use ureq::Body;
use ureq::http::{Response, StatusCode};

/// How often the list of files is asked for.
const ASKED: u32 = 2;

/// Reads files of one repository at one commit, from any thread.
#[derive(Debug)]
pub struct Ranges {
    settings: Settings,
    client: Client,
    repository: Repository,
    commit: String,
    /// By path: where its bytes are.
    places: Mutex<HashMap<String, String>>,
}

impl Hub {
    /// The files of `locator` that `choose` wants by their paths, as they are now, and what reads them.
    pub fn ranges(
        &self,
        locator: &str,
        choose: &dyn Fn(&str) -> bool,
        observer: &dyn Observer,
    ) -> Result<(Ranges, Vec<RemoteFile>), FetchError> {
        let bad = |source: Source| HubError::BadName { locator: locator.to_owned(), prefix: source.prefix() };
        let (source, name) = Source::of(locator).ok_or_else(|| bad(Source::HuggingFace))?;
        let repository = Repository::parse(source, name).ok_or_else(|| bad(source))?;
        let what = repository.to_string();
        let waiting = |why: &Trouble, pause| observer.event(&FetchEvent::Waiting { what: &what, why, pause });
        // Where there is no network, that is to be known soon.
        let hasty = Settings { attempts: self.settings().attempts.min(ASKED), ..self.settings().clone() };
        let asking = Self::new(hasty)?.client(source)?;
        let endpoint = &self.settings().site(source).endpoint;
        let lister = Lister { client: &asking, endpoint, waiting: &waiting };
        let refused = |why| self.refused(&lister, &repository, why);
        let Listing { commit, files } = lister.list(&repository).map_err(refused)?;
        let chosen = files.into_iter().filter(|file| choose(&file.path));
        let files: Vec<RemoteFile> = chosen
            .map(|file| lister.complete(&repository, &commit, file).map_err(refused))
            .collect::<Result<_, _>>()?;
        let (settings, places, client) = (self.settings().clone(), Mutex::default(), self.client(source)?);
        Ok((Ranges { settings, client, repository, commit, places }, files))
    }
}

impl Ranges {
    /// The commit whose files these are.
    pub fn commit(&self) -> &str {
        &self.commit
    }

    /// All bytes of a range within the file at `path`.
    pub fn read(&self, path: &str, range: Range<u64>) -> Result<Vec<u8>, FetchError> {
        let wanted = usize::try_from(range.end.saturating_sub(range.start)).unwrap_or(usize::MAX);
        let mut bytes = Vec::new();
        let mut patience = self.client.patience();
        while bytes.len() < wanted {
            let before = bytes.len();
            let left = range.start + before as u64..range.end;
            let Err(trouble) = self.receive(path, &left, &mut bytes) else { break };
            if bytes.len() > before {
                patience.progress();
            }
            let pause = patience.after(trouble).map_err(|trouble| self.refused(path, trouble))?;
            std::thread::sleep(pause);
        }
        Ok(bytes)
    }

    /// Appends the bytes of a range as far as they come; an error where that is not all.
    fn receive(&self, path: &str, range: &Range<u64>, bytes: &mut Vec<u8>) -> Result<(), Trouble> {
        let response = self.ask(path, range)?;
        let address = self.place(path);
        // A server without ranges sends all of the file from its beginning.
        let is_part = response.status() == StatusCode::PARTIAL_CONTENT && continues(&response, range.start);
        let is_all = response.status() == StatusCode::OK && range.start == 0;
        if !is_part && !is_all {
            let message = Some(format!("{address} gives no part of a file"));
            return Err(Trouble::Status {
                status: response.status().as_u16(),
                code: None,
                message,
                pause: None,
            });
        }
        let wanted = range.end - range.start;
        let had = bytes.len() as u64;
        let read = response.into_body().into_reader().take(wanted).read_to_end(bytes);
        let got = bytes.len() as u64 - had;
        match read {
            Ok(_) if got == wanted => Ok(()),
            Ok(_) => Err(Trouble::Cut { at: (got, wanted) }),
            Err(error) => Err(network(&address.parse().unwrap_or_default(), &ureq::Error::Io(error))),
        }
    }

    /// The answer of where the bytes are, or, when that gives them no more, of where the source sends us now.
    fn ask(&self, path: &str, range: &Range<u64>) -> Result<Response<Body>, Trouble> {
        let known = self.places().get(path).cloned();
        if let Some(place) = known {
            match self.client.get_range(&place, range) {
                Ok((response, _)) => return Ok(response),
                Err(Trouble::Status { status: 400 | 401 | 403 | 404 | 410, .. }) => {
                    self.places().remove(path);
                }
                Err(trouble) => return Err(trouble),
            }
        }
        let (response, place) = self.client.get_range(&self.address(path), range)?;
        self.places().insert(path.to_owned(), place);
        Ok(response)
    }

    fn places(&self) -> MutexGuard<'_, HashMap<String, String>> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The address at the source.
    fn address(&self, path: &str) -> String {
        let endpoint = &self.settings.site(self.repository.source).endpoint;
        format!("{endpoint}/{}", self.repository.address(Some((&self.commit, path))))
    }

    fn place(&self, path: &str) -> String {
        self.places().get(path).cloned().unwrap_or_else(|| self.address(path))
    }

    fn refused(&self, path: &str, trouble: Trouble) -> FetchError {
        let (repository, settings) = (&self.repository, &self.settings);
        Asked { repository, file: Some(path), settings, namesake: None }.error(trouble)
    }
}
