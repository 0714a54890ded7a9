//! The end of a run on standard output: what each stage did, and the rows that cannot be used.

use super::one_line;
use crate::ui::table::{Align, Table};
use llavm_pipeline::summary::{RejectExample, StageSummary, Summary};
use llavm_pipeline::units::{duration, mebibytes, thousands};
use std::fmt::Write;
use std::path::Path;

/// Widest line.
const WIDTH: usize = 100;
/// Longest stage name in the table; longer ones are cut.
const LONGEST_NAME: usize = 32;
/// Examples shown of one reason.
const EXAMPLES: usize = 3;

/// The summary of a run whose folder is `folder`.
pub fn render(summary: &Summary, folder: &Path) -> String {
    let mut out = stages(summary);
    out += &rejects(&summary.stages, folder);
    out += &notes(&summary.stages);
    // Not every system says.
    let memory = match summary.peak_rss_mib {
        peak if peak > 0.0 => format!(", {} of memory at most", mebibytes(peak)),
        _ => String::new(),
    };
    let _ = writeln!(out, "\n{} in {}{memory}", summary.manifest, duration(summary.seconds));
    out
}

/// The one line of a run that had nothing to do.
pub fn nothing_to_do(summary: &Summary) -> String {
    let rejected: u64 = summary.stages.iter().map(rejected).sum();
    let rejected = match rejected {
        0 => String::new(),
        1 => "; 1 row is rejected".to_owned(),
        n => format!("; {} rows are rejected (`llavm status` shows where)", thousands(n)),
    };
    format!(
        "{}: nothing to do, all {} stages are up to date{rejected}\n",
        summary.manifest,
        summary.stages.len()
    )
}

fn stages(summary: &Summary) -> String {
    let left = [("stage", Align::Left), ("kind", Align::Left)];
    let right = ["rows", "ran", "reused", "rejected", "seconds"].map(|name| (name, Align::Right));
    let mut table = Table::new(&[left.as_slice(), right.as_slice()].concat());
    for stage in &summary.stages {
        table.row(vec![
            cut(&stage.name, LONGEST_NAME),
            stage.kind.clone(),
            thousands(stage.rows),
            thousands(stage.ran as u64),
            thousands(stage.reused as u64),
            thousands(rejected(stage)),
            format!("{:.1}", stage.seconds),
        ]);
    }
    table.draw()
}

fn rejected(stage: &StageSummary) -> u64 {
    stage.rejected.values().sum()
}

/// Each reason with its count and its first rows.
fn rejects(stages: &[StageSummary], folder: &Path) -> String {
    let mut out = String::new();
    for stage in stages {
        for (reason, count) in &stage.rejected {
            let plural = if *count == 1 { "row" } else { "rows" };
            let _ = writeln!(
                out,
                "\n{}: {} {plural} rejected, {reason}",
                cut(&stage.name, LONGEST_NAME),
                thousands(*count)
            );
            for example in examples(stage, reason) {
                let line = one_line(&format!("  {}: {}", example.id, example.reason.detail()));
                let _ = writeln!(out, "{}", cut(&line, WIDTH));
            }
        }
    }
    if !out.is_empty() {
        let _ = writeln!(
            out,
            "\nRejected rows keep their place and are left out of the shards. All of them, with their ids:\n  {}",
            folder.join("rejects.jsonl").display()
        );
    }
    out
}

/// What the sources say of their rows.
fn notes(stages: &[StageSummary]) -> String {
    let mut out = String::new();
    for stage in stages {
        for note in &stage.notes {
            let line = one_line(&format!("{}: {note}", cut(&stage.name, LONGEST_NAME)));
            let _ = write!(out, "\n{line}\n");
        }
    }
    out
}

fn examples<'a>(stage: &'a StageSummary, reason: &'a str) -> impl Iterator<Item = &'a RejectExample> {
    stage.reject_examples.iter().filter(move |example| example.reason.code() == reason).take(EXAMPLES)
}

/// At most `longest` characters, the last an ellipsis where some are left out.
fn cut(text: &str, longest: usize) -> String {
    if text.chars().count() <= longest {
        return text.to_owned();
    }
    text.chars().take(longest.saturating_sub(1)).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use insta::assert_snapshot;
    use llavm_pipeline::summary::RunStatus;

    fn stage(name: &str, kind: &str, ran: usize, reused: usize) -> StageSummary {
        StageSummary {
            name: name.to_owned(),
            kind: kind.to_owned(),
            partitions: ran + reused,
            ran,
            reused,
            rows: 595_375,
            rejected: [].into(),
            reject_examples: Vec::new(),
            notes: Vec::new(),
            seconds: 12.34,
        }
    }

    fn summary() -> Summary {
        let example = |id: &str, reason: &str| RejectExample { id: id.to_owned(), reason: reason.into() };
        let mut pixels = stage("pixels", "decode-resize", 140, 6);
        pixels.rejected =
            [("decode-resize/too-large".to_owned(), 1), ("decode-resize/undecodable".to_owned(), 1234)]
                .into();
        pixels.reject_examples = vec![
            example(
                "train-00001.parquet#17",
                "decode-resize/undecodable: not an image: begins with `<html>`\nand more",
            ),
            example(
                "train-00001.parquet#90",
                "decode-resize/too-large: 20000 × 20000 pixels, over max_pixels",
            ),
            example("train-00002.parquet#5", &format!("decode-resize/undecodable: {}", "long ".repeat(40))),
        ];
        Summary {
            manifest: "cc3m-align".to_owned(),
            status: RunStatus::Ok,
            seconds: 483.2,
            peak_rss_mib: 412.7,
            stages: vec![
                stage("rows", "read", 0, 0),
                pixels,
                stage("a-stage-with-a-name-that-is-much-too-long-for-a-table", "chat-template", 0, 146),
            ],
        }
    }

    #[test]
    fn the_end_of_a_run() {
        let text = render(&summary(), Path::new(".llavm/runs/7"));
        assert!(text.lines().all(|line| line.chars().count() <= WIDTH), "{text}");
        assert_snapshot!(text, @r"
        stage                             kind              rows  ran  reused  rejected  seconds
        rows                              read           595,375    0       0         0     12.3
        pixels                            decode-resize  595,375  140       6     1,235     12.3
        a-stage-with-a-name-that-is-muc…  chat-template  595,375    0     146         0     12.3

        pixels: 1 row rejected, decode-resize/too-large
          train-00001.parquet#90: 20000 × 20000 pixels, over max_pixels

        pixels: 1,234 rows rejected, decode-resize/undecodable
          train-00001.parquet#17: not an image: begins with `<html>` and more
          train-00002.parquet#5: long long long long long long long long long long long long long long long…

        Rejected rows keep their place and are left out of the shards. All of them, with their ids:
          .llavm/runs/7/rejects.jsonl

        cc3m-align in 8 min 03 s, 412.7 MiB of memory at most
        ");
    }

    #[test]
    fn the_end_of_a_run_with_nothing_to_do() {
        assert_eq!(
            nothing_to_do(&summary()),
            "cc3m-align: nothing to do, all 3 stages are up to date; 1,235 rows are rejected (`llavm status` shows where)\n"
        );
    }
}
