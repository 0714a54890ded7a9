//! A lock per file, so that two programs do not download the same one.
//!
//! It is the kernel's lock on a file where `huggingface_hub` and `modelscope_hub` take theirs. Where the file system has no
//! locks (ENOSYS, EOPNOTSUPP, ENOLCK and the like), a file beside it, made by whoever comes first, stands for it. Its owner
//! touches it while it works; one that has not changed for a while was left by a program that was killed, and is taken over.

use super::disk::Disk;
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime};

/// How often a lock is tried again.
const POLL: Duration = Duration::from_millis(200);

/// How long the file that stands for a lock lives without being touched.
#[derive(Clone, Copy, Debug)]
pub struct Lease {
    /// Its owner touches it so often.
    pub touch: Duration,
    /// Unchanged for so long, it is nobody's.
    pub expire: Duration,
}

impl Default for Lease {
    fn default() -> Self {
        Self { touch: Duration::from_secs(5), expire: Duration::from_mins(1) }
    }
}

/// Held until it is dropped.
#[derive(Debug)]
pub enum Lock {
    /// The kernel lets go of it when the file is closed.
    Kernel { _file: File },
    /// A file that is there while the lock is held.
    File(Owner),
}

/// The owner of a file that stands for a lock.
#[derive(Debug)]
pub struct Owner {
    path: PathBuf,
    stop: Option<Sender<()>>,
    touching: Option<JoinHandle<()>>,
}

impl Lock {
    /// Waits for the lock at `path`; `waiting` is called once, before the first pause.
    pub fn take(path: &Path, disk: &dyn Disk, lease: Lease, waiting: &dyn Fn()) -> io::Result<Self> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        let file = File::options().create(true).append(true).open(path)?;
        let mut reported = false;
        loop {
            match disk.try_lock(&file) {
                Ok(()) => return Ok(Self::Kernel { _file: file }),
                Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Interrupted => continue,
                // Whatever the reason is, this file system gives no lock.
                Err(TryLockError::Error(_)) => break,
            }
            if !std::mem::replace(&mut reported, true) {
                waiting();
            }
            thread::sleep(POLL);
        }
        Owner::take(beside(path), lease, waiting).map(Self::File)
    }
}

fn beside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".owner");
    PathBuf::from(name)
}

impl Owner {
    fn take(path: PathBuf, lease: Lease, waiting: &dyn Fn()) -> io::Result<Self> {
        let (mut reported, mut seen) = (false, None);
        loop {
            match File::options().write(true).create_new(true).open(&path) {
                Ok(file) => return Ok(Self::keep(path, file, lease.touch)),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
            if !std::mem::replace(&mut reported, true) {
                waiting();
            }
            if is_abandoned(&path, &mut seen, lease.expire) {
                // Of several that see this, one makes the file anew; the others wait for it.
                let _ = fs::remove_file(&path);
                continue;
            }
            thread::sleep(POLL.min(lease.expire / 4));
        }
    }

    /// Touches the file until the lock is dropped.
    fn keep(path: PathBuf, file: File, every: Duration) -> Self {
        let (stop, stopped) = mpsc::channel();
        let touching = thread::spawn(move || {
            while stopped.recv_timeout(every) == Err(RecvTimeoutError::Timeout) {
                // A lock that cannot be touched expires; there is nobody to report to.
                let _ = file.set_modified(SystemTime::now());
            }
        });
        Self { path, stop: Some(stop), touching: Some(touching) }
    }
}

/// Whether the file has not changed since `seen` first saw it so, by this program's clock: those of two hosts may differ.
fn is_abandoned(path: &Path, seen: &mut Option<(SystemTime, Instant)>, expire: Duration) -> bool {
    let Ok(changed) = fs::metadata(path).and_then(|found| found.modified()) else { return false };
    match seen {
        Some((before, since)) if *before == changed => since.elapsed() >= expire,
        _ => {
            *seen = Some((changed, Instant::now()));
            false
        }
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(touching) = self.touching.take() {
            let _ = touching.join();
        }
        // One that stays behind expires.
        let _ = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::Bare;
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    const QUICK: Lease = Lease { touch: Duration::from_millis(20), expire: Duration::from_millis(400) };

    #[test]
    fn without_locks_of_the_file_system_one_at_a_time_still_works() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("locks/a.lock");
        let (inside, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let _lock = Lock::take(&path, &Bare, QUICK, &|| ()).unwrap();
                    most.fetch_max(inside.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    thread::sleep(Duration::from_millis(60));
                    inside.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        assert_eq!(most.into_inner(), 1);
        assert!(!beside(&path).exists());
    }

    #[test]
    fn a_lock_of_a_killed_program_is_taken_over_and_one_in_use_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.lock");
        File::create(beside(&path)).unwrap();
        let start = Instant::now();
        let held = Lock::take(&path, &Bare, QUICK, &|| ()).unwrap();
        assert!(start.elapsed() >= QUICK.expire);
        thread::scope(|scope| {
            let second =
                scope.spawn(|| Lock::take(&path, &Bare, QUICK, &|| ()).map(|_| Instant::now()).unwrap());
            thread::sleep(QUICK.expire * 3);
            let freed = Instant::now();
            drop(held);
            assert!(second.join().unwrap() >= freed);
        });
    }
}
