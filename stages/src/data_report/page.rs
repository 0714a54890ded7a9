//! The report as it is written: numbers with separators, shares, bars with their heights, and the template that draws them.
//!
//! The data is hostile: the template escapes every text, and the page forbids scripts and requests of any kind.

use super::shown::Shown;
use super::spread::{Bar, Spread};
use super::tally::{Reason, Repeated, Share, Tally};
use crate::evaluate::page::PARTS;
use llavm_pipeline::StageError;
use llavm_pipeline::units::thousands;
use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use minijinja::{Environment, Value, context};
use serde::Serialize;
use std::collections::BTreeMap;

const TEMPLATE: &str = include_str!("page.html");
const STYLE: &str = include_str!("page.css");
/// Lines of a list of sources, languages or repetitions.
const LINES: usize = 12;
/// The short side of an image that CLIP does not have to enlarge, in pixels.
const CLIP_SIDE: u64 = 224;

/// Everything the page says.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    pub manifest: String,
    pub stage: String,
    pub kind: String,
    /// What the page says about its extent ("the first 1,000 rows").
    pub extent: String,
    /// Numbers at the top: name, value, remark.
    pub facts: Vec<Fact>,
    pub histograms: Vec<Histogram>,
    /// Sources and languages.
    pub shares: Vec<Shares>,
    pub answers: Repetitions,
    pub images: Repetitions,
    /// What the sources say of their rows, such as columns that nothing uses.
    pub notes: Vec<String>,
    pub reasons: Vec<ReasonShown>,
    pub samples: Vec<Shown>,
}

/// A number at the top.
#[derive(Clone, Debug, Serialize)]
pub struct Fact {
    pub name: &'static str,
    pub value: String,
    pub remark: String,
}

/// How a number is spread over rows.
#[derive(Clone, Debug, Serialize)]
pub struct Histogram {
    pub name: &'static str,
    pub unit: &'static str,
    /// "median 61 · mean 64.2 · 90% ≤ 98 · max 412".
    pub summary: String,
    pub bars: Vec<BarShown>,
    pub remark: String,
}

/// One bar: its height in percent of the highest, and what it stands for.
#[derive(Clone, Debug, Serialize)]
pub struct BarShown {
    pub height: f64,
    pub label: String,
    pub title: String,
}

/// Rows by source or language.
#[derive(Clone, Debug, Serialize)]
pub struct Shares {
    pub name: &'static str,
    pub lines: Vec<ShareShown>,
    /// How many lines are left out.
    pub more: usize,
}

/// One source or language.
#[derive(Clone, Debug, Serialize)]
pub struct ShareShown {
    pub name: String,
    pub rows: String,
    pub percent: String,
    pub width: f64,
    pub rejected: String,
}

/// Contents that occur more than once.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Repetitions {
    /// "1,204 of 5,000 rows".
    pub summary: String,
    pub lines: Vec<Repetition>,
}

/// A content that occurs more than once.
#[derive(Clone, Debug, Serialize)]
pub struct Repetition {
    pub rows: String,
    pub text: String,
    pub shown: Option<Shown>,
}

/// Rows rejected for one reason.
#[derive(Clone, Debug, Serialize)]
pub struct ReasonShown {
    pub name: String,
    pub rows: String,
    pub percent: String,
    pub examples: Vec<Shown>,
}

/// The report as one HTML file.
pub fn render(report: &Report) -> Result<String, StageError> {
    let mut environment = Environment::new();
    let wrong = |error: minijinja::Error| StageError::new(format!("the page cannot be written: {error:#}"));
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
    environment.set_syntax(syntax.map_err(wrong)?);
    // The name's ending makes the template escape what it puts in.
    environment.add_template("page.html", TEMPLATE).map_err(wrong)?;
    environment.add_template("parts.html", PARTS).map_err(wrong)?;
    let template = environment.get_template("page.html").map_err(wrong)?;
    let page =
        template.render(context! { report => Value::from(Serde(report)), style => STYLE }).map_err(wrong)?;
    // A browser would take the page for a binary file.
    Ok(page.replace('\0', "\u{fffd}"))
}

