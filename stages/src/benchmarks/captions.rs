//! Captions with several references: COCO, Flickr30k, COCO-CN, Flickr30k-CNA and any set with a list of captions to each image.
//!
//! Rule `lmms-eval` (`tasks/coco_cap/utils.py`, which is pycocoevalcap 1.2): BLEU-1 to 4, ROUGE-L and CIDEr-D of words found the
//! Penn Treebank way; where the references are Chinese, jieba's words, as AI Challenger has it. METEOR and SPICE are left
//! out: Java programs with tables of their own. VLMEvalKit splits captions at spaces, without a tokenizer, and has no
//! rule here.

use super::item::Item;
use super::rule::{Answered, Judged, Measure, Rule, mean};
use super::{Benchmark, LMMS_EVAL, prompt};
use crate::metrics::Caption;
use crate::metrics::bleu::{BleuCounts, bleu};
use crate::metrics::cider::cider_d;
use crate::metrics::rouge::rouge_l;
use crate::metrics::words::{Tokenisation, Words, is_chinese};

/// The benchmark.
pub const CAPTIONS: Benchmark = Benchmark {
    name: "captions",
    about: "captions with several references: COCO, Flickr30k and their Chinese kin",
    prompt: prompt::caption,
    rules: &[Rule { name: LMMS_EVAL, judge: any, measure: coco }],
};

/// What a caption is worth by itself says nothing about a set's score: 1 where it is a reference, to the letter.
fn any(item: &Item, answer: &str) -> Judged {
    let answer = answer.trim();
    Judged::of(answer, item.answers.iter().any(|reference| reference.trim() == answer))
}

fn coco<'a>(of: &'a Answered<'a>) -> Measure<'a> {
    let mut words = Words::new();
    let mut caption = |(item, answer): (&Item, &String)| {
        let chinese = item.answers.iter().any(|reference| is_chinese(reference));
        let how = if chinese { Tokenisation::Jieba } else { Tokenisation::Ptb };
        Caption {
            candidate: words.of(answer, how),
            references: item.answers.iter().map(|reference| words.of(reference, how)).collect(),
        }
    };
    let captions: Vec<Caption> = of.items.iter().zip(of.answers).map(&mut caption).collect();
    let counts: Vec<BleuCounts> = captions.iter().map(BleuCounts::of).collect();
    let rouge: Vec<f64> = captions.iter().map(rouge_l).collect();
    let cider = cider_d(&captions);
    Box::new(move |weights| {
        let mean = |values: &[f64]| mean(values.iter().copied().zip(weights.iter().copied()));
        let mut numbers = vec![("coco_CIDEr".to_owned(), mean(&cider))];
        let grams = bleu(&counts, weights);
        numbers.extend(grams.iter().enumerate().map(|(n, score)| (format!("coco_Bleu_{}", n + 1), *score)));
        numbers.push(("coco_ROUGE_L".to_owned(), mean(&rouge)));
        numbers
    })
}
