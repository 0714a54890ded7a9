//! What is swapped with what, to see whether a model looks and listens.
//!
//! **Images**: each question about an image is asked again about another. Where the same question (by its normalised
//! text) was asked about another image and has another right answer there, one of those images is taken, so that the
//! old answer is wrong now: what is still right was not seen. Otherwise any other image is taken. Rows that show
//! the same image never swap with each other, nor do rows with unequal numbers of images.
//!
//! **Questions**: about the same image, another question of its row, preferably one with another right answer. A row that
//! has only one question borrows one from another row in the same script (Chinese or not); what is right is then unknown.
//!
//! All choices are drawn by the seed; partners follow each other in a shuffled circle, so that they are all different.

use crate::metrics::exact::normalise;
use crate::metrics::words::is_chinese;
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeMap;

/// A question, as far as swapping goes.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// Its row.
    pub row: usize,
    /// What its row shows; equal numbers are equal images. `None` without an image.
    pub image: Option<usize>,
    /// How many images.
    pub n_images: u32,
    question: String,
    reference: String,
    chinese: bool,
}

impl Candidate {
    /// A question of row `row`.
    pub fn new(row: usize, image: Option<usize>, n_images: u32, question: &str, reference: &str) -> Self {
        let (question, reference) = (normalise(question), normalise(reference));
        Self { row, image, n_images, chinese: is_chinese(&question), question, reference }
    }
}

/// For each question, the row whose images it is shown instead.
pub fn images(candidates: &[Candidate], seed: u64) -> Vec<Option<usize>> {
    let mut alike: BTreeMap<(&str, u32), Vec<usize>> = BTreeMap::new();
    let mut as_many: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
    for at in shuffled(candidates.len(), seed) {
        let candidate = &candidates[at];
        if candidate.image.is_some() {
            alike.entry((&candidate.question, candidate.n_images)).or_default().push(at);
            as_many.entry(candidate.n_images).or_default().push(at);
        }
    }
    let mut partners = vec![None; candidates.len()];
    let other = |a: usize, b: usize| candidates[a].image != candidates[b].image;
    let differs = |a: usize, b: usize| other(a, b) && candidates[a].reference != candidates[b].reference;
    for circle in alike.values() {
        for (at, partner) in partners_in(circle, differs) {
            partners[at] = Some(candidates[partner].row);
        }
    }
    for circle in as_many.values() {
        for (at, partner) in partners_in(circle, other) {
            partners[at] = partners[at].or(Some(candidates[partner].row));
        }
    }
    partners
}

/// What is asked instead of a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Instead {
    /// This question of the same row.
    Own(usize),
    /// This question of another row.
    Borrowed(usize),
}

/// For each of the first `asked` questions, what is asked instead; the rest can only be asked instead.
pub fn questions(candidates: &[Candidate], asked: usize, seed: u64) -> Vec<Option<Instead>> {
    let mut of_row: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    candidates
        .iter()
        .enumerate()
        .for_each(|(at, candidate)| of_row.entry(candidate.row).or_default().push(at));
    let other = |a: usize, b: usize| candidates[a].question != candidates[b].question;
    let differs = |a: usize, b: usize| other(a, b) && candidates[a].reference != candidates[b].reference;
    let mut partners = vec![None; candidates.len()];
    for circle in of_row.values() {
        let pairs = partners_in(circle, differs).into_iter().chain(partners_in(circle, other));
        for (at, partner) in pairs {
            partners[at] = partners[at].or(Some(Instead::Own(partner)));
        }
    }
    for chinese in [false, true] {
        let mut circle = shuffled(candidates.len(), seed);
        circle.retain(|at| candidates[*at].chinese == chinese);
        for (at, partner) in partners_in(&circle, other) {
            partners[at] = partners[at].or(Some(Instead::Borrowed(partner)));
        }
    }
    partners.truncate(asked);
    partners
}

/// Each member of a circle with the next one behind it that `fits`.
fn partners_in(circle: &[usize], fits: impl Fn(usize, usize) -> bool) -> Vec<(usize, usize)> {
    let next = |place: usize| {
        let behind = circle[place + 1..].iter().chain(&circle[..place]);
        behind.copied().find(|partner| fits(circle[place], *partner)).map(|partner| (circle[place], partner))
    };
    (0..circle.len()).filter_map(next).collect()
}

fn shuffled(n: usize, seed: u64) -> Vec<usize> {
    let mut order: Vec<usize> = (0..n).collect();
    order.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows of two questions each: a colour, and whether it is red.
    fn colours(colours: &[&str]) -> Vec<Candidate> {
        let row = |(row, colour): (usize, &&str)| {
            let red = if *colour == "red" { "yes" } else { "no" };
            [("What colour?", *colour), ("Is it red?", red)]
                .map(|(question, reference)| Candidate::new(row, Some(row), 1, question, reference))
        };
        colours.iter().enumerate().flat_map(row).collect()
    }

    #[test]
    fn the_other_image_makes_the_old_answer_wrong_where_it_can() {
        let candidates = colours(&["red", "red", "blue", "red", "green", "red"]);
        for (candidate, partner) in candidates.iter().zip(images(&candidates, 7)) {
            let row = partner.unwrap();
            let there = candidates.iter().find(|c| c.row == row && c.question == candidate.question).unwrap();
            assert!(there.reference != candidate.reference && row != candidate.row);
        }
    }

    #[test]
    fn without_such_an_image_any_other_is_shown() {
        let candidates = colours(&["red", "red", "red"]);
        for (candidate, partner) in candidates.iter().zip(images(&candidates, 7)) {
            assert_ne!(partner.unwrap(), candidate.row);
        }
    }

    #[test]
    fn equal_images_and_text_alone_do_not_swap() {
        let same = [Candidate::new(0, Some(5), 1, "q", "a"), Candidate::new(1, Some(5), 1, "q", "b")];
        assert_eq!(images(&same, 0), [None, None]);
        let text = [Candidate::new(0, None, 0, "q", "a"), Candidate::new(1, Some(1), 1, "q", "b")];
        assert_eq!(images(&text, 0), [None, None]);
    }

    #[test]
    fn the_other_question_is_the_rows_own_and_has_another_answer_where_it_can() {
        let candidates = colours(&["red", "blue"]);
        let instead = questions(&candidates, candidates.len(), 1);
        assert_eq!(instead, [1, 0, 3, 2].map(|at| Some(Instead::Own(at))));
    }

    #[test]
    fn a_row_with_one_question_borrows_one_in_its_script() {
        let candidates = [
            Candidate::new(0, Some(0), 1, "What colour?", "red"),
            Candidate::new(1, Some(1), 1, "什么颜色？", "红色"),
            Candidate::new(2, Some(2), 1, "Which shape?", "circle"),
        ];
        let instead = questions(&candidates, 3, 1);
        assert_eq!(instead, [Some(Instead::Borrowed(2)), None, Some(Instead::Borrowed(0))]);
    }

    #[test]
    fn the_seed_decides() {
        let candidates = colours(&["red", "blue", "green", "yellow", "black", "white", "red", "blue"]);
        assert_eq!(images(&candidates, 1), images(&candidates, 1));
        assert_ne!(images(&candidates, 1), images(&candidates, 2));
    }
}
