//! Fetching a repository: [`Hub::plan`] says which files, how big, and which are there; [`Hub::fetch`] brings the rest.
//!
//! The revision's reference is written last: whoever finds it finds every file that was asked for.

use super::client::{Client, Trouble};
use super::download::{Download, incomplete, is_whole, make_parent, shown};
use super::fetch_error::{Asked, FetchError};
use super::listing::{Lister, Listing, RemoteFile, Unlisted};
use super::locate::{HUB, HubError};
use super::repository::Repository;
use super::settings::Settings;
use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

/// Files shown where none is chosen.
const EXAMPLES: usize = 5;
/// Tells the temporary files of one process apart.
static WRITES: AtomicU64 = AtomicU64::new(0);

/// Is told what a fetch does, by several threads.
pub trait Observer: Sync {
    /// Something happened.
    fn event(&self, event: &FetchEvent<'_>);
}

/// What happens during a fetch.
#[derive(Debug)]
pub enum FetchEvent<'a> {
    /// A download begins, after `have` bytes that are there already.
    Started {
        /// The file.
        file: &'a RemoteFile,
        /// Bytes of an earlier download.
        have: u64,
    },
    /// Bytes have arrived.
    Bytes {
        /// The file.
        file: &'a RemoteFile,
        /// How many.
        count: u64,
    },
    /// A download begins again at the file's first byte.
    Restarted {
        /// The file.
        file: &'a RemoteFile,
        /// Why.
        why: &'a str,
        /// Bytes that were there and come again.
        lost: u64,
    },
    /// The file is in the snapshot.
    Done {
        /// The file.
        file: &'a RemoteFile,
    },
    /// Another program downloads the same file.
    Locked {
        /// The file.
        file: &'a RemoteFile,
    },
    /// Something failed and is tried again after a pause.
    Waiting {
        /// The file or repository.
        what: &'a str,
        /// What failed.
        why: &'a Trouble,
        /// How long.
        pause: Duration,
    },
}

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

/// How much of a file is in the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// All of it.
    There,
    /// So many bytes of it.
    Begun(u64),
    /// Nothing.
    Missing,
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

/// A hub, and the cache that its files go to.
#[derive(Debug)]
pub struct Hub {
    settings: Settings,
    client: Client,
}

impl Hub {
    /// The hub that `settings` name. Nothing is asked of it yet.
    pub fn new(settings: Settings) -> Result<Self, FetchError> {
        Ok(Self { client: Client::new(&settings)?, settings })
    }

    /// What has to be done so that the files of `locator` that `patterns` choose are in the cache.
    pub fn plan(
        &self,
        locator: &str,
        patterns: &Patterns,
        observer: &dyn Observer,
    ) -> Result<Plan, FetchError> {
        let repository = locator.strip_prefix(HUB).and_then(Repository::parse);
        let repository = repository.ok_or_else(|| HubError::BadName { locator: locator.to_owned() })?;
        let what = repository.to_string();
        let waiting = |why: &Trouble, pause| observer.event(&FetchEvent::Waiting { what: &what, why, pause });
        let lister = Lister { client: &self.client, endpoint: &self.settings.endpoint, waiting: &waiting };
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
    fn refused(&self, lister: &Lister<'_>, repository: &Repository, why: Unlisted) -> FetchError {
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
        let blob = repository.blob(&self.settings.cache, &file.etag);
        let shown = shown(&self.settings, repository, commit, &file.path);
        if is_whole(&shown, file.size) || is_whole(&blob, file.size) {
            return State::There;
        }
        let begun = fs::metadata(incomplete(&blob)).map_or(0, |found| found.len());
        if begun > 0 && begun <= file.size { State::Begun(begun) } else { State::Missing }
    }

    /// Does what `plan` says; the snapshot folder.
    pub fn fetch(&self, plan: &Plan, observer: &dyn Observer) -> Result<PathBuf, FetchError> {
        let stop = AtomicBool::new(false);
        let (repository, commit) = (&plan.repository, plan.commit.as_str());
        let download = Download {
            client: &self.client,
            settings: &self.settings,
            repository,
            commit,
            observer,
            stop: &stop,
        };
        let queue = Mutex::new(plan.files.iter().map(|(file, _)| file));
        let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).next();
        let work = || {
            while let Some(file) = next().filter(|_| !stop.load(Ordering::Relaxed)) {
                download.fetch(file).inspect_err(|_| stop.store(true, Ordering::Relaxed))?;
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

    /// Lets the revision's reference name the commit.
    fn publish(&self, plan: &Plan) -> Result<PathBuf, FetchError> {
        let reference = plan.repository.reference(&self.settings.cache);
        if plan.repository.revision != plan.commit {
            let wrong = |error| FetchError::writing(&reference, 0, error);
            let write = WRITES.fetch_add(1, Ordering::Relaxed);
            let temporary = reference.with_extension(format!("{}-{write}.tmp", std::process::id()));
            make_parent(&reference).map_err(wrong)?;
            fs::write(&temporary, &plan.commit).map_err(wrong)?;
            fs::rename(&temporary, &reference).map_err(wrong)?;
        }
        Ok(plan.repository.snapshot_folder(&self.settings.cache, &plan.commit))
    }
}
