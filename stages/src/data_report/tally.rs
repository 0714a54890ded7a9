//! Counts rows of any stage as they come, batch by batch; a column that is not there is not counted.
//!
//! Lengths, sizes and repetitions are those of usable rows; sources, languages and samples are those of all.

use super::shown::{self, Shown, ShownTurn, clean};
use super::spread::Spread;
use crate::arrays::{item_range, items};
use crate::filter::measure::first_size;
use crate::language::of_conversation;
use crate::messages::{MessageRows, Turn};
use arrow::array::{Array, BinaryArray, BooleanArray, ListArray, RecordBatch, StringArray};
use arrow::datatypes::{Int32Type, UInt32Type};
use llavm_model::processor::image::codecs::orientation;
use llavm_pipeline::StageError;
use std::collections::BTreeMap;

/// Rejected rows shown for each reason.
const REJECTS: usize = 4;
/// Repeated images that are kept to be shown.
const REPEATED: usize = 64;

/// Sixteen bytes of a content's blake3.
type Key = [u8; 16];

/// Everything counted so far.
#[derive(Debug, Default)]
pub struct Tally {
    pub rows: u64,
    pub rejected: u64,
    pub text_only: u64,
    /// Images whose EXIF data says that they are turned.
    pub turned: u64,
    pub sources: BTreeMap<String, Share>,
    pub languages: BTreeMap<String, Share>,
    pub tokens: Spread,
    pub trained: Spread,
    pub prompt_chars: Spread,
    pub answer_chars: Spread,
    pub turns: Spread,
    pub images_per_row: Spread,
    pub widths: Spread,
    pub heights: Spread,
    /// Shorter side of the first image.
    pub short_sides: Spread,
    /// A hundred times the longer side over the shorter one.
    pub aspects: Spread,
    pub answers: BTreeMap<Key, Repeated>,
    pub images: BTreeMap<Key, u64>,
    /// Images that were seen twice, in the order in which that happened: key and how it looks.
    pub repeated_images: Vec<(Key, Shown)>,
    pub reasons: BTreeMap<String, Reason>,
    /// The rows with the smallest ranks: an even draw.
    pub samples: BTreeMap<(Key, u64), Shown>,
    wanted_samples: usize,
}

/// Rows of one source or language.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Share {
    pub rows: u64,
    pub rejected: u64,
}

/// An answer, and how often it occurs.
#[derive(Clone, Debug, Default)]
pub struct Repeated {
    pub rows: u64,
    /// Empty until it comes a second time.
    pub text: String,
}

/// Rows rejected for one reason.
#[derive(Clone, Debug, Default)]
pub struct Reason {
    pub rows: u64,
    pub examples: Vec<Shown>,
}

/// The columns of a batch, as far as they are there.
struct Columns<'a> {
    id: Option<&'a StringArray>,
    language: Option<&'a StringArray>,
    source: Option<&'a StringArray>,
    reject: Option<&'a StringArray>,
    images: Option<(&'a ListArray, &'a BinaryArray)>,
    messages: Option<MessageRows<'a>>,
    input_ids: Option<&'a ListArray>,
    labels: Option<&'a ListArray>,
    train: Option<&'a ListArray>,
}

/// One row of a batch.
struct Row<'a> {
    id: &'a str,
    language: Option<&'a str>,
    source: Option<&'a str>,
    reject: Option<&'a str>,
    images: Option<Vec<&'a [u8]>>,
    turns: Option<Vec<Turn<'a>>>,
    tokens: Option<u64>,
    trained: Option<u64>,
}

impl Tally {
    /// Nothing counted; `samples` rows will be kept to be shown.
    pub fn new(samples: usize) -> Self {
        Self { wanted_samples: samples, ..Self::default() }
    }

    /// Counts the rows of a batch.
    pub fn add(&mut self, batch: &RecordBatch) -> Result<(), StageError> {
        let columns = Columns::of(batch);
        for row in 0..batch.num_rows() {
            self.row(&columns.row(row)?);
        }
        Ok(())
    }

    fn row(&mut self, row: &Row<'_>) {
        self.rows += 1;
        let language = row.language();
        for (shares, name) in [
            (&mut self.sources, row.source.unwrap_or("unknown").to_owned()),
            (&mut self.languages, language.clone()),
        ] {
            let share = shares.entry(clean(&name)).or_default();
            share.rows += 1;
            share.rejected += u64::from(row.reject.is_some());
        }
        match row.reject {
            Some(reason) => self.reject(reason, row, &language),
            None => self.usable(row),
        }
        self.sample(row, &language);
    }

    fn reject(&mut self, reason: &str, row: &Row<'_>, language: &str) {
        self.rejected += 1;
        let code = reason.split_once(": ").map_or(reason, |(code, _)| code);
        let entry = self.reasons.entry(clean(code)).or_default();
        entry.rows += 1;
        if entry.examples.len() < REJECTS {
            entry.examples.push(row.shown(language));
        }
    }

    fn usable(&mut self, row: &Row<'_>) {
        if let Some(turns) = &row.turns {
            self.conversation(turns);
        }
        if let Some(images) = &row.images {
            self.images(images, row);
        }
        row.tokens.into_iter().for_each(|tokens| self.tokens.add(tokens));
        row.trained.into_iter().for_each(|trained| self.trained.add(trained));
    }

