//! How far downloads are: bars with rate and time left on a terminal, plain lines otherwise, both on standard error.

use super::one_line;
use super::output::note;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use llavm_model::hub::{FetchEvent, Observer, Plan};
use llavm_pipeline::units::{bytes, duration, thousands};
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Time between two plain lines.
const LINE_EVERY: Duration = Duration::from_secs(10);
/// Bar of the whole repository.
const TOTAL: &str =
    "{bytes:>10} of {total_bytes:<10} {bar:28} {bytes_per_sec:>14}  {eta:>4} left  {wide_msg}";
/// Bar of a file.
const FILE: &str =
    "{bytes:>10} of {total_bytes:<10} {bar:28} {bytes_per_sec:>14}  {eta:>4} left  {wide_msg:.dim}";

/// Shows the events of fetches, one repository after the other.
pub struct Transfers {
    bars: Option<MultiProgress>,
    state: Mutex<Option<Shown>>,
}

/// The repository that is being fetched.
struct Shown {
    counts: Counts,
    reported: Instant,
    total: Option<ProgressBar>,
    files: BTreeMap<String, ProgressBar>,
}

/// What is done and what is to do.
#[derive(Clone, Debug)]
struct Counts {
    name: String,
    files: usize,
    done: usize,
    /// Bytes to download by this fetch, and downloaded by it.
    missing: u64,
    arrived: u64,
    started: Instant,
}

impl Transfers {
    /// Bars when `bars`, plain lines otherwise.
    pub fn new(bars: bool) -> Self {
        Self { bars: bars.then(MultiProgress::new), state: Mutex::new(None) }
    }

    /// Goes over to the next repository.
    pub fn begin(&self, plan: &Plan) {
        let counts = Counts {
            name: plan.repository.to_string(),
            files: plan.files.len(),
            done: 0,
            missing: plan.missing(),
            arrived: 0,
            started: Instant::now(),
        };
        if counts.missing == 0 {
            return;
        }
        if self.bars.is_none() {
            note(&counts.start_line());
        }
        let total = self.bars.as_ref().map(|bars| bars.add(bar(TOTAL, counts.missing, &counts.name)));
        *self.lock() = Some(Shown { counts, reported: Instant::now(), total, files: BTreeMap::new() });
    }

    /// Takes the bars off the screen.
    pub fn end(&self) {
        *self.lock() = None;
        if let Some(bars) = &self.bars {
            // The screen is only decoration; the summary follows.
            let _ = bars.clear();
        }
    }

    /// A line above the bars.
    pub fn say(&self, line: &str) {
        match &self.bars {
            Some(bars) => bars.suspend(|| note(line)),
            None => note(line),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Shown>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with(&self, change: impl FnOnce(&mut Shown)) {
        let mut state = self.lock();
        let Some(shown) = state.as_mut() else { return };
        change(shown);
        match &shown.total {
            Some(total) => total.set_position(shown.counts.arrived),
            None if shown.reported.elapsed() >= LINE_EVERY => {
                shown.reported = Instant::now();
                note(&shown.counts.line(shown.counts.started.elapsed()));
            }
            None => {}
        }
    }
}

impl Observer for Transfers {
    fn event(&self, event: &FetchEvent<'_>) {
        match event {
            FetchEvent::Started { file, have } => self.with(|shown| {
                if let Some(bars) = &self.bars {
                    let bar = bars.add(bar(FILE, file.size, &file.path)).with_position(*have);
                    bar.reset_eta();
                    shown.files.insert(file.path.clone(), bar);
                }
            }),
            FetchEvent::Bytes { file, count } => self.with(|shown| {
                shown.counts.arrived += count;
                if let Some(bar) = shown.files.get(&file.path) {
                    bar.inc(*count);
                }
            }),
            FetchEvent::Done { file } => self.with(|shown| {
                shown.counts.done += 1;
                if let Some(bar) = shown.files.remove(&file.path) {
                    bar.finish_and_clear();
                }
            }),
            FetchEvent::Restarted { file, why, lost } => {
                self.with(|shown| {
                    shown.counts.missing += lost;
                    if let Some(total) = &shown.total {
                        total.set_length(shown.counts.missing);
                    }
                    if let Some(bar) = shown.files.get(&file.path) {
                        bar.set_position(0);
                    }
                });
                self.say(&format!("{}: from the start, {why}", file.path));
            }
            FetchEvent::Locked { file } => {
                self.say(&format!("{}: another program downloads it; waiting", file.path));
            }
            FetchEvent::Waiting { what, why, pause } => {
                self.say(&format!("{what}: {why}; trying again in {}", duration(pause.as_secs_f64())));
            }
        }
    }
}

impl Counts {
    fn start_line(&self) -> String {
        format!("{}: {} files, {} to download", self.name, thousands(self.files as u64), bytes(self.missing))
    }

    /// One plain line.
    fn line(&self, elapsed: Duration) -> String {
        let rate = self.arrived as f64 / elapsed.as_secs_f64().max(1e-9);
        let left = self.missing.saturating_sub(self.arrived) as f64 / rate.max(1e-9);
        let left = if self.arrived == 0 { String::new() } else { format!(", {} left", duration(left)) };
        format!(
            "{}: {} of {} files, {} of {}, {}/s{left}",
            self.name,
            thousands(self.done as u64),
            thousands(self.files as u64),
            bytes(self.arrived),
            bytes(self.missing),
            bytes(rate as u64)
        )
    }
}

fn bar(template: &str, length: u64, message: &str) -> ProgressBar {
    let bar = ProgressBar::new(length);
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("━╸─"));
    }
    bar.with_message(one_line(message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_tells_rate_and_time_left() {
        let counts = Counts {
            name: "hub:a/b".to_owned(),
            files: 60,
            done: 12,
            missing: 6 << 30,
            arrived: 1 << 30,
            started: Instant::now(),
        };
        assert_eq!(counts.start_line(), "hub:a/b: 60 files, 6.0 GiB to download");
        assert_eq!(
            counts.line(Duration::from_secs(32)),
            "hub:a/b: 12 of 60 files, 1.0 GiB of 6.0 GiB, 32.0 MiB/s, 2 min 40 s left"
        );
        assert!(Counts { arrived: 0, ..counts }.line(Duration::from_secs(10)).ends_with(", 0 B/s"));
    }
}
