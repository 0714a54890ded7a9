//! Files of a repository that are read where they lie, because no copy of them is on this disk.
//!
//! Their address is the locator and the path, without the commit: another commit with the same file makes nothing again. The list of
//! files is asked for once in a process, so that all of it sees one commit.

use super::locate::parts;
use llavm_model::hub::{FetchError, FetchEvent, Hub, Observer, Ranges, Settings};
use llavm_pipeline::StageError;
use llavm_pipeline::storage::remote::{Answer, Located, Origin, keep};
use std::collections::HashMap;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::thread;

/// By locator: its files.
static LISTED: LazyLock<Mutex<HashMap<String, Arc<Listed>>>> = LazyLock::new(Mutex::default);

/// A repository at one commit.
struct Listed {
    /// Path, size and tag of every file.
    files: Vec<(String, u64, String)>,
    origin: Arc<Repository>,
}

/// Where its files are.
#[derive(Debug)]
struct Repository(Arc<Ranges>);

impl Origin for Repository {
    fn ask(&self, file: &Located, range: Range<u64>) -> Result<Answer, StageError> {
        let (ranges, path) = (Arc::clone(&self.0), file.key.clone());
        let (send, receive) = sync_channel(1);
        let work = move || {
            // Whoever does not wait any more wants no answer.
            let _ = send.send(ranges.read(&path, range).map_err(failed));
        };
        thread::Builder::new()
            .name("hub".to_owned())
            .spawn(work)
            .map_err(|cause| StageError::new(format!("{}: no thread: {cause}", file.url)).because(cause))?;
        let gone = || StageError::new("the thread of a request has ended");
        Ok(Box::new(move || receive.recv().unwrap_or_else(|_| Err(gone())).map(Into::into)))
    }
}

fn failed(error: FetchError) -> StageError {
    let help = error.advice().unwrap_or_else(|| "Run the same command again.".to_owned());
    StageError::new(error.to_string()).help(help).because(error)
}

/// Logs why it takes long.
struct Patient;

impl Observer for Patient {
    fn event(&self, event: &FetchEvent<'_>) {
        if let FetchEvent::Waiting { what, why, pause } = event {
            tracing::debug!(what, ?pause, "{why}");
        }
    }
}

fn list(locator: &str, settings: Settings) -> Result<Arc<Listed>, FetchError> {
    let mut listed = LISTED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = listed.get(locator) {
        return Ok(Arc::clone(known));
    }
    let (ranges, files) = Hub::new(settings)?.ranges(locator, &|_| true, &Patient)?;
    let origin = Arc::new(Repository(Arc::new(ranges)));
    let files = files.into_iter().map(|file| (file.path, file.size, file.etag)).collect();
    let new = Arc::new(Listed { files, origin });
    listed.insert(locator.to_owned(), Arc::clone(&new));
    Ok(new)
}

/// The addresses of the files of a repository that a pattern such as `hub:datasets/ORG/NAME/**/*.parquet` names; a name that exists is
/// taken as it is. `not_here` says why no copy can be used.
pub fn matching(pattern: &str, not_here: StageError) -> Result<Vec<PathBuf>, StageError> {
    let settings = Settings::from_env();
    let (Some((locator, rest)), Ok(settings)) = (parts(pattern), settings) else { return Err(not_here) };
    if settings.offline.is_some() {
        return Err(not_here);
    }
    let listed = list(locator, settings).map_err(|error| neither(&not_here, &failed(error)))?;
    let wrong = |cause| StageError::new(format!("`{pattern}` is no pattern: {cause}"));
    let compiled = glob::Pattern::new(rest).map_err(wrong)?;
    let options = glob::MatchOptions { require_literal_separator: true, ..glob::MatchOptions::new() };
    let is_named = |path: &str| path == rest;
    let has_name = listed.files.iter().any(|(path, ..)| is_named(path));
    let is_chosen = |path: &str| if has_name { is_named(path) } else { compiled.matches_with(path, options) };
    let chosen = listed.files.iter().filter(|(path, ..)| is_chosen(path));
    Ok(chosen
        .map(|(path, size, etag)| {
            let (url, key, etag) = (format!("{locator}/{path}"), path.clone(), Some(etag.clone()));
            keep(Arc::clone(&listed.origin) as Arc<dyn Origin>, Located { url, key, size: *size, etag })
        })
        .collect())
}

/// There is no copy, and no way to read it where it lies.
fn neither(not_here: &StageError, cause: &StageError) -> StageError {
    let text = format!("{not_here} It cannot be read where it lies either: {cause}");
    let help = [not_here.advice(), cause.advice()].into_iter().flatten().collect::<Vec<_>>().join(" ");
    StageError::new(text).help(help)
}
