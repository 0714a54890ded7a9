//! Fetching a repository: [`Hub::plan`] says which files, how big, and which are there; [`Hub::fetch`] brings the rest.
//!
//! What lets a snapshot be found is done last (the revision's reference is written, the note that it is unfinished taken
//! away): whoever finds it finds every file that was asked for. Where all is there, nothing is written.
//!
//! `huggingface_hub` writes the reference first; here `hub:ORG/NAME` is either complete, as far as it was asked for, or not there.

use super::asked::Asked;
use super::certificates;
use super::client::Client;
use super::download::{Download, Place, incomplete, make_parent};
use super::event::{FetchEvent, Observer, State};
use super::fetch_error::FetchError;
use super::hub_error::HubError;
use super::listing::{Lister, Listing, RemoteFile, Unlisted};
use super::repository::Repository;
use super::settings::Settings;
use super::source::Source;
use super::trouble::Trouble;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use ureq::tls::TlsConfig;

/// Files shown where none is chosen.
const EXAMPLES: usize = 5;
/// Tells the temporary files of one process apart.
static WRITES: AtomicU64 = AtomicU64::new(0);

/// Which files of a repository: those that match one of `include` (all, when it is empty) and none of `exclude`.
#[derive(Clone, Debug, Default)]
pub struct Patterns {
    include: Vec<glob::Pattern>,
    exclude: Vec<glob::Pattern>,
}

impl Patterns {
    /// Reads patterns: `*` stands for any characters, `/` among them; a folder's name that ends in `/` for all in it.
    pub fn new(include: &[String], exclude: &[String]) -> Result<Self, FetchError> {
        let read =
            |patterns: &[String]| patterns.iter().map(|text| pattern(text)).collect::<Result<Vec<_>, _>>();
        Ok(Self { include: read(include)?, exclude: read(exclude)? })
    }

    fn choose(&self, path: &str) -> bool {
        let any = |patterns: &[glob::Pattern]| patterns.iter().any(|pattern| pattern.matches(path));
        (self.include.is_empty() || any(&self.include)) && !any(&self.exclude)
    }

    /// Those of `include` that match none of `paths`.
    fn idle(&self, paths: &[&str]) -> Vec<String> {
        let idle = self.include.iter().filter(|pattern| !paths.iter().any(|path| pattern.matches(path)));
        idle.map(|pattern| pattern.as_str().to_owned()).collect()
    }

    fn shown(&self) -> String {
        let flag = |name: &str, patterns: &[glob::Pattern]| -> String {
            patterns.iter().map(|pattern| format!(" --{name} \"{pattern}\"")).collect()
        };
        (flag("include", &self.include) + &flag("exclude", &self.exclude)).trim_start().to_owned()
    }
}

fn pattern(text: &str) -> Result<glob::Pattern, FetchError> {
    let all = if text.ends_with('/') { "*" } else { "" };
    glob::Pattern::new(&format!("{text}{all}"))
        .map_err(|error| FetchError::Pattern { pattern: text.to_owned(), why: error.msg.to_owned() })
}

/// What a fetch has to do.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The repository.
    pub repository: Repository,
    /// The commit that its revision stands for now.
    pub commit: String,
    /// The chosen files by path, and how much of each is there.
    pub files: Vec<(RemoteFile, State)>,
    /// Patterns that chose nothing.
    pub idle: Vec<String>,
}

impl Plan {
    /// Bytes of all chosen files.
    pub fn size(&self) -> u64 {
        self.files.iter().map(|(file, _)| file.size).sum()
    }

    /// Bytes that have to be downloaded.
    pub fn missing(&self) -> u64 {
        self.files.iter().map(|(file, state)| file.size - state.have(file)).sum()
    }
}

impl State {
    /// Bytes of `file` that are there.
    pub fn have(self, file: &RemoteFile) -> u64 {
        match self {
            Self::There => file.size,
            Self::Begun(have) => have,
            Self::Missing => 0,
        }
    }
}

/// The sources, and the caches that their files go to.
#[derive(Debug)]
pub struct Hub {
    settings: Settings,
    tls: TlsConfig,
}

impl Hub {
    /// The sources that `settings` name. Nothing is asked of them yet.
    pub fn new(settings: Settings) -> Result<Self, FetchError> {
        Ok(Self { tls: certificates::tls(settings.certificates.as_ref())?, settings })
    }

    pub(super) fn settings(&self) -> &Settings {
        &self.settings
    }

    pub(super) fn client(&self, source: Source) -> Result<Client, FetchError> {
        Client::new(&self.settings, source, self.tls.clone())
    }