impl Tally {
    /// What was counted, as it is written.
    pub fn report(self, manifest: &str, stage: &str, kind: &str, limit: Option<u64>) -> Report {
        let extent = match limit {
            Some(limit) => format!("the first {} rows at most", thousands(limit)),
            None => "all rows".to_owned(),
        };
        Report {
            manifest: manifest.to_owned(),
            stage: stage.to_owned(),
            kind: kind.to_owned(),
            extent,
            facts: self.facts(),
            histograms: self.histograms(),
            shares: [("Sources", &self.sources), ("Languages", &self.languages)]
                .map(|(name, shares)| share_lines(name, shares, self.rows))
                .into(),
            answers: self.repeated_answers(),
            images: self.repeated_images(),
            notes: Vec::new(),
            reasons: self
                .reasons
                .iter()
                .map(|(name, reason)| reason_shown(name, reason, self.rows))
                .collect(),
            samples: by_position(self.samples),
        }
    }

    fn facts(&self) -> Vec<Fact> {
        let usable = self.rows - self.rejected;
        let fact = |name, value: u128, remark: String| Fact { name, value: thousands(value), remark };
        let mut facts = vec![
            fact("rows", self.rows.into(), String::new()),
            fact("usable rows", usable.into(), percent(usable, self.rows)),
            fact("rejected rows", self.rejected.into(), percent(self.rejected, self.rows)),
        ];
        if self.images_per_row.rows() > 0 {
            facts.push(fact(
                "images",
                self.images_per_row.sum(),
                format!("{} different", thousands(self.images.len() as u64)),
            ));
            facts.push(fact("text-only rows", self.text_only.into(), percent(self.text_only, usable)));
            if self.turned > 0 {
                let remark = "their EXIF data says so: decode-resize turns them upright, unless orientation = \"stored\"";
                facts.push(fact("turned images", self.turned.into(), remark.to_owned()));
            }
        }
        if self.turns.rows() > 0 {
            facts.push(fact("questions", self.turns.sum(), format!("{:.2} a row", self.turns.mean())));
        }
        if self.tokens.rows() > 0 {
            facts.push(fact("tokens", self.tokens.sum(), format!("{:.1} a row", self.tokens.mean())));
            let share = 100.0 * self.trained.sum() as f64 / (self.tokens.sum() as f64).max(1.0);
            facts.push(fact("tokens trained on", self.trained.sum(), format!("{share:.1}%")));
        }
        facts
    }

    fn histograms(&self) -> Vec<Histogram> {
        let small = self.short_sides.below(CLIP_SIDE);
        let small = match small {
            0 => String::new(),
            n => format!(
                "{} ({}) are below {CLIP_SIDE} and will be enlarged",
                thousands(n),
                percent(n, self.short_sides.rows())
            ),
        };
        let all = [
            ("Tokens", "tokens a row", &self.tokens, String::new()),
            ("Tokens trained on", "tokens a row", &self.trained, String::new()),
            ("Question length", "characters a row", &self.prompt_chars, String::new()),
            ("Answer length", "characters a row", &self.answer_chars, String::new()),
            ("Turns", "questions a row", &self.turns, String::new()),
            ("Images", "images a row", &self.images_per_row, String::new()),
            ("Image width", "pixels, first image", &self.widths, String::new()),
            ("Image height", "pixels, first image", &self.heights, String::new()),
            ("Shorter side", "pixels, first image", &self.short_sides, small),
            ("Aspect ratio", "% (longer side over shorter side)", &self.aspects, String::new()),
        ];
        let there = all.into_iter().filter(|(_, _, spread, _)| spread.rows() > 0);
        there.map(|(name, unit, spread, remark)| histogram(name, unit, spread, remark)).collect()
    }

    fn repeated_answers(&self) -> Repetitions {
        let mut repeated: Vec<&Repeated> = self.answers.values().filter(|answer| answer.rows > 1).collect();
        repeated.sort_by(|a, b| b.rows.cmp(&a.rows).then_with(|| a.text.cmp(&b.text)));
        let rows: u64 = repeated.iter().map(|answer| answer.rows).sum();
        let line = |answer: &&Repeated| Repetition {
            rows: thousands(answer.rows),
            text: answer.text.clone(),
            shown: None,
        };
        Repetitions {
            summary: of_all(rows, self.turns.rows(), "rows have an answer that another row has too"),
            lines: repeated.iter().take(LINES).map(line).collect(),
        }
    }

