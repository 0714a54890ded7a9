//! Texts to words, for BLEU, ROUGE-L and CIDEr-D.
//!
//! - English and other languages with spaces: as COCO does it, the Penn Treebank way, lower case, punctuation removed
//!   (`ptb.rs`).
//! - Chinese (a reference that holds a Han character): as AI Challenger does it, 。 removed, then jieba's words.
//! - Chinese by character: the other common choice; runs of Latin letters or digits stay whole, punctuation is removed.

use super::{Caption, ptb};
use jieba_rs::Jieba;

/// How the words of a text are found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tokenisation {
    /// Penn Treebank.
    Ptb,
    /// jieba.
    Jieba,
    /// Characters.
    Characters,
}

impl Tokenisation {
    /// As reports call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ptb => "ptb",
            Self::Jieba => "jieba",
            Self::Characters => "characters",
        }
    }
}

/// Whether a text is Chinese as far as words go: it holds a Han character.
pub fn is_chinese(text: &str) -> bool {
    text.chars().any(is_han)
}

fn is_han(letter: char) -> bool {
    matches!(letter, '\u{3400}'..='\u{4DBF}' | '\u{4E00}'..='\u{9FFF}' | '\u{F900}'..='\u{FAFF}' | '\u{20000}'..='\u{3FFFF}')
}

/// Finds words; holds jieba's dictionary once a text has asked for it.
#[derive(Default)]
pub struct Words {
    jieba: Option<Jieba>,
}

impl std::fmt::Debug for Words {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Words").field("jieba", &self.jieba.is_some()).finish()
    }
}

impl Words {
    /// Without a dictionary yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The words of `text`.
    pub fn of(&mut self, text: &str, tokenisation: Tokenisation) -> Vec<String> {
        match tokenisation {
            Tokenisation::Ptb => ptb::words(text),
            Tokenisation::Jieba => self.jieba(text),
            Tokenisation::Characters => characters(text),
        }
    }

    /// An answer and its reference, split the same way.
    pub fn caption(&mut self, answer: &str, reference: &str, tokenisation: Tokenisation) -> Caption {
        Caption {
            candidate: self.of(answer, tokenisation),
            references: vec![self.of(reference, tokenisation)],
        }
    }

    /// jieba's words, none but those of its dictionary: 无狗 is two, 无花果 one.
    pub fn in_dictionary(&mut self, text: &str) -> Vec<String> {
        let words = self.jieba.get_or_insert_default().cut(text, false);
        words.iter().map(|token| token.word.to_owned()).collect()
    }

    fn jieba(&mut self, text: &str) -> Vec<String> {
        let text = text.trim().replace('。', "");
        let words = self.jieba.get_or_insert_default().cut(&text, true);
        // Joined by spaces and split again, as the evaluator does it: spaces are no words.
        words.iter().flat_map(|token| token.word.split_whitespace()).map(str::to_owned).collect()
    }
}

/// Han characters one by one, other letters and digits in runs, lower case.
fn characters(text: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    let mut open = false;
    for letter in text.chars() {
        let run = letter.is_alphanumeric() && !is_han(letter);
        match words.last_mut().filter(|_| run && open) {
            Some(word) => word.extend(letter.to_lowercase()),
            None if letter.is_alphanumeric() => words.push(letter.to_lowercase().collect()),
            None => {}
        }
        open = run;
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_stand_alone_but_latin_runs_stay_whole() {
        assert_eq!(
            characters("图中有3个Red圆形，对。"),
            ["图", "中", "有", "3", "个", "red", "圆", "形", "对"]
        );
        assert!(characters("。，").is_empty());
    }

    #[test]
    fn one_han_character_makes_a_text_chinese() {
        assert!(is_chinese("T恤") && !is_chinese("T-shirt, naïve"));
    }
}
