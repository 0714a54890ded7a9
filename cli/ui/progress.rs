//! How far a run is: bars on a terminal, plain lines otherwise, both on standard error.

use super::one_line;
use super::output::note;
use indicatif::{MultiProgress, ProgressBar, ProgressState, ProgressStyle};
use llavm_pipeline::graph::{Node, NodeIndex};
use llavm_pipeline::units::{bytes, duration, thousands};
use llavm_pipeline::{Event, Graph, Observer};
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Time between two plain lines of a stage.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// Steps of a job's bar.
const JOB_STEPS: u64 = 1000;

/// Turns the events of a run into bars or lines.
pub struct Progress {
    bars: Option<MultiProgress>,
    stages: Mutex<Vec<Shown>>,
    hashing: Mutex<Hashing>,
}

/// What is on the screen while raw files are read.
#[derive(Default)]
struct Hashing {
    bar: Option<ProgressBar>,
    reported: Option<Instant>,
}

/// A stage and what is on the screen for it.
struct Shown {
    counts: Counts,
    started: Option<Instant>,
    reported: Instant,
    bar: Option<ProgressBar>,
}

/// What a stage has to do and has done.
#[derive(Clone, Debug, Default)]
struct Counts {
    name: String,
    is_job: bool,
    /// Partitions to make, begun and made by this run.
    to_make: usize,
    begun: usize,
    made: usize,
    /// Rows written, and rows of the partitions begun, as far as they are known.
    rows: u64,
    rows_begun: u64,
    /// Rows of the partitions made; a gather stage reports no others.
    rows_made: u64,
    rejected: u64,
    /// How far a job is, and what it says.
    job: Option<(f64, String)>,
}

impl Progress {
    /// Bars when `bars`, plain lines otherwise.
    pub fn new(graph: &Graph, bars: bool) -> Self {
        let shown = |node: &Node| Shown {
            counts: Counts { name: node.name.clone(), is_job: node.stage.role.is_job(), ..Counts::default() },
            started: None,
            reported: Instant::now(),
            bar: None,
        };
        Self {
            bars: bars.then(MultiProgress::new),
            stages: Mutex::new(graph.nodes.iter().map(shown).collect()),
            hashing: Mutex::default(),
        }
    }

    /// Takes the bars off the screen.
    pub fn end(&self) {
        if let Some(bars) = &self.bars {
            // The screen is only decoration; the summary follows.
            let _ = bars.clear();
        }
    }

    /// Raw files are read before anything else.
    fn hashing(&self, path: &Path, size: u64) {
        let mut hashing = self.hashing.lock().unwrap_or_else(PoisonError::into_inner);
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let line = one_line(&format!("reading raw files for the first time: {}, {name}", bytes(size)));
        match &self.bars {
            Some(bars) => {
                let spinner = || bars.add(ProgressBar::new_spinner());
                hashing.bar.get_or_insert_with(spinner).set_message(line);
            }
            None if hashing.reported.is_none_or(|reported| reported.elapsed() >= LINE_EVERY) => {
                hashing.reported = Some(Instant::now());
                note(&line);
            }
            None => {}
        }
    }

    /// All raw files are known.
    fn hashed(&self) {
        let mut hashing = self.hashing.lock().unwrap_or_else(PoisonError::into_inner);
        if let (Some(bars), Some(bar)) = (&self.bars, hashing.bar.take()) {
            bars.remove(&bar);
        }
    }

    /// A line above the bars.
    pub fn say(&self, line: &str) {
        match &self.bars {
            Some(bars) => bars.suspend(|| note(line)),
            None => note(line),
        }
    }

    fn with(&self, stage: NodeIndex, change: impl FnOnce(&mut Counts)) {
        let mut stages = self.stages.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(shown) = stages.get_mut(stage) {
            change(&mut shown.counts);
            self.show(shown);
        }
    }