    /// What has to be done so that the files of `locator` that `patterns` choose are in the cache.
    pub fn plan(
        &self,
        locator: &str,
        patterns: &Patterns,
        observer: &dyn Observer,
    ) -> Result<Plan, FetchError> {
        let bad = |source: Source| HubError::BadName { locator: locator.to_owned(), prefix: source.prefix() };
        let (source, name) = Source::of(locator).ok_or_else(|| bad(Source::HuggingFace))?;
        let repository = Repository::parse(source, name).ok_or_else(|| bad(source))?;
        let what = repository.to_string();
        let waiting = |why: &Trouble, pause| observer.event(&FetchEvent::Waiting { what: &what, why, pause });
        let client = self.client(source)?;
        let endpoint = &self.settings.site(source).endpoint;
        let lister = Lister { client: &client, endpoint, waiting: &waiting };
        let refused = |why| self.refused(&lister, &repository, why);
        let Listing { commit, files } = lister.list(&repository).map_err(refused)?;
        let paths: Vec<&str> = files.iter().map(|file| file.path.as_str()).collect();
        let idle = patterns.idle(&paths);
        if !paths.iter().any(|path| patterns.choose(path)) {
            let more = (paths.len() > EXAMPLES).then_some("…");
            let examples = paths.iter().take(EXAMPLES).copied().chain(more).map(str::to_owned).collect();
            let (patterns, files) = (patterns.shown(), paths.len());
            return Err(FetchError::NothingMatches { repository: what.clone(), files, patterns, examples });
        }
        let chosen = files.into_iter().filter(|file| patterns.choose(&file.path));
        let files = chosen.map(|file| {
            let file = lister.complete(&repository, &commit, file).map_err(refused)?;
            let state = self.state(&repository, &commit, &file);
            Ok((file, state))
        });
        let files = files.collect::<Result<_, FetchError>>()?;
        Ok(Plan { repository: repository.clone(), commit, files, idle })
    }

    /// Why there is no list, and whether a repository of the other kind was meant.
    pub(super) fn refused(&self, lister: &Lister<'_>, repository: &Repository, why: Unlisted) -> FetchError {
        let trouble = match why {
            Unlisted::Error(error) => return error,
            Unlisted::Trouble(trouble) => trouble,
        };
        let unknown = matches!(&trouble, Trouble::Status { status: 401 | 404, code, .. }
            if !matches!(code.as_deref(), Some("GatedRepo" | "RevisionNotFound")));
        let namesake = unknown.then(|| repository.other_kind()).filter(|other| lister.has(other));
        Asked { repository, file: None, settings: &self.settings, namesake }.error(trouble)
    }

    fn state(&self, repository: &Repository, commit: &str, file: &RemoteFile) -> State {
        let place = Place::of(&self.settings, repository, commit, file);
        if place.has_content(repository, file) {
            return State::There;
        }
        let begun = fs::metadata(incomplete(&place.blob)).map_or(0, |found| found.len());
        if begun > 0 && begun <= file.size { State::Begun(begun) } else { State::Missing }
    }

    /// Does what `plan` says; the snapshot folder.
    pub fn fetch(&self, plan: &Plan, observer: &dyn Observer) -> Result<PathBuf, FetchError> {
        let stop = AtomicBool::new(false);
        let (repository, commit) = (&plan.repository, plan.commit.as_str());
        let client = self.client(repository.source)?;
        let download =
            Download { client: &client, settings: &self.settings, repository, commit, observer, stop: &stop };
        self.begin(plan)?;
        let queue = Mutex::new(plan.files.iter());
        let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).next();
        let work = || {
            while let Some((file, state)) = next().filter(|_| !stop.load(Ordering::Relaxed)) {
                download.fetch(file, *state).inspect_err(|_| stop.store(true, Ordering::Relaxed))?;
            }
            Ok(())
        };
        let jobs = self.settings.jobs.clamp(1, plan.files.len().max(1));
        let ends: Vec<Result<(), FetchError>> = thread::scope(|scope| {
            let workers: Vec<_> = (0..jobs).map(|_| scope.spawn(work)).collect();
            workers.into_iter().map(|worker| worker.join().unwrap_or(Err(FetchError::Stopped))).collect()
        });
        let failed = ends.into_iter().filter_map(Result::err);
        // The failure itself rather than the workers it stopped.
        match failed.min_by_key(|error| matches!(error, FetchError::Stopped)) {
            Some(error) => Err(error),
            None => self.publish(plan),
        }
    }

    /// Notes that the snapshot is not whole, where nothing else would show it.
    fn begin(&self, plan: &Plan) -> Result<(), FetchError> {
        let whole = plan.files.iter().all(|(_, state)| *state == State::There);
        if whole || plan.repository.source != Source::ModelScope {
            return Ok(());
        }
        let unfinished = plan.repository.unfinished(&self.settings.modelscope.cache);
        let noted = make_parent(&unfinished).and_then(|()| fs::write(&unfinished, ""));
        noted.map_err(|error| FetchError::writing(&unfinished, 0, error))
    }

    /// Lets the repository's snapshot be found.
    fn publish(&self, plan: &Plan) -> Result<PathBuf, FetchError> {
        let cache = &self.settings.site(plan.repository.source).cache;
        match plan.repository.source {
            Source::HuggingFace => publish_reference(plan, &plan.repository.reference(cache))?,
            Source::ModelScope => {
                let unfinished = plan.repository.unfinished(cache);
                if unfinished.exists() {
                    fs::remove_file(&unfinished)
                        .map_err(|error| FetchError::writing(&unfinished, 0, error))?;
                }
            }
        }
        Ok(plan.repository.snapshot_folder(cache, &plan.commit))
    }
}

/// Lets the revision's reference name the commit. One that does already is left alone: the cache may be read-only.
fn publish_reference(plan: &Plan, reference: &Path) -> Result<(), FetchError> {
    let named = fs::read_to_string(reference).is_ok_and(|commit| commit.trim() == plan.commit);
    if named || plan.repository.revision == plan.commit {
        return Ok(());
    }
    let write = WRITES.fetch_add(1, Ordering::Relaxed);
    let temporary = reference.with_extension(format!("{}-{write}.tmp", std::process::id()));
    let written = make_parent(reference)
        .and_then(|()| fs::write(&temporary, &plan.commit))
        .and_then(|()| fs::rename(&temporary, reference));
    written.map_err(|error| FetchError::writing(reference, 0, error))
}
