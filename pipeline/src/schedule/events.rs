//! The log of a run: `events.jsonl` as things happen, `summary.json` at the end.

use crate::keys::session::Session;
use crate::spec::error::StageError;
use crate::spec::event::{Event, Observer};
use crate::spec::graph::NodeIndex;
use crate::spec::panics::catch;
use crate::spec::summary::Summary;
use crate::store::files::at;
use serde_json::{Value, json};
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Reports what happens: to the observer, and to `events.jsonl`.
pub struct Log<'a> {
    /// Told one event after the other; `None` after it panicked.
    observer: Mutex<Option<&'a dyn Observer>>,
    names: Vec<&'a str>,
    folder: PathBuf,
    file: Mutex<File>,
    started: Instant,
    finished: AtomicUsize,
    /// By node: how many of its tasks are at work, since when, and how long before that.
    active: Mutex<Vec<(i32, Instant, Duration)>>,
    /// By node: the last percent of a job that was written down.
    percent: Mutex<Vec<Option<u64>>>,
}

impl<'a> Log<'a> {
    pub fn create(session: &Session<'a>, observer: &'a dyn Observer) -> Result<Self, StageError> {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let runs = session.store.workdir().runs();
        let name = time_name(since);
        let mut folder = runs.join(&name);
        let mut n = 1;
        while let Err(cause) = fs::create_dir(&folder) {
            if cause.kind() != std::io::ErrorKind::AlreadyExists {
                return Err(StageError::io(&folder, cause));
            }
            folder = runs.join(format!("{name}-{n}"));
            n += 1;
        }
        let path = folder.join("events.jsonl");
        let file = at(&path, File::create(&path))?;
        let started = Instant::now();
        Ok(Self {
            observer: Mutex::new(Some(observer)),
            names: session.graph.nodes.iter().map(|node| node.name.as_str()).collect(),
            folder,
            file: Mutex::new(file),
            started,
            finished: AtomicUsize::new(0),
            active: Mutex::new(vec![(0, started, Duration::ZERO); session.graph.nodes.len()]),
            percent: Mutex::new(vec![None; session.graph.nodes.len()]),
        })
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    pub fn event(&self, event: &Event<'_>) {
        if matches!(event, Event::Finished { reused: false, .. }) {
            self.finished.fetch_add(1, Ordering::Relaxed);
        }
        if let Some(mut line) = self.line(event) {
            line["seconds"] = json!((self.started.elapsed().as_secs_f64() * 1e3).round() / 1e3);
            let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
            // The log is for people; a full disk is reported by whoever writes data.
            let _ = file.write_all(format!("{line}\n").as_bytes());
        }
        self.observe(event);
    }

    /// An observer that panics, because its terminal is gone, is not asked again: work goes on without it.
    fn observe(&self, event: &Event<'_>) {
        let mut observer = self.observer.lock().unwrap_or_else(PoisonError::into_inner);
        let seen = catch("in the observer", || {
            observer.inspect(|observer| observer.event(event));
            Ok(())
        });
        if seen.is_err() {
            *observer = None;
        }
    }

    fn line(&self, event: &Event<'_>) -> Option<Value> {
        let name = |stage: &NodeIndex| self.names.get(*stage).copied().unwrap_or("");
        Some(match event {
            Event::Planned { stage, partitions, reused } => {
                json!({"event": "planned", "stage": name(stage), "partitions": partitions, "reused": reused})
            }
            Event::Started { stage, label, .. } => {
                json!({"event": "started", "stage": name(stage), "partition": label})
            }
            Event::Finished { stage, label, rows, rejected, reused } => {
                json!({"event": "finished", "stage": name(stage), "partition": label, "rows": rows, "rejected": rejected, "reused": reused})
            }
            Event::Waiting { stage, label } => {
                json!({"event": "waiting", "stage": name(stage), "partition": label})
            }
            Event::Failed { stage, label, error } => {
                json!({"event": "failed", "stage": name(stage), "partition": label, "error": error})
            }
            Event::Warning { stage, text } => json!({"event": "warning", "stage": name(stage), "text": text}),
            Event::Progress { stage, done, text } if self.is_next_percent(*stage, *done) => {
                json!({"event": "progress", "stage": name(stage), "done": done, "text": text})
            }
            Event::Rows { .. } | Event::Progress { .. } | Event::Hashing { .. } => return None,
        })
    }

    /// Whether a job is another percent further than when it was last asked; a job reports much more often than that.
    fn is_next_percent(&self, node: NodeIndex, done: f64) -> bool {
        let percent = Some((done * 100.0) as u64);
        let mut reported = self.percent.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut reported[node], percent) != percent
    }

    /// One more (1) or one less (-1) task of a node is at work.
    pub fn active(&self, node: NodeIndex, change: i32) {
        let mut active = self.active.lock().unwrap_or_else(PoisonError::into_inner);
        let (count, since, total) = &mut active[node];
        if *count > 0 {
            *total += since.elapsed();
        }
        *since = Instant::now();
        *count += change;
    }

    /// How long at least one task of a node was at work.
    pub fn seconds(&self, node: NodeIndex) -> f64 {
        self.active.lock().unwrap_or_else(PoisonError::into_inner)[node].2.as_secs_f64()
    }

    /// Outputs that were made.
    pub fn finished(&self) -> usize {
        self.finished.load(Ordering::Relaxed)
    }

    pub fn finish(&self, session: &Session<'_>, summary: &Summary) -> Result<(), StageError> {
        let text = serde_json::to_vec_pretty(summary)
            .map_err(|cause| StageError::new(format!("the summary: {cause}")).because(cause))?;
        session.scratch.write(&self.folder.join("summary.json"), &text)
    }
}

/// `2026-11-24T00-11-43.052Z`: sorts by time, and is a file name everywhere.
fn time_name(since: Duration) -> String {
    let seconds = since.as_secs();
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}-{minute:02}-{second:02}.{:03}Z", since.subsec_millis())
}

/// Year, month and day of a day after 1970-01-01 (Howard Hinnant, `chrono`-compatible low-level date algorithms,
/// `civil_from_days`).
fn civil(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_named_by_its_time() {
        // date -u -d @1709210096 +%FT%T: a leap day.
        assert_eq!(time_name(Duration::from_millis(1_709_210_096_007)), "2024-02-29T12-34-56.007Z");
        assert_eq!(time_name(Duration::ZERO), "1970-01-01T00-00-00.000Z");
    }
}