    fn show(&self, shown: &mut Shown) {
        if shown.counts.begun == 0 && shown.counts.job.is_none() {
            return;
        }
        let first = shown.started.is_none();
        let elapsed = shown.started.get_or_insert_with(Instant::now).elapsed();
        match &self.bars {
            Some(bars) => shown.bar.get_or_insert_with(|| bars.add(bar(&shown.counts))).follow(&shown.counts),
            None if first => note(&shown.counts.start_line()),
            None if shown.counts.is_done() || shown.reported.elapsed() >= LINE_EVERY => {
                shown.reported = Instant::now();
                note(&shown.counts.line(elapsed));
            }
            None => {}
        }
    }
}

impl Observer for Progress {
    fn event(&self, event: &Event<'_>) {
        match event {
            Event::Planned { stage, partitions, reused } => {
                self.hashed();
                self.with(*stage, |counts| counts.to_make = partitions.saturating_sub(*reused));
            }
            Event::Started { stage, rows, .. } => self.with(*stage, |counts| {
                counts.begun += 1;
                counts.rows_begun += rows.unwrap_or(0);
            }),
            Event::Rows { stage, rows } => self.with(*stage, |counts| counts.rows += rows),
            Event::Finished { stage, reused: true, .. } => {
                self.with(*stage, |counts| counts.to_make = counts.to_make.saturating_sub(1));
            }
            Event::Finished { stage, rows, rejected, .. } => self.with(*stage, |counts| {
                counts.made += 1;
                counts.rows_made += rows;
                counts.rejected += rejected;
            }),
            Event::Progress { stage, done, text } => {
                self.with(*stage, |counts| counts.job = Some((*done, (*text).to_owned())));
            }
            Event::Waiting { stage, label } => {
                self.say(&format!("{}: another llavm makes {label}; waiting for it", self.name(*stage)));
            }
            Event::Failed { stage, label, error } => {
                self.say(&format!("{}: {label} failed: {error}", self.name(*stage)));
            }
            Event::Hashing { path, bytes } => self.hashing(path, *bytes),
            Event::Warning { stage, text } => self.say(&format!("{}: {text}", self.name(*stage))),
        }
    }
}

impl Progress {
    fn name(&self, stage: NodeIndex) -> String {
        let stages = self.stages.lock().unwrap_or_else(PoisonError::into_inner);
        stages.get(stage).map(|shown| shown.counts.name.clone()).unwrap_or_default()
    }
}

impl Counts {
    /// Rows of all partitions to make, guessing that those not begun are like those that are.
    fn rows_in_all(&self) -> u64 {
        let known = self.rows_begun.max(self.rows);
        let left = self.to_make.saturating_sub(self.begun) as u64;
        known + left * known / (self.begun.max(1) as u64)
    }

    fn is_done(&self) -> bool {
        self.made >= self.to_make && self.made == self.begun
    }

    fn start_line(&self) -> String {
        match self.to_make {
            0 | 1 => format!("{}: started", self.name),
            n => format!("{}: {} partitions to make", self.name, thousands(n as u64)),
        }
    }

    /// One plain line.
    fn line(&self, elapsed: Duration) -> String {
        let seconds = elapsed.as_secs_f64();
        let rejected = match self.rejected {
            0 => String::new(),
            n => format!(", {} rejected", thousands(n)),
        };
        if self.is_done() {
            let rows = match self.rows.max(self.rows_made) {
                0 => String::new(),
                rows => format!(", {} rows{rejected}", thousands(rows)),
            };
            return format!("{}: done{rows} in {}", self.name, duration(seconds));
        }
        let rows = thousands(self.rows);
        if let Some((done, text)) = &self.job {
            return format!("{}: {:.0}% {text}", self.name, done * 100.0);
        }
        let rate = self.rows as f64 / seconds.max(1e-9);
        let left = self.rows_in_all().saturating_sub(self.rows) as f64 / rate.max(1e-9);
        let time_left = if self.rows == 0 { String::new() } else { format!(", {} left", duration(left)) };
        format!(
            "{}: {} of {} partitions, {rows} rows{rejected}, {} rows/s{time_left}",
            self.name,
            self.made,
            self.to_make,
            thousands(rate as u64)
        )
    }
}

