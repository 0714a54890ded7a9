//! How good answers are: the measures of COCO captions and POPE, with confidence intervals and paired tests.
//!
//! | file | measure | follows |
//! |---|---|---|
//! | `exact.rs` | exact match after normalisation | - |
//! | `words.rs`, `ptb.rs`, `ptb_chars.rs` | texts to words: Penn Treebank, jieba, characters | Stanford's tokenizer 3.4.1, AI Challenger |
//! | `bleu.rs` | BLEU-1 to 4 of a corpus, closest reference length | pycocoevalcap 1.2 |
//! | `rouge.rs` | ROUGE-L, beta 1.2 | pycocoevalcap 1.2 |
//! | `cider.rs` | CIDEr-D, sigma 6 | pycocoevalcap 1.2 |
//! | `yes_no.rs` | accuracy, precision, recall, F1, yes-ratio | its own rule; POPE's (arXiv:2305.10355) by name |
//! | `resample.rs` | bootstrap intervals, paired tests, correction for several | Efron; Koehn 2004; Holm 1979 |
//!
//! Scores are computed row by row where the measure allows it, so that a corpus score, its interval and a slice are all
//! weighted sums of the same numbers. Nothing here knows of models or files.

pub mod bleu;
pub mod cider;
pub mod exact;
mod ngrams;
mod ptb;
mod ptb_chars;
pub mod resample;
pub mod rouge;
pub mod words;
pub mod yes_no;

/// One answer and what it should have been, in words.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Caption {
    /// The words of the answer.
    pub candidate: Vec<String>,
    /// The words of each reference; at least one.
    pub references: Vec<Vec<String>>,
}