    fn repeated_images(&self) -> Repetitions {
        let count = |key| self.images.get(key).copied().unwrap_or_default();
        let rows: u64 = self.images.values().filter(|count| **count > 1).sum();
        let mut shown: Vec<(u64, &Shown)> =
            self.repeated_images.iter().map(|(key, shown)| (count(key), shown)).collect();
        shown.sort_by(|(a, _), (b, _)| b.cmp(a));
        let line = |(rows, shown): &(u64, &Shown)| Repetition {
            rows: thousands(*rows),
            text: String::new(),
            shown: Some((*shown).clone()),
        };
        Repetitions {
            summary: of_all(
                rows,
                self.images_per_row.sum() as u64,
                "images occur more than once, byte for byte",
            ),
            lines: shown.iter().take(LINES).map(line).collect(),
        }
    }
}

/// Samples in the order of the table.
fn by_position<K: Ord>(samples: BTreeMap<(K, u64), Shown>) -> Vec<Shown> {
    let mut samples: Vec<(u64, Shown)> = samples.into_iter().map(|((_, row), shown)| (row, shown)).collect();
    samples.sort_by_key(|(row, _)| *row);
    samples.into_iter().map(|(_, shown)| shown).collect()
}

fn histogram(name: &'static str, unit: &'static str, spread: &Spread, remark: String) -> Histogram {
    let summary = format!(
        "median {} · mean {:.1} · 90% ≤ {} · 99% ≤ {} · max {}",
        thousands(spread.quantile(0.5)),
        spread.mean(),
        thousands(spread.quantile(0.9)),
        thousands(spread.quantile(0.99)),
        thousands(spread.quantile(1.0)),
    );
    let bars = spread.bars();
    let highest = bars.iter().map(|bar| bar.rows).max().unwrap_or(1).max(1);
    let bar = |bar: &Bar| {
        let label = match bar.to {
            Some(to) if to == bar.from => thousands(to),
            Some(to) => format!("{}–{}", thousands(bar.from), thousands(to)),
            None => format!("{}+", thousands(bar.from)),
        };
        let title = format!("{label}: {} rows ({})", thousands(bar.rows), percent(bar.rows, spread.rows()));
        BarShown { height: 100.0 * bar.rows as f64 / highest as f64, label, title }
    };
    Histogram { name, unit, summary, bars: bars.iter().map(bar).collect(), remark }
}

fn share_lines(name: &'static str, shares: &BTreeMap<String, Share>, rows: u64) -> Shares {
    let mut sorted: Vec<(&String, &Share)> = shares.iter().collect();
    sorted.sort_by(|(a, x), (b, y)| y.rows.cmp(&x.rows).then_with(|| a.cmp(b)));
    let line = |(name, share): &(&String, &Share)| ShareShown {
        name: (*name).clone(),
        rows: thousands(share.rows),
        percent: percent(share.rows, rows),
        width: 100.0 * share.rows as f64 / rows.max(1) as f64,
        rejected: if share.rejected == 0 { String::new() } else { thousands(share.rejected) },
    };
    let lines: Vec<ShareShown> = sorted.iter().take(LINES).map(line).collect();
    Shares { name, more: sorted.len() - lines.len(), lines }
}

fn reason_shown(name: &str, reason: &Reason, rows: u64) -> ReasonShown {
    ReasonShown {
        name: name.to_owned(),
        rows: thousands(reason.rows),
        percent: percent(reason.rows, rows),
        examples: reason.examples.clone(),
    }
}

/// "1,204 of 5,000 rows … (24%)"; nothing when there is none to speak of.
fn of_all(count: u64, all: u64, what: &str) -> String {
    match (count, all) {
        (_, 0) => String::new(),
        (0, _) => format!("None of {} {what}.", thousands(all)),
        _ => format!("{} of {} {what} ({}).", thousands(count), thousands(all), percent(count, all)),
    }
}

fn percent(part: u64, whole: u64) -> String {
    let percent = 100.0 * part as f64 / whole.max(1) as f64;
    match percent {
        p if p > 0.0 && p < 0.05 => "< 0.1%".to_owned(),
        p if p > 99.95 && part < whole => "> 99.9%".to_owned(),
        p => format!("{p:.1}%"),
    }
}