fn bar(counts: &Counts) -> ProgressBar {
    let template = if counts.is_job {
        "{prefix:16!} {bar:12} {percent:>3}%  {wide_msg}"
    } else {
        "{prefix:16!} {bar:28} {human_pos:>9} rows  {rate:>8} rows/s  {eta:>4} left  {wide_msg}"
    };
    let bar = ProgressBar::new(counts.rows_in_all().max(1));
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("━╸─").with_key("rate", rate));
    }
    bar.with_prefix(one_line(&counts.name))
}

/// The key `rate` of a bar: units a second without decimals.
pub fn rate(state: &ProgressState, text: &mut dyn std::fmt::Write) {
    // Decoration: where it cannot be written, nothing is lost.
    let _ = text.write_str(&thousands(state.per_sec() as u64));
}

/// Brings a bar up to date.
trait Follow {
    fn follow(&self, counts: &Counts);
}

impl Follow for ProgressBar {
    fn follow(&self, counts: &Counts) {
        if let Some((done, text)) = &counts.job {
            self.set_length(JOB_STEPS);
            self.set_position((done.clamp(0.0, 1.0) * JOB_STEPS as f64) as u64);
            self.set_message(one_line(text));
        } else {
            let rows = counts.rows.max(counts.rows_made);
            self.set_length(counts.rows_in_all().max(rows).max(1));
            self.set_position(rows);
            if counts.rejected > 0 {
                self.set_message(format!("{} rejected", thousands(counts.rejected)));
            }
        }
        if counts.is_done() {
            self.finish();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts() -> Counts {
        Counts {
            name: "chat".to_owned(),
            to_make: 4,
            begun: 2,
            made: 1,
            rows: 6_000,
            rows_begun: 8_192,
            ..Counts::default()
        }
    }

    #[test]
    fn a_line_tells_rate_and_time_left() {
        assert_eq!(counts().rows_in_all(), 16_384);
        assert_eq!(
            counts().line(Duration::from_secs(6)),
            "chat: 1 of 4 partitions, 6,000 rows, 1,000 rows/s, 10 s left"
        );
    }

    #[test]
    fn the_last_line_tells_rejects_and_time() {
        let done = Counts { begun: 4, made: 4, rows: 16_384, rejected: 12, ..counts() };
        assert_eq!(done.line(Duration::from_secs(80)), "chat: done, 16,384 rows, 12 rejected in 1 min 20 s");
    }

    #[test]
    fn a_stage_that_gathers_tells_its_rows_at_the_end() {
        let shards = Counts { name: "shards".to_owned(), to_make: 1, begun: 1, ..Counts::default() };
        let done = Counts { made: 1, rows_made: 320, ..shards };
        assert_eq!(done.line(Duration::from_secs(2)), "shards: done, 320 rows in 2.0 s");
    }

    #[test]
    fn a_job_tells_how_far_it_is() {
        let job = Counts { name: "align".to_owned(), to_make: 1, begun: 1, ..Counts::default() };
        assert_eq!(job.start_line(), "align: started");
        let halfway = Counts { job: Some((0.5, "step 50, loss 3.9".to_owned())), ..job.clone() };
        assert_eq!(halfway.line(Duration::from_mins(1)), "align: 50% step 50, loss 3.9");
        assert_eq!(Counts { made: 1, ..halfway }.line(Duration::from_mins(2)), "align: done in 2 min 00 s");
    }

    #[test]
    fn nothing_is_guessed_before_the_first_row() {
        let first = Counts { rows: 0, rows_begun: 0, begun: 1, made: 0, ..counts() };
        assert_eq!(first.line(Duration::from_secs(10)), "chat: 0 of 4 partitions, 0 rows, 0 rows/s");
        assert_eq!(first.start_line(), "chat: 4 partitions to make");
    }
}
