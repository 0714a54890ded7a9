//! `report.html` of a benchmark: scores with their intervals beside published ones, categories, and what went wrong in each.
//!
//! `page.html` is the template; style and filters are those of `evaluate`'s page. One file that needs nothing else.

use super::Benchmark;
use super::files;
use super::predictions::Paired;
use super::published::{self, Figure};
use super::score::{self, Score};
use crate::evaluate::page::gallery::data_url;
use crate::evaluate::page::{STYLE, fill};
use llavm_model::processor::image::ImageProcessor;
use llavm_pipeline::StageError;
use llavm_pipeline::stage::Origin;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

const TEMPLATE: &str = include_str!("page.html");

/// What a page is made of.
pub struct Report<'a> {
    pub benchmark: &'static Benchmark,
    pub scores: &'a [Score],
    pub paired: &'a Paired,
    /// Questions left out, by reason.
    pub rejected: &'a BTreeMap<String, u64>,
    pub origin: &'a Origin,
    /// Where the images are, and how the model sees them.
    pub paths: &'a [PathBuf],
    pub image: &'a ImageProcessor,
    /// Most failures that are shown.
    pub gallery: usize,
}

/// Everything the template names.
#[derive(Serialize)]
struct Page<'a> {
    css: &'a str,
    stage: String,
    origin: &'a Origin,
    name: &'a str,
    about: &'a str,
    questions: usize,
    images: usize,
    scores: Vec<Table<'a>>,
    /// Whether any figure of another model is known by the same rule.
    published: bool,
    rejected: &'a BTreeMap<String, u64>,
    failures: Vec<Failures>,
    failed: usize,
    shown: usize,
}

/// The numbers of one rule.
#[derive(Serialize)]
struct Table<'a> {
    score: &'a Score,
    numbers: Vec<Row<'a>>,
}

#[derive(Serialize)]
struct Row<'a> {
    name: &'a str,
    value: String,
    interval: Option<String>,
    published: Vec<Figure>,
}

/// What went wrong in a category.
#[derive(Serialize)]
struct Failures {
    category: String,
    /// Wrong answers and all of them.
    wrong: usize,
    rows: usize,
    cards: Vec<Card>,
}

#[derive(Serialize)]
struct Card {
    index: String,
    images: Vec<String>,
    question: String,
    answer: String,
    reference: String,
}

impl Report<'_> {
    /// The page.
    pub fn render(&self) -> Result<String, StageError> {
        let rows = self.failures();
        let images = self.images(&rows)?;
        let failures: Vec<Failures> = rows.iter().map(|found| self.category(found, &images)).collect();
        let numbers = |score| Table { score, numbers: self.numbers(score) };
        let seen: BTreeSet<String> = self.paired.items.iter().filter_map(score::shown).collect();
        let page = Page {
            css: STYLE,
            stage: self.origin.stages.last().map(|stage| stage.name.clone()).unwrap_or_default(),
            origin: self.origin,
            name: self.benchmark.name,
            about: self.benchmark.about,
            questions: self.paired.items.len(),
            images: seen.len(),
            scores: self.scores.iter().map(numbers).collect(),
            published: !published::figures(self.benchmark.name).is_empty(),
            rejected: self.rejected,
            failed: failures.iter().map(|category| category.wrong).sum(),
            shown: failures.iter().map(|category| category.cards.len()).sum(),
            failures,
        };
        fill("report.html", TEMPLATE, &page)
    }

    fn numbers<'s>(&self, score: &'s Score) -> Vec<Row<'s>> {
        let figures = published::figures(self.benchmark.name);
        let row = |number: &'s score::Number| Row {
            name: &number.name,
            value: number.value.map_or_else(|| "–".to_owned(), score::shown_number),
            interval: number
                .ci
                .map(|[lo, hi]| format!("{} – {}", score::shown_number(lo), score::shown_number(hi))),
            published: (figures.iter().copied())
                .filter(|figure| figure.rule == score.rule && figure.number == number.name)
                .collect(),
        };
        score.numbers.iter().map(row).collect()
    }

    /// Per category the rows, and those of them that the first rule finds wrong: some of each category.
    fn failures(&self) -> Vec<(String, usize, Vec<usize>)> {
        let Some(rule) = self.benchmark.rules.first() else { return Vec::new() };
        let right = score::right(rule, self.paired);
        let mut rows: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for (at, item) in self.paired.items.iter().enumerate() {
            rows.entry(item.category.clone().unwrap_or_default()).or_default().push(at);
        }
        let wrong = |rows: Vec<usize>| {
            (rows.len(), rows.into_iter().filter(|row| !right[*row]).collect::<Vec<usize>>())
        };
        let found = rows.into_iter().map(|(name, rows)| (name, wrong(rows)));
        found.map(|(name, (rows, wrong))| (name, rows, wrong)).collect()
    }

    /// Failures that are shown of each category.
    fn each(&self, categories: usize) -> usize {
        self.gallery.div_ceil(categories.max(1))
    }

    /// The images of the failures that are shown, as `data:` URLs by digest.
    fn images(
        &self,
        failures: &[(String, usize, Vec<usize>)],
    ) -> Result<BTreeMap<String, String>, StageError> {
        let each = self.each(failures.len());
        let shown = failures.iter().flat_map(|(_, _, wrong)| wrong.iter().take(each));
        let wanted: BTreeSet<&String> = shown.flat_map(|row| &self.paired.items[*row].images).collect();
        let mut images = BTreeMap::new();
        if wanted.is_empty() {
            return Ok(images);
        }
        for path in self.paths {
            files::images(path, &mut |image| {
                if wanted.contains(&image.digest)
                    && !images.contains_key(&image.digest)
                    && let Ok(bytes) = &image.content
                    && let Ok(pixels) = self.image.prepare(bytes)
                    && let Some(url) = data_url(&pixels)
                {
                    images.insert(image.digest, url);
                }
                Ok(())
            })?;
        }
        Ok(images)
    }

    fn category(
        &self,
        (name, rows, wrong): &(String, usize, Vec<usize>),
        images: &BTreeMap<String, String>,
    ) -> Failures {
        let names: BTreeSet<Option<&String>> =
            self.paired.items.iter().map(|item| item.category.as_ref()).collect();
        let card = |row: &usize| {
            let item = &self.paired.items[*row];
            let options: String = item.choices().map(|(letter, text)| format!(" {letter}. {text}")).collect();
            Card {
                index: item.index.clone(),
                images: item.images.iter().filter_map(|image| images.get(image).cloned()).collect(),
                question: format!("{}{options}", item.question),
                answer: self.paired.answers[*row].clone(),
                reference: item.answers.join(" / "),
            }
        };
        Failures {
            category: name.clone(),
            wrong: wrong.len(),
            rows: *rows,
            cards: wrong.iter().take(self.each(names.len())).map(card).collect(),
        }
    }
}