    fn conversation(&mut self, turns: &[Turn<'_>]) {
        let of = |role: &'static str| turns.iter().filter(move |turn| turn.role == role);
        let chars = |role| of(role).map(|turn| turn.content.chars().count() as u64).sum();
        self.turns.add(of("user").count() as u64);
        self.prompt_chars.add(chars("user"));
        self.answer_chars.add(chars("assistant"));
        let answer: Vec<&str> = of("assistant").map(|turn| turn.content).collect();
        let answer = answer.join("\n");
        let repeated = self.answers.entry(key(answer.as_bytes())).or_default();
        repeated.rows += 1;
        // The texts of answers that never come again would be most of the memory.
        if repeated.rows == 2 {
            repeated.text = clean(&answer);
        }
    }

    fn images(&mut self, images: &[&[u8]], row: &Row<'_>) {
        self.images_per_row.add(images.len() as u64);
        self.text_only += u64::from(images.is_empty());
        if let Some((width, height)) = first_size(images) {
            let (width, height) = (width as u64, height as u64);
            self.widths.add(width);
            self.heights.add(height);
            self.short_sides.add(width.min(height));
            self.aspects.add(width.max(height) * 100 / width.min(height).max(1));
        }
        for image in images {
            self.turned += u64::from(orientation(image) != 1);
            let key = key(image);
            let seen = self.images.entry(key).or_default();
            *seen += 1;
            if *seen == 2 && self.repeated_images.len() < REPEATED {
                let (images, unseen) = shown::images(&[*image]);
                let shown = Shown { id: clean(row.id), images, unseen, ..Shown::default() };
                self.repeated_images.push((key, shown));
            }
        }
    }

    /// Keeps the row when its rank, a hash of its number, is among the smallest.
    fn sample(&mut self, row: &Row<'_>, language: &str) {
        let rank = (key(&self.rows.to_le_bytes()), self.rows);
        let last = self.samples.last_key_value().map(|(rank, _)| *rank);
        if self.samples.len() >= self.wanted_samples && last.is_none_or(|last| last < rank) {
            return;
        }
        self.samples.insert(rank, row.shown(language));
        if self.samples.len() > self.wanted_samples {
            self.samples.pop_last();
        }
    }
}

fn key(content: &[u8]) -> Key {
    let mut key = Key::default();
    key.copy_from_slice(&blake3::hash(content).as_bytes()[..16]);
    key
}

impl<'a> Columns<'a> {
    fn of(batch: &'a RecordBatch) -> Self {
        fn cast<'a, T: 'static>(batch: &'a RecordBatch, name: &str) -> Option<&'a T> {
            batch.column_by_name(name)?.as_any().downcast_ref()
        }
        let images = cast::<ListArray>(batch, "images");
        let messages = cast::<ListArray>(batch, "messages");
        Self {
            id: cast(batch, "id"),
            language: cast(batch, "language"),
            source: cast(batch, "source"),
            reject: cast(batch, "reject"),
            images: images.and_then(|lists| Some((lists, lists.values().as_any().downcast_ref()?))),
            messages: messages.and_then(MessageRows::of_lists),
            input_ids: cast(batch, "input_ids"),
            labels: cast(batch, "labels"),
            train: cast(batch, "train"),
        }
    }

    fn row(&self, row: usize) -> Result<Row<'a>, StageError> {
        let text = |column: Option<&'a StringArray>| {
            column.filter(|cells| cells.is_valid(row)).map(|c| c.value(row))
        };
        let list = |column: Option<&'a ListArray>| column.filter(|lists| lists.is_valid(row));
        let images = self.images.filter(|(lists, _)| lists.is_valid(row));
        let tokens = list(self.input_ids).map(|lists| items::<UInt32Type>(lists, row)).transpose()?;
        let labels = list(self.labels).map(|lists| items::<Int32Type>(lists, row)).transpose()?;
        let trained = labels.map(|labels| labels.iter().filter(|label| **label >= 0).count() as u64);
        Ok(Row {
            id: text(self.id).unwrap_or_default(),
            language: text(self.language),
            source: text(self.source),
            reject: text(self.reject),
            images: images
                .map(|(lists, bytes)| item_range(lists, row).map(|item| bytes.value(item)).collect()),
            turns: self.messages.as_ref().and_then(|messages| Some(messages.row(row)?.collect())),
            tokens: tokens.map(|ids| ids.len() as u64),
            trained: trained.or_else(|| list(self.train).and_then(|lists| flags(lists, row))),
        })
    }
}

/// How many flags of a list are set.
fn flags(lists: &ListArray, row: usize) -> Option<u64> {
    let flags: &BooleanArray = lists.values().as_any().downcast_ref()?;
    Some(item_range(lists, row).filter(|item| flags.value(*item)).count() as u64)
}

impl Row<'_> {
    /// The language that the data names; else the one that `read` would detect.
    fn language(&self) -> String {
        if let Some(language) = self.language {
            return language.to_owned();
        }
        let Some(turns) = &self.turns else { return "unknown".to_owned() };
        let turns: Vec<_> = turns.iter().map(|turn| (turn.role, turn.content)).collect();
        match of_conversation(&turns) {
            Some(code) => format!("{code}, detected"),
            None => "unknown, without letters".to_owned(),
        }
    }

    fn shown(&self, language: &str) -> Shown {
        let (images, unseen) = shown::images(self.images.as_deref().unwrap_or_default());
        let mut facts = vec![("language", clean(language))];
        facts.extend(self.source.map(|source| ("source", clean(source))));
        facts.extend(self.tokens.map(|tokens| ("tokens", tokens.to_string())));
        facts.extend(self.trained.map(|trained| ("trained", trained.to_string())));
        Shown {
            id: clean(self.id),
            images,
            unseen,
            turns: self.turns.iter().flatten().map(ShownTurn::of).collect(),
            facts,
            reject: self.reject.map(clean),
        }
    }
}

#[cfg(test)]
mod tests;
