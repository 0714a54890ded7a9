//! The gallery: the images a model does best and worst on, with all that was asked about them.

use crate::evaluate::images::{Fetch, each_run};
use crate::evaluate::prediction::Prediction;
use crate::evaluate::rows::Row;
use crate::evaluate::scores::Scores;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use llavm_model::processor::image::codecs::{to_jpeg, to_png};
use llavm_pipeline::StageError;
use serde::Serialize;
use std::collections::BTreeMap;

/// From this side on, in pixels, an image is stored as JPEG; smaller ones as PNG.
const JPEG_FROM: usize = 128;
/// Quality of JPEGs, of 100.
const QUALITY: u8 = 85;

/// An image and what was asked about it.
#[derive(Debug, Default, Serialize)]
pub struct Card {
    /// The source row.
    pub id: String,
    /// `data:` URLs.
    pub images: Vec<String>,
    /// In the order of the row.
    pub turns: Vec<Shown>,
}

/// A question with its answer.
#[derive(Debug, Serialize)]
pub struct Shown {
    question: String,
    reference: String,
    answer: String,
    exact: bool,
    loss: f64,
    /// The row whose image was shown instead.
    other_image: Option<String>,
    other_image_answer: Option<String>,
    other_question: Option<String>,
    other_question_answer: Option<String>,
}

/// The predictions of at most `most` rows, by row: half of them those with the worst answers, half those with the best, the
/// worst first. `row_of`: the row of each prediction.
pub fn choose(scores: &Scores, row_of: &[usize], most: usize) -> Vec<Vec<usize>> {
    let mut rows: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    row_of.iter().enumerate().for_each(|(at, row)| rows.entry(*row).or_default().push(at));
    let mut ranked: Vec<((f64, f64), Vec<usize>)> =
        rows.into_values().map(|members| (rank(&members, scores), members)).collect();
    ranked.sort_by(|(a, _), (b, _)| a.0.total_cmp(&b.0).then(b.1.total_cmp(&a.1)));
    let surplus = ranked.len().saturating_sub(most);
    let worst = most.div_ceil(2).min(ranked.len());
    ranked.drain(worst..worst + surplus);
    ranked.into_iter().map(|(_, members)| members).collect()
}

/// How well it does on a row: share of right answers, then loss.
fn rank(members: &[usize], scores: &Scores) -> (f64, f64) {
    let sum = |values: &[f64]| members.iter().map(|at| values[*at]).sum::<f64>();
    (sum(&scores.exact) / members.len() as f64, sum(&scores.loss) / sum(&scores.tokens))
}

/// The cards of chosen predictions; `row_of` each prediction is an index into `rows`.
pub fn cards(
    chosen: &[Vec<usize>],
    (predictions, scores): (&[Prediction], &Scores),
    (rows, row_of): (&[Row], &[usize]),
    fetch: Fetch<'_>,
) -> Result<Vec<Card>, StageError> {
    let wanted: Vec<Row> = chosen.iter().map(|members| rows[row_of[members[0]]].clone()).collect();
    let mut cards: Vec<Card> = chosen.iter().map(|members| card(members, predictions, scores, &[])).collect();
    each_run(&wanted, fetch, &mut |found| {
        for (at, pixels) in found {
            let Ok(pixels) = pixels else { continue };
            let one = pixels.len() / wanted[*at].n_images.max(1) as usize;
            cards[*at].images = pixels.chunks(one.max(1)).filter_map(data_url).collect();
        }
        Ok(())
    })?;
    Ok(cards)
}

/// The card of some predictions about one image.
pub fn card(members: &[usize], predictions: &[Prediction], scores: &Scores, image: &[u8]) -> Card {
    Card {
        id: predictions[members[0]].id.clone(),
        images: data_url(image).into_iter().collect(),
        turns: members.iter().map(|at| shown(&predictions[*at], scores.exact[*at] > 0.0)).collect(),
    }
}

fn shown(prediction: &Prediction, exact: bool) -> Shown {
    let (image, question) = (prediction.image_swap.as_ref(), prediction.question_swap.as_ref());
    Shown {
        question: prediction.question.clone(),
        reference: prediction.reference.clone(),
        answer: prediction.answer.clone(),
        exact,
        loss: prediction.loss,
        other_image: image.map(|swap| swap.id.clone()),
        other_image_answer: image.map(|swap| swap.answer.clone()),
        other_question: question.map(|swap| swap.question.clone()),
        other_question_answer: question.map(|swap| swap.answer.clone()),
    }
}

/// A square image, `[3, side, side]` bytes, as a `data:` URL.
pub fn data_url(planes: &[u8]) -> Option<String> {
    let area = planes.len() / 3;
    let side = area.isqrt();
    if side == 0 || side * side * 3 != planes.len() {
        return None;
    }
    let rgb: Vec<u8> =
        (0..area).flat_map(|at| [planes[at], planes[area + at], planes[2 * area + at]]).collect();
    let size = (side as u32, side as u32);
    let (kind, file) =
        if side < JPEG_FROM { ("png", to_png(&rgb, size)?) } else { ("jpeg", to_jpeg(&rgb, size, QUALITY)?) };
    Some(format!("data:image/{kind};base64,{}", STANDARD.encode(file)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_the_gallery_is_the_worst_and_half_the_best() {
        // Row 0 is right twice, row 1 once, row 2 never; rows 3 and 4 once, with more loss than row 1.
        let scores = Scores {
            exact: [1, 1, 1, 0, 0, 0, 1, 0, 0, 1].map(f64::from).to_vec(),
            loss: [1, 1, 1, 1, 9, 9, 3, 3, 2, 2].map(f64::from).to_vec(),
            tokens: vec![1.0; 10],
            ..Scores::default()
        };
        let row_of = [0, 0, 1, 1, 2, 2, 3, 3, 4, 4];
        let rows = |most| -> Vec<usize> {
            choose(&scores, &row_of, most).iter().map(|members| row_of[members[0]]).collect()
        };
        assert_eq!(rows(9), [2, 3, 4, 1, 0]);
        assert_eq!(rows(3), [2, 3, 0]);
        assert_eq!(rows(0), [0; 0]);
    }

    #[test]
    fn an_image_survives_as_png_and_what_is_none_is_left_out() {
        let planes: Vec<u8> = (0..3 * 4 * 4).collect();
        let url = data_url(&planes).unwrap();
        let file = STANDARD.decode(url.strip_prefix("data:image/png;base64,").unwrap()).unwrap();
        let rgb = image::load_from_memory(&file).unwrap().to_rgb8();
        assert_eq!(rgb.get_pixel(1, 0).0, [1, 17, 33]);
        assert!(data_url(&vec![7; 3 * 224 * 224]).unwrap().starts_with("data:image/jpeg;base64,"));
        assert_eq!((data_url(&[1, 2, 3, 4]), data_url(&[])), (None, None));
    }
}
