//! MME (arXiv:2306.13394): two yes/no questions about each image, in fourteen categories. A category's score is the share of
//! right answers plus the share of images with both right, per cent; perception and cognition add up their categories.
//!
//! | rule | an answer |
//! |---|---|
//! | `lmms-eval` (`tasks/mme/utils.py`) | yes or no when it is the word, the letter, or among the first four characters |
//! | `vlmevalkit` (`dataset/utils/yorn.py`) | yes or no, whichever of the two words is in it; both or none is unknown. Cognition is called reasoning |

use super::item::Item;
use super::pope::word;
use super::rule::{Answered, Judged, Measure, Numbers, Rule};
use super::{Benchmark, LMMS_EVAL, VLMEVALKIT, answer, prompt};

/// The benchmark.
pub const MME: Benchmark = Benchmark {
    name: "mme",
    about: "yes/no: perception and cognition, two questions about each image",
    prompt: prompt::mme,
    rules: &[
        Rule { name: LMMS_EVAL, judge: start, measure: lmms_eval },
        Rule { name: VLMEVALKIT, judge: word, measure: vlmevalkit },
    ],
};

const PERCEPTION: [&str; 10] = [
    "OCR",
    "artwork",
    "celebrity",
    "color",
    "count",
    "existence",
    "landmark",
    "position",
    "posters",
    "scene",
];
const COGNITION: [&str; 4] =
    ["code_reasoning", "commonsense_reasoning", "numerical_calculation", "text_translation"];

fn start(item: &Item, answer: &str) -> Judged {
    let read = answer::mme(answer);
    let right = read == item.answer().to_lowercase().trim().replace('.', "");
    Judged::of(if read == "other" { "" } else { read }, right)
}

fn lmms_eval<'a>(of: &'a Answered<'a>) -> Measure<'a> {
    // Questions about one image share their id here.
    pairs(of, |item| item.index.clone(), "mme_perception_score", "mme_cognition_score")
}

fn vlmevalkit<'a>(of: &'a Answered<'a>) -> Measure<'a> {
    pairs(of, |item| item.image.clone().unwrap_or_else(|| item.index.clone()), "perception", "reasoning")
}

fn pairs<'a>(
    of: &'a Answered<'a>,
    image: fn(&Item) -> String,
    perception: &'static str,
    cognition: &'static str,
) -> Measure<'a> {
    let categories = of.groups(|item| item.category.clone());
    let pairs = of.groups(|item| Some((item.category.clone()?, image(item))));
    Box::new(move |weights| {
        let score = |category: &str| -> Option<f64> {
            let rows = categories.get(category)?;
            let both = pairs.iter().filter(|((of, _), _)| of == category).map(|(_, rows)| rows);
            Some(100.0 * of.mean_of(rows, weights) + 100.0 * of.all_right(both, weights))
        };
        let sum = |names: &[&str]| names.iter().filter_map(|name| score(name)).sum::<f64>();
        let mut numbers: Numbers =
            vec![(perception.to_owned(), sum(&PERCEPTION)), (cognition.to_owned(), sum(&COGNITION))];
        numbers.extend(categories.keys().filter_map(|name| Some((name.clone(), score(name)?))));
        numbers
    })
}
