//! The rules that look at one row at a time.

use super::Quality;
use crate::filter::measure::{self, Turn, conversations};
use crate::language::detect;
use crate::read::{IMAGE_PLACEHOLDER, short};
use arrow::array::RecordBatch;
use llavm_model::processor::image::codecs::size;
use llavm_pipeline::{Rejects, StageError};

/// Why a row is left out: code and detail.
type Reason = (&'static str, String);

/// Longest name of a tag in characters.
const TAG_CHARS: usize = 24;

/// The rules about texts.
pub fn texts(stage: &Quality, rows: &RecordBatch, rejects: &mut Rejects) -> Result<(), StageError> {
    let reasons = conversations(rows, |turns| of_conversation(stage, turns))?;
    reject(reasons.into_iter().map(Option::flatten), rejects);
    Ok(())
}

/// The rules about images.
pub fn images(stage: &Quality, rows: &RecordBatch, rejects: &mut Rejects) -> Result<(), StageError> {
    let reasons = measure::images(rows, |images| images.iter().find_map(|image| of_image(stage, image)))?;
    reject(reasons.into_iter(), rejects);
    Ok(())
}

fn reject(reasons: impl Iterator<Item = Option<Reason>>, rejects: &mut Rejects) {
    for (row, reason) in reasons.enumerate() {
        if let Some((code, detail)) = reason.filter(|_| !rejects.is_rejected(row)) {
            rejects.reject(row, code, detail);
        }
    }
}

fn of_conversation(stage: &Quality, turns: &[Turn<'_>]) -> Option<Reason> {
    let answers = || turns.iter().filter(|turn| turn.role == "assistant");
    answers()
        .find_map(|turn| length(stage, turn.content))
        .or_else(|| turns.iter().filter(|_| stage.reject_urls).find_map(|turn| url(turn.content)))
        .or_else(|| turns.iter().filter(|_| stage.reject_tags).find_map(tag))
        .or_else(|| {
            let texts: Vec<&str> = answers().map(|turn| turn.content).collect();
            language(&stage.languages, &texts.join("\n"))
        })
}

fn length(stage: &Quality, answer: &str) -> Option<Reason> {
    if stage.min_answer_chars.is_none() && stage.max_answer_chars.is_none() {
        return None;
    }
    let chars = answer.trim().chars().count();
    let few = stage.min_answer_chars.filter(|min| chars < *min);
    let few =
        few.map(|min| ("answer-too-short", format!("{chars} character(s), under {min}: {}", short(answer))));
    let many = stage.max_answer_chars.filter(|max| chars > *max);
    few.or_else(|| {
        many.map(|max| ("answer-too-long", format!("{chars} character(s), over {max}: {}", short(answer))))
    })
}

/// `http://`, `https://` or `www.` with a letter or digit behind it.
fn url(text: &str) -> Option<Reason> {
    let lower = text.to_ascii_lowercase();
    let begins = |start: &&str| {
        lower
            .match_indices(*start)
            .find(|(at, _)| lower[at + start.len()..].chars().next().is_some_and(char::is_alphanumeric))
    };
    let (at, _) = ["http://", "https://", "www."].iter().find_map(begins)?;
    // ASCII case changes no byte offset.
    Some(("url", format!("holds {}", short(&text[at..]))))
}

/// A name of ASCII letters, underscores or blanks in angle brackets.
fn tag(turn: &Turn<'_>) -> Option<Reason> {
    for (at, _) in turn.content.match_indices('<') {
        let (name, _) = turn.content[at + 1..].split_once('>')?;
        let inner = name.trim_matches('/').trim();
        let is_name = !inner.is_empty()
            && inner.len() <= TAG_CHARS
            && inner.bytes().all(|byte| byte.is_ascii_alphabetic() || byte == b'_' || byte == b' ');
        let tag = &turn.content[at..at + name.len() + 2];
        if is_name && !(turn.role == "user" && tag == IMAGE_PLACEHOLDER) {
            return Some(("tag", format!("holds `{tag}`")));
        }
    }
    None
}

fn language(wanted: &[String], answers: &str) -> Option<Reason> {
    if wanted.is_empty() {
        return None;
    }
    let found = detect(answers)?;
    let fits = wanted.iter().any(|code| code == found);
    (!fits).then(|| {
        ("language", format!("the answers are in {found}, not in {}: {}", wanted.join(", "), short(answers)))
    })
}

fn of_image(stage: &Quality, image: &[u8]) -> Option<Reason> {
    let (width, height) = size(image)?;
    let (short, long) = (width.min(height), width.max(height));
    let small = stage.min_image_side.filter(|min| short < *min);
    let small =
        small.map(|min| ("image-too-small", format!("{width} x {height} pixels, a side under {min}")));
    let ratio = f64::from(long) / f64::from(short);
    let narrow = stage.max_aspect_ratio.filter(|max| ratio > *max);
    small
        .or_else(|| narrow.map(|max| ("aspect-ratio", format!("{width} x {height} pixels, over {max} to 1"))))
}
